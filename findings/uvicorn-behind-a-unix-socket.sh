#!/usr/bin/env bash
# Over a Unix socket, uvicorn ignores the X-Forwarded fields that it trusts over TCP.
#
# Version: uvicorn 0.54.0; for comparison gunicorn 27.0.1.
#
# A gateway on the same machine passes on requests with `X-Forwarded-For` and `X-Forwarded-Proto: https`. uvicorn reads
# these fields from 127.0.0.1 by default. The operator moves the service from a port to a Unix socket, to which only the
# gateway has access.
#
# Expected: nothing changes for the application. Seen: the scheme of each request is `http` and its client is None, so the
# application redirects to http:// and makes cookies that are not Secure; an application that reads `request.client.host`
# fails. A peer without an address is in no list of trusted addresses; only `--forwarded-allow-ips='*'` trusts it. gunicorn
# trusts a Unix socket as it does 127.0.0.1.
#
# Portcullis writes the same fields over both; docs/upstreams.md names the option.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0 gunicorn==27.0.1
cat >"$folder/app.py" <<'PYTHON'
async def asgi(scope, receive, send):
    if scope["type"] == "http":
        seen = f"{scope['scheme']}, {scope['client'] and scope['client'][0]}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(seen))]})
        await send({"type": "http.response.body", "body": seen})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['wsgi.url_scheme']}, {environ['HTTP_X_FORWARDED_FOR']}".encode()]
PYTHON
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import pathlib, socket, subprocess, sys, time

folder = pathlib.Path(sys.argv[1])
REQUEST = (b"GET / HTTP/1.1\r\nHost: api.example\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
           b"Connection: close\r\n\r\n")

def ask(program, *options):
    """Returns what the application sees over TCP, and over a Unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = folder / "socket"
    path.unlink(missing_ok=True)
    binds = {"uvicorn": (["--port", str(port)], ["--uds", path]),
             "gunicorn": (["--bind", f"127.0.0.1:{port}"], ["--bind", f"unix:{path}"])}
    for family, address, bind in zip((socket.AF_INET, socket.AF_UNIX), (("127.0.0.1", port), str(path)), binds[program]):
        application = "app:asgi" if program == "uvicorn" else "app:wsgi"
        process = subprocess.Popen([folder / "venv/bin" / program, application, "--log-level", "critical", *bind, *options],
                                   cwd=folder)
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client = socket.socket(family)
                    client.connect(address)
                    break
                except OSError:
                    client.close()
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            with client:
                client.sendall(REQUEST)
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            body = answer.split(b"\r\n\r\n", 1)[1]
            # gunicorn sends chunks.
            yield next(line.decode() for line in body.split(b"\r\n") if b"," in line)
        finally:
            process.terminate()
            process.wait()

seen = [(name, *ask(*name.split())) for name in ("uvicorn", "uvicorn --forwarded-allow-ips=*", "gunicorn")]
for name, tcp, unix in seen:
    print(f"{name}: over TCP {tcp}; over a Unix socket {unix}")
assert seen == [
    ("uvicorn", "https, 192.0.2.7", "http, None"),
    ("uvicorn --forwarded-allow-ips=*", "https, 192.0.2.7", "https, 192.0.2.7"),
    ("gunicorn", "https, 192.0.2.7", "https, 192.0.2.7"),
], "the behaviour has changed"
PYTHON
