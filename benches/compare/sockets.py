"""A WebSocket server that echoes messages, and a client that measures how many round trips happen.

    sockets.py serve PORT
    sockets.py ask PORT PATH TOKEN SECONDS CONNECTIONS BYTES

The client sends a message on every connection, and the next one when the echo of the last has arrived. It prints the number of round
trips. Both know only what they need of RFC 6455: whole binary messages below 64 KiB, and no extensions.
"""

import base64
import hashlib
import os
import selectors
import socket
import sys
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def head_of(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            break
        head += byte
    return head


def frame(payload, mask=None):
    """A binary message in one frame. The mask 0 leaves the payload as it is."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    head = bytes([0x82, length[0] | (0x80 if mask else 0)]) + length[1:]
    return head + (mask or b"") + payload


def frames(buffer, masked):
    """Removes the whole frames from the front of a buffer, and returns their masks and payloads."""
    found = []
    while len(buffer) >= 2:
        at, size = 2, buffer[1] & 127
        if size == 126:
            if len(buffer) < 4:
                break
            at, size = 4, int.from_bytes(buffer[2:4], "big")
        end = at + 4 * masked + size
        if len(buffer) < end:
            break
        found.append((bytes(buffer[at : at + 4 * masked]), bytes(buffer[at + 4 * masked : end])))
        del buffer[:end]
    return found


def serve(port):
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                stream, _ = listener.accept()
                stream.settimeout(10)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                lines = head_of(stream).split(b"\r\n")
                fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
                if b"sec-websocket-key" not in fields:
                    stream.close()
                    continue
                accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + GUID).digest())
                stream.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                    + accept
                    + b"\r\nX-Seen-Subject: "
                    + fields.get(b"x-auth-subject", b"")
                    + b"\r\n\r\n"
                )
                selector.register(stream, selectors.EVENT_READ, bytearray())
                continue
            try:
                more = key.fileobj.recv(65536)
                key.data.extend(more)
                # The clients of this file use the mask 0.
                echoes = b"".join(frame(payload) for _, payload in frames(key.data, True))
                key.fileobj.sendall(echoes)
            except OSError:
                more = b""
            if not more:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def connect(port, path, token):
    stream = socket.create_connection(("127.0.0.1", port), 10)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    stream.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{credential}"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = head_of(stream)
    if not head.startswith(b"HTTP/1.1 101"):
        sys.exit(f"no WebSocket: {head.decode(errors='replace')}")
    return stream


def ask(port, path, token, seconds, connections, size):
    selector = selectors.DefaultSelector()
    message = frame(b"m" * size, b"\0\0\0\0")
    for _ in range(connections):
        stream = connect(port, path, token)
        selector.register(stream, selectors.EVENT_READ, bytearray())
        stream.sendall(message)
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in selector.select(1):
            more = key.fileobj.recv(65536)
            if not more:
                sys.exit("a WebSocket was closed")
            key.data.extend(more)
            for _, payload in frames(key.data, False):
                if payload != b"m" * size:
                    sys.exit("an echo differs from its message")
                done += 1
                key.fileobj.sendall(message)
    print(done)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    ask(int(sys.argv[2]), sys.argv[3], sys.argv[4], *map(int, sys.argv[5:]))
