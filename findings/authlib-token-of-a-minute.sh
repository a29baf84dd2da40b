#!/usr/bin/env bash
# Authlib asks for a new token before each request, if tokens are valid for a minute.
#
# Version: Authlib 1.9.10; for comparison requests-oauthlib 2.0.0 with oauthlib 4.0.1.
#
# A service authenticates by client credentials, and the token endpoint answers with `expires_in: 60`. Short lives are the usual
# advice for tokens that cannot be revoked.
#
# Expected: one token for all requests of a minute. Seen: with 61 s or more, one token; with 60 s or less, each request is
# preceded by a request to the token endpoint. By default (`leeway`) a session replaces a token a minute before its end, and such
# a token has no earlier minute. All requests succeed, so only the load of the token endpoint shows it, or the first 429 of its
# limit. With `leeway=5` there is one token. requests-oauthlib has no such allowance.
#
# The access tokens of Portcullis last 15 minutes by default. docs/services.md says what to set with a shorter `access_ttl`.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check Authlib==1.9.10 requests==2.34.2 requests-oauthlib==2.0.0 oauthlib==4.0.1
cat >seen.py <<'PYTHON'
import http.server, json, threading

from authlib.integrations.requests_client import OAuth2Session
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session as RequestsOAuth2Session

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens += 1
        self.answer({"access_token": str(self.server.tokens), "token_type": "Bearer", "expires_in": self.server.lifetime})

    def do_GET(self):
        self.answer({})

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"

def authlib(**options):
    session = OAuth2Session("orders", "secret", token_endpoint=url, grant_type="client_credentials", **options)
    session.fetch_token(url)
    return session

def requests_oauthlib():
    session = RequestsOAuth2Session(client=BackendApplicationClient("orders"))
    session.fetch_token(url, client_secret="secret")
    return session

def tokens(lifetime, session, **options):
    """Returns the number of tokens that five requests need."""
    server.lifetime, server.tokens = lifetime, 0
    session = session(**options)
    for _ in range(5):
        assert session.get(url).status_code == 200
    return server.tokens

seen = {lifetime: tokens(lifetime, authlib) for lifetime in (30, 60, 61, 900)}
small = tokens(60, authlib, leeway=5)
other = tokens(60, requests_oauthlib)
print("Authlib:", ", ".join(f"{count} tokens of {lifetime} s" for lifetime, count in seen.items()))
print(f"Authlib with leeway=5: {small} of 60 s; requests-oauthlib: {other} of 60 s")
assert seen == {30: 6, 60: 6, 61: 1, 900: 1} and small == 1 and other == 1, "the behaviour has changed"
PYTHON
AUTHLIB_INSECURE_TRANSPORT=1 OAUTHLIB_INSECURE_TRANSPORT=1 venv/bin/python -W ignore seen.py
