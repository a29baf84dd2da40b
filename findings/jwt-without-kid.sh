#!/usr/bin/env bash
# A token without `kid` is refused as soon as its issuer publishes a second key, even a key of another kind.
#
# Versions: joserfc 1.8.0; for comparison jose 6.2.18 (Node), which verifies.
#
# The issuer signs with ES256 and writes no `kid`, which is optional (RFC 7515 section 4.1.4, RFC 7517 section 4.5). It
# publishes its P-256 key; later also an RSA key, for other tokens. Only one key of the set can verify ES256.
#
# Seen: joserfc verifies with the set of one key. With both keys it raises InvalidKeyIdError, "No key for kid: 'None'",
# for every token. A service fails on the day on which the issuer publishes its second key.
#
# Portcullis tries the keys for the token's algorithm, at most four.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check joserfc==1.8.0 cryptography==50.0.2
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts jose@6.2.18)
"$folder/venv/bin/python" - >"$folder/made.json" <<'PYTHON'
import json, sys
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

rsa = RSAKey.generate_key(2048, {"kid": "r", "alg": "RS256", "use": "sig"})
ec = ECKey.generate_key("P-256", {"kid": "e", "alg": "ES256", "use": "sig"})
token = jwt.encode({"alg": "ES256"}, {"sub": "ada"}, ec, algorithms=["ES256"])

def ask(keys):
    try:
        return jwt.decode(token, KeySet(keys), algorithms=["ES256", "RS256"]).claims["sub"]
    except Exception as error:
        return f"{type(error).__name__}: {error}"

seen = [ask([ec]), ask([ec, rsa])]
print("joserfc 1.8.0: one key:", seen[0], "| two keys:", seen[1], file=sys.stderr)
assert seen == ["ada", "InvalidKeyIdError: invalid_key_id: No key for kid: 'None'"], "the behaviour has changed"
print(json.dumps({"token": token, "keys": KeySet([ec, rsa]).as_dict(private=False)["keys"]}))
PYTHON
cat >"$folder/ask.mjs" <<'NODE'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { readFileSync } from 'node:fs'
const { token, keys } = JSON.parse(readFileSync(process.argv[2]))
const { payload } = await jwtVerify(token, createLocalJWKSet({ keys }))
console.log('jose 6.2.18: two keys:', payload.sub)
NODE
node "$folder/ask.mjs" "$folder/made.json"
