// Makes DPoP proofs with the package `dpop`. Prints the thumbprint of a new key, then one proof for each line of input.
import { createInterface } from 'node:readline';
import { calculateThumbprint, generateKeyPair, generateProof } from 'dpop';

const pair = await generateKeyPair(process.argv[2]);
console.log(await calculateThumbprint(pair.publicKey));
for await (const line of createInterface({ input: process.stdin })) {
  const { method, url, nonce, token } = JSON.parse(line);
  console.log(await generateProof(pair, url, method, nonce ?? undefined, token));
}
