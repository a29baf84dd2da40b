//! What is fixed from the start of the process to its end, unlike a policy.

use crate::journal::Style;
use std::time::Duration;

/// Which requests get an access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// All.
    On,
    /// Those that were refused.
    Refusals,
    /// None.
    Off,
}

/// What each core is told once.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// From the first byte of a head, or of a TLS handshake, to its last.
    pub header_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Without progress of a body, either way.
    pub body_timeout: Duration,
    /// The least bytes a second that a body must make, either way, after `body_timeout`; 0: any.
    pub min_rate: u64,
    /// Bytes of a head that the HTTP library may buffer.
    pub header_size: usize,
    /// Header fields that the HTTP library may parse.
    pub header_count: usize,
    /// Whether other proxies may ask for verdicts, so that the library must take more of a head. A reload that names the
    /// first of them leaves this as it is: it matters to heads near the bounds alone.
    pub is_asked: bool,
    /// HTTP/2 streams at once, a connection.
    pub streams: u32,
    /// Connections at once, over all cores.
    pub connections_max: usize,
    /// From the order to stop until the drain begins.
    pub drain_delay: Duration,
    /// From the beginning of the drain until what is not finished is given up.
    pub drain: Duration,
    /// Which requests are logged.
    pub access: AccessLog,
    /// How they are written.
    pub style: Style,
    /// How many recent decisions are kept, over all cores; 0: none.
    pub decisions: usize,
}
