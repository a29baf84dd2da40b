//! A request's one canonical reading.

use http::{HeaderMap, Method};
use std::borrow::Cow;

/// The parts of a request that decide, each read once and in one way. No later stage looks at the raw URI,
/// `Host` field or path.
#[derive(Debug)]
pub struct Head<'r> {
    /// The method, as sent: methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'r Method,
    /// Host in lower case without port and trailing dot; IPv6 in brackets. `None` only for HTTP/1.0 without `Host`.
    pub host: Option<Cow<'r, str>>,
    /// The port that the client named beside the host.
    pub port: Option<u16>,
    /// The canonical path: what is matched and what is forwarded.
    pub path: Cow<'r, str>,
    /// The query without its `?`, untouched.
    pub query: Option<&'r str>,
    /// The header fields, as sent.
    pub headers: &'r HeaderMap,
}
