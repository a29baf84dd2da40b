//! The exchange of one request and its answer over HTTP/1.1.
//!
//! `attempts` tries servers until one answers. `exchange` sends the request (`upload`) over one connection and reads
//! the head of the answer. `response_body` streams the rest.

pub(in crate::forward) mod attempts;
pub(in crate::forward) mod exchange;
pub(in crate::forward) mod response_body;
pub(in crate::forward) mod upload;
