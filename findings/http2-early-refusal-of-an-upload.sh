#!/usr/bin/env bash
# HTTP/2 clients lose a complete refusal that arrives while they are still uploading.
#
# Versions: httpx 0.28.1 (httpcore 1.0.9, h2 4.4.1), got 14.6.6; for comparison undici 7.30.2.
#
# RFC 9113 section 8.1: a server may answer before it has received the request's body, and then send RST_STREAM with
# NO_ERROR; "Clients MUST NOT discard responses as a result of receiving such a RST_STREAM". The server here answers a
# POST of 300 kB with a complete 401 (HEADERS, END_STREAM) at the first DATA frame, followed by that RST_STREAM, and
# continues to read.
#
# Seen: undici returns the 401 to its caller. got rejects with ECONNRESET. httpx reads neither the answer nor the
# reset: it waits for the stream's flow-control window until its own time-out (ReadTimeout). A user who is not logged
# in, or whose upload is too large, sees a network error, and the application retries.
#
# Portcullis reads and discards the body for a bounded time before it resets such a stream.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1 httpcore==1.0.9 h2==4.4.1
(cd "$folder" && npm init -y >/dev/null && npm install --silent --no-fund --no-audit got@14.6.6 undici@7.30.2)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null
cat >"$folder/server.mjs" <<'NODE'
import { createSecureServer, constants } from 'node:http2';
import { readFileSync } from 'node:fs';
const server = createSecureServer({ key: readFileSync('key.pem'), cert: readFileSync('cert.pem') });
server.on('stream', (stream) => {
  stream.on('error', () => {});
  stream.once('data', () => {
    stream.respond({ ':status': 401 }, { endStream: true });
    stream.close(constants.NGHTTP2_NO_ERROR);
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
NODE
cat >"$folder/ask.mjs" <<'NODE'
import got from 'got';
import { Agent, request } from 'undici';
const [url, client] = process.argv.slice(2);
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
const body = Buffer.alloc(300_000);
const ask = {
  got: () => got.post(url, { body, http2: true, https: { rejectUnauthorized: false }, throwHttpErrors: false, retry: { limit: 0 } }).then((r) => r.statusCode),
  undici: () => request(url, { method: 'POST', body, dispatcher: new Agent({ allowH2: true, connect: { rejectUnauthorized: false } }) }).then((r) => r.statusCode),
};
const timer = setTimeout(() => { console.log('no answer'); process.exit(0); }, 10_000);
ask[client]().then((status) => console.log(status), (error) => console.log(error.code ?? error.name)).finally(() => process.exit(0));
NODE
cd "$folder"
coproc SERVER { node server.mjs; }
trap 'kill "$SERVER_PID" 2>/dev/null || true; rm -rf "$folder"' EXIT
read -r port <&"${SERVER[0]}"
url="https://localhost:$port/upload"
got=$(node --no-warnings ask.mjs "$url" got); undici=$(node --no-warnings ask.mjs "$url" undici)
httpx=$(venv/bin/python -W ignore - "$url" <<'PYTHON' || true
import httpx, sys
try:
    with httpx.Client(http2=True, verify=False, timeout=10) as client:
        print(client.post(sys.argv[1], content=bytes(300_000)).status_code)
except httpx.HTTPError as error:
    print(type(error).__name__, error)
PYTHON
)
printf 'httpx:  %s\ngot:    %s\nundici: %s\n' "$httpx" "$got" "$undici"
[ "$undici" = 401 ] && [ "$got" = ECONNRESET ] && [ "$httpx" = "ReadTimeout The read operation timed out" ]
