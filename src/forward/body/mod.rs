//! The bodies of requests and answers while they are forwarded.
//!
//! `request_body` reads the client's body within the bounds of `meter`. `inflow` ends an upload with its caller's
//! token, and `tee` copies it for a mirror. `sending` has what both protocols need to send a body; `early` sends the
//! rest of one whose answer has begun. `answer_wait` bounds the pauses of an answer.

pub(in crate::forward) mod answer_wait;
pub(in crate::forward) mod early;
pub(in crate::forward) mod inflow;
pub(in crate::forward) mod meter;
pub(in crate::forward) mod request_body;
pub(in crate::forward) mod request_trailers;
pub(in crate::forward) mod sending;
pub(in crate::forward) mod tee;
