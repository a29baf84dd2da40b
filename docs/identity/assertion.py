"""Checks an assertion: assertion.py JWKS_URL ISSUER AUDIENCE [METHOD TARGET], with the assertion on standard input. Needs PyJWT
and cryptography."""

import json
import sys

import jwt

jwks_url, issuer, audience, *request = sys.argv[1:]
assertion = sys.stdin.read().strip()

# The client fetches the set once and caches it. It fetches the set again for an unknown key.
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
# With assertion_binds = true, compare the request: otherwise an assertion could be moved to another request.
if request and [claims.get("htm"), claims.get("htu")] != request:
    sys.exit("made for another request")
print(json.dumps(claims))
