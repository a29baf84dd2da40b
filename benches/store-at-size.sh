#!/usr/bin/env bash
# Fills a PostgreSQL database with a million accounts and five million sessions, and measures the store on it.
#
#     benches/store-at-size.sh [--accounts 1000000] [--sessions 5] [FOLDER]
#
# --sessions is the number of sessions of each account. FOLDER (a new folder in /tmp by default) needs 8 GB for the default
# size while the script runs, and is removed at the end. COMMAND is the program that measures, by default
# `cargo bench --bench store`. Prints p50, p99 and the maximum of a login's reads and writes, a refresh, revocations and the
# batches of a sweep, the sizes of the tables, and the number of scans of whole tables in all plans.
set -euo pipefail
cd "$(dirname "$0")/.."
accounts=1000000 each=5 folder=
while [ $# -gt 0 ]; do
    case "$1" in
    --accounts) accounts=$2; shift 2 ;;
    --sessions) each=$2; shift 2 ;;
    -*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) folder=$1; shift ;;
    esac
done
[ "$each" -ge 3 ] || { echo "--sessions: the oldest two sessions of an account are over, so at least 3" >&2; exit 2; }
folder=${folder:-$(mktemp -d /tmp/portcullis-size-XXXXXX)}
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
user=(); [ "$(id -u)" != 0 ] || user=(setpriv --reuid=postgres --regid=postgres --init-groups)
mkdir -p "$folder" && { [ "$(id -u)" != 0 ] || chown postgres "$folder"; }
as() { (cd / && "${user[@]}" "$@"); }
as "$bin/initdb" --pgdata "$folder/data" --auth trust --username postgres --encoding UTF8 --locale C.UTF-8 >/dev/null
# The settings of a small server, with the durability that the gateway requires.
as "$bin/pg_ctl" --pgdata "$folder/data" --log "$folder/log" --wait --silent start -o "\
    -c listen_addresses='' -c unix_socket_directories='$folder' -c shared_buffers=1GB -c effective_cache_size=3GB \
    -c maintenance_work_mem=256MB -c max_wal_size=1GB -c random_page_cost=1.1 -c max_connections=50"
trap 'as "$bin/pg_ctl" --pgdata "$folder/data" --mode immediate --silent stop || true; rm -rf "$folder"' EXIT
sql() { "$bin/psql" --no-psqlrc --quiet --username postgres --host "$folder" --dbname "${2:-portcullis}" -v ON_ERROR_STOP=1 --command "$1"; }
sql "CREATE DATABASE portcullis" postgres
url="postgres://postgres@${folder//\//%2F}/portcullis"

# The program creates the schema and ends.
export PORTCULLIS_BENCH_STORE="$url"
command=(${COMMAND:-cargo bench --quiet --bench store --})
PORTCULLIS_BENCH_SIZE=schema "${command[@]}"

# Indexes are created after the rows: five times faster. Times are in milliseconds before and after 1800000000000.
began=$SECONDS
sql "
CREATE TEMP TABLE saved AS
    SELECT conrelid::regclass::text AS relation, conname AS name,
           format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS again,
           format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS away, contype
    FROM pg_constraint WHERE conrelid IN ('accounts'::regclass, 'sessions'::regclass, 'refresh_tokens'::regclass)
    AND contype IN ('p', 'u', 'f');
CREATE TEMP TABLE plain AS
    SELECT indexname AS name, indexdef AS again FROM pg_indexes
    WHERE tablename IN ('accounts', 'sessions', 'refresh_tokens') AND indexname NOT IN (SELECT name FROM saved);
DO \$\$ DECLARE s RECORD; BEGIN
    ALTER TABLE addresses DROP CONSTRAINT addresses_account_fkey;
    FOR s IN SELECT away FROM saved ORDER BY contype = 'f' DESC LOOP EXECUTE s.away; END LOOP;
    FOR s IN SELECT name FROM plain LOOP EXECUTE 'DROP INDEX ' || quote_ident(s.name); END LOOP;
END \$\$;
INSERT INTO accounts (id, name, password, roles, scopes, attributes, disabled, generation, created, scheme)
    SELECT md5('a' || n), 'user' || n, '\$argon2id\$v=19\$m=19456,t=2,p=1\$' || md5('s' || n) || '\$' || md5('p' || n),
           '[\"clerk\"]', '[]', '{}', 0, 0, 1790000000000, 'argon2id:19456:2:1'
    FROM generate_series(1, $accounts) n;
-- Of each account's sessions, the oldest is over since more than a day, and the next since less.
INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, over)
    SELECT md5('s' || n || '/' || k), md5('a' || n), began, began, began + 2592000000, began, '192.0.2.' || n % 250,
           'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', began + 2592000000
    FROM generate_series(1, $accounts) n, generate_series(0, $each - 1) k,
         LATERAL (SELECT 1800000000000 - 2592000000 - (CASE k WHEN 0 THEN 90000000 WHEN 1 THEN 3600000
                  ELSE -500000000 * (k - 1) END) + n AS began) b;
INSERT INTO refresh_tokens (hash, session, number, issued, expires)
    SELECT md5('t' || id) || md5('u' || id), id, 0, created, expires FROM sessions;
DO \$\$ DECLARE s RECORD; BEGIN
    FOR s IN SELECT again FROM saved ORDER BY contype = 'f', contype = 'u' LOOP EXECUTE s.again; END LOOP;
    FOR s IN SELECT again FROM plain LOOP EXECUTE s.again; END LOOP;
    ALTER TABLE addresses ADD CONSTRAINT addresses_account_fkey FOREIGN KEY (account) REFERENCES accounts (id);
END \$\$;"
sql "VACUUM (ANALYZE)"
sql "CHECKPOINT"
echo "filled in $((SECONDS - began)) s"
sql "SELECT relname AS table, reltuples::bigint AS rows, pg_size_pretty(pg_table_size(oid)) AS table_size,
     pg_size_pretty(pg_indexes_size(oid)) AS index_size,
     round(pg_table_size(oid) / reltuples) AS table_bytes_each, round(pg_indexes_size(oid) / reltuples) AS index_bytes_each
     FROM pg_class WHERE relname IN ('accounts', 'sessions', 'refresh_tokens') ORDER BY 1"
PORTCULLIS_BENCH_SIZE=measure "${command[@]}"
sed -nE 's/.*duration: ([0-9.]+) ms  execute [^:]*: DELETE FROM (refresh_tokens|sessions) .*/\1/p' "$folder/log" | sort -n | awk '
    { took[NR] = $1 }
    function at(part) { i = int(NR * part) + 1; return took[i > NR ? NR : i] }
    END { if (NR) printf "batch of a sweep (500 rows): %d times; p50 %.2f ms, p99 %.2f ms, maximum %.2f ms\n", NR, at(0.5), at(0.99), took[NR] }'
# The plans of all statements, and the whole tables that they read.
for setting in "session_preload_libraries = 'auto_explain'" "auto_explain.log_min_duration = 0" \
    "auto_explain.log_nested_statements = on"; do
    sql "ALTER DATABASE portcullis SET $setting" postgres
done
PORTCULLIS_BENCH_SIZE=explain "${command[@]}" >/dev/null
echo "plans: $(grep -c 'plan:$' "$folder/log" || true); scans of whole tables:"
{ grep -o 'Seq Scan on [a-z_]*' "$folder/log" || true; } | sort | uniq -c
if [ -n "${PLANS:-}" ]; then cp "$folder/log" "$PLANS"; fi
if [ -n "${KEEP:-}" ]; then echo "the server stays: $url; press return"; read -r _; fi
