#!/usr/bin/env bash
# Two Python libraries compare the scheme of Authorization case-sensitively, and one of them reads the field as a
# list.
#
# Versions: Flask-JWT-Extended 4.7.4 with Flask 3.1.3; djangorestframework-simplejwt 5.5.1 with Django 5.2.19.
#
# RFC 9110 section 11.1: an authentication scheme is case-insensitive. Clients and proxies write `bearer` as well as
# `Bearer`.
#
# Seen: for `Authorization: bearer TOKEN`, Flask-JWT-Extended answers 401 "Missing 'Bearer' type in 'Authorization'
# header". simplejwt ignores the field: the view runs without a caller, and answers 200 if it does not require one.
# Flask-JWT-Extended also finds the token in `Basic dTpw, Bearer TOKEN`, although Authorization is not a list (RFC
# 9110 section 11.6.2).
#
# A gateway may verify a token, accept its scheme in any case, and pass the field on unchanged. Such a service then
# refuses or does not recognise a caller whom the gateway accepted. Portcullis writes the scheme of a token that it
# passes on (`[identity] forward_token`) as `Bearer`.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check Flask==3.1.3 Flask-JWT-Extended==4.7.4 \
    Django==5.2.19 djangorestframework==3.18.3 djangorestframework-simplejwt==5.5.1 PyJWT==2.15.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from flask import Flask, jsonify
from flask_jwt_extended import JWTManager, create_access_token, get_jwt_identity, jwt_required

app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = "an example of thirty-two bytes.."
JWTManager(app)

@app.get("/")
@jwt_required()
def caller():
    return jsonify(get_jwt_identity())

with app.app_context():
    token = create_access_token("ada")
client = app.test_client()
seen = {}
for field in ("Bearer T", "bearer T", "Basic dTpw, Bearer T"):
    answer = client.get("/", headers={"Authorization": field.replace("T", token)})
    seen[field] = (answer.status_code, answer.json)
    print("Flask-JWT-Extended", field, *seen[field])
missing = {"msg": "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'"}
assert seen == {"Bearer T": (200, "ada"), "bearer T": (401, missing), "Basic dTpw, Bearer T": (200, "ada")}, "it has changed"
PYTHON
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="an example of more than forty characters", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"],
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES":
                    ["rest_framework_simplejwt.authentication.JWTStatelessUserAuthentication"]})
django.setup()
from django.test import Client
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework_simplejwt.tokens import AccessToken

@api_view(["GET"])
def caller(request):
    return Response({"caller": request.user and request.user.pk})

urlpatterns = [path("", caller)]
token = AccessToken()
token["user_id"] = "ada"
seen = {}
for scheme in ("Bearer", "bearer"):
    answer = Client().get("/", headers={"Authorization": f"{scheme} {token}"})
    seen[scheme] = (answer.status_code, answer.json())
    print("simplejwt", scheme, *seen[scheme])
assert seen == {"Bearer": (200, {"caller": "ada"}), "bearer": (200, {"caller": None})}, "it has changed"
PYTHON
