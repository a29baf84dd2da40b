// Checks a request's X-Auth-Signature with Node alone: signature.mjs, with a request as JSON on standard input.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

// Returns the proven identity by header name, or undefined. The keys of `headers` are in lower case.
function identity(method, target, headers, secret, now) {
  const [, made, list, tag] = /^v1;t=(\d+);h=([a-z0-9,_-]+);s=([\w-]{43})$/.exec(headers["x-auth-signature"] ?? "") ?? [];
  if (!tag || Math.abs(now - made) > 60) return undefined;
  const names = list.split(",");
  const lines = ["v1", made, method, target, ...names.map((name) => `${name}:${headers[name]}`)];
  const expected = createHmac("sha256", secret).update(lines.map((line) => line + "\n").join(""), "latin1").digest();
  if (!timingSafeEqual(expected, Buffer.from(tag, "base64url"))) return undefined;
  return Object.fromEntries(names.map((name) => [name, headers[name]])); // trust no other header
}

const { method, target, headers } = JSON.parse(readFileSync(0, "utf8"));
const proven = identity(method, target, headers, process.env.IDENTITY_SECRET, Date.now() / 1000);
if (!proven) { console.error("not proven"); process.exit(1); }
console.log(JSON.stringify(proven));
