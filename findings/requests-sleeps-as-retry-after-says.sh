#!/usr/bin/env bash
# A requests session with `max_retries` sleeps for hours inside a call with a timeout, because an answer says Retry-After.
#
# Version: requests 2.34.2 with urllib3 2.8.0.
#
# `HTTPAdapter(max_retries=1)` is the usual way to survive a lost connection. The documentation of requests says that it
# "applies only to failed DNS lookups, socket connections and connection timeouts, never to requests where data has made it
# to the server". The call has `timeout=1`, and the server answers with `Retry-After: 86400`.
#
# Expected: the answer 429, at once. Seen: an answer 413, 429 or 503 with Retry-After is repeated, for GET and for PUT and
# DELETE too. urllib3 sleeps before that for as long as the field says, at most six hours, in the thread of the caller and
# without regard to `timeout`. Without Retry-After, and for POST, the answer returns at once. A worker that meets a daily
# limit is silent for a quarter of a day. (The script replaces `time.sleep`.)
#
# Portcullis sends Retry-After with 429 and 503, as RFC 9110 section 10.2.3 and RFC 6585 section 4 foresee, with the real
# wait. docs/refusals.md says how clients avoid to sleep.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check requests==2.34.2 urllib3==2.8.0
"$folder/venv/bin/python" - <<'PYTHON'
import http.server, threading, time
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

class Refuser(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.server.asked += 1
        status, wait = self.path.strip("/").split("/")
        self.send_response(int(status))
        if wait != "none":
            self.send_header("Retry-After", wait)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuser)
threading.Thread(target=server.serve_forever, daemon=True).start()
slept = []
time.sleep = slept.append

def ask(method, path, retries):
    server.asked = 0
    slept.clear()
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(max_retries=retries))
    status = session.request(method, f"http://127.0.0.1:{server.server_port}/{path}", timeout=1).status_code
    print(f"{method} {path}, {retries}: {status} after {server.asked} requests, slept for {sum(slept)} s")
    return status, server.asked, sum(slept)

for status in (413, 429, 503):
    for method in ("GET", "PUT", "DELETE"):
        assert ask(method, f"{status}/86400", 1) == (status, 2, 6 * 3600), "the behaviour has changed"
assert ask("GET", "429/none", 1) == (429, 1, 0), "the behaviour has changed"
assert ask("POST", "429/86400", 1) == (429, 1, 0), "the behaviour has changed"
assert ask("GET", "429/86400", 0) == (429, 1, 0), "the behaviour has changed"
# The remedy: retries that do not read the field.
assert ask("GET", "429/86400", Retry(1, respect_retry_after_header=False)) == (429, 1, 0), "the behaviour has changed"
PYTHON
