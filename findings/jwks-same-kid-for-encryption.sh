#!/usr/bin/env bash
# If a signing key and an encryption key share a `kid`, their order in the set decides whether Authlib finds the right
# one.
#
# Versions: Authlib 1.9.10 (authlib.jose), jose 6.2.18 (npm); for comparison PyJWT 2.15.1, joserfc 1.8.0.
#
# Some issuers give the same `kid` to a signing key and an encryption key. RFC 7517 section 4.5 recommends distinct
# `kid`s within a set (SHOULD) and allows equal ones for alternatives of different `kty`; `use` (section 4.2)
# distinguishes the two keys.
#
# Seen: Authlib takes the first key with the `kid`. If that is the encryption key, it raises InvalidUseError; in the
# other order it verifies. jose filters by `use` and `alg` and verifies in both orders. But it refuses a set that
# contains the same key twice (ERR_JWKS_MULTIPLE_MATCHING_KEYS), as a cache that appends instead of replacing
# produces. PyJWT and joserfc verify all three sets.
#
# Portcullis drops keys that are not for signatures before it looks for duplicates.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check Authlib==1.9.10 PyJWT==2.15.1 joserfc==1.8.0 cryptography==50.0.2
(cd "$folder" && npm init -y >/dev/null && npm install --silent --no-fund --no-audit jose@6.2.18)
"$folder/venv/bin/python" -W ignore - "$folder/sets.json" <<'PYTHON'
import base64, json, sys
import jwt
from authlib.jose import JsonWebKey, jwt as authlib_jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

def public(key, **more):
    n = base64.urlsafe_b64encode(key.public_key().public_numbers().n.to_bytes(256, "big")).rstrip(b"=").decode()
    return {"kty": "RSA", "kid": "one", "n": n, "e": "AQAB", **more}

signs, decrypts = (rsa.generate_private_key(65537, 2048) for _ in range(2))
sig, enc = public(signs, use="sig", alg="RS256"), public(decrypts, use="enc", alg="RSA-OAEP")
token = jwt.encode({"sub": "ada", "exp": 4102444800}, signs, "RS256", headers={"kid": "one"})
sets = {"sig, enc": [sig, enc], "enc, sig": [enc, sig], "sig, sig": [sig, sig]}
json.dump({"token": token, "sets": sets}, open(sys.argv[1], "w"))

def authlib(keys):
    return authlib_jwt.decode(token, JsonWebKey.import_key_set({"keys": keys}))["sub"]

def pyjwt(keys):
    return jwt.decode(token, jwt.PyJWKSet.from_dict({"keys": keys})["one"], algorithms=["RS256"])["sub"]

def joserfc(keys):
    return joserfc_jwt.decode(token, KeySet.import_key_set({"keys": keys}), algorithms=["RS256"]).claims["sub"]

def ask(library, keys):
    try:
        return library(keys)
    except Exception as error:
        return type(error).__name__

seen = {library.__name__: {name: ask(library, keys) for name, keys in sets.items()} for library in (authlib, pyjwt, joserfc)}
print(json.dumps(seen, indent=1))
good = dict.fromkeys(sets, "ada")
assert seen == {"authlib": {**good, "enc, sig": "InvalidUseError"}, "pyjwt": good, "joserfc": good}, "the behaviour has changed"
PYTHON
cat >"$folder/ask.mjs" <<'NODE'
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, jwtVerify } from 'jose';
const { token, sets } = JSON.parse(readFileSync(process.argv[2]));
const seen = {};
for (const [name, keys] of Object.entries(sets)) {
  seen[name] = await jwtVerify(token, createLocalJWKSet({ keys })).then(({ payload }) => payload.sub, (error) => error.code);
}
console.log('jose', JSON.stringify(seen));
const expected = { 'sig, enc': 'ada', 'enc, sig': 'ada', 'sig, sig': 'ERR_JWKS_MULTIPLE_MATCHING_KEYS' };
if (JSON.stringify(seen) !== JSON.stringify(expected)) process.exit(1);
NODE
node "$folder/ask.mjs" "$folder/sets.json"
