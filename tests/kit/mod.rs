//! The kit of the black-box tests: the real binary, a recording upstream, a byte-level client, and a forge of valid and
//! bad tokens.
//!
//! No function sleeps for a fixed time. Each waits for a condition, with a deadline.

pub mod account;
#[allow(dead_code, reason = "the store's own tests have no ACME server")]
pub mod acme;
pub mod browser;
pub mod client;
pub mod dir;
pub mod dns;
pub mod faults;
pub mod forge;
pub mod grpc;
pub mod http2;
pub mod key_server;
pub mod lines;
pub mod load;
pub mod packages;
pub mod pki;
pub mod port;
pub mod portcullis;
#[allow(dead_code, reason = "the store's own tests ask for more of it")]
pub mod postgres;
pub mod prover;
pub mod proxies;
#[allow(dead_code, reason = "the store's own tests have no Redis")]
pub mod redis;
pub mod signers;
pub mod tls;
pub mod upstream;
pub mod websocket;

pub use client::{Answer, Connection, Request};
pub use forge::{ISSUER, token};
pub use portcullis::Portcullis;
pub use upstream::Upstream;

use std::time::{Duration, Instant};

/// The time limit for events that should happen at once, long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition is true.
///
/// # Panics
/// If the condition is not true within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the values of all fields with this name, compared without case, in order.
pub fn values<'f>(fields: &'f [(String, String)], name: &str) -> Vec<&'f str> {
    fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect()
}

/// Parses the lines of a head, without the first line, into fields.
pub fn fields(lines: &str) -> Vec<(String, String)> {
    lines
        .split("\r\n")
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// Returns the position after a head's empty line.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}
