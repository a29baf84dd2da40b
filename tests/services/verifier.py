"""Verifies an access token with Authlib's validator of RFC 9068: verifier.py GATEWAY ISSUER AUDIENCE TOKEN"""

import sys

import requests
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet

gateway, issuer, audience, token = sys.argv[1:]


class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return KeySet.import_key_set(requests.get(gateway + "/.well-known/jwks.json").json())


validator = Validator(issuer, audience)
claims = validator.authenticate_token(token)
validator.validate_token(claims, None, None)
print(claims["client_id"])
