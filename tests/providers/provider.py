"""A real OAuth server made with Authlib, for tests/it/providers.rs: prints the port that it listens on.

Its access tokens are those of RFC 9068; the path names their algorithm. Those of /token/opaque are random text, about
which /introspect answers.
"""

import secrets
import sys
import threading
import time

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
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


class Opaque:
    """A token that only this server can judge."""

    def __init__(self, fields):
        self.fields = fields
        self.ends = int(time.time()) + fields["expires_in"]

    def is_expired(self):
        return time.time() >= self.ends

    def is_revoked(self):
        return False


OPAQUE = {}


def save_token(fields, request):
    OPAQUE[fields["access_token"]] = Opaque(fields)


class Introspection(IntrospectionEndpoint):
    CLIENT_AUTH_METHODS = ["client_secret_basic"]

    def check_permission(self, token, client, request):
        return client.client_id == "web"

    def query_token(self, token_string, token_type_hint):
        return OPAQUE.get(token_string)

    def introspect_token(self, token):
        scope = token.fields.get("scope", "")
        audience = "elsewhere" if "elsewhere" in scope else "orders"
        return {
            "active": True,
            "token_type": token.fields["token_type"],
            "client_id": "web",
            "sub": "web",
            "aud": audience,
            "scope": scope,
            "exp": token.ends,
        }


app = Flask(__name__)
app.config["ENV"] = "testing"
server = make_server("127.0.0.1", 0, app, threaded=True)
issuer = f"http://127.0.0.1:{server.server_port}"
authorization = AuthorizationServer(app, query_client=lambda _: Client(), save_token=save_token)
authorization.register_grant(Grant)
authorization.register_endpoint(Introspection)
for algorithm in KEYS:
    path = f"/token/{algorithm}"

    def token(algorithm=algorithm):
        authorization.register_token_generator("default", Generator(issuer, alg=algorithm))
        return authorization.create_token_response()

    app.add_url_rule(path, path, token, methods=["POST"])


@app.post("/token/opaque")
def opaque():
    generator = BearerTokenGenerator(lambda **_: "opq_" + secrets.token_urlsafe(32))
    authorization.register_token_generator("default", generator)
    return authorization.create_token_response()


@app.post("/introspect")
def introspect():
    return authorization.create_endpoint_response(Introspection.ENDPOINT_NAME)


@app.get("/jwks")
def jwks():
    return jsonify(KeySet(list(KEYS.values())).as_dict(private=False))


@app.get("/.well-known/openid-configuration")
def metadata():
    return jsonify(issuer=issuer, jwks_uri=f"{issuer}/jwks", token_endpoint=f"{issuer}/token/RS256")


print(server.server_port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
server.serve_forever()
