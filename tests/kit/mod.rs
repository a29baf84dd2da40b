//! The kit of the black-box tests: the real binary, an upstream that records and misbehaves, a client that speaks
//! bytes, and a forge of tokens, good and bad.
//!
//! Nothing here sleeps for luck: what takes time is waited for, as a condition with a deadline.

pub mod account;
pub mod browser;
pub mod client;
pub mod dir;
pub mod forge;
pub mod http2;
pub mod portcullis;
#[allow(dead_code, reason = "the store's own tests ask for more of it")]
pub mod postgres;
pub mod proxies;
pub mod tls;
pub mod upstream;
pub mod websocket;

pub use client::{Answer, Connection, Request};
pub use forge::{ISSUER, token};
pub use portcullis::Portcullis;
pub use upstream::Upstream;

use std::time::{Duration, Instant};

/// How long anything may take that should happen at once, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
///
/// # Panics
/// When it does not come true within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The values of all fields of a name, compared without case, in order.
pub fn values<'f>(fields: &'f [(String, String)], name: &str) -> Vec<&'f str> {
    fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value).collect()
}

/// Splits the lines of a head, without its first, into fields.
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

/// Where a head ends, its empty line included.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}
