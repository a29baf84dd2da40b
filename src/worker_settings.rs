//! Defines the settings of the cores. They never change while the process runs. A reload does not change them.

use crate::journal::Style;
use std::time::Duration;

/// The requests that get an access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Every request.
    On,
    /// Refused requests, also on routes in shadow mode, and requests whose response was truncated.
    Refusals,
    /// No request.
    Off,
}

/// The settings of a core.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// Maximum time for a request's head, and for a TLS handshake.
    pub header_timeout: Duration,
    /// Maximum time between two requests on a connection.
    pub idle_timeout: Duration,
    /// Maximum time without progress in a body, in either direction.
    pub body_timeout: Duration,
    /// Minimum rate of a body after `body_timeout`, in bytes per second, in either direction. 0 disables the minimum.
    pub min_rate: u64,
    /// Maximum size of a head that the HTTP library buffers, in bytes.
    pub header_size: usize,
    /// Maximum number of header fields that the HTTP library parses.
    pub header_count: usize,
    /// Whether the gateway serves forward-auth. If so, it accepts larger heads. A reload that enables forward-auth does
    /// not change this setting. This matters only for heads near the bounds.
    pub is_asked: bool,
    /// Maximum number of concurrent HTTP/2 streams per connection.
    pub streams: u32,
    /// Maximum number of requests in progress on each core.
    pub requests_max: u64,
    /// Maximum number of open connections over all cores.
    pub connections_max: usize,
    /// The time from the stop signal to the start of the drain.
    pub drain_delay: Duration,
    /// The time from the start of the drain until the remaining connections are closed.
    pub drain: Duration,
    /// The requests that are logged.
    pub access: AccessLog,
    /// The format of the log.
    pub style: Style,
    /// Number of recent decisions to keep over all cores. 0 keeps none.
    pub decisions: usize,
}
