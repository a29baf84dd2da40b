#!/usr/bin/env bash
# libjwt refuses the access tokens of RFC 9068, because of their type.
#
# Version: libjwt 1.10.2 (Debian 12, libjwt0); for comparison PyJWT 2.15.1, joserfc 1.8.0.
#
# RFC 9068 section 2.1: an access token has `typ` "at+jwt", so that nobody takes it for another kind of token, and RFC 8725
# section 3.11 recommends such a type for each kind. RFC 7519 section 5.1: `typ` is for the application, and "JWT" is
# recommended.
#
# Expected: a library without an option for the type leaves `typ` to the application, as it does with other parameters, and
# verifies the signature. Seen: `jwt_decode` of libjwt, which is under several modules for nginx and other servers in C,
# returns EINVAL for each `typ` other than "JWT" (in any case). A wrong signature has the same error, and no option
# changes the behaviour. An issuer that begins to follow RFC 9068 loses these services. PyJWT and joserfc verify.
#
# The access tokens of Portcullis have "at+jwt", its assertions "assertion+jwt". docs/sessions.md and docs/identity.md name
# what a service with libjwt uses in their place.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check PyJWT==2.15.1 joserfc==1.8.0 cryptography==50.0.2
apt-get download -qq libjwt0=1.10.2-1+deb12u1 libb64-0d libjansson4 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
cat >seen.py <<'PYTHON'
import ctypes, os
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey

library = ctypes.CDLL("libjwt.so.0")
library.jwt_get_grant.restype = ctypes.c_char_p
library.jwt_get_grant.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
key = ec.generate_private_key(ec.SECP256R1())
public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

def libjwt(token):
    decoded = ctypes.c_void_p()
    code = library.jwt_decode(ctypes.byref(decoded), token.encode(), public, len(public))
    return os.strerror(abs(code)) if code else library.jwt_get_grant(decoded, b"sub").decode()

def pyjwt(token):
    return jwt.decode(token, public, algorithms=["ES256"])["sub"]

def joserfc(token):
    return joserfc_jwt.decode(token, ECKey.import_key(public), algorithms=["ES256"]).claims["sub"]

seen = {}
for kind in (None, "JWT", "jwt", "at+jwt", "assertion+jwt"):
    token = jwt.encode({"sub": "ada", "exp": 4102444800}, key, "ES256", headers={"typ": kind})
    seen[kind] = [library(token) for library in (libjwt, pyjwt, joserfc)]
    print(f"typ {kind}: libjwt {seen[kind][0]}, PyJWT {seen[kind][1]}, joserfc {seen[kind][2]}")
stranger = jwt.encode({"sub": "ada", "exp": 4102444800}, ec.generate_private_key(ec.SECP256R1()), "ES256")
print(f"another key: libjwt {libjwt(stranger)}")
assert libjwt(stranger) == "Invalid argument", "the behaviour has changed"
verified, refused = ["ada"] * 3, ["Invalid argument", "ada", "ada"]
expected = {None: verified, "JWT": verified, "jwt": verified, "at+jwt": refused, "assertion+jwt": refused}
assert seen == expected, "the behaviour has changed"
PYTHON
LD_LIBRARY_PATH=$(echo "$folder"/root/usr/lib/*/) venv/bin/python -W ignore seen.py
