//! Settings of the cores that are fixed from the start of the process to its end. A reload does not change them.

use crate::journal::Style;
use std::time::Duration;

/// Which requests get an access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Every request.
    On,
    /// Refused requests only.
    Refusals,
    /// No request.
    Off,
}

/// The settings of a core.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// Maximum time from the first byte of a head, or of a TLS handshake, to its last.
    pub header_timeout: Duration,
    /// Maximum time between two requests of a connection.
    pub idle_timeout: Duration,
    /// Maximum pause of a body, in either direction.
    pub body_timeout: Duration,
    /// Minimum rate of a body after `body_timeout`, in bytes a second, in either direction; 0: no minimum.
    pub min_rate: u64,
    /// Maximum size of a head that the HTTP library buffers, in bytes.
    pub header_size: usize,
    /// Maximum number of header fields that the HTTP library parses.
    pub header_count: usize,
    /// Whether other proxies may ask for verdicts. If so, larger heads are accepted. A reload that adds the first
    /// such proxy does not change this: only heads near the bounds are affected.
    pub is_asked: bool,
    /// Maximum number of concurrent HTTP/2 streams of a connection.
    pub streams: u32,
    /// Maximum number of open connections, over all cores.
    pub connections_max: usize,
    /// Time from the signal to stop until the drain begins.
    pub drain_delay: Duration,
    /// Time from the beginning of the drain until the remaining connections are closed.
    pub drain: Duration,
    /// The requests that are logged.
    pub access: AccessLog,
    /// The format of the log.
    pub style: Style,
    /// Number of recent decisions that are kept, over all cores; 0: none.
    pub decisions: usize,
}
