"""What the library joserfc makes of tokens; input and output as in verify.mjs."""

import json
import sys
import time

from joserfc import jwt
from joserfc.jwk import KeySet

request = json.load(sys.stdin)
sets = {name: KeySet.import_key_set(one["jwks"]) for name, one in request["issuers"].items()}
for case in request["cases"]:
    issuer = case["issuer"]
    try:
        token = jwt.decode(case["token"], sets[issuer], algorithms=request["issuers"][issuer]["algorithms"])
        jwt.JWTClaimsRegistry(
            now=int(time.time()),
            leeway=30,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": "orders"},
            sub={"essential": True},
            exp={"essential": True},
        ).validate(token.claims)
        print("ok")
    except Exception as error:  # noqa: BLE001: whatever it raises, the token is refused
        print((type(error).__name__ + ": " + str(error)).replace("\n", " "))
