// got, axios and undici: posts that are refused before their body is read. Prints a line for each.
import https from 'node:https';
import http2 from 'node:http2';
import axios from 'axios';
import got from 'got';
import { Agent, request } from 'undici';

process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
process.removeAllListeners('warning');
const url = process.argv[2];
const sizes = [1000, 60_000, 300_000, 3_000_000];

function gotWith(http2) {
  const client = got.extend({
    http2,
    https: { rejectUnauthorized: false },
    throwHttpErrors: false,
    retry: { limit: 0 },
    timeout: { request: 20_000 },
    agent: http2 ? undefined : { https: new https.Agent({ keepAlive: true, maxSockets: 1 }) },
  });
  return {
    post: async (path, body) => (await client.post(url + path, { body })).statusCode,
    get: async path => (await client.get(url + path)).statusCode,
  };
}

function axiosWith() {
  const client = axios.create({
    httpsAgent: new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false }),
    validateStatus: () => true,
    timeout: 20_000,
    maxBodyLength: Infinity,
    maxRedirects: 0,
  });
  return {
    post: async (path, body) => (await client.post(url + path, body)).status,
    get: async path => (await client.get(url + path)).status,
  };
}

function undiciWith(allowH2) {
  const dispatcher = new Agent({ allowH2, connections: 1, connect: { rejectUnauthorized: false } });
  const send = async (path, options) => {
    const answer = await request(url + path, { ...options, dispatcher });
    await answer.body.dump();
    return answer.statusCode;
  };
  return {
    post: (path, body) => send(path, { method: 'POST', body }),
    get: path => send(path, { method: 'GET' }),
  };
}

function nodeHttp2() {
  const session = http2.connect(url, { rejectUnauthorized: false });
  const send = (method, path, body) => new Promise((resolve, reject) => {
    const stream = session.request({ ':method': method, ':path': path });
    let status;
    stream.on('response', headers => { status = headers[':status']; });
    stream.on('error', reject);
    stream.on('close', () => resolve(status));
    stream.resume();
    stream.end(body);
  });
  return {
    post: (path, body) => send('POST', path, body),
    get: path => send('GET', path),
    close: () => session.close(),
  };
}

for (const [name, client] of [
  ['got http/1.1', gotWith(false)],
  ['got h2', gotWith(true)],
  ['axios http/1.1', axiosWith()],
  ['undici http/1.1', undiciWith(false)],
  ['undici h2', undiciWith(true)],
  ['node h2', nodeHttp2()],
]) {
  for (const size of sizes) {
    let said;
    let good = false;
    try {
      const refused = await client.post('/guarded', Buffer.alloc(size, 'x'));
      const served = await client.get('/open');
      said = `${refused} ${served}`;
      good = refused === 401 && served === 200;
    } catch (error) {
      said = `${error.code ?? ''} ${error.message}`;
      // got destroys a stream of HTTP/2 itself when an answer comes before its body is sent, whatever server it talks to.
      // Its connection must go on nevertheless.
      if (name === 'got h2' && error.message === 'The server aborted pending request') {
        good = (await client.get('/open')) === 200;
      }
    }
    console.log(`${name} ${size} ${said} ${good ? 'ok' : 'WRONG'}`);
  }
  client.close?.();
}
process.exit(0);
