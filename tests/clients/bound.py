"""Makes DPoP proofs with pydpop. Prints the thumbprint of a new key, then one proof for each line of input."""

import json
import sys

from pydpop import generate_key, generate_proof, jwk_thumbprint, public_jwk

key = generate_key()
print(jwk_thumbprint(public_jwk(key)), flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    proof = generate_proof(
        private_key=key, htm=ask["method"], htu=ask["url"], access_token=ask["token"], nonce=ask["nonce"]
    )
    print(proof, flush=True)
