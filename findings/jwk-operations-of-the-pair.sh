#!/usr/bin/env bash
# A public key that lists the operations of its pair, `["sign", "verify"]`, is unusable for jose, and jwcrypto publishes it.
#
# Versions: jwcrypto 1.6.1 publishes; jose 6.2.18 (npm) refuses; for comparison PyJWT 2.15.1, joserfc 1.8.0.
#
# An issuer generates a key with jwcrypto for both operations, and publishes `key.export_public()`. RFC 7517 section 4.3:
# `key_ops` has the operations for which the key is intended.
#
# Expected: a verifier looks for "verify" in the list and uses the key, as PyJWT, joserfc and jwcrypto do. Seen: jose finds
# the key and passes the list on to WebCrypto, which knows no public key that signs. The caller gets a SyntaxError of
# WebCrypto, "Unsupported key usage for a ECDSA key", which is no error of jose and has no `code`, so an application that
# answers 401 to the errors of jose answers 500.
#
# Portcullis uses the key. Its own key set has no `key_ops`.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check jwcrypto==1.6.1 PyJWT==2.15.1 joserfc==1.8.0 cryptography==50.0.2
npm install --silent --no-audit --no-fund --ignore-scripts jose@6.2.18
cat >seen.py <<'PYTHON'
import json
import jwt
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jwt import JWT

key = JWK.generate(kty="EC", crv="P-256", kid="k", key_ops=["sign", "verify"])
public = json.loads(key.export_public())
print("published key_ops:", json.dumps(public["key_ops"]))
keys = {"keys": [public]}
private = key.export_to_pem(private_key=True, password=None)
token = jwt.encode({"sub": "ada", "exp": 4102444800}, private, "ES256", headers={"kid": "k"})
print("PyJWT:", jwt.decode(token, jwt.PyJWKSet.from_dict(keys)["k"], algorithms=["ES256"])["sub"])
print("joserfc:", joserfc_jwt.decode(token, KeySet.import_key_set(keys), algorithms=["ES256"]).claims["sub"])
print("jwcrypto:", json.loads(JWT(jwt=token, key=JWKSet.from_json(json.dumps(keys))).claims)["sub"])
json.dump({"token": token, "key": public}, open("token.json", "w"))
PYTHON
cat >seen.mjs <<'NODE'
import { readFileSync } from "node:fs";
import { createLocalJWKSet, errors, jwtVerify } from "jose";
const { token, key } = JSON.parse(readFileSync("token.json"));
for (const operations of [["verify"], ["sign", "verify"]]) {
    try {
        const { payload } = await jwtVerify(token, createLocalJWKSet({ keys: [{ ...key, key_ops: operations }] }));
        console.log(`jose, ${operations}: ${payload.sub}`);
    } catch (error) {
        console.log(`jose, ${operations}: ${error.name}, ${error.message}, of jose: ${error instanceof errors.JOSEError}`);
    }
}
NODE
{ venv/bin/python -W ignore seen.py; node seen.mjs; } | tee seen
diff - seen <<'TEXT'
published key_ops: ["sign", "verify"]
PyJWT: ada
joserfc: ada
jwcrypto: ada
jose, verify: ada
jose, sign,verify: SyntaxError, Unsupported key usage for a ECDSA key, of jose: false
TEXT
