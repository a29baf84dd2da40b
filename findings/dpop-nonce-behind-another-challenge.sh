#!/usr/bin/env bash
# Two DPoP clients do not find the demand for a nonce, unless the challenge for DPoP stands first.
#
# Versions: @atproto/oauth-client 0.6.1 (npm), requests_oauth2client 1.8.0 (PyPI); for comparison oauth4webapi 3.8.8 (npm).
#
# A resource server wants a nonce in the proof: 401, `DPoP-Nonce`, and the challenge `DPoP error="use_dpop_nonce"` (RFC 9449
# section 9). It also offers `Bearer`, in a field of its own. The order of challenges has no meaning (RFC 9110 section 11.6.1).
#
# Expected: the client repeats its request with the nonce. Seen: oauth4webapi reports the demand in both orders. The other two
# test whether the fields, joined by commas, begin with "DPoP". After `Bearer`, atproto returns the 401 to the application, as if
# the token were wrong, and so does requests_oauth2client. With DPoP first, both send a second request. A client of MCP needs the
# opposite order (mcp-client-and-several-challenges.sh).
#
# Portcullis sends the challenge for DPoP alone, if it wants a nonce.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check requests_oauth2client==1.8.0 requests==2.34.2
npm install --silent --no-audit --no-fund --ignore-scripts @atproto/oauth-client@0.6.1 oauth4webapi@3.8.8 jose@6.2.18
cat >seen.py <<'PYTHON'
import sys

import requests
from requests_oauth2client import DPoPKey, DPoPToken

token = DPoPToken(access_token="token", token_type="DPoP", _dpop_key=DPoPKey.generate("ES256"))
print(requests.get(sys.argv[1], auth=token, timeout=10).status_code)
PYTHON
cat >seen.mjs <<'NODE'
import { execFile } from "node:child_process";
import http from "node:http";
import { createRequire } from "node:module";
import { promisify } from "node:util";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import * as oauth from "oauth4webapi";

const require = createRequire(import.meta.url);
const { dpopFetchWrapper } = require("./node_modules/@atproto/oauth-client/dist/fetch-dpop.js");
const run = promisify(execFile);

const DPOP = 'DPoP algs="ES256", error="use_dpop_nonce", error_description="a nonce is required"';
const BEARER = 'Bearer realm="seen"';

const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
const jwk = await exportJWK(publicKey);
const key = {
    algorithms: ["ES256"],
    bareJwk: jwk,
    createJwt: (head, claims) => new SignJWT(claims).setProtectedHeader(head).sign(privateKey),
};
const remembered = () => {
    const nonces = new Map();
    return { get: async (origin) => nonces.get(origin), set: async (origin, nonce) => void nonces.set(origin, nonce) };
};

async function oauth4webapi(url) {
    const client = { client_id: "seen" };
    const DPoP = oauth.DPoP(client, { privateKey, publicKey });
    const ask = () => oauth.protectedResourceRequest("token", "GET", new URL(url), undefined, undefined, {
        DPoP, [oauth.allowInsecureRequests]: true,
    });
    try {
        return (await ask()).status;
    } catch (error) {
        return oauth.isDPoPNonceError(error) ? (await ask()).status : error.message;
    }
}
const CLIENTS = {
    oauth4webapi,
    atproto: async (url) => {
        const ask = dpopFetchWrapper({ key, supportedAlgs: ["ES256"], nonces: remembered(), isAuthServer: false });
        return (await ask(url, { headers: { authorization: "DPoP token" } })).status;
    },
    requests_oauth2client: async (url) => Number((await run("venv/bin/python", ["seen.py", url])).stdout),
};

const seen = {};
for (const [order, challenges] of [["DPoP first", [DPOP, BEARER]], ["Bearer first", [BEARER, DPOP]]]) {
    for (const [name, ask] of Object.entries(CLIENTS)) {
        let requests = 0;
        const server = http.createServer((request, response) => {
            requests += 1;
            const [, claims] = request.headers.dpop.split(".");
            const { nonce } = JSON.parse(Buffer.from(claims, "base64url"));
            if (nonce === "fresh") return response.end();
            response.writeHead(401, { "WWW-Authenticate": challenges, "DPoP-Nonce": "fresh" }).end();
        });
        await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
        const status = await ask(`http://127.0.0.1:${server.address().port}/`);
        server.closeAllConnections();
        server.close();
        seen[`${name}, ${order}`] = `${status} after ${requests}`;
        console.log(`${name}, ${order}: status ${status} after ${requests} request(s)`);
    }
}
const found = Object.keys(CLIENTS).every((name) => seen[`${name}, DPoP first`] === "200 after 2");
const missed = ["atproto", "requests_oauth2client"].every((name) => seen[`${name}, Bearer first`] === "401 after 1");
process.exit(found && missed && seen["oauth4webapi, Bearer first"] === "200 after 2" ? 0 : 1);
NODE
node seen.mjs
