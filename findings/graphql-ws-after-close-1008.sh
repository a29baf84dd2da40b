#!/usr/bin/env bash
# A GraphQL subscription ends for good after the close code 1008, whatever `shouldRetry` says.
#
# Versions: graphql-ws 6.4.2 with ws 8.23.0 (npm).
#
# A proxy or service closes the WebSocket of a client whose token has expired, with 1008, the usual code for this. RFC 6455
# section 7.4.1: 1008 is the generic code where no other one is more suitable. The client has a new token at hand.
#
# Expected: the client connects again, as after 1006, 1001 or 1012, and at the latest with `shouldRetry: () => true`. Seen: it
# counts 1008 and 1011 among the errors of the protocol, does not ask `shouldRetry`, and passes the close event as an error to
# each subscription, which then receives nothing more. The same holds for 4401, by which its own server refuses a client. After
# 3000, which IANA's registry has as "Unauthorized", it connects again and subscribes anew.
#
# Portcullis closes with 3000 if the token has expired, and with 1008 if it was revoked.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts graphql-ws@6.4.2 ws@8.23.0 graphql@16.15.0
cat >seen.mjs <<'NODE'
import { createClient } from "graphql-ws";
import { WebSocket, WebSocketServer } from "ws";

/** Closes the first connection after its first message. Returns what a subscription receives. */
async function subscribe(code) {
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "graphql-transport-ws" });
    await new Promise((listening) => server.on("listening", listening));
    let connections = 0;
    server.on("connection", (socket) => {
        const number = ++connections;
        socket.on("message", (text) => {
            const { type, id } = JSON.parse(text);
            if (type === "connection_init") socket.send(JSON.stringify({ type: "connection_ack" }));
            if (type !== "subscribe") return;
            socket.send(JSON.stringify({ id, type: "next", payload: { data: { number } } }));
            if (number === 1) socket.close(code, "token_expired");
        });
    });
    const client = createClient({
        url: `ws://127.0.0.1:${server.address().port}`,
        webSocketImpl: WebSocket,
        retryWait: async () => {},
        shouldRetry: () => true,
    });
    const seen = [];
    await new Promise((done) => client.subscribe({ query: "subscription { number }" }, {
        next: ({ data }) => seen.push(data.number) === 2 && done(),
        error: (error) => done(seen.push(`error ${error.code}`)),
        complete: done,
    }));
    client.dispose();
    for (const socket of server.clients) socket.terminate();
    server.close();
    console.log(`after ${code}: ${seen.join(", ")}`);
    return seen.join();
}

const seen = {};
for (const code of [1001, 1008, 1011, 1012, 1013, 3000, 4401]) seen[code] = await subscribe(code);
const again = [1001, 1012, 1013, 3000].every((code) => seen[code] === "1,2");
const end = [1008, 1011, 4401].every((code) => seen[code] === `1,error ${code}`);
process.exit(again && end ? 0 : 1);
NODE
node seen.mjs
