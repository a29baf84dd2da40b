#!/usr/bin/env bash
# The TypeScript SDK of MCP finds the challenge for bearer tokens only if no other challenge stands before it.
#
# Versions: @modelcontextprotocol/sdk 1.32.2 (npm); for comparison mcp 2.3.0 (PyPI).
#
# A 401 may offer several schemes, in one field or in several, which clients see joined by commas (RFC 9110 section 11.6.1).
# An MCP client needs `resource_metadata` and `scope` from the challenge for bearer tokens (RFC 9728 section 5.1).
#
# Expected: the order of the schemes does not matter. Seen: after `ApiKey` or `DPoP algs=...`, the TypeScript SDK returns
# neither parameter. It then tries the usual address of the metadata, and asks for all scopes of the resource in place of
# the one that the request needs. The Python SDK finds both. Both search for the name of a parameter as text: after
# `error_description="use scope=tools for this"`, the scope is `tools`, and not that of the parameter `scope`.
#
# Portcullis writes the challenge for bearer tokens first, and no description contains the name of a parameter with `=`.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mcp==2.3.0 httpx==0.28.1
npm install --silent --no-audit --no-fund --ignore-scripts @modelcontextprotocol/sdk@1.32.2
cat >fields.json <<'JSON'
{
  "Bearer": "Bearer scope=\"call\", resource_metadata=\"https://api.example/m\"",
  "Bearer, ApiKey": "Bearer scope=\"call\", resource_metadata=\"https://api.example/m\", ApiKey realm=\"a\"",
  "ApiKey, Bearer": "ApiKey realm=\"a\", Bearer scope=\"call\", resource_metadata=\"https://api.example/m\"",
  "DPoP, Bearer": "DPoP algs=\"ES256\", Bearer scope=\"call\", resource_metadata=\"https://api.example/m\"",
  "a description": "Bearer error_description=\"use scope=tools for this\", scope=\"call\", resource_metadata=\"https://api.example/m\""
}
JSON
cat >seen.mjs <<'NODE'
import { readFileSync } from "node:fs";
import { extractWWWAuthenticateParams } from "@modelcontextprotocol/sdk/client/auth.js";
for (const [name, value] of Object.entries(JSON.parse(readFileSync("fields.json")))) {
    const answer = new Response("", { status: 401, headers: { "WWW-Authenticate": value } });
    const { resourceMetadataUrl, scope } = extractWWWAuthenticateParams(answer);
    console.log(`TypeScript, ${name}: ${resourceMetadataUrl?.href ?? "no metadata"}, scope ${scope ?? "unknown"}`);
}
NODE
cat >seen.py <<'PYTHON'
import json
import httpx
from mcp.client.auth.utils import extract_resource_metadata_from_www_auth, extract_scope_from_www_auth
for name, value in json.load(open("fields.json")).items():
    answer = httpx.Response(401, headers={"WWW-Authenticate": value})
    metadata, scope = extract_resource_metadata_from_www_auth(answer), extract_scope_from_www_auth(answer)
    print(f"Python, {name}: {metadata or 'no metadata'}, scope {scope or 'unknown'}")
PYTHON
{ node seen.mjs; venv/bin/python seen.py; } | tee seen
diff - seen <<'TEXT'
TypeScript, Bearer: https://api.example/m, scope call
TypeScript, Bearer, ApiKey: https://api.example/m, scope call
TypeScript, ApiKey, Bearer: no metadata, scope unknown
TypeScript, DPoP, Bearer: no metadata, scope unknown
TypeScript, a description: https://api.example/m, scope tools
Python, Bearer: https://api.example/m, scope call
Python, Bearer, ApiKey: https://api.example/m, scope call
Python, ApiKey, Bearer: https://api.example/m, scope call
Python, DPoP, Bearer: https://api.example/m, scope call
Python, a description: https://api.example/m, scope tools
TEXT
