//! The failures of checks, and the bounds and names that the checks of both protocols share.

use std::fmt;

/// Maximum size of the head of an answer, in bytes.
pub(super) const HEAD_MAX: usize = 16 * 1024;
/// The user agent of checks.
pub(super) const USER_AGENT: &str = "portcullis-check";

/// The reason why a check failed.
pub(super) enum Failure {
    Server(String),
    /// The gateway lacks a resource, so the check says nothing about the server.
    Own,
}

impl Failure {
    pub(super) fn of(error: impl fmt::Display) -> Self {
        Self::Server(error.to_string())
    }
}
