// Verifies tokens with the library `jose`: reads {"issuers": {NAME: {jwks, algorithms}}, "cases": [{issuer, token}]} from
// standard input, and prints a line for each token: "ok", or why it is refused.
import { createLocalJWKSet, jwtVerify } from 'jose'
import { readFileSync } from 'node:fs'

const { issuers, cases } = JSON.parse(readFileSync(0, 'utf8'))
const sets = Object.fromEntries(Object.entries(issuers).map(([name, one]) => [name, createLocalJWKSet(one.jwks)]))
for (const { issuer, token } of cases) {
  const options = {
    issuer,
    audience: 'orders',
    algorithms: issuers[issuer].algorithms,
    clockTolerance: 30,
    requiredClaims: ['exp', 'sub'],
  }
  // A secret is a key of its own here: jose keeps secrets out of key sets.
  const secret = (header) => {
    const found = issuers[issuer].jwks.keys.filter((key) => key.kty === 'oct' && key.alg === header.alg)
    const named = found.filter((key) => header.kid === undefined || key.kid === header.kid)
    if (named.length !== 1) throw new Error('no such key')
    return Buffer.from(named[0].k, 'base64url')
  }
  const keys = issuers[issuer].jwks.keys[0].kty === 'oct' ? secret : sets[issuer]
  try {
    await jwtVerify(token, keys, options)
    console.log('ok')
  } catch (error) {
    console.log(String(error.code ?? error.message).replace(/\s+/g, ' '))
  }
}
