"""A service that talks to the authority through Authlib: client.py GATEWAY ID SECRET WAY_TO_AUTHENTICATE"""

import os
import sys
from urllib.parse import urlsplit

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

gateway, client, secret, way = sys.argv[1:]

document = requests.get(gateway + "/.well-known/oauth-authorization-server").json()
metadata = AuthorizationServerMetadata(document)
for name in AuthorizationServerMetadata.REGISTRY_KEYS:
    getattr(metadata, "validate_" + name)()
assert way in metadata["token_endpoint_auth_methods_supported"]


def at(name):
    """An endpoint. The metadata states it as a URL of the issuer, at which the gateway under test is not reachable."""
    return gateway + urlsplit(metadata[name]).path


def session(secret, scope):
    return OAuth2Session(client, secret, scope=scope, token_endpoint_auth_method=way)


def refused(secret, scope):
    try:
        session(secret, scope).fetch_token(at("token_endpoint"), grant_type="client_credentials")
    except OAuthError as error:
        return error.error
    raise AssertionError("a token was given")


service = session(secret, "orders:read")
token = service.fetch_token(at("token_endpoint"), grant_type="client_credentials")
assert token["token_type"] == "Bearer" and token["scope"] == "orders:read", token
assert service.get(gateway + "/orders").status_code == 200


def reported():
    asked = service.introspect_token(
        at("introspection_endpoint"), token=token["access_token"], token_type_hint="access_token"
    )
    assert asked.status_code == 200, asked.text
    return asked.json()


assert reported()["active"] is True and reported()["client_id"] == client, reported()
revoked = service.revoke_token(
    at("revocation_endpoint"), token=token["access_token"], token_type_hint="access_token"
)
assert revoked.status_code == 200, revoked.text
assert reported() == {"active": False}, reported()
assert service.get(gateway + "/orders").status_code == 401

assert refused(secret, "orders:read admin") == "invalid_scope"
assert refused("wrong", "orders:read") == "invalid_client"
