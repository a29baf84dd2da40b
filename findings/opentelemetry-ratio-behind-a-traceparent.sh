#!/usr/bin/env bash
# A service that samples one trace in a hundred records all of them, once a proxy in front begins the traces.
#
# Versions: opentelemetry-sdk 1.45.2 (PyPI), @opentelemetry/sdk-trace-base 2.12.1 (npm).
#
# A service sets OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG=0.01, the usual way to keep the cost of
# traces down. Then a proxy or gateway in front adds `traceparent` to requests without one, with the flag "sampled", or
# without it because it records no trace itself. Both are valid (W3C Trace Context, section 3.2.2.5).
#
# Expected: the service records about one request in a hundred, as before. Seen: the ratio holds only for traces that the
# service begins. With the flag, it records every request, a hundred times as many; without it, none at all. Nothing in
# its own configuration has changed. `traceidratio` alone, which does not read the flag, records one in a hundred of all
# three.
#
# Portcullis begins traces with the flag. docs/monitoring.md says so, and names the sampler.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2 opentelemetry-api==1.45.2
npm install --silent --no-audit --no-fund --ignore-scripts @opentelemetry/sdk-trace-base@2.12.1 @opentelemetry/core@2.12.1 \
    @opentelemetry/api@1.9.0
cat >seen.cjs <<'NODE'
const { ROOT_CONTEXT, defaultTextMapGetter, trace } = require("@opentelemetry/api");
const { W3CTraceContextPropagator } = require("@opentelemetry/core");
const { BasicTracerProvider } = require("@opentelemetry/sdk-trace-base");
const fields = require("node:fs").readFileSync(0, "utf8");
const tracer = new BasicTracerProvider().getTracer("seen");
const recorded = JSON.parse(fields).filter((carrier) => {
    const parent = new W3CTraceContextPropagator().extract(ROOT_CONTEXT, carrier, defaultTextMapGetter);
    return tracer.startSpan("request", {}, parent).isRecording();
});
console.log(recorded.length);
NODE
cat >seen.py <<'PYTHON'
import json, secrets, subprocess
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

COUNT = 2000

def python(carriers):
    tracer = TracerProvider().get_tracer("seen")
    parents = (TraceContextTextMapPropagator().extract(carrier) for carrier in carriers)
    return sum(tracer.start_span("request", parent).is_recording() for parent in parents)

def node(carriers):
    return int(subprocess.run(["node", "seen.cjs"], input=json.dumps(carriers), capture_output=True, text=True, check=True).stdout)

def begun(flags):
    return [{"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}"} for _ in range(COUNT)]

for client in (python, node):
    counts = [client(carriers) for carriers in ([{}] * COUNT, begun("01"), begun("00"))]
    # About twenty are expected; fewer than one or more than sixty are practically impossible.
    words = ["all" if count == COUNT else "none" if count == 0 else "a few" if count <= 60 else str(count) for count in counts]
    print(f"{client.__name__}: own traces: {words[0]}; sampled: {words[1]}; not sampled: {words[2]}")
PYTHON
ask() { OTEL_TRACES_SAMPLER=$1 OTEL_TRACES_SAMPLER_ARG=0.01 venv/bin/python seen.py; }
seen=$(for sampler in parentbased_traceidratio traceidratio; do echo "$sampler"; ask $sampler; done)
echo "$seen"
[ "$seen" = "parentbased_traceidratio
python: own traces: a few; sampled: all; not sampled: none
node: own traces: a few; sampled: all; not sampled: none
traceidratio
python: own traces: a few; sampled: a few; not sampled: a few
node: own traces: a few; sampled: a few; not sampled: a few" ] || { echo "the behaviour has changed"; exit 1; }
