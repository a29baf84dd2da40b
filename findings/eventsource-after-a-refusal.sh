#!/usr/bin/env bash
# After one refusal, an EventSource stays closed for good, and two popular replacements ask again at once and forever.
#
# Versions: eventsource 4.1.1 (npm, after the HTML standard), @microsoft/fetch-event-source 2.0.1, eventsource-client 1.2.0.
#
# A stream of events breaks, and the server answers the next request of the client with a refusal: 401 because the token
# has expired meanwhile, 429 because of a limit, 503 for a restart, each with `Retry-After: 30`.
#
# Expected: an EventSource connects again by itself, which is the reason to use it; after 401 it stops, and it waits as
# `Retry-After` says. Seen: the standard's EventSource asks once, and is then closed for good, after 429 and 503 too. Only a
# connection that breaks is repeated. fetch-event-source and eventsource-client ask again after each refusal, 401
# included, and without a pause other than that of the stream's last `retry:` (here 50 ms): ten and more requests
# within a second.
#
# Portcullis ends a stream with its token, so the next request gets 401: docs/websockets.md says what a page has to do.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts eventsource@4.1.1 @microsoft/fetch-event-source@2.0.1 eventsource-client@1.2.0
cat >seen.mjs <<'NODE'
import http from "node:http";
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";
import fetching from "@microsoft/fetch-event-source";

// fetch-event-source expects these two of a browser.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
console.warn = console.error = () => {};

let asked, refusal;
const server = http.createServer((_, answer) => {
    asked += 1;
    if (asked === 1) {
        answer.writeHead(200, { "Content-Type": "text/event-stream" });
        answer.write("retry: 50\ndata: first\n\n");
        setTimeout(() => answer.destroy(), 50);
    } else {
        answer.writeHead(refusal, { "Content-Type": "application/problem+json", "Retry-After": "30" });
        answer.end("{}");
    }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${server.address().port}/`;

// Each returns a function that ends the client.
const clients = {
    "eventsource": () => {
        const source = new EventSource(url);
        return () => { const state = source.readyState; source.close(); return state === EventSource.CLOSED; };
    },
    "eventsource-client": () => {
        const source = createEventSource({ url });
        return () => { const state = source.readyState; source.close(); return state === "closed"; };
    },
    "fetch-event-source": () => {
        const end = new AbortController();
        let isOver = false;
        fetching.fetchEventSource(url, { signal: end.signal, openWhenHidden: true }).then(() => { isOver = true; }, () => { isOver = true; });
        return () => { const state = isOver; end.abort(); return state; };
    },
};
let failed = false;
for (const [name, open] of Object.entries(clients)) {
    for (refusal of [401, 429, 503]) {
        asked = 0;
        const end = open();
        // Wait for ten refusals, at most for two seconds.
        for (let passed = 0; asked < 11 && passed < 2000; passed += 50) await new Promise((later) => setTimeout(later, 50));
        const isClosed = end();
        console.log(`${name}, ${refusal}: ${asked > 10 ? "ten and more requests" : `${asked - 1} request`}, ${isClosed ? "closed" : "still asking"}`);
        failed ||= name === "eventsource" ? asked !== 2 || !isClosed : asked <= 10 || isClosed;
    }
}
process.exit(failed ? 1 : 0);
NODE
node seen.mjs
