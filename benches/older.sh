#!/usr/bin/env bash
# Runs a gateway of an older version and one of this version at one PostgreSQL store: the newer one migrates the tables
# while the older one serves, and the older one is restarted afterwards.
#
#     benches/older.sh OLD NEW     # two programs; OLD is built from the commit before, such as the last release
set -euo pipefail
old=$(realpath -e "${1:?the older program}")
new=$(realpath -e "${2:?the newer program}")
folder=$(mktemp -d /tmp/portcullis-older-XXXXXX)
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
user=(); [ "$(id -u)" != 0 ] || user=(setpriv --reuid=postgres --regid=postgres --init-groups)
mkdir "$folder/pg" && { [ "$(id -u)" != 0 ] || { chmod 755 "$folder"; chown postgres "$folder/pg"; }; }
as() { (cd / && "${user[@]}" "$@"); }
as "$bin/initdb" --pgdata "$folder/pg/data" --auth trust --username postgres --encoding UTF8 --no-sync >/dev/null
as "$bin/pg_ctl" --pgdata "$folder/pg/data" --log "$folder/pg/log" --wait --silent start -o \
    "-c listen_addresses='' -c unix_socket_directories='$folder/pg' -c fsync=off"
gateways=()
trap 'kill "${gateways[@]}" 2>/dev/null || true; as "$bin/pg_ctl" --pgdata "$folder/pg/data" --mode immediate --silent stop || true; rm -rf "$folder"' EXIT
sql() { "$bin/psql" --no-psqlrc -qtA --username postgres --host "$folder/pg" --command "$1" "${2:-store}"; }
sql "CREATE DATABASE store" postgres
port=$((20000 + RANDOM % 20000))
# start NAME PROGRAM PORT: writes a policy, starts the gateway, and waits until it is ready.
start() {
    mkdir -p "$folder/$1"
    cat >"$folder/$1/gateway.toml" <<POLICY
[server]
http = "127.0.0.1:$3"
https = ""
plain = "serve"
admin = "127.0.0.1:$(($3 + 1))"
[authority]
issuer = "https://localhost"
audience = ["g"]
store = "postgres://postgres@${folder//\//%2F}%2Fpg/store"
[upstream.echo]
builtin = "echo"
[[route]]
path = "/any"
upstream = "echo"
POLICY
    (cd "$folder/$1" && exec "$2" run >"$folder/$1/log" 2>&1) & gateways+=($!)
    for _ in $(seq 100); do
        if curl -fs "http://127.0.0.1:$(($3 + 1))/readyz" >/dev/null; then return; fi
        sleep 0.1
    done
    echo "$1 does not start:"; cat "$folder/$1/log"; exit 1
}
post() { curl -s -o "$folder/answer" -w '%{http_code}' -H 'content-type: application/json' -d "$2" "http://127.0.0.1:$1"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$folder/answer"; }
fails=0
expect() { if [ "$2" = "$3" ]; then echo "ok    $1"; else echo "FAIL  $1: $3, expected $2: $(cat "$folder/answer")"; fails=1; fi; }
# session NAME PORT: a login, refreshes, a listing, and a logout.
session() {
    expect "$1: login" 200 "$(post "$2/auth/login" '{"username":"ada","password":"correct horse battery staple"}')"
    for round in 1 2 3; do
        expect "$1: refresh $round" 200 "$(post "$2/auth/refresh" "{\"refresh_token\":\"$(field refresh_token)\"}")"
    done
    local access; access=$(field access_token)
    expect "$1: sessions" 200 "$(curl -s -o "$folder/answer" -w '%{http_code}' -H "authorization: Bearer $access" "http://127.0.0.1:$2/auth/sessions")"
    expect "$1: logout" 204 "$(curl -s -o "$folder/answer" -w '%{http_code}' -X POST -H "authorization: Bearer $access" "http://127.0.0.1:$2/auth/logout")"
}
start old "$old" "$port"
(cd "$folder/old" && printf 'correct horse battery staple\n' | "$old" user add ada --password-stdin >/dev/null)
session "old, before" "$port"
echo "steps before: $(sql 'SELECT count(*) FROM schema_steps')"
start new "$new" "$((port + 2))"
echo "steps after: $(sql 'SELECT count(*) FROM schema_steps')"
session "old, after the migration" "$port"
session "new" "$((port + 2))"
# A session of one is refreshed by the other.
post "$port/auth/login" '{"username":"ada","password":"correct horse battery staple"}' >/dev/null
expect "a session of the old one at the new one" 200 "$(post "$((port + 2))/auth/refresh" "{\"refresh_token\":\"$(field refresh_token)\"}")"
expect "and back" 200 "$(post "$port/auth/refresh" "{\"refresh_token\":\"$(field refresh_token)\"}")"
for name in old new; do
    if grep -q '"level":"error"' "$folder/$name/log"; then echo "FAIL  errors of $name:"; grep '"level":"error"' "$folder/$name/log" | head -3; fails=1; fi
done
exit $fails
