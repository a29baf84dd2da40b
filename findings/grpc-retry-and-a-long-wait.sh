#!/usr/bin/env bash
# A gRPC client that repeats calls ignores Retry-After and RetryInfo, and hides a refusal with a long wait.
#
# Versions: grpcio 1.85.3, @grpc/grpc-js 1.14.7 (npm).
#
# A channel has a retry policy: three attempts after RESOURCE_EXHAUSTED, with a pause of 0.1 s. A server refuses a call because
# of a limit, and says how long to wait: in `retry-after` (RFC 9110), in the message google.rpc.RetryInfo of
# `grpc-status-details-bin`, which Google's guide for APIs names for this, or in `grpc-retry-pushback-ms` (gRFC A6).
#
# Expected: the clients wait that long before the next attempt, or return the refusal if it exceeds the call's deadline. Seen:
# they ignore `retry-after` and RetryInfo, and send three calls within half a second. They obey `grpc-retry-pushback-ms`,
# but also beyond the deadline: with 60000 and a deadline of 2 s, the call fails after 2 s with DEADLINE_EXCEEDED, and
# nobody sees that a limit was the reason. With -1 the refusal returns at once.
#
# Portcullis sends `grpc-retry-pushback-ms`: a wait of up to 5 s, and -1 for a longer one.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check grpcio==1.85.3 grpcio-status==1.85.3 googleapis-common-protos==1.76.0
npm install --silent --no-audit --no-fund --ignore-scripts @grpc/grpc-js@1.14.7
cat >seen.cjs <<'NODE'
const grpc = require("@grpc/grpc-js");
const [address, config] = process.argv.slice(2);
const same = (bytes) => bytes;
const client = new grpc.Client(address, grpc.credentials.createInsecure(), { "grpc.service_config": config });
client.makeUnaryRequest("/a.B/C", same, same, Buffer.alloc(0), { deadline: Date.now() + 2000 }, (error) => {
    console.log(grpc.status[error.code]);
    process.exit();
});
NODE
cat >seen.py <<'PYTHON'
import json, subprocess, time
from concurrent import futures
import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

CONFIG = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "0.2s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]})
details = any_pb2.Any()
details.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=60)))
details = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="limited", details=[details]).SerializeToString()
attempts = []

class Limited(grpc.GenericRpcHandler):
    def __init__(self, trailers):
        self.trailers = trailers

    def service(self, call):
        def refuse(request, context):
            attempts.append(time.monotonic())
            context.set_trailing_metadata(self.trailers)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "limited")
        return grpc.unary_unary_rpc_method_handler(refuse)

def python(address):
    channel = grpc.insecure_channel(address, options=[("grpc.service_config", CONFIG)])
    try:
        channel.unary_unary("/a.B/C")(b"", timeout=2)
    except grpc.RpcError as error:
        return error.code().name

def node(address):
    return subprocess.run(["node", "seen.cjs", address, CONFIG], capture_output=True, text=True, check=True).stdout.strip()

def ask(client, *trailers):
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Limited(trailers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    attempts.clear()
    status = client(f"127.0.0.1:{port}")
    server.stop(None)
    pauses = [after - before for before, after in zip(attempts, attempts[1:])]
    return status, len(attempts), "no pause" if not pauses else "short" if max(pauses) < 0.45 else f"{min(pauses):.1f} s"

CASES = {
    "nothing": [],
    "retry-after: 60": [("retry-after", "60")],
    "RetryInfo of 60 s": [("grpc-status-details-bin", details)],
    "pushback of 0.6 s": [("grpc-retry-pushback-ms", "600")],
    "pushback of 60 s": [("grpc-retry-pushback-ms", "60000")],
    "pushback -1": [("grpc-retry-pushback-ms", "-1")],
}
seen = {}
for name, trailers in CASES.items():
    seen[name] = [ask(client, *trailers) for client in (python, node)]
    print(f"{name:20}grpcio: {seen[name][0]}, grpc-js: {seen[name][1]}")
soon = ("RESOURCE_EXHAUSTED", 3, "short")
expected = {
    "nothing": soon, "retry-after: 60": soon, "RetryInfo of 60 s": soon,
    "pushback of 0.6 s": ("RESOURCE_EXHAUSTED", 3, "0.6 s"),
    "pushback of 60 s": ("DEADLINE_EXCEEDED", 1, "no pause"),
    "pushback -1": ("RESOURCE_EXHAUSTED", 1, "no pause"),
}
assert seen == {name: [result, result] for name, result in expected.items()}, "the behaviour has changed"
PYTHON
venv/bin/python seen.py
