#!/usr/bin/env bash
# Authlib returns the body of a 429 as the token.
#
# Version: Authlib 1.9.10; for comparison requests-oauthlib 2.0.0 with oauthlib 4.0.1, oauth4webapi 3.8.8 (npm).
#
# A client asks a token endpoint for a token, and meets a rate limit in front of it: 429 with a problem document (RFC 9457),
# as gateways and load balancers send it. Such a document has no member `error`, which is for errors of the token endpoint
# itself (RFC 6749 section 5.2).
#
# Expected: an exception, as for 503. Seen: `fetch_token` returns the document and keeps it as the session's token. For
# Authlib, an answer is a token unless its status is 500 and above or it has a member `error`, so this holds for 403, 404 and
# 413 too. The failure shows later and elsewhere, as a KeyError for "access_token". requests-oauthlib raises
# MissingTokenError, which does not mention the status. oauth4webapi reports a wrong media type.
#
# Portcullis answers with `error` at its token endpoint, also where a limit refuses a request before it is read.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check Authlib==1.9.10 requests==2.34.2 requests-oauthlib==2.0.0 oauthlib==4.0.1 \
    cryptography==50.0.2
npm install --silent --no-audit --no-fund --ignore-scripts oauth4webapi@3.8.8
cat >seen.mjs <<'NODE'
import * as oauth from "oauth4webapi";
const [url] = process.argv.slice(2);
const server = { issuer: new URL(url).origin, token_endpoint: url };
const client = { client_id: "billing" };
try {
    const answer = await oauth.clientCredentialsGrantRequest(server, client, oauth.ClientSecretBasic("secret"),
        new URLSearchParams(), { [oauth.allowInsecureRequests]: true });
    console.log("oauth4webapi, 429: a token", await oauth.processClientCredentialsResponse(server, client, answer));
} catch (error) {
    console.log(`oauth4webapi, 429: ${error.code}`);
}
NODE
cat >seen.py <<'PYTHON'
import http.server, json, os, subprocess, threading
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
from authlib.integrations.requests_client import OAuth2Session as Authlib
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

class Limited(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status = int(self.path[1:])
        body = json.dumps({"type": "about:blank", "title": "Refused", "status": status}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Limited)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

def ask(name, status, fetch):
    try:
        print(f"{name}, {status}: a token {dict(fetch())}")
    except Exception as error:
        print(f"{name}, {status}: {type(error).__name__}")

for status in (403, 429, 503):
    session = Authlib("billing", "secret")
    ask("Authlib", status, lambda: session.fetch_token(f"{url}/{status}", grant_type="client_credentials"))
    if status == 429:
        print("Authlib keeps:", session.token and sorted(session.token))
client = OAuth2Session(client=BackendApplicationClient("billing"))
ask("requests-oauthlib", 429, lambda: client.fetch_token(f"{url}/429", client_secret="secret"))
print(subprocess.run(["node", "seen.mjs", f"{url}/429"], capture_output=True, text=True, check=True).stdout, end="")
PYTHON
venv/bin/python -W ignore seen.py | tee seen
diff - seen <<'TEXT'
Authlib, 403: a token {'type': 'about:blank', 'title': 'Refused', 'status': 403}
Authlib, 429: a token {'type': 'about:blank', 'title': 'Refused', 'status': 429}
Authlib keeps: ['status', 'title', 'type']
Authlib, 503: HTTPError
requests-oauthlib, 429: MissingTokenError
oauth4webapi, 429: OAUTH_RESPONSE_IS_NOT_JSON
TEXT
