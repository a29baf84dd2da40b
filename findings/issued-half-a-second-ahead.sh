#!/usr/bin/env bash
# Three Python libraries refuse a token whose `iat` is ahead of their clock by a fraction of a second.
#
# Versions: PyJWT 2.15.1, joserfc 1.8.0, Authlib 1.9.10 (authlib.jose); for comparison jwcrypto 1.6.1, jose 6.2.18 (npm),
# jsonwebtoken 9.0.3 (npm).
#
# Two machines whose clocks agree to within some milliseconds still differ in the second at each tick, so a token reaches its
# service in the second before its `iat`. RFC 7519 section 4.1.6: `iat` can be used to determine the age of the token. Only
# `nbf` (section 4.1.5) says from when on a token is accepted.
#
# Expected: a verifier without an option for ages does not compare `iat`. Seen: PyJWT ("The token is not yet valid (iat)"),
# joserfc and Authlib ("The token was issued in the future") refuse it by default, without a leeway. jwcrypto, jose and
# jsonwebtoken accept it. Each of the three has a leeway, which is 0 by default.
#
# The tokens and assertions of Portcullis have the second of its clock in `iat`. docs/identity/assertion.py allows for 5 s,
# and docs/identity.md says so for other services.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check PyJWT==2.15.1 joserfc==1.8.0 Authlib==1.9.10 jwcrypto==1.6.1 \
    cryptography==50.0.2 requests==2.34.2
npm install --silent --no-audit --no-fund --ignore-scripts jose@6.2.18 jsonwebtoken@9.0.3
cat >seen.py <<'PYTHON'
import json, subprocess, time
import jwt
from authlib.jose import JsonWebKey, jwt as authlib_jwt
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

secret = "an example of thirty-two bytes.."
key = {"kty": "oct", "k": "YW4gZXhhbXBsZSBvZiB0aGlydHktdHdvIGJ5dGVzLi4"}

def pyjwt(token, leeway):
    jwt.decode(token, secret, algorithms=["HS256"], leeway=leeway)

def joserfc(token, leeway):
    claims = joserfc_jwt.decode(token, OctKey.import_key(key), algorithms=["HS256"]).claims
    joserfc_jwt.JWTClaimsRegistry(leeway=leeway).validate(claims)

def authlib(token, leeway):
    authlib_jwt.decode(token, JsonWebKey.import_key(key)).validate(leeway=leeway)

def jwcrypto(token, _):
    JWT(jwt=token, key=JWK(**key))

def ask(library, leeway):
    # The token is of the next second, which begins within a quarter to three quarters of a second.
    while not 0.25 < time.time() % 1 < 0.75:
        time.sleep(0.05)
    now = int(time.time())
    token = jwt.encode({"sub": "ada", "iat": now + 1, "exp": now + 61}, secret, "HS256")
    try:
        library(token, leeway)
        return "accepted"
    except Exception as error:
        return str(error) or type(error).__name__

for library in (pyjwt, joserfc, authlib, jwcrypto):
    print(f"{library.__name__}: {ask(library, 0)}; with a leeway: {ask(library, 5)}")
PYTHON
cat >seen.mjs <<'NODE'
import jsonwebtoken from "jsonwebtoken";
import { jwtVerify } from "jose";
const secret = "an example of thirty-two bytes..";
const now = Math.floor(Date.now() / 1000);
const token = jsonwebtoken.sign({ sub: "ada", iat: now + 2, exp: now + 62 }, secret);
console.log(`jose: ${(await jwtVerify(token, new TextEncoder().encode(secret))).payload.sub}`);
console.log(`jsonwebtoken: ${jsonwebtoken.verify(token, secret).sub}`);
NODE
{ venv/bin/python -W ignore seen.py; node seen.mjs; } | tee seen
diff - seen <<'TEXT'
pyjwt: The token is not yet valid (iat); with a leeway: accepted
joserfc: invalid_claim: The token was issued in the future; with a leeway: accepted
authlib: invalid_token: The token is not valid as it was issued in the future; with a leeway: accepted
jwcrypto: accepted; with a leeway: accepted
jose: ada
jsonwebtoken: ada
TEXT
