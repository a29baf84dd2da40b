#!/usr/bin/env bash
# Counts the gateway's user-space instructions per authenticated keep-alive request, with an upstream behind it.
#
#   cargo build --release && benches/instructions.sh [BINARY]
#
# Needs valgrind, h2load (nghttp2-client) and nginx. Runs the gateway under callgrind twice, with 2,000 and with 6,000 requests, and
# divides the difference by 4,000, so that start and stop do not count. The kernel's work is not counted. Compare two builds by
# their numbers on one machine: two runs of one build differ by less than one in a thousand on a quiet machine.
set -euo pipefail
binary=$(realpath "${1:-target/release/portcullis}")
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
cat >nginx.conf <<'NGINX'
daemon off; pid nginx.pid; error_log stderr error;
events {}
http {
    access_log off; keepalive_requests 1000000;
    server { listen 127.0.0.1:19071; location / { return 200 "an answer\n"; } }
}
NGINX
cat >gateway.toml <<'TOML'
[server]
http    = "127.0.0.1:19070"
https   = ""
admin   = ""
plain   = "serve"
workers = 1

[log]
access = "off"

[authority]
issuer   = "https://localhost"
audience = ["measure"]

[rate_limit.callers]
by   = "subject"
rate = "1000000/s"

[upstream.app]
servers = ["http://127.0.0.1:19071"]

[[route]]
path        = "/orders/{id}"
upstream    = "app"
roles       = ["clerk"]
rate_limits = ["callers"]
TOML
token=$("$binary" token mint --sub ada --role clerk)
PATH=$PATH:/usr/sbin nginx -p "$folder" -c nginx.conf &

# Prints the instructions of a run with this many requests.
run() {
    rm -f log
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" run --config gateway.toml >log 2>&1 &
    local gateway=$!
    until grep -qs '"message":"ready"' log; do kill -0 $gateway || { cat log >&2; exit 1; }; sleep 0.1; done
    h2load --h1 -c 1 -n "$1" -H "Authorization: Bearer $token" http://127.0.0.1:19070/orders/7 >load
    grep -q "$1 2xx" load || { cat load >&2; exit 1; }
    kill -TERM $gateway
    wait $gateway || true
    sed -nE 's/^==[0-9]+== Collected : ([0-9]+).*/\1/p' log
}
few=$(run 2000)
many=$(run 6000)
echo "$(((many - few) / 4000)) instructions a request"
