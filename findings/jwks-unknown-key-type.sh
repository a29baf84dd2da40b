#!/usr/bin/env bash
# One key of a new type makes a whole key set unusable for two Python libraries.
#
# Versions: Authlib 1.9.10 (authlib.jose), python-jose 3.5.0; for comparison PyJWT 2.15.1, joserfc 1.8.0, jwcrypto
# 1.6.1.
#
# An issuer publishes an RSA key that signs its tokens, and a second key of type AKP (RFC 9964: ML-DSA). According to
# RFC 7517 section 5, implementations SHOULD ignore keys whose `kty` they do not understand.
#
# Seen: Authlib raises KeyError('AKP') while it reads the set. python-jose ignores `kid`, tries the keys in the order
# of the set, and raises at the first key of another type, so it verifies only if the RSA key comes first. The other
# three verify. The application sees an internal error or a bad signature, for every token, on the day on which the
# issuer publishes its next key.
#
# Portcullis skips such a key and uses the others. Services that verify Portcullis's own tokens with these two
# libraries are safe, because its set contains keys of one type.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    Authlib==1.9.10 python-jose==3.5.0 PyJWT==2.15.1 joserfc==1.8.0 jwcrypto==1.6.1 cryptography==50.0.2
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import base64, json
import jwt
from authlib.jose import JsonWebKey, jwt as authlib_jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jose import jwt as python_jose
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT

def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

key = rsa.generate_private_key(65537, 2048)
modulus = key.public_key().public_numbers().n.to_bytes(256, "big")
ours = {"kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": encode(modulus), "e": "AQAB"}
new = {"kty": "AKP", "kid": "m", "alg": "ML-DSA-44", "use": "sig", "pub": encode(bytes(range(256)) * 5 + bytes(32))}
token = jwt.encode({"sub": "ada", "exp": 4102444800}, key, "RS256", headers={"kid": "r"})

def pyjwt(keys):
    return jwt.decode(token, jwt.PyJWKSet.from_dict(keys)["r"], algorithms=["RS256"])["sub"]

def joserfc(keys):
    return joserfc_jwt.decode(token, KeySet.import_key_set(keys), algorithms=["RS256"]).claims["sub"]

def jwcrypto(keys):
    return json.loads(JWT(jwt=token, key=JWKSet.from_json(json.dumps(keys))).claims)["sub"]

def authlib(keys):
    return authlib_jwt.decode(token, JsonWebKey.import_key_set(keys))["sub"]

def jose(keys):
    return python_jose.decode(token, keys, algorithms=["RS256"])["sub"]

def ask(library, keys):
    try:
        return library({"keys": keys})
    except Exception as error:
        return f"{type(error).__name__}: {error}"

seen = {library.__name__: [ask(library, keys) for keys in ([ours], [ours, new], [new, ours])]
        for library in (pyjwt, joserfc, jwcrypto, authlib, jose)}
for library, answers in seen.items():
    print(f"{library:9} alone: {answers[0]} | new key last: {answers[1]} | new key first: {answers[2]}")
mismatch = "JWKError: Incorrect key type. Expected: 'RSA', Received: AKP"
assert seen == {
    "pyjwt": ["ada"] * 3,
    "joserfc": ["ada"] * 3,
    "jwcrypto": ["ada"] * 3,
    "authlib": ["ada", "KeyError: 'AKP'", "KeyError: 'AKP'"],
    "jose": ["ada", seen["jose"][1], mismatch],
}, "the behaviour has changed"
print("python-jose, new key last:", seen["jose"][1])
PYTHON
