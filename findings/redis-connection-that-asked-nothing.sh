#!/usr/bin/env bash
# A multiplexed connection of redis-rs can be open without a sign of life of the server.
#
# Version: redis 1.8.1 (feature tokio-comp), tokio 1.54.1.
#
# `get_multiplexed_async_connection` sends the login, SELECT and CLIENT SETINFO, and waits for their answers within
# `connection_timeout`. With `set_skip_set_lib_name` (which an ACL user needs who may not use CLIENT SETINFO), without a
# password and with database 0, it has nothing to send. The kernel accepts TCP connections for a process that is frozen
# or hangs, so the call succeeds although no server is alive.
#
# Expected: a connection within `connection_timeout`, or an error. Seen: with the library's name, an error after the
# time-out; without it, an open connection at once, whose first command gets no answer. A gateway that counts an open
# connection as "Redis is back" closes its circuit breaker for a dead server, and its requests wait for time-outs again.
#
# Portcullis asks PING on each new connection before it uses the connection.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", default-features = false, features = ["tokio-comp"] }
tokio = { version = "=1.54.1", features = ["rt", "macros", "time"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Value, cmd};
use std::net::TcpListener;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Nobody accepts here: the kernel completes the handshakes, as for a server that was stopped with SIGSTOP.
    let frozen = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("redis://{}", frozen.local_addr()?);
    for skips in [false, true] {
        let mut info = url.as_str().into_connection_info()?;
        if skips {
            let settings = info.redis_settings().clone().set_skip_set_lib_name();
            info = info.set_redis_settings(settings);
        }
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(None);
        let opened = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await;
        let name = if skips { "without the library's name" } else { "with the library's name" };
        match opened {
            Err(_) => println!("{name}: no connection"),
            Ok(mut connection) => {
                let ping = timeout(PATIENCE, cmd("PING").query_async::<Value>(&mut connection)).await;
                let answer = if ping.is_ok() { "an answer" } else { "no answer" };
                println!("{name}: connected, and {answer} to PING");
            }
        }
    }
    Ok(())
}
RUST
(cd "$folder" && cargo run --quiet) | tee "$folder/seen"
diff - "$folder/seen" <<'TEXT'
with the library's name: no connection
without the library's name: connected, and no answer to PING
TEXT
