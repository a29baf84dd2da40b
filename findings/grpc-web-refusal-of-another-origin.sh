#!/usr/bin/env bash
# A gRPC-Web client on a page of another origin takes a refusal for a broken answer, unless CORS exposes `grpc-status`.
#
# Versions: grpc-web 2.1.1, @connectrpc/connect-web 2.3.0 (npm).
#
# A server refuses a call with a trailers-only answer: status 200, `grpc-status: 16` in the head, and no body. CORS allows
# the page's origin, so the script gets the answer and its status.
#
# Expected: status 16, UNAUTHENTICATED, as for a page of the same origin.
# Seen: to the browser, `grpc-status` is a field like any other and not on the list of fields that every script may read
# (Fetch Standard, section 2.2.2). Without `Access-Control-Expose-Headers: grpc-status, grpc-message` the clients report
# status 2, UNKNOWN, with "Incomplete response" and "missing trailer". A page that logs in again after 16 never does. Answers
# with messages have their status in the body, so only refusals fail, and only in browsers. (The script hides the fields as
# a browser does.)
#
# Portcullis exposes both fields of its own answers.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps grpc-web@2.1.1 xhr2@0.2.1 \
    @connectrpc/connect-web@2.3.0 @connectrpc/connect@2.3.0 @bufbuild/protobuf@2.17.0
cat >seen.mjs <<'NODE'
import http from "node:http";
import { createRequire } from "node:module";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { create, toBinary } from "@bufbuild/protobuf";
import { fileDesc, serviceDesc } from "@bufbuild/protobuf/codegenv2";
import { FileDescriptorProtoSchema, file_google_protobuf_empty } from "@bufbuild/protobuf/wkt";

const server = http.createServer((request, answer) => {
    request.resume().on("end", () => {
        answer.writeHead(200, { "Content-Type": "application/grpc-web", "grpc-status": "16", "grpc-message": "expired_token" });
        answer.end();
    });
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${server.address().port}`;

// The page may read only the fields of the standard's list, of which this answer has these.
let isShown;
const mayRead = (name) => isShown || ["content-type", "content-length"].includes(name.toLowerCase());

const require = createRequire(import.meta.url);
const Plain = require("xhr2");
globalThis.XMLHttpRequest = class extends Plain {
    getResponseHeader(name) { return mayRead(name) ? super.getResponseHeader(name) : null; }
    getAllResponseHeaders() {
        return super.getAllResponseHeaders().split("\r\n").filter((line) => mayRead(line.split(":")[0])).join("\r\n");
    }
};
const { GrpcWebClientBase, MethodDescriptor } = require("grpc-web");
const method = new MethodDescriptor("/a.S/Do", "unary", Object, Object, () => new Uint8Array(), (bytes) => bytes);
const byGrpcWeb = () => new Promise((done) => {
    new GrpcWebClientBase({ format: "binary" }).rpcCall(`${url}/a.S/Do`, {}, {}, method, (error) => done(`${error.code}, ${error.message}`));
});

const file = create(FileDescriptorProtoSchema, {
    name: "a.proto", package: "a", syntax: "proto3", dependency: ["google/protobuf/empty.proto"],
    service: [{ name: "S", method: [{ name: "Do", inputType: ".google.protobuf.Empty", outputType: ".google.protobuf.Empty" }] }],
});
const encoded = Buffer.from(toBinary(FileDescriptorProtoSchema, file)).toString("base64");
const service = serviceDesc(fileDesc(encoded, [file_google_protobuf_empty]), 0);
const asPage = async (...request) => {
    const answer = await fetch(...request);
    const headers = [...answer.headers].filter(([name]) => mayRead(name));
    return new Response(answer.body, { status: answer.status, headers });
};
const byConnect = async () => {
    try {
        await createClient(service, createGrpcWebTransport({ baseUrl: url, fetch: asPage })).do({});
    } catch (error) {
        const { code, rawMessage } = ConnectError.from(error);
        return `${code}, ${rawMessage}`;
    }
};

const seen = [];
for (isShown of [true, false]) {
    seen.push(`${isShown ? "exposed" : "hidden"}: grpc-web ${await byGrpcWeb()}; connect-web ${await byConnect()}`);
}
console.log(seen.join("\n"));
const expected = ["exposed: grpc-web 16, expired_token; connect-web 16, expired_token",
    "hidden: grpc-web 2, Incomplete response; connect-web 2, missing trailer"];
process.exit(seen.join() === expected.join() && Code.Unauthenticated === 16 ? 0 : 1);
NODE
node seen.mjs
