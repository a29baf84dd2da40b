#!/usr/bin/env bash
# Django, Falcon and Bottle on gunicorn do not read an upload without a length: two of them see an empty body, one answers 400.
#
# Versions: gunicorn 27.0.1 with Django 5.2.19, Falcon 4.4.0 and Bottle 0.13.4; for comparison Flask 3.1.3 and Pyramid 2.1 on
# gunicorn, Django on waitress 3.0.2 and on uvicorn 0.54.0.
#
# A client sends a body whose length it does not know: a stream of `fetch`, of Go or of Java, or `curl -T -`. Over HTTP/1.1 such
# a body is in chunked coding (RFC 9112 section 7.1), which every server has to support. Over HTTP/2 it just has no
# Content-Length, so a proxy that passes it on while it arrives sends chunks as well.
#
# Expected: the view gets the body, or the client gets 411. Seen: gunicorn decodes the chunks. Django takes a missing
# Content-Length for 0, so `request.body`, `request.POST` and `request.FILES` are empty; so is `bounded_stream` of Falcon. Both
# answer 200. Bottle decodes the chunks a second time, and answers 400 "Error while parsing chunked transfer body." Flask and
# Pyramid get the body, and so does Django on waitress and on uvicorn. Behind nginx all works, because nginx by default waits
# for the whole body and then sends it with a length.
#
# Portcullis passes bodies on while they arrive, and one without a length in chunks. docs/upstreams.md names the servers.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gunicorn==27.0.1 waitress==3.0.2 uvicorn==0.54.0 h11==0.16.0 \
    Django==5.2.19 falcon==4.4.0 bottle==0.13.4 Flask==3.1.3 pyramid==2.1
cat >service.py <<'PYTHON'
def text(body):
    return body.decode() or "nothing"

def set_up_django():
    from django.conf import settings
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="seen")
    from django.http import HttpResponse
    from django.urls import path
    global urlpatterns
    urlpatterns = [path("", lambda request: HttpResponse(text(request.body)))]

def django():
    set_up_django()
    from django.core.wsgi import get_wsgi_application
    return get_wsgi_application()

def django_asgi():
    set_up_django()
    from django.core.asgi import get_asgi_application
    return get_asgi_application()

def falcon():
    import falcon
    class Resource:
        def on_post(self, request, response):
            response.text = text(request.bounded_stream.read())
    app = falcon.App()
    app.add_route("/", Resource())
    return app

def bottle():
    import bottle
    app = bottle.Bottle()
    app.post("/")(lambda: text(bottle.request.body.read()))
    return app

def flask():
    import flask
    app = flask.Flask("seen")
    app.post("/")(lambda: text(flask.request.get_data()))
    return app

def pyramid():
    from pyramid.config import Configurator
    from pyramid.response import Response
    with Configurator() as config:
        config.add_route("seen", "/")
        config.add_view(lambda request: Response(text(request.body)), route_name="seen")
        return config.make_wsgi_app()
PYTHON
cat >seen.py <<'PYTHON'
import http.client, socket, subprocess, time

def upload(port, body):
    """Returns the answer to a body, which is sent in chunks unless it is a text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/", body, {"Content-Type": "text/plain"})
    answer = connection.getresponse()
    text = answer.read().decode()
    return f"{answer.status} {text}" if answer.status == 200 else str(answer.status)

def serve(server, framework):
    """Returns the answers to a body with a length, and to one in chunks."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"gunicorn": [f"--bind=127.0.0.1:{port}", f"service:{framework}()"],
           "waitress-serve": [f"--listen=127.0.0.1:{port}", "--call", f"service:{framework}"],
           "uvicorn": [f"--port={port}", "--factory", f"service:{framework}"]}
    process = subprocess.Popen([f"venv/bin/{server}", *own[server]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                return [upload(port, "abc"), upload(port, iter([b"ab", b"c"]))]
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()

seen = {}
for server, framework in (*(("gunicorn", name) for name in ("django", "falcon", "bottle", "flask", "pyramid")),
                          ("waitress-serve", "django"), ("uvicorn", "django_asgi")):
    seen[server, framework] = serve(server, framework)
    print(f"{framework} on {server}: with a length {seen[server, framework][0]}; in chunks {seen[server, framework][1]}")
whole = "200 abc"
for framework, chunked in {"django": "200 nothing", "falcon": "200 nothing", "bottle": "400", "flask": whole, "pyramid": whole}.items():
    assert seen["gunicorn", framework] == [whole, chunked], "the behaviour has changed"
assert seen["waitress-serve", "django"] == seen["uvicorn", "django_asgi"] == [whole, whole], "the behaviour has changed"
PYTHON
venv/bin/python seen.py
