#!/usr/bin/env bash
# A Node.js service answers 400 to each request of Java's HTTP client, once it also serves WebSockets.
#
# Versions: ws 8.23.0 (npm) with the system's Node.js and JDK (seen with 20.20.2 and OpenJDK 17.0.15), java.net.http.HttpClient;
# the system's curl (seen with 7.88).
#
# A service listens in cleartext behind a proxy or in a cluster. It adds a `WebSocketServer` for one path of its HTTP server.
#
# Expected: requests to other paths are served as before. Seen: by default, Java's client offers HTTP/2 with each request in
# cleartext (`Connection: Upgrade, HTTP2-Settings`, `Upgrade: h2c`), as `curl --http2` does. RFC 9110 section 7.8: a server may
# ignore the offer. Node.js ignores it while nobody listens for upgrades. With a WebSocketServer it passes every such request to
# that one, which answers 400 "Invalid Upgrade header" to a GET and 405 to a POST, whatever the path. The application sees
# nothing. Requests without the offer, over TLS, or with `version(HTTP_1_1)` succeed.
#
# Portcullis forwards such a request without the offer (docs/websockets.md), and the files of docs/forward-auth for nginx do the same.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts ws@8.23.0
cat >Seen.java <<'JAVA'
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

class Seen {
    public static void main(String[] arguments) throws Exception {
        var url = URI.create(arguments[0]);
        var post = HttpRequest.newBuilder(url).POST(HttpRequest.BodyPublishers.ofString("order"));
        for (var version : new HttpClient.Version[] { HttpClient.Version.HTTP_2, HttpClient.Version.HTTP_1_1 }) {
            var client = HttpClient.newBuilder().version(version).build();
            var get = HttpRequest.newBuilder(url);
            System.out.print(client.send(get.build(), BodyHandlers.ofString()).statusCode() + " ");
            System.out.print(client.send(post.build(), BodyHandlers.ofString()).statusCode() + " ");
        }
    }
}
JAVA
cat >seen.mjs <<'NODE'
import { execFile } from "node:child_process";
import http from "node:http";
import { promisify } from "node:util";
import { WebSocketServer } from "ws";

const run = promisify(execFile);

/** Returns the statuses of Java's client as it is, then with HTTP/1.1, each for GET and POST, and those of curl. */
async function statuses(withWebSockets) {
    const server = http.createServer((request, response) => response.end("served"));
    if (withWebSockets) new WebSocketServer({ server, path: "/chat" });
    await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
    const url = `http://127.0.0.1:${server.address().port}/orders`;
    const java = await run("java", ["Seen.java", url]);
    const curl = await run("curl", ["--silent", "--http2", "--output", "/dev/null", "--write-out", "%{http_code}", url]);
    server.closeAllConnections();
    server.close();
    return java.stdout + curl.stdout;
}

const [alone, both] = [await statuses(false), await statuses(true)];
console.log(`HTTP alone:      ${alone}`);
console.log(`with WebSockets: ${both}`);
process.exit(alone === "200 200 200 200 200" && both === "400 405 200 200 400" ? 0 : 1);
NODE
node seen.mjs
