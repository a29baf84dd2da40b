#!/usr/bin/env bash
# Four Python frameworks take half of an upload for the whole one, if its connection ends in order.
#
# Versions: gunicorn 27.0.1 with Django 5.2.19, Flask 3.1.3, Falcon 4.4.0 and Bottle 0.13.4; for comparison Pyramid 2.1 on
# gunicorn, Flask on waitress 3.0.2.
#
# A proxy passes an upload on while it arrives. The client leaves in the middle, so the proxy closes its connection to the
# service: `Content-Length: 20`, ten bytes, and the end. RFC 9112 section 6.3: the recipient MUST consider the message to be
# incomplete.
#
# Expected: reading the body raises. Seen: `request.body`, `request.get_data()`, `bounded_stream.read()` and
# `request.body.read()` return ten bytes, and the view goes on to save them. gunicorn returns the bytes up to the end of the
# connection, and the frameworks do not compare them with the length. If the connection is reset, all of them raise. In Pyramid
# reading raises in both cases, and on waitress the view does not run.
#
# Portcullis resets the connection of a request that breaks off, and sends no close_notify before it. docs/upstreams.md has the
# exception, Unix sockets.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gunicorn==27.0.1 waitress==3.0.2 Django==5.2.19 Flask==3.1.3 \
    falcon==4.4.0 bottle==0.13.4 pyramid==2.1
cat >service.py <<'PYTHON'
import sys

def read(source):
    try:
        seen = source().decode()
    except BaseException as error:
        seen = type(error).__name__
    print("SEEN", seen, flush=True)
    return "ok"

def django():
    from django.conf import settings
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="seen")
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path
    global urlpatterns
    urlpatterns = [path("", lambda request: HttpResponse(read(lambda: request.body)))]
    return get_wsgi_application()

def flask():
    import flask
    app = flask.Flask("seen")
    app.post("/")(lambda: read(flask.request.get_data))
    return app

def falcon():
    import falcon
    class Resource:
        def on_post(self, request, response):
            response.text = read(request.bounded_stream.read)
    app = falcon.App()
    app.add_route("/", Resource())
    return app

def bottle():
    import bottle
    app = bottle.Bottle()
    app.post("/")(lambda: read(lambda: bottle.request.body.read()))
    return app

def pyramid():
    from pyramid.config import Configurator
    from pyramid.response import Response
    with Configurator() as config:
        config.add_route("seen", "/")
        config.add_view(lambda request: Response(read(lambda: request.body)), route_name="seen")
        return config.make_wsgi_app()
PYTHON
cat >seen.py <<'PYTHON'
import socket, struct, subprocess, time

def upload(port, end):
    """Sends a request with a length, and ends the connection in this way."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        body = b"0123456789" if end != "whole" else b"0123456789abcdefghij"
        client.sendall(b"POST / HTTP/1.1\r\nHost: seen.test\r\nConnection: close\r\nContent-Length: 20\r\n\r\n" + body)
        if end == "whole":
            client.recv(65536)
        time.sleep(0.3)
        if end == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

def serve(server, framework):
    """Returns what the service reads from a whole upload, from a half, and from a half with a reset."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"gunicorn": [f"--bind=127.0.0.1:{port}", f"service:{framework}()"],
           "waitress-serve": [f"--listen=127.0.0.1:{port}", "--call", f"service:{framework}"]}
    with open("log", "w+") as log:
        process = subprocess.Popen([f"venv/bin/{server}", *own[server]], stdout=log, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    upload(port, "whole")
                    break
                except OSError:
                    time.sleep(0.1)
            for end in ("closed", "reset"):
                upload(port, end)
                time.sleep(1)
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        return [line.split()[1] for line in log if line.startswith("SEEN")]

whole, half = "0123456789abcdefghij", "0123456789"
seen = {}
for server, framework in (*(("gunicorn", name) for name in ("django", "flask", "falcon", "bottle", "pyramid")),
                          ("waitress-serve", "flask")):
    seen[server, framework] = serve(server, framework)
    print(f"{framework} on {server}: {', '.join(seen[server, framework])}")
for framework, error in (("django", "UnreadablePostError"), *((name, "ConnectionResetError") for name in ("flask", "falcon", "bottle"))):
    assert seen["gunicorn", framework] == [whole, half, error], "the behaviour has changed"
assert seen["gunicorn", "pyramid"] == [whole, "DisconnectionError", "ConnectionResetError"], "the behaviour has changed"
assert seen["waitress-serve", "flask"] == [whole], "the behaviour has changed"
PYTHON
venv/bin/python seen.py
