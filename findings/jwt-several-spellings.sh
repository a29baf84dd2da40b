#!/usr/bin/env bash
# A token has several spellings that all verify, so a list of tokens by their text or hash misses some of them.
#
# Version: jose 6.2.18 on Node 20.
#
# RFC 7515 section 2 defines base64url without padding, line breaks or white space, so that a token has one text.
#
# Seen: jwtVerify accepts a valid token with a blank, a line break or the right padding behind its signature. Whoever
# blocks leaked tokens, caches verdicts or detects replays by the token's text has to take the text from a stricter
# reader, or use `jti`.
#
# Portcullis refuses every spelling but one (malformed_token), and counts on that in its cache.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts jose@6.2.18)
cat >"$folder/ask.mjs" <<'NODE'
import { SignJWT, jwtVerify } from 'jose'
const key = new Uint8Array(32).fill(7)
const token = await new SignJWT({ sub: 'ada' }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime('1h').sign(key)
const ask = async (text) => {
  try {
    return (await jwtVerify(text, key)).payload.sub
  } catch (error) {
    return error.code
  }
}
const seen = {}
for (const [name, end] of [['as signed', ''], ['blank', ' '], ['line break', '\n'], ['padding', '='], ['letter', 'A']]) {
  seen[name] = await ask(token + end)
}
console.log('jose 6.2.18:', JSON.stringify(seen))
const expected = { 'as signed': 'ada', blank: 'ada', 'line break': 'ada', padding: 'ada', letter: seen.letter }
if (JSON.stringify(seen) !== JSON.stringify(expected) || seen.letter === 'ada') throw new Error('the behaviour has changed')
NODE
node "$folder/ask.mjs"
