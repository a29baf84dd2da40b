"""Checks a request's X-Auth-Signature with the standard library: signature.py, with a request as JSON on standard input."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time


def identity(method, target, headers, secret, now):
    """Returns the proven identity by header name, or None. The keys of `headers` are in lower case."""
    try:
        version, made, names, tag = headers["x-auth-signature"].split(";")
        made, names, tag = made.removeprefix("t="), names.removeprefix("h=").split(","), tag.removeprefix("s=")
        lines = ["v1", made, method, target, *(f"{name}:{headers[name]}" for name in names)]
        signed, tag = "".join(line + "\n" for line in lines).encode("latin-1"), tag.encode("latin-1")
        fresh = abs(now - int(made)) <= 60
    except (KeyError, ValueError):
        return None
    expected = base64.urlsafe_b64encode(hmac.digest(secret, signed, hashlib.sha256)).rstrip(b"=")
    if version == "v1" and fresh and hmac.compare_digest(expected, tag):
        return {name: headers[name] for name in names}  # and no other header is believed


request = json.load(sys.stdin)
proven = identity(
    request["method"], request["target"], request["headers"], os.environb[b"IDENTITY_SECRET"], time.time()
)
if proven is None:
    sys.exit("not proven")
print(json.dumps(proven))
