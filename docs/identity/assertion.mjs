// Checks an assertion: assertion.mjs JWKS_URL ISSUER AUDIENCE, the assertion on standard input. Needs Node 18 alone.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const [jwksUrl, issuer, audience] = process.argv.slice(2);
const [header, claims, signature] = readFileSync(0, "utf8").trim().split(".");
const parsed = (part) => JSON.parse(Buffer.from(part, "base64url"));
const refuse = (why) => { console.error(why); process.exit(1); };

const { typ, alg, kid } = parsed(header);
if (typ !== "assertion+jwt") refuse("not an assertion");
// To be fetched once and kept for five minutes; and again, not more often than that, for a kid that is not in it.
const { keys } = await (await fetch(jwksUrl)).json();
const jwk = keys.find((key) => key.kid === kid && key.alg === alg);
if (!jwk) refuse("no such key");

// The key says which algorithm it is for, never the token.
const digest = { ES256: "sha256", EdDSA: null }[jwk.alg];
if (digest === undefined) refuse("not an algorithm of assertions");
const key = { key: createPublicKey({ key: jwk, format: "jwk" }), dsaEncoding: "ieee-p1363" };
if (!verify(digest, Buffer.from(`${header}.${claims}`), key, Buffer.from(signature, "base64url"))) refuse("bad signature");

const { iss, aud, iat, exp, ...rest } = parsed(claims);
const now = Date.now() / 1000;
if (iss !== issuer || aud !== audience) refuse("not for us");
if (!(exp + 5 > now && iat - 5 <= now)) refuse("too old, or not yet");
console.log(JSON.stringify({ iss, aud, iat, exp, ...rest }));
