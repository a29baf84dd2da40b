//! One core's connections to upstream servers, and its deadlines.
//!
//! `pool` keeps and lends connections of HTTP/1.1 (`http1`). `http2` shares connections between requests. A lease
//! returns its connection to the pool, so the two know each other; both know nothing of requests.

pub(in crate::forward) mod deadline;
pub(in crate::forward) mod http1;
pub(in crate::forward) mod http2;
pub(in crate::forward) mod pool;
