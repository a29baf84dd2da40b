"""A small application as many are written with Flask-JWT-Extended, in several settings, and the same application after the
move: behind the gateway, without the library.

Prints one line of JSON, the port of each, and serves until its standard input ends.
"""

import json
import os
import sys
import threading

from flask import Flask, jsonify, request
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    get_jwt,
    get_jwt_identity,
    jwt_required,
    set_access_cookies,
    set_refresh_cookies,
    unset_jwt_cookies,
)
from werkzeug.serving import WSGIRequestHandler, make_server

PASSWORD = "correct horse battery staple"
ISSUER = "https://localhost:8443"
AUDIENCE = "portcullis"


def pages(app, guarded, caller):
    """What the application is there for. `guarded` says what a view asks of its caller, `caller` who that is."""

    @app.get("/protected", endpoint="protected")
    @app.post("/protected", endpoint="change")
    @app.get("/query", endpoint="query")
    @guarded()
    def protected():
        return jsonify(logged_in_as=caller())

    @app.get("/fresh")
    @guarded(fresh=True)
    def fresh():
        return jsonify(logged_in_as=caller(), fresh=True)

    @app.get("/optional")
    @guarded(optional=True)
    def optional():
        return jsonify(logged_in_as=caller())

    @app.get("/tenant")
    @guarded()
    def tenant():
        return jsonify(tenant="acme")

    @app.get("/admin")
    @guarded(role="admin")
    def admin():
        return jsonify(admin=caller())


def with_library(cookies=False, **config):
    """The application before the move."""
    app = Flask("before")
    app.config["JWT_SECRET_KEY"] = os.environ["JWT_SECRET_KEY"]
    app.config.update(config)
    jwt = JWTManager(app)
    users = {"ada": ["admin", "clerk"], "bob": [], "eve": []}
    revoked = set()

    @jwt.additional_claims_loader
    def claims(identity):
        return {"roles": users.get(identity, [])}

    @jwt.token_in_blocklist_loader
    def is_revoked(_header, payload):
        return payload["jti"] in revoked

    @jwt.user_lookup_loader
    def user(_header, payload):
        name = payload["sub"]
        return {"name": name} if name in users else None

    @jwt.token_verification_loader
    def is_ours(_header, payload):
        return request.path != "/tenant" or payload.get("tenant") == "acme"

    def guarded(role=None, **asked):
        def decorate(view):
            def checked(*args, **kwargs):
                if role is not None and role not in get_jwt().get("roles", []):
                    return jsonify(msg="Admins only!"), 403
                return view(*args, **kwargs)

            checked.__name__ = view.__name__
            return jwt_required(**asked)(checked)

        return decorate

    @app.post("/login")
    def login():
        sent = request.get_json()
        name = sent.get("username")
        if name not in users or sent.get("password") != PASSWORD:
            return jsonify(msg="Bad username or password"), 401
        access, refresh = create_access_token(name, fresh=True), create_refresh_token(name)
        if not cookies:
            return jsonify(access_token=access, refresh_token=refresh)
        answer = jsonify(msg="login successful")
        set_access_cookies(answer, access)
        set_refresh_cookies(answer, refresh)
        return answer

    @app.post("/refresh")
    @jwt_required(refresh=True)
    def refresh():
        access = create_access_token(get_jwt_identity(), fresh=False)
        if not cookies:
            return jsonify(access_token=access)
        answer = jsonify(msg="refresh successful")
        set_access_cookies(answer, access)
        return answer

    @app.route("/logout", methods=["POST", "DELETE"])
    @jwt_required(verify_type=False)
    def logout():
        token = get_jwt()
        revoked.add(token["jti"])
        if not cookies:
            return jsonify(msg=f"{token['type'].capitalize()} token revoked")
        answer = jsonify(msg="logout successful")
        unset_jwt_cookies(answer)
        return answer

    # Takes the place of an operator, who has no other way to reach into this process.
    @app.delete("/users/<name>")
    def forget(name):
        users.pop(name)
        return "", 204

    pages(app, guarded, get_jwt_identity)
    return app


def after_the_move():
    """The application behind the gateway: no library, no secret, no decorators. The gateway says who it is."""
    app = Flask("after")

    def guarded(**_asked):
        return lambda view: view

    pages(app, guarded, lambda: request.headers.get("X-Auth-Subject"))
    return app


class Quiet(WSGIRequestHandler):
    """Keeps connections open, as a server behind a proxy should, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *_args):
        pass


def main():
    named = {
        "JWT_ENCODE_ISSUER": ISSUER,
        "JWT_DECODE_ISSUER": ISSUER,
        "JWT_ENCODE_AUDIENCE": AUDIENCE,
        "JWT_DECODE_AUDIENCE": AUDIENCE,
    }
    forms = {"JWT_CSRF_CHECK_FORM": True}
    apps = {
        "headers": with_library(**named),
        "cookies": with_library(cookies=True, JWT_TOKEN_LOCATION=["cookies"], **forms, **named),
        "both": with_library(cookies=True, JWT_TOKEN_LOCATION=["headers", "cookies"], **named),
        "query": with_library(JWT_TOKEN_LOCATION=["query_string"], **named),
        # As the library is without a word of configuration: nothing says who made a token, or for whom.
        "bare": with_library(),
        # The first step of a move: new tokens say both, and old ones are accepted still.
        "named": with_library(JWT_ENCODE_ISSUER=ISSUER, JWT_ENCODE_AUDIENCE=AUDIENCE),
        "after": after_the_move(),
    }
    ports = {}
    for name, app in apps.items():
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
        ports[name] = server.port
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


main()
