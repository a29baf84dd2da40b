#!/usr/bin/env bash
# A key that names its algorithm by RFC 9864 disappears from two Python libraries' key sets, with a misleading error.
#
# Versions: PyJWT 2.15.1, joserfc 1.8.0; beside them jwcrypto 1.6.1.
#
# RFC 9864 (2025) deprecates the polymorphic name `EdDSA` and registers `Ed25519` for the same signatures. An issuer that has
# moved its key set's `alg` to the new name, while its tokens still say `EdDSA`, is in the middle of that move.
#
# Seen: PyJWT 2.15.1 does not know the name, drops the key, and says "The JWK Set did not contain any usable keys. Perhaps
# 'cryptography' is not installed?", which sends the reader to the wrong place. joserfc 1.8.0 knows the name, and says "No
# key for kid: 'e'" although that `kid` is in the set: it has filtered by `alg` first. jwcrypto verifies the token.
#
# Portcullis takes the two names for one algorithm in keys, tokens and `algorithms`.
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
