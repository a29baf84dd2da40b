#!/usr/bin/env bash
# Builds the gateway with profile-guided optimization: target/pgo/portcullis.
#
#   benches/pgo.sh
#
# The script builds an instrumented gateway, drives it with the mix of requests below, and builds the gateway again with the
# profile. The instrumented build and the final build take as long as two builds with `cargo build --release`.
#
# Needs the compiler's own llvm-profdata (`rustup component add llvm-tools`), and curl, h2load (nghttp2-client) and nginx for the
# mix.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "pgo.sh: $*" >&2; exit 1; }
for program in curl h2load nginx; do
    PATH=$PATH:/usr/sbin command -v $program >/dev/null || fail "$program is missing (Debian: apt-get install curl nghttp2-client nginx)"
done
host=$(rustc --version --verbose | sed -n 's/^host: //p')
# Another LLVM's llvm-profdata may not read the profiles of this compiler.
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools || fail "llvm-profdata is missing: rustup component add llvm-tools"

out=$(realpath -m "${CARGO_TARGET_DIR:-target}/pgo")
rm -rf "$out/profiles" "$out/merged.profdata"
mkdir -p "$out/profiles"

# `--target` keeps the flags away from build scripts and procedural macros.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --release --locked --bin portcullis --target "$host" --target-dir "$out/$2"
}
build "-Cprofile-generate=$out/profiles" instrumented
binary=$out/instrumented/$host/release/portcullis

folder=$(mktemp -d)
cleanup() { kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"; }
trap cleanup EXIT

# Prints a port that nothing listens on.
free_port() {
    local port
    # A connection to a listener whose queue is full waits.
    while port=$((20000 + RANDOM % 12000)); timeout 1 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null; do :; done
    echo $port
}
upstream=$(free_port)
cd "$folder"
mkdir files
head -c 1048576 /dev/zero | tr '\0' 'm' >files/large
head -c 16384 /dev/zero | tr '\0' 'm' >files/medium
cat >nginx.conf <<NGINX
daemon off; pid nginx.pid; error_log stderr error; worker_processes 1; $([ "$(id -u)" -ne 0 ] || echo 'user root;')
events {}
http {
    access_log off; keepalive_requests 1000000; client_max_body_size 8m;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {
        listen 127.0.0.1:$upstream;
        location / { return 200 "an answer of an application, about a hundred bytes long, as JSON interfaces send it all day long\n"; }
        location /files/ { root $folder; }
        # Reads the whole body of the request before it answers.
        location /upload { proxy_pass http://127.0.0.1:$upstream/; }
    }
}
NGINX
cat >gateway.toml <<TOML
[server]
http     = "127.0.0.1:0"
https    = "127.0.0.1:0"
admin    = ""
plain    = "serve"
bounds   = { body_size = "8MiB" }
workers  = 1

[log]
format = "json"

[authority]
issuer    = "https://localhost"
audience  = ["train"]
algorithm = "RS256"

[rate_limit.callers]
by   = "subject"
rate = "1000000/s"

[rate_limit.addresses]
by   = "client_ip"
rate = "1000000/s"

[upstream.app]
servers = ["http://127.0.0.1:$upstream"]

[[route]]
path        = "/orders/{id}"
upstream    = "app"
roles       = ["clerk"]
scopes      = ["orders:read"]
rate_limits = ["callers", "addresses"]

[[route]]
path        = "/public/{*rest}"
upstream    = "app"
access      = "public"
rate_limits = ["addresses"]

[[route]]
path     = "/files/{*rest}"
upstream = "app"

[[route]]
path     = "/upload"
methods  = ["POST"]
upstream = "app"
TOML

export LLVM_PROFILE_FILE="$folder/commands-%p.profraw"
printf 'correct horse battery staple\n' | "$binary" user add ada --role clerk --password-stdin >/dev/null
token() { "$binary" token mint --sub "$1" --role clerk --scope orders:read "${@:2}"; }
good=$(token ada)
expired=$(token ada --expires-in 1s)
weak=$("$binary" token mint --sub eve)
for n in $(seq 200); do token "caller-$n"; done >tokens
export -n LLVM_PROFILE_FILE

PATH=$PATH:/usr/sbin nginx -p "$folder" -c nginx.conf &
LLVM_PROFILE_FILE="$out/profiles/%p.profraw" "$binary" run --config gateway.toml >log 2>&1 &
gateway=$!
for _ in $(seq 600); do
    grep -qs '"message":"ready"' log && break
    kill -0 $gateway 2>/dev/null || { cat log >&2; fail "the instrumented gateway does not start"; }
    sleep 0.1
done
address() { sed -nE "s/.*\"message\":\"ready\".*\"$1\":\"([^\"]+)\".*/\1/p" log; }
http=http://$(address http)
https=https://$(address https)

# load NUMBER STATUS-CLASS ARGUMENT...: sends requests and checks the class of their answers.
load() {
    h2load -n "$1" "${@:3}" >load.txt
    grep -q " $1 $2\|, $1 $2" load.txt || { cat load.txt >&2; fail "expected $1 answers of class $2 from ${*: -1}"; }
}
bearer() { printf 'Authorization: Bearer %s' "$1"; }
# The weights follow the requests that gateways serve most: known tokens first, over each protocol.
load 40000 2xx --h1 -c 32 -H "$(bearer "$good")" "$http/orders/7"
load 20000 2xx --h1 -c 32 -H "$(bearer "$good")" "$https/orders/7"
load 20000 2xx -c 8 -m 16 -H "$(bearer "$good")" "$https/orders/7"
load 15000 2xx --h1 -c 32 "$http/public/page"
load 5000 2xx --h1 -c 8 -H "$(bearer "$good")" "$http/files/medium"
load 300 2xx --h1 -c 8 -H "$(bearer "$good")" "$http/files/large"
load 150 2xx -c 4 -m 4 -H "$(bearer "$good")" "$https/files/large"
load 3000 2xx --h1 -c 8 -d files/medium -H "$(bearer "$good")" "$http/upload"
load 150 2xx --h1 -c 8 -d files/large -H "$(bearer "$good")" "$http/upload"
# Refusals: no token, a forged token, an expired token, a missing role, an unknown route.
load 4000 4xx --h1 -c 8 "$http/orders/7"
load 4000 4xx --h1 -c 8 -H "$(bearer "${good%????????}AAAAAAAA")" "$http/orders/7"
load 2000 4xx --h1 -c 8 -H "$(bearer "$expired")" "$http/orders/7"
load 2000 4xx --h1 -c 8 -H "$(bearer "$weak")" "$http/orders/7"
load 2000 4xx --h1 -c 8 "$http/nowhere"
# New tokens, each twice; then handshakes, and logins.
while read -r token; do
    printf 'url = "%s/orders/7"\nheader = "%s"\noutput = /dev/null\n' "$http" "$(bearer "$token")"
done <tokens >urls
cat urls urls | curl --silent --config -
for _ in $(seq 20); do load 16 2xx --h1 -c 16 "$https/public/page"; done
for _ in $(seq 10); do
    curl --silent --fail --output /dev/null --data 'username=ada' --data-urlencode 'password=correct horse battery staple' "$http/auth/login"
done
kill -TERM $gateway
wait $gateway || fail "the instrumented gateway did not end well"

"$profdata" merge -o "$out/merged.profdata" "$out/profiles"
cd - >/dev/null
build "-Cprofile-use=$out/merged.profdata" optimized
cp "$out/optimized/$host/release/portcullis" "$out/portcullis"
echo "$out/portcullis"
