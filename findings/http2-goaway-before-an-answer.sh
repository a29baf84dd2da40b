#!/usr/bin/env bash
# Two HTTP/2 clients fail the requests in progress when a server announces that it stops, and one of them the next request.
#
# Versions: httpx 0.28.1 (httpcore 1.0.9, h2 4.4.1), undici 7.30.2 with `allowH2`; for comparison Node's http2 and the
# system's curl (seen with 20 and 7.88).
#
# RFC 9113 section 6.8: a server that wants to stop sends GOAWAY with NO_ERROR and the last stream that it processes, at
# first 2^31-1 to exclude no request that is on its way. It then completes the streams up to that one. The server here has
# a request, sends GOAWAY that includes the request, and the answer 300 ms later over the same open connection.
#
# Expected: the answer 200, for all clients, with both values. Seen: httpx raises RemoteProtocolError
# ("ConnectionTerminated error_code:0"), and undici rejects with UND_ERR_SOCKET ('"GOAWAY" frame received with code 0').
# undici fails all requests of the connection in this way. Node's http2 and curl return the answer. Each restart of a
# server with a graceful shutdown costs these clients the answers for which they wait.
#
# If the server sends GOAWAY after the answer and closes, httpx sends the next request over another connection only if that
# GOAWAY excludes the request. After 2^31-1 the request fails, and after the PING with which libraries for servers measure
# when requests on their way have arrived, it fails even if the last GOAWAY follows ("RECV_PING in state CLOSED").
#
# Portcullis sends GOAWAY in a pause between the requests of a connection, or after two seconds with its next request. This
# saves the answers. docs/waits.md mentions the next request of httpx.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check httpx==0.28.1 httpcore==1.0.9 h2==4.4.1
npm install --silent --no-audit --no-fund --ignore-scripts undici@7.30.2
cat >seen.mjs <<'NODE'
import http2 from "node:http2";
import { Client } from "undici";
const [url] = process.argv.slice(2);
try {
    const answer = await new Client(url, { allowH2: true, useH2c: true }).request({ path: "/", method: "GET" });
    console.log(`undici: ${answer.statusCode} ${await answer.body.text()}`);
} catch (error) {
    console.log(`undici: ${error.code}`);
}
const stream = http2.connect(url).request({ ":path": "/" });
let status, body = "";
stream.on("response", (head) => { status = head[":status"]; });
stream.on("data", (part) => { body += part; });
stream.on("error", (error) => { body = error.code; });
stream.on("close", () => { console.log(`node: ${status} ${body}`); process.exit(); });
NODE
cat >seen.py <<'PYTHON'
import socket, subprocess, threading, time
import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

def goaway(last):
    """Returns a GOAWAY frame with NO_ERROR."""
    return b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + bytes(4)

PING = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)

def talk(connection, last, after):
    state = H2Connection(H2Configuration(client_side=False))
    state.initiate_connection()
    connection.sendall(state.data_to_send())
    while data := connection.recv(65536):
        for event in state.receive_data(data):
            if isinstance(event, RequestReceived):
                connection.sendall(state.data_to_send())
                if last is not None:
                    connection.sendall(goaway(last))
                    time.sleep(0.3)
                state.send_headers(event.stream_id, [(":status", "200"), ("content-length", "5")])
                state.send_data(event.stream_id, b"whole", end_stream=True)
                if after:
                    connection.sendall(state.data_to_send())
                    time.sleep(0.1)
                    connection.sendall(b"".join(PING if last is PING else goaway(last) for last in after))
                    connection.shutdown(socket.SHUT_RDWR)
        connection.sendall(state.data_to_send())

def serve(last=None, after=()):
    """Sends GOAWAY with `last` before each answer, or those of `after` after it, and then closes."""
    listener = socket.create_server(("127.0.0.1", 0))
    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=quietly, args=(connection,), daemon=True).start()
    def quietly(connection):
        try:
            talk(connection, last, after)
        except OSError:
            pass
    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"

def ask(url):
    try:
        answer = httpx.Client(http1=False, http2=True).get(url)
        yield f"httpx: {answer.status_code} {answer.text}"
    except httpx.HTTPError as error:
        yield f"httpx: {type(error).__name__}"
    run = lambda *command: subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    yield from run("node", "seen.mjs", url).splitlines()
    yield "curl: " + run("curl", "-sS", "--http2-prior-knowledge", "--write-out", " %{http_code}", url)

seen = {name: list(ask(serve(last))) for name, last in (("none", None), ("stream 1", 1), ("2^31-1", 2**31 - 1))}
for name, lines in seen.items():
    print(f"GOAWAY {name}: {'; '.join(lines)}")
whole = ["httpx: 200 whole", "undici: 200 whole", "node: 200 whole", "curl: whole 200"]
lost = ["httpx: RemoteProtocolError", "undici: UND_ERR_SOCKET", "node: 200 whole", "curl: whole 200"]

def ask_twice(after):
    with httpx.Client(http1=False, http2=True) as client:
        url = serve(after=after)
        client.get(url)
        time.sleep(0.2)
        try:
            return client.get(url).status_code
        except httpx.HTTPError as error:
            return type(error).__name__

AFTER = {"1": [1], "2^31-1 and 1": [2**31 - 1, 1], "2^31-1": [2**31 - 1], "2^31-1, PING and 1": [2**31 - 1, PING, 1]}
second = {name: ask_twice(after) for name, after in AFTER.items()}
for name, result in second.items():
    print(f"GOAWAY {name} after the answer, the next request of httpx: {result}")
fails = {"2^31-1": "RemoteProtocolError", "2^31-1, PING and 1": "LocalProtocolError"}
assert second == {"1": 200, "2^31-1 and 1": 200, **fails}, "the behaviour has changed"
assert seen == {"none": whole, "stream 1": lost, "2^31-1": lost}, "the behaviour has changed"
PYTHON
venv/bin/python seen.py
