#!/usr/bin/env bash
# sqlx ignores the options of a PostgreSQL URL that it does not know, `channel_binding=require` and a misspelled `sslmode`
# among them.
#
# Version: sqlx 0.9.0; for comparison libpq as packaged in psycopg-binary 3.3.9.
#
# Operators and providers of databases write URLs for libpq, which every client of PostgreSQL is said to understand.
#
# Expected: an unknown option is an error, as for libpq ("invalid URI query parameter"), and a known one has its effect.
# Seen: with `connect_timeout=2`, `channel_binding=require`, `sslmod=verify-full` or `target_session_attrs=read-write`, the
# parsed options are equal to those of the URL without. A misspelled `sslmode` means `prefer`, that is plain text if the
# server has no TLS. The only trace is a warning for applications that print the events of `tracing`, and it contains the
# value. While a server accepts connections and does not answer, libpq gives up after two seconds, and sqlx waits.
# A list of hosts is read as one host, whose name cannot be resolved.
#
# Portcullis splits the list of hosts and has its own `target_session_attrs`. It refuses a URL with any other option that
# sqlx does not know (docs/store.md).
set -euo pipefail
folder=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "postgres"] }
tokio = { version = "=1.54.1", features = ["rt", "macros", "time"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::time::Duration;

const OPTIONS: [&str; 4] =
    ["connect_timeout=2", "channel_binding=require", "sslmod=verify-full", "target_session_attrs=read-write"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).ok_or("name a port")?;
    let parsed = |query: &str| format!("postgres://ada@127.0.0.1:{port}/d?{query}").parse::<PgConnectOptions>();
    let plain = format!("{:?}", parsed("")?);
    for option in OPTIONS {
        println!("sqlx, {option}: {}", if format!("{:?}", parsed(option)?) == plain { "ignored" } else { "has an effect" });
    }
    let two: PgConnectOptions = "postgres://ada@a.example,b.example/d".parse()?;
    println!("sqlx, two hosts: {:?}", two.get_host());
    let options = parsed("connect_timeout=2")?;
    let waited = tokio::time::timeout(Duration::from_secs(5), PgConnection::connect_with(&options)).await;
    println!("sqlx, a silent server: {}", if waited.is_err() { "waits for more than 5 s" } else { "gives up" });
    Ok(())
}
RUST
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check psycopg==3.3.9 psycopg-binary==3.3.9
cargo build --quiet
# A server that accepts connections and never answers.
venv/bin/python -c 'import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)' >port &
until [ -s port ]; do sleep 0.1; done
cat >seen.py <<'PYTHON'
import sys, time
import psycopg
from psycopg.conninfo import conninfo_to_dict

url = f"postgres://ada@127.0.0.1:{sys.argv[1]}/d"
for option in ("connect_timeout=2", "channel_binding=require", "sslmod=verify-full", "target_session_attrs=read-write"):
    try:
        known = option.split("=")[0] in conninfo_to_dict(f"{url}?{option}")
        print(f"libpq, {option}: {'known' if known else 'ignored'}")
    except psycopg.ProgrammingError as error:
        print(f"libpq, {option}: {str(error).split(':')[0]}")
start = time.monotonic()
try:
    psycopg.connect(f"{url}?connect_timeout=2&sslmode=disable")
except psycopg.OperationalError:
    print(f"libpq, a silent server: gives up {'within' if time.monotonic() - start < 5 else 'after'} 5 s")
PYTHON
{ target/debug/seen "$(cat port)"; venv/bin/python seen.py "$(cat port)"; } | tee seen
diff - seen <<'TEXT'
sqlx, connect_timeout=2: ignored
sqlx, channel_binding=require: ignored
sqlx, sslmod=verify-full: ignored
sqlx, target_session_attrs=read-write: ignored
sqlx, two hosts: "a.example,b.example"
sqlx, a silent server: waits for more than 5 s
libpq, connect_timeout=2: known
libpq, channel_binding=require: known
libpq, sslmod=verify-full: invalid URI query parameter
libpq, target_session_attrs=read-write: known
libpq, a silent server: gives up within 5 s
TEXT
