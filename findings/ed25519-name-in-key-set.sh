#!/usr/bin/env bash
# A key whose `alg` has the name of RFC 9864 disappears from the key sets of two Python libraries, with a misleading
# error.
#
# Versions: PyJWT 2.15.1, joserfc 1.8.0; for comparison jwcrypto 1.6.1.
#
# RFC 9864 (2025) deprecates the polymorphic name `EdDSA` and registers `Ed25519` for the same signatures. An issuer
# in the middle of this move already uses the new name in its key set, while its tokens still have `EdDSA`.
#
# Seen: PyJWT does not know the name and drops the key. Its error is "The JWK Set did not contain any usable keys.
# Perhaps 'cryptography' is not installed?", which points to the wrong cause. joserfc knows the name, but filters by
# `alg` first, and reports "No key for kid: 'e'" although that `kid` is in the set. jwcrypto verifies the token.
#
# Portcullis treats the two names as one algorithm in keys, tokens and `algorithms`.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check PyJWT==2.15.1 joserfc==1.8.0 jwcrypto==1.6.1 cryptography==50.0.2
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import base64, json
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT

key = Ed25519PrivateKey.generate()
x = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
public = {"kty": "OKP", "crv": "Ed25519", "kid": "e", "use": "sig", "x": base64.urlsafe_b64encode(x).rstrip(b"=").decode()}
token = jwt.encode({"sub": "ada", "exp": 4102444800}, key, "EdDSA", headers={"kid": "e"})

def pyjwt(keys):
    return jwt.decode(token, jwt.PyJWKSet.from_dict(keys)["e"], algorithms=["EdDSA"])["sub"]

def joserfc(keys):
    return joserfc_jwt.decode(token, KeySet.import_key_set(keys), algorithms=["EdDSA", "Ed25519"]).claims["sub"]

def jwcrypto(keys):
    return json.loads(JWT(jwt=token, key=JWKSet.from_json(json.dumps(keys))).claims)["sub"]

def ask(library, alg):
    try:
        return library({"keys": [{**public, "alg": alg}]})
    except Exception as error:
        return f"{type(error).__name__}: {error}"

seen = {library.__name__: {alg: ask(library, alg) for alg in ("EdDSA", "Ed25519")} for library in (pyjwt, joserfc, jwcrypto)}
print(json.dumps(seen, indent=1))
assert seen["pyjwt"] == {
    "EdDSA": "ada",
    "Ed25519": "PyJWKSetError: The JWK Set did not contain any usable keys. Perhaps 'cryptography' is not installed?",
}, "PyJWT has changed"
assert seen["joserfc"] == {"EdDSA": "ada", "Ed25519": "InvalidKeyIdError: invalid_key_id: No key for kid: 'e'"}, "joserfc has changed"
assert seen["jwcrypto"] == {"EdDSA": "ada", "Ed25519": "ada"}, "jwcrypto has changed"
PYTHON
