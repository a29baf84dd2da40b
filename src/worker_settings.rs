//! The settings of the cores. They are fixed for the life of the process, and a reload does not change them.

use crate::journal::Style;
use std::time::Duration;

/// The requests for which an access line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Every request.
    On,
    /// Only refused requests.
    Refusals,
    /// No request.
    Off,
}

/// The settings of a core.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// The maximum time from the first to the last byte of a request head or of a TLS handshake.
    pub header_timeout: Duration,
    /// The maximum time between two requests on a connection.
    pub idle_timeout: Duration,
    /// The maximum time without progress of a body, in either direction.
    pub body_timeout: Duration,
    /// The minimum rate of a body after `body_timeout`, in bytes per second, in either direction; 0 for no minimum.
    pub min_rate: u64,
    /// The maximum size of a head that the HTTP library buffers, in bytes.
    pub header_size: usize,
    /// The maximum number of header fields that the HTTP library parses.
    pub header_count: usize,
    /// Whether other proxies may request verdicts. If so, larger heads are accepted. A reload that adds the first such
    /// proxy does not change this setting, which matters only for heads near the bounds.
    pub is_asked: bool,
    /// The maximum number of concurrent HTTP/2 streams on a connection.
    pub streams: u32,
    /// The maximum number of open connections, over all cores.
    pub connections_max: usize,
    /// The time from the stop signal to the beginning of the drain.
    pub drain_delay: Duration,
    /// The time from the beginning of the drain until the remaining connections are closed.
    pub drain: Duration,
    /// The requests that are logged.
    pub access: AccessLog,
    /// The format of the log.
    pub style: Style,
    /// The number of recent decisions that are kept, over all cores; 0 for none.
    pub decisions: usize,
}
