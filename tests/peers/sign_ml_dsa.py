"""Tokens signed by another implementation of ML-DSA (OpenSSL's, in the wheel of `cryptography`).

Reads the claims from standard input. Prints {"keys": [...], "tokens": [...]} with a key (RFC 9964) and a token for each
parameter set.
"""

import base64
import json
import sys

from cryptography.hazmat.primitives.asymmetric import mldsa


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


claims = encode(sys.stdin.buffer.read())
keys, tokens = [], []
for kind in (mldsa.MLDSA44PrivateKey, mldsa.MLDSA65PrivateKey, mldsa.MLDSA87PrivateKey):
    name = "ML-DSA-" + kind.__name__[5:7]
    private = kind.generate()
    public = private.public_key().public_bytes_raw()
    keys.append({"kty": "AKP", "alg": name, "kid": name, "pub": encode(public)})
    message = encode(json.dumps({"alg": name, "kid": name, "typ": "JWT"}).encode()) + "." + claims
    tokens.append(message + "." + encode(private.sign(message.encode())))
print(json.dumps({"keys": keys, "tokens": tokens}))
