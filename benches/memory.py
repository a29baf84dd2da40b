#!/usr/bin/env python3
"""Measures the memory of client connections: idle ones, closed ones, and those of slow readers.

    cargo build --release
    benches/memory.py [--connections 10000] [--readers 500] [--size 16] [--rows idle,tls,...] [BINARY ...]

Needs nginx, which is the upstream; the client is this script. Without BINARY, it measures
target/release/portcullis. Each row starts a gateway with one worker, sends a hundred requests over connections of their own, and
takes the gateway's memory (PSS of /proc/PID/smaps_rollup) before and after. Kernel memory, such as socket buffers, is not part of
it.

- idle, tls, h2, h2tls: one request over each connection, then five seconds without any. KiB for each connection.
- closed, closedtls: the same connections, five seconds after they were closed. Memory against memory before.
- websocket, websockettls: WebSockets, each after one message and its echo, then five seconds without any. KiB for each, with its
  connection to the upstream (benches/compare/sockets.py).
- slow, slowtls, slowh2, slowh2tls: clients that read an answer of --size MiB from the upstream at 1 KiB/s, with a receive buffer of
  16 KiB. KiB for each, after 20 s. (The kernel takes a whole answer of 1 MiB from the gateway.) Over HTTP/2 the client's windows are
  as wide as possible, so TCP alone slows the answer.
- file, filetls, fileh2, fileh2tls: the same with a file of --size MiB. Most of it are huge pages that the allocator touches for the
  threads that read files: MIMALLOC_ALLOW_THP=0 shows the rest.
- slowwindow, filewindow: the same over HTTP/2 with windows of 64 KiB that the client never opens again.

Writes a table.
"""

import argparse
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLOW = [f"{kind}{version}{tls}" for kind in ("slow", "file") for version in ("", "h2") for tls in ("", "tls")]
ROWS = ["idle", "closed", "tls", "closedtls", "h2", "h2tls", "websocket", "websockettls", *SLOW, "slowwindow", "filewindow"]
NGINX = """worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off; worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000;
server {{ listen 127.0.0.1:{port}; location = /large {{ root {folder}; }} location / {{ return 200 "ok"; }} }} }}
"""
POLICY = """
[server]
http = "127.0.0.1:{plain}"
https = "127.0.0.1:{tls}"
plain = "serve"
admin = "127.0.0.1:{admin}"
workers = 1
[server.bounds]
connections = 65536
[state]
dir = "{state}"
[log]
access = "off"
[upstream.app]
servers = ["http://127.0.0.1:{port}"]
[upstream.echo]
servers = ["http://127.0.0.1:{echo}"]
connections = 65536
[[route]]
path = "/ws"
upstream = "echo"
access = "public"
websocket = true
[[route]]
path = "/files/{{*rest}}"
files = "{files}"
strip_prefix = "/files"
access = "public"
[[route]]
path = "/{{*rest}}"
upstream = "app"
access = "public"
"""
SOCKETS = ROOT / "benches/compare/sockets.py"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
# A masked message of two bytes with the mask 0, and its echo.
MESSAGE, ECHO = b"\x82\x82\0\0\0\0ok", b"\x82\x02ok"
GET = b"GET %s HTTP/1.1\r\nHost: gateway.test\r\n\r\n"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


def memory(process):
    """The process's share of memory in KiB."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def connect(port, protocol=None, receive_buffer=None):
    """Returns a connection, over TLS if `protocol` is the one to negotiate."""
    plain = socket.socket()
    if receive_buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.connect(("127.0.0.1", port))
    plain.settimeout(10)
    return CONTEXTS[protocol].wrap_socket(plain) if protocol else plain


def tls_context(protocol):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


CONTEXTS = {protocol: tls_context(protocol) for protocol in ("http/1.1", "h2")}


def ask(connection, http2):
    """Sends one request and reads its answer."""
    if http2:
        # HPACK: :method GET, :scheme http, :path / from the static table, :authority as a literal.
        block = bytes([0x82, 0x86, 0x84, 0x01, 12]) + b"gateway.test"
        frame = len(block).to_bytes(3, "big") + bytes([1, 5, 0, 0, 0, 1]) + block
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + frame)
        end, received = b"\x00\x00\x02\x00\x01\x00\x00\x00\x01ok", b""
        settings = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])
        while end not in received:
            piece = connection.recv(4096)
            assert piece, received
            received += piece
        connection.sendall(settings)
    else:
        connection.sendall(GET % b"/")
        received = b""
        while not received.endswith(b"\r\n\r\nok"):
            piece = connection.recv(4096)
            assert piece, received
            received += piece


def ask_websocket(connection):
    """Opens a WebSocket, sends a message and reads its echo."""
    connection.sendall(b"GET /ws HTTP/1.1\r\nHost: gateway.test\r\n" + UPGRADE + b"\r\n")
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += connection.recv(4096)
        assert received.startswith(b"HTTP/1.1 101"), received
    connection.sendall(MESSAGE)
    received = b""
    while received != ECHO:
        received += connection.recv(4096)
        assert ECHO.startswith(received), received


def open_websockets(port, protocol, count):
    connections = []
    for _ in range(count):
        connection = connect(port, protocol)
        ask_websocket(connection)
        connections.append(connection)
    return connections


def open_idle(port, protocol, http2, count):
    connections = []
    for _ in range(count):
        connection = connect(port, protocol)
        ask(connection, http2)
        connections.append(connection)
    return connections


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def http2_get(path, is_wide):
    """Returns the first bytes of an HTTP/2 connection that asks for a path."""
    block = bytes([0x82, 0x86, 0x04, len(path)]) + path + bytes([0x01, 12]) + b"gateway.test"
    widest = (1 << 31) - 1
    settings = (4).to_bytes(2, "big") + widest.to_bytes(4, "big") if is_wide else b""
    window = frame(8, 0, 0, (widest - 65535).to_bytes(4, "big")) if is_wide else b""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings) + window + frame(1, 5, 1, block)


def read_slowly(port, protocol, request, count):
    """Opens connections that read 1 KiB/s each, and reads for 20 s."""
    readers = []
    for _ in range(count):
        reader = connect(port, protocol, receive_buffer=16 * 1024)
        reader.sendall(request)
        readers.append(reader)
    for _ in range(20):
        begun = time.monotonic()
        for reader in readers:
            assert reader.recv(1024), "a slow reader was cut off"
        time.sleep(max(0, 1 - (time.monotonic() - begun)))
    return readers


def measure(binary, upstream, echo, files, row, arguments):
    plain, tls, admin = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as state:
        policy = Path(state) / "gateway.toml"
        policy.write_text(
            POLICY.format(plain=plain, tls=tls, admin=admin, port=upstream, echo=echo, state=f"{state}/state", files=files)
        )
        with open(f"{state}/log", "w") as log:
            process = subprocess.Popen([binary, "run", "--config", policy], stdout=log, stderr=log)
        try:
            try:
                wait_for(plain)
            except SystemExit:
                raise SystemExit(Path(f"{state}/log").read_text())
            protocol = None if "tls" not in row else "h2" if "h2" in row else "http/1.1"
            port, http2 = tls if protocol else plain, "h2" in row or "window" in row
            for connection in open_idle(port, protocol, http2, 100):
                connection.close()
            time.sleep(3)
            before = memory(process)
            if "websocket" in row:
                kept = open_websockets(port, protocol, arguments.connections)
                time.sleep(5)
                return (memory(process) - before) / len(kept)
            if row.startswith(("slow", "file")):
                path = b"/files/large" if row.startswith("file") else b"/large"
                request = http2_get(path, "window" not in row) if http2 else GET % path
                kept = read_slowly(port, protocol, request, arguments.readers)
                return (memory(process) - before) / len(kept)
            kept = open_idle(port, protocol, http2, arguments.connections)
            time.sleep(5)
            open_memory = memory(process)
            if "closed" not in row:
                return (open_memory - before) / len(kept)
            for connection in kept:
                connection.close()
            time.sleep(5)
            print(f"    {row}: before {before}, open {open_memory}, closed {memory(process)} KiB", flush=True)
            return memory(process) / before
        finally:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", nargs="*", metavar="BINARY", default=[str(ROOT / "target/release/portcullis")])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=500)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--rows", default=",".join(ROWS))
    arguments = parser.parse_args()
    # The gateway reserves two files for each connection.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.connections > (most - 1000) // 2:
        arguments.connections = (most - 1000) // 2
        print(f"only {arguments.connections} connections, because of the limit of open files ({most})")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        Path(folder, "large").write_bytes(os.urandom(arguments.size << 20))
        upstream = free_port()
        Path(folder, "nginx.conf").write_text(NGINX.format(folder=folder, port=upstream))
        nginx = subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"])
        echo = free_port()
        echoes = subprocess.Popen([sys.executable, SOCKETS, "serve", str(echo)])
        try:
            wait_for(upstream)
            wait_for(echo)
            print("| row | " + " | ".join(Path(binary).name for binary in arguments.binaries) + " |")
            print("| --- |" + " --- |" * len(arguments.binaries))
            for row in arguments.rows.split(","):
                found = [measure(binary, upstream, echo, folder, row, arguments) for binary in arguments.binaries]
                print(f"| {row} | " + " | ".join(f"{value:.2f}" for value in found) + " |", flush=True)
        finally:
            for server in nginx, echoes:
                server.terminate()
                server.wait()


if __name__ == "__main__":
    main()
