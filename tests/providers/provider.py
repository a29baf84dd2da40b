"""A real OAuth server made with Authlib, for tests/it/providers.rs: prints the port that it listens on.

Its access tokens are those of RFC 9068. The scope `ALGORITHM` chooses the server's token generator.
"""

import sys
import threading

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, jsonify
from joserfc.jwk import ECKey, KeySet, RSAKey
from werkzeug.serving import make_server

KEYS = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rs256", "use": "sig", "alg": "RS256"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "es256", "use": "sig", "alg": "ES256"}),
}


class Client(ClientMixin):
    client_id = "web"

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_client_secret(self, client_secret):
        return client_secret == "the-secret-of-a-test-client"

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


class Grant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]


class Generator(JWTBearerTokenGenerator):
    def get_jwks(self):
        return {"keys": [KEYS[self.alg].as_dict(private=True)]}

    def get_audiences(self, client, user, scope):
        return ["elsewhere"] if "elsewhere" in (scope or "") else ["orders"]


app = Flask(__name__)
app.config["ENV"] = "testing"
server = make_server("127.0.0.1", 0, app, threaded=True)
issuer = f"http://127.0.0.1:{server.server_port}"
authorization = AuthorizationServer(app, query_client=lambda _: Client(), save_token=lambda *_: None)
authorization.register_grant(Grant)
for algorithm in KEYS:
    path = f"/token/{algorithm}"

    def token(algorithm=algorithm):
        authorization.register_token_generator("default", Generator(issuer, alg=algorithm))
        return authorization.create_token_response()

    app.add_url_rule(path, path, token, methods=["POST"])


@app.get("/jwks")
def jwks():
    return jsonify(KeySet(list(KEYS.values())).as_dict(private=False))


@app.get("/.well-known/openid-configuration")
def metadata():
    return jsonify(issuer=issuer, jwks_uri=f"{issuer}/jwks", token_endpoint=f"{issuer}/token/RS256")


print(server.server_port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
server.serve_forever()
