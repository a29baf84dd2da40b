// Checks an assertion: assertion.mjs JWKS_URL ISSUER AUDIENCE [METHOD TARGET], with the assertion on standard input. Needs only
// Node 18.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const [jwksUrl, issuer, audience, method, target] = process.argv.slice(2);
const [header, claims, signature] = readFileSync(0, "utf8").trim().split(".");
const parsed = (part) => JSON.parse(Buffer.from(part, "base64url"));
const refuse = (why) => { console.error(why); process.exit(1); };

const { typ, alg, kid } = parsed(header);
if (typ !== "assertion+jwt") refuse("not an assertion");
// A service fetches the set once and caches it for five minutes. For an unknown kid it fetches the set again, at most that often.
const { keys } = await (await fetch(jwksUrl)).json();
const jwk = keys.find((key) => key.kid === kid && key.alg === alg);
if (!jwk) refuse("no such key");

// The key decides the algorithm, never the token.
const digest = { ES256: "sha256", EdDSA: null }[jwk.alg];
if (digest === undefined) refuse("not an algorithm of assertions");
const key = { key: createPublicKey({ key: jwk, format: "jwk" }), dsaEncoding: "ieee-p1363" };
if (!verify(digest, Buffer.from(`${header}.${claims}`), key, Buffer.from(signature, "base64url"))) refuse("bad signature");

const { iss, aud, iat, exp, ...rest } = parsed(claims);
const now = Date.now() / 1000;
if (iss !== issuer || aud !== audience) refuse("not for us");
if (!(exp + 5 > now && iat - 5 <= now)) refuse("too old, or not yet");
// With assertion_binds = true, the request that it came with: else one could be moved to another.
if (method && (rest.htm !== method || rest.htu !== target)) refuse("made for another request");
console.log(JSON.stringify({ iss, aud, iat, exp, ...rest }));
