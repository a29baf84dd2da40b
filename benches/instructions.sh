#!/usr/bin/env bash
# Counts the gateway's user-space instructions per keep-alive request, with an upstream behind it.
#
#   cargo build --release && benches/instructions.sh [BINARY]    # prints the counts
#   benches/instructions.sh --check [BINARY]                     # compares them with the recorded counts
#   benches/instructions.sh --record [BINARY]                    # records them
#
# The counts of target/debug/portcullis are recorded in benches/instructions-debug.txt: a change to the hot path shows in them
# without a release build. All other builds are compared with benches/instructions.txt.
#
# Needs valgrind, h2load (nghttp2-client) and nginx. For each scenario, the gateway runs under callgrind twice, with few and with
# many requests. Only the difference counts, so start and stop do not. The kernel's work is not counted.
# valgrind hides the processor's SHA instructions, so the SHA-256 of a token would count for about 23,000. A connection computes
# it once for a token that it repeats, as each connection here does.
#
# Two runs of one build differ by less than one in a thousand, and of a debug build by up to 2.5 %, because its timers fire more
# often per request on a busy machine. `--check` fails if a count is more than 3 % above the recorded one (5 % for a debug build),
# twice in a row. It compares nothing if the compiler or the processor's instruction set is another, because the counts depend on
# both.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
mode=print
case "${1:-}" in --check | --record) mode=${1#--}; shift ;; esac
binary=$(realpath "${1:-target/release/portcullis}")
baseline=$here/instructions.txt few=2000 many=6000 clients=8 streams=4 tolerance=3
case "$binary" in */debug/portcullis) baseline=$here/instructions-debug.txt few=300 many=1100 clients=1 streams=1 tolerance=5 ;; esac

machine="$(rustc --version | cut -d' ' -f2), $(uname -m)$(grep -qm1 avx2 /proc/cpuinfo && echo ' with AVX2')"
if [ $mode = check ] && [ "$(sed -n 's/^# //p' "$baseline")" != "$machine" ]; then
    echo "not compared: this is $machine, and the recorded counts are of $(sed -n 's/^# //p' "$baseline")"
    exit 0
fi

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"

# Prints a port that nothing listens on.
free_port() {
    local port
    # A connection to a listener whose queue is full waits.
    while port=$((20000 + RANDOM % 12000)); timeout 1 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null; do :; done
    echo $port
}
upstream=$(free_port)
cat >nginx.conf <<NGINX
daemon off; pid nginx.pid; error_log stderr error;
events {}
http {
    access_log off; keepalive_requests 1000000;
    server { listen 127.0.0.1:$upstream; location / { return 200 "an answer\n"; } }
}
NGINX
cat >gateway.toml <<TOML
[server]
http    = "127.0.0.1:0"
https   = ""
admin   = ""
plain   = "serve"
workers = 1

[log]
format = "json"
access = "off"

[authority]
issuer    = "https://localhost"
audience  = ["measure"]
algorithm = "RS256"

[rate_limit.callers]
by   = "subject"
rate = "1000000/s"

[upstream.app]
servers = ["http://127.0.0.1:$upstream"]

[[route]]
path        = "/orders/{id}"
upstream    = "app"
roles       = ["clerk"]
rate_limits = ["callers"]

[[route]]
path     = "/public/{id}"
upstream = "app"
access   = "public"
TOML
token=$("$binary" token mint --sub ada --role clerk)
forged=${token%????????}AAAAAAAA
PATH=$PATH:/usr/sbin nginx -p "$folder" -c nginx.conf &

# run NUMBER STATUS ARGUMENT... PATH: prints the instructions of a run with this many requests.
run() {
    rm -f log
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" run --config gateway.toml >log 2>&1 &
    local gateway=$!
    until grep -qs '"message":"ready"' log; do kill -0 $gateway || { cat log >&2; exit 1; }; sleep 0.1; done
    local address
    address=$(sed -nE 's/.*"message":"ready".*"http":"([^"]+)".*/\1/p' log)
    h2load -c $clients -n "$1" "${@:3:$#-3}" "http://$address${*: -1}" >load
    grep -qE "$1 $2(,|$)" load || { cat load >&2; exit 1; }
    kill -TERM $gateway
    wait $gateway || true
    sed -nE 's/^==[0-9]+== Collected : ([0-9]+).*/\1/p' log
}

# count STATUS ARGUMENT... PATH: prints the instructions per request.
count() {
    local start all
    start=$(run $few "$@")
    all=$(run $many "$@")
    echo $(((all - start) / (many - few)))
}

# Whether a count is too high for the scenario.
grew() {
    local known
    known=$(sed -n "s/^$1 //p" "$baseline")
    (($2 * 100 > ${known:-0} * (100 + tolerance)))
}

counts=()
# scenario NAME STATUS ARGUMENT... PATH
scenario() {
    local found
    found=$(count "${@:2}")
    if [ $mode = check ] && grew "$1" "$found"; then
        echo "$1 $found: once more"
        found=$(count "${@:2}")
    fi
    counts+=("$1 $found")
    echo "${counts[-1]}"
}
scenario token 2xx --h1 -H "Authorization: Bearer $token" /orders/7
scenario token-http2 2xx -m $streams -H "Authorization: Bearer $token" /orders/7
scenario public 2xx --h1 /public/7
scenario forged 4xx --h1 -H "Authorization: Bearer $forged" /orders/7

case $mode in
record) printf '%s\n' "# $machine" "${counts[@]}" >"$baseline" ;;
check)
    failed=0
    for count in "${counts[@]}"; do
        read -r name found <<<"$count"
        known=$(sed -n "s/^$name //p" "$baseline")
        if grew "$name" "$found"; then
            echo "$name: $found instructions a request, more than $tolerance % above the recorded $known"
            failed=1
        elif ((found * 100 < known * (100 - tolerance))); then
            echo "$name: $found instructions a request, less than the recorded $known: record it (benches/instructions.sh --record)"
        fi
    done
    exit $failed ;;
esac
