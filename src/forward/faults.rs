//! Defines the failures of responses that end early. Each kind has a name in the metrics.

use super::open_streams::StreamEnd;
use crate::denial::Grpc;
use crate::http1::AnswerFault;
use h2::Reason;
use rustix::io::Errno;
use std::fmt;
use std::io;

/// Returns whether the gateway lacks a resource. EADDRNOTAVAIL means that no local port is left for this destination.
pub(super) fn is_own(error: &io::Error) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| own.iter().any(|errno| errno.raw_os_error() == code))
}

/// Describes an error of HTTP/2 without the text that the server sent with GOAWAY.
pub(super) struct Http2Error<'e>(pub(super) &'e h2::Error);

impl fmt::Display for Http2Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = if self.0.is_go_away() { "GOAWAY" } else { "RST_STREAM" };
        match self.0.reason() {
            Some(reason) if self.0.is_remote() => write!(f, "the server sent {frame}({reason:?})"),
            Some(reason) => write!(f, "the server violated HTTP/2: {reason:?}"),
            None => self.0.fmt(f),
        }
    }
}

/// The reason why an upstream's body ended early. The client must be able to detect that the body is incomplete.
#[derive(Debug)]
pub(crate) enum ResponseError {
    /// The connection failed.
    Broken(io::Error),
    /// The response's framing is invalid, or the upstream closed the connection before the end.
    Invalid(AnswerFault),
    /// The upstream sent nothing for the length of its timeout.
    Silent,
    /// The client's body failed after the response had begun.
    Upload,
    /// The HTTP/2 stream was reset, or its connection failed.
    Stream(h2::Error),
    /// The time of the gRPC call was over.
    Deadline,
    /// The answer could not be compressed.
    Coding(io::Error),
    /// A file could not be read to its end.
    File(io::Error),
    /// The gateway ended the answer, because the caller is no longer admitted.
    Ended(StreamEnd),
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the upstream's answer was cut off: {error}"),
            Self::Invalid(fault) => write!(f, "the upstream's answer was cut off: {fault}"),
            Self::Silent => f.write_str("the upstream's answer stalled: no byte arrived within the timeout"),
            Self::Upload => {
                f.write_str("the upstream's answer was cut off: its request could not be sent to the end")
            }
            Self::Stream(error) => write!(f, "the upstream's answer was cut off: {}", Http2Error(error)),
            Self::Deadline => f.write_str("the answer was ended: the call's grpc-timeout has passed"),
            Self::Coding(error) => write!(f, "the answer could not be compressed: {error}"),
            Self::File(error) => write!(f, "the file could not be read to its end: {error}"),
            Self::Ended(end) => write!(f, "the answer was ended: {}", end.as_str()),
        }
    }
}

/// The kind of failure after the head of a response, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseErrorKind {
    /// The upstream closed the connection before the announced end.
    Closed,
    /// The connection was reset.
    Reset,
    /// The framing of a chunk is invalid.
    Invalid,
    /// No data arrived for the length of the timeout.
    Stalled,
}

impl ResponseErrorKind {
    /// The names of all reasons in the metrics.
    pub(crate) const REASONS: [&str; 4] = ["closed", "reset", "invalid", "stalled"];

    /// Returns the name of the reason in the metrics.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Invalid => "invalid",
            Self::Stalled => "stalled",
        }
    }
}

impl ResponseError {
    pub(crate) fn kind(&self) -> Option<ResponseErrorKind> {
        Some(match self {
            Self::Ended(_) | Self::Deadline | Self::Coding(_) | Self::File(_) => return None,
            Self::Stream(error) if error.is_io() => ResponseErrorKind::Closed,
            Self::Stream(error) if error.is_remote() => ResponseErrorKind::Reset,
            Self::Stream(_) => ResponseErrorKind::Invalid,
            Self::Silent => ResponseErrorKind::Stalled,
            Self::Invalid(AnswerFault::Incomplete) | Self::Upload => ResponseErrorKind::Closed,
            Self::Invalid(_) => ResponseErrorKind::Invalid,
            Self::Broken(error) => match error.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => ResponseErrorKind::Reset,
                _ => ResponseErrorKind::Closed,
            },
        })
    }
}

impl ResponseError {
    /// Returns the status and the message with which a gRPC call ends. A stream that the server reset gets the status
    /// that a gRPC client would derive from the code (gRPC over HTTP/2, "Errors").
    pub(crate) fn grpc_end(&self) -> (Grpc, &'static str) {
        match self {
            Self::Deadline => (Grpc::DeadlineExceeded, "deadline_exceeded"),
            Self::Ended(end @ (StreamEnd::TokenExpired | StreamEnd::TokenRevoked)) => {
                (Grpc::Unauthenticated, end.as_str())
            }
            Self::Ended(end) => (Grpc::Unavailable, end.as_str()),
            Self::Silent => (Grpc::DeadlineExceeded, "upstream_timeout"),
            Self::Stream(error) if error.is_reset() => {
                let status = match error.reason() {
                    Some(Reason::CANCEL) => Grpc::Cancelled,
                    Some(Reason::ENHANCE_YOUR_CALM) => Grpc::ResourceExhausted,
                    Some(Reason::INADEQUATE_SECURITY) => Grpc::PermissionDenied,
                    Some(_) | None => Grpc::Internal,
                };
                (status, "upstream_failed")
            }
            Self::Broken(_)
            | Self::Invalid(_)
            | Self::Upload
            | Self::Stream(_)
            | Self::Coding(_)
            | Self::File(_) => (Grpc::Unavailable, "upstream_failed"),
        }
    }
}

impl std::error::Error for ResponseError {}
