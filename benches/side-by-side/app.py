"""One view behind one role, with each of the checks that Flask applications use: `gunicorn app:open`, `app:jwt_hs256`, ...

Each application answers an allowed request with the same small JSON document, so that only the check differs.
"""

import functools
import os
from datetime import timedelta
from pathlib import Path

from flask import Flask, jsonify, request, session
from flask_jwt_extended import JWTManager, get_jwt, jwt_required, verify_jwt_in_request

FOLDER = Path(os.environ["SIDE_BY_SIDE"])
ISSUER, AUDIENCE = "https://shop.example", "shop"


def view(app, guard):
    @app.get("/orders")
    @guard
    def orders():
        return jsonify(orders=[{"id": 7, "item": "lamp"}])

    return app


def unchecked():
    return view(Flask("unchecked"), lambda function: function)


def behind():
    """Behind the gateway: the caller is in a header."""

    def guard(function):
        @functools.wraps(function)
        def named():
            if not request.headers.get("X-Auth-Subject"):
                return jsonify(msg="not by the gateway"), 500
            return function()

        return named

    return view(Flask("behind"), guard)


def with_jwt(algorithm):
    app = Flask("jwt")
    app.config.update(
        JWT_ALGORITHM=algorithm,
        JWT_ENCODE_ISSUER=ISSUER,
        JWT_DECODE_ISSUER=ISSUER,
        JWT_ENCODE_AUDIENCE=AUDIENCE,
        JWT_DECODE_AUDIENCE=AUDIENCE,
        JWT_ACCESS_TOKEN_EXPIRES=timedelta(hours=1),
    )
    if algorithm == "HS256":
        app.config["JWT_SECRET_KEY"] = (FOLDER / "secret.txt").read_text()
    else:
        app.config["JWT_PRIVATE_KEY"] = (FOLDER / "private.pem").read_text()
        app.config["JWT_PUBLIC_KEY"] = (FOLDER / "public.pem").read_text()
    JWTManager(app)

    def guard(function):
        @functools.wraps(function)
        @jwt_required()
        def checked():
            if "clerk" not in get_jwt().get("roles", []):
                return jsonify(msg="Clerks only!"), 403
            return function()

        return checked

    return view(app, guard)


def with_sessions():
    from flask_session import Session
    from redis import Redis

    app = Flask("sessions")
    app.config.update(
        SESSION_TYPE="redis",
        SESSION_REDIS=Redis(unix_socket_path=os.environ["SIDE_BY_SIDE_REDIS"]),
        # The session is written back only if it changed, which costs the least.
        SESSION_REFRESH_EACH_REQUEST=False,
    )
    Session(app)

    @app.post("/login")
    def login():
        session["user"] = request.form["user"]
        session["roles"] = ["user", "clerk"]
        return jsonify(msg="ok")

    def guard(function):
        @functools.wraps(function)
        def checked():
            if "user" not in session:
                return jsonify(msg="Log in first"), 401
            if "clerk" not in session["roles"]:
                return jsonify(msg="Clerks only!"), 403
            return function()

        return checked

    return view(app, guard)


def verify_alone(app, token, seconds):
    """Returns the microseconds to verify a token and check its role without a server. The request's context is created once, and
    the state that the library keeps in it is discarded each time."""
    import time

    from flask import g

    counted, until = 0, time.perf_counter() + seconds
    with app.test_request_context("/orders", headers={"Authorization": f"Bearer {token}"}):
        began = time.perf_counter()
        while time.perf_counter() < until:
            for _ in range(50):
                verify_jwt_in_request()
                assert "clerk" in get_jwt()["roles"]
                for name in [name for name in g]:
                    g.pop(name)
            counted += 50
        return (time.perf_counter() - began) / counted * 1e6
