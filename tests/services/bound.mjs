// A service that gets and uses bound tokens through oauth4webapi: bound.mjs GATEWAY ID SECRET

import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';

const [gateway, id, secret] = process.argv.slice(2);
const plain = { [oauth.allowInsecureRequests]: true };
const document = await (await fetch(`${gateway}/.well-known/oauth-authorization-server`)).json();
// The metadata has URLs of the issuer, by which the gateway under test is not reached.
const here = (url) => gateway + new URL(url).pathname;
const issuer = {
  ...document,
  token_endpoint: here(document.token_endpoint),
  introspection_endpoint: here(document.introspection_endpoint),
};
const client = { client_id: id };
const authentication = oauth.ClientSecretBasic(secret);

for (const algorithm of ['ES256', 'Ed25519', 'PS256', 'RS256']) {
  assert(document.dpop_signing_alg_values_supported.includes(algorithm), algorithm);
  const DPoP = oauth.DPoP(client, await oauth.generateKeyPair(algorithm));
  let nonces = 0;
  // Repeats a request for which the gateway requires a nonce. The library remembers the nonce.
  const send = async (ask) => {
    try {
      return await ask();
    } catch (error) {
      assert(oauth.isDPoPNonceError(error), error);
      nonces += 1;
      return ask();
    }
  };
  const token = await send(async () => {
    const answer = await oauth.clientCredentialsGrantRequest(
      issuer, client, authentication, { scope: 'orders:read' }, { DPoP, ...plain },
    );
    return oauth.processClientCredentialsResponse(issuer, client, answer);
  });
  assert.equal(token.token_type, 'dpop');
  assert.equal(nonces, 1);
  const orders = new URL(`${gateway}/orders`);
  for (let count = 0; count < 3; count += 1) {
    const read = await send(() => oauth.protectedResourceRequest(
      token.access_token, 'GET', orders, undefined, undefined, { DPoP, ...plain },
    ));
    assert.equal(read.status, 200);
  }
  assert.equal(nonces, 1, 'each answer carries the next nonce');

  const asked = await oauth.introspectionRequest(issuer, client, authentication, token.access_token, plain);
  const reported = await oauth.processIntrospectionResponse(issuer, client, asked);
  assert.equal(reported.token_type, 'DPoP');
  assert.equal(reported.cnf.jkt, await DPoP.calculateThumbprint());

  // Another client's key, with the same token.
  const other = oauth.DPoP(client, await oauth.generateKeyPair(algorithm));
  const stolen = () => oauth.protectedResourceRequest(
    token.access_token, 'GET', orders, undefined, undefined, { DPoP: other, ...plain },
  );
  await assert.rejects(() => send(stolen), (error) => {
    assert.equal(error.cause[0].scheme, 'dpop');
    assert.equal(error.cause[0].parameters.error, 'invalid_dpop_proof');
    return true;
  });
}
