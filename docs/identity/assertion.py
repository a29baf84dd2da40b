"""Checks an assertion: assertion.py JWKS_URL ISSUER AUDIENCE, the assertion on standard input. Needs PyJWT and cryptography."""

import json
import sys

import jwt

jwks_url, issuer, audience = sys.argv[1:]
assertion = sys.stdin.read().strip()

# Fetched once and kept by the client, which looks again when it meets a key that it does not know.
keys = jwt.PyJWKClient(jwks_url, lifespan=300)

if jwt.get_unverified_header(assertion).get("typ") != "assertion+jwt":
    sys.exit("not an assertion")
claims = jwt.decode(
    assertion,
    keys.get_signing_key_from_jwt(assertion).key,
    algorithms=["ES256", "EdDSA"],
    issuer=issuer,
    audience=audience,
    leeway=5,
    options={"require": ["exp", "iat", "iss", "aud", "sub"]},
)
print(json.dumps(claims))
