"""The same job inside a Flask application, with Flask-JWT-Extended."""

import os
from functools import wraps
from pathlib import Path

from flask import Flask, abort
from flask_jwt_extended import JWTManager, get_jwt, jwt_required
from peers import AUDIENCE, ISSUER, ROLE


def role_required(view):
    @wraps(view)
    @jwt_required()
    def checked(*arguments, **named):
        if ROLE not in get_jwt().get("roles", []):
            abort(403)
        return view(*arguments, **named)

    return checked


def application():
    app = Flask(__name__)
    app.config["JWT_ALGORITHM"] = "RS256"
    app.config["JWT_PUBLIC_KEY"] = (Path(os.environ["COMPARE_FOLDER"]) / "public.pem").read_text()
    app.config["JWT_DECODE_ISSUER"] = ISSUER
    app.config["JWT_DECODE_AUDIENCE"] = AUDIENCE
    JWTManager(app)
    answer = "x" * 127 + "\n"
    app.add_url_rule("/api/<path:rest>", "api", role_required(lambda rest: answer))
    app.add_url_rule("/public/<path:rest>", "public", lambda rest: answer)
    return app
