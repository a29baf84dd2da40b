#!/usr/bin/env bash
# Some OAuth clients encode a secret before they put it into `Authorization: Basic`, and others do not.
#
# Versions: Authlib 1.9.10, requests-oauthlib 2.0.0 with oauthlib 4.0.1, oauth4webapi 3.8.8 (npm, under openid-client 6),
# the system's curl (seen with 7.88).
#
# The secret is 32 random bytes in base64, as `openssl rand -base64 32` prints them, so it probably has `+` or `/`, and
# always `=`. RFC 6749 section 2.3.1: id and secret are form-encoded, and then used as user name and password of Basic.
#
# Expected: Basic is Basic, and all clients send the same field. Seen: oauth4webapi encodes, `+` as `%2B`; Authlib,
# requests-oauthlib and `curl --user` do not. A server that decodes, as the RFC says, reads a blank for the plain `+` and
# answers invalid_client; a server that does not decode refuses the clients that encode. Half of the secrets of this form
# have no `+`: on a server that decodes, such a secret works with every client until the next rotation.
#
# Portcullis decodes. docs/services.md uses secrets in hexadecimal, which are the same in both forms.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check Authlib==1.9.10 requests==2.34.2 requests-oauthlib==2.0.0 oauthlib==4.0.1 \
    cryptography==50.0.2
npm install --silent --no-audit --no-fund --ignore-scripts oauth4webapi@3.8.8
cat >seen.mjs <<'NODE'
import * as oauth from "oauth4webapi";
const [url, secret] = process.argv.slice(2);
const server = { issuer: new URL(url).origin, token_endpoint: url };
await oauth.clientCredentialsGrantRequest(server, { client_id: "billing" }, oauth.ClientSecretBasic(secret),
    new URLSearchParams(), { [oauth.allowInsecureRequests]: true });
NODE
cat >seen.py <<'PYTHON'
import base64, http.server, os, subprocess, threading, urllib.parse
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
from authlib.integrations.requests_client import OAuth2Session as Authlib
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

class Issuer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen = base64.b64decode(self.headers["Authorization"].split()[1]).decode().split(":")[1]
        body = b'{"access_token":"a","token_type":"Bearer"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/token"
clients = {
    "Authlib": lambda secret: Authlib("billing", secret).fetch_token(url, grant_type="client_credentials"),
    "requests-oauthlib": lambda secret: OAuth2Session(client=BackendApplicationClient("billing"))
        .fetch_token(url, client_id="billing", client_secret=secret),
    "curl": lambda secret: subprocess.run(["curl", "--silent", "--user", f"billing:{secret}", "--data", "grant_type=client_credentials",
                                           url], check=True, stdout=subprocess.DEVNULL),
    "oauth4webapi": lambda secret: subprocess.run(["node", "seen.mjs", url, secret], check=True),
}
for form, secret in (("base64", "Zm9v+mJhci/YmF6+cXV1eHF1dXV1eHF1dXV1eHF1dXU="), ("hexadecimal", "5a6d39762b6d4a686369")):
    for name, fetch in clients.items():
        fetch(secret)
        plain, decoded = server.seen == secret, urllib.parse.unquote_plus(server.seen) == secret
        print(f"{name}, {form}: right {'for both' if plain and decoded else 'undecoded' if plain else 'decoded' if decoded else 'never'}")
PYTHON
venv/bin/python -W ignore seen.py | tee seen
diff - seen <<'TEXT'
Authlib, base64: right undecoded
requests-oauthlib, base64: right undecoded
curl, base64: right undecoded
oauth4webapi, base64: right decoded
Authlib, hexadecimal: right for both
requests-oauthlib, hexadecimal: right for both
curl, hexadecimal: right for both
oauth4webapi, hexadecimal: right for both
TEXT
