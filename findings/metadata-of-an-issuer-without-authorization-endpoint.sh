#!/usr/bin/env bash
# RFC 8414 allows no metadata that every client accepts for an issuer without an authorization endpoint.
#
# Versions: Authlib 1.9.10; for comparison oauth4webapi 3.8.8 (the library under openid-client 6).
#
# An issuer that supports only client credentials has no response type. RFC 8414 section 2 makes
# `response_types_supported` REQUIRED; according to section 3.2, parameters with zero values MUST be omitted.
#
# Seen: Authlib refuses the document both without the member and with an empty list, with the same error
# ('"response_types_supported" is required'), and accepts any non-empty list, such as ["none"]. oauth4webapi accepts
# all three.
#
# Portcullis lists ["none"], which both accept.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check Authlib==1.9.10
(cd "$folder" && npm init -y >/dev/null && npm install --silent --no-fund --no-audit oauth4webapi@3.8.8)
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
issuer = "https://issuer.example"
metadata = {"issuer": issuer, "token_endpoint": f"{issuer}/token", "jwks_uri": f"{issuer}/jwks", "grant_types_supported": ["client_credentials"]}
def ask(more):
    try:
        AuthorizationServerMetadata({**metadata, **more}).validate()
        return "accepted"
    except ValueError as error:
        return str(error)
seen = [ask(more) for more in ({}, {"response_types_supported": []}, {"response_types_supported": ["none"]})]
print("Authlib:      absent:", seen[0], "| empty:", seen[1], "| [\"none\"]:", seen[2])
required = '"response_types_supported" is required'
assert seen == [required, required, "accepted"], "Authlib has changed"
PYTHON
cat >"$folder/ask.mjs" <<'NODE'
import { processDiscoveryResponse } from 'oauth4webapi';
const issuer = 'https://issuer.example';
const metadata = { issuer, token_endpoint: `${issuer}/token`, jwks_uri: `${issuer}/jwks`, grant_types_supported: ['client_credentials'] };
const seen = [];
for (const more of [{}, { response_types_supported: [] }, { response_types_supported: ['none'] }]) {
  const answer = new Response(JSON.stringify({ ...metadata, ...more }), { headers: { 'content-type': 'application/json' } });
  seen.push(await processDiscoveryResponse(new URL(issuer), answer).then(() => 'accepted', (error) => error.message));
}
console.log('oauth4webapi: absent:', seen[0], '| empty:', seen[1], '| ["none"]:', seen[2]);
if (seen.some((answer) => answer !== 'accepted')) process.exit(1);
NODE
node "$folder/ask.mjs"
