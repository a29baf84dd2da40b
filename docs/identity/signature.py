"""Checks a request's X-Auth-Signature with Python's own library: signature.py, a request as JSON on standard input."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time


def identity(method, target, headers, secret, now):
    """The identity that a request proves, by header; none when it proves none. `headers` by lower-case name."""
    try:
        version, made, names, tag = headers["x-auth-signature"].split(";")
        made, names, tag = made.removeprefix("t="), names.removeprefix("h=").split(","), tag.removeprefix("s=")
        lines = ["v1", made, method, target, *(f"{name}:{headers[name]}" for name in names)]
    except (KeyError, ValueError):
        return None
    expected = hmac.digest(secret, "".join(line + "\n" for line in lines).encode(), hashlib.sha256)
    expected = base64.urlsafe_b64encode(expected).rstrip(b"=").decode()
    fresh = made.isdigit() and abs(now - int(made)) <= 60
    if version == "v1" and fresh and hmac.compare_digest(expected, tag):
        return {name: headers[name] for name in names}  # and no other header is believed


request = json.load(sys.stdin)
proven = identity(
    request["method"], request["target"], request["headers"], os.environb[b"IDENTITY_SECRET"], time.time()
)
if proven is None:
    sys.exit("not proven")
print(json.dumps(proven))
