//! Defines the failures of upstreams: a connection that cannot be opened, and a response that ends early. Each reason
//! has a name in the metrics.

use super::open_streams::StreamEnd;
use super::pins::PinFault;
use crate::denial::Grpc;
use crate::http1::AnswerFault;
use h2::Reason;
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::time::Duration;

/// The reason why a connection to a server could not be opened.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The host refused the connection.
    Refused,
    /// The attempt timed out.
    Timeout(Duration),
    /// The server's name has no address.
    Name(io::Error),
    /// The TLS handshake failed: because of the certificate or the protocol version, or because the server does not use
    /// TLS.
    Tls(io::Error),
    /// The gateway has no free file descriptor, local port or memory. The server is not at fault.
    Own(io::Error),
    /// Any other reason, such as a network without a route.
    Other(io::Error),
}

impl ConnectError {
    /// The names of all reasons in the metrics.
    pub(super) const REASONS: [&str; 6] = ["refused", "timeout", "dns", "tls", "own", "other"];

    /// Returns the name of the reason in the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout(_) => "timeout",
            Self::Name(_) => "dns",
            Self::Tls(_) => "tls",
            Self::Own(_) => "own",
            Self::Other(_) => "other",
        }
    }

    /// Returns whether the server or the network may be at fault.
    pub(super) fn blames_server(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    pub(super) fn of_tcp(error: io::Error) -> Self {
        if is_own(&error) {
            return Self::Own(error);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Timeout(timeout) => write!(f, "no connection within {timeout:?}"),
            Self::Name(error) => write!(f, "cannot resolve its name: {error}"),
            Self::Tls(error) if speaks_no_tls(error) => {
                f.write_str("the server does not speak TLS on this port")
            }
            Self::Tls(error) => match certificate_fault(error) {
                Some(fault) => write!(f, "TLS: {fault}"),
                None => write!(f, "TLS: {error}"),
            },
            Self::Own(error) => write!(f, "the gateway is out of resources: {error}"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// Returns whether the gateway lacks a resource. EADDRNOTAVAIL means that no local port is left for this destination.
pub(super) fn is_own(error: &io::Error) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| own.iter().any(|errno| errno.raw_os_error() == code))
}

/// Returns whether the server answered a `ClientHello` with something other than a TLS record.
fn speaks_no_tls(error: &io::Error) -> bool {
    use rustls::{Error, InvalidMessage};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(
        inner,
        Some(Error::InvalidMessage(
            InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload
        ))
    )
}

/// Describes an error about the server's certificate that the library reports without a sentence.
fn certificate_fault(error: &io::Error) -> Option<String> {
    use rustls::{CertificateError, Error};
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(other)) = inner else { return None };
    if let Some(fault) = other.0.downcast_ref::<PinFault>() {
        return Some(fault.to_string());
    }
    Some(match &*format!("{:?}", other.0) {
        "CaUsedAsEndEntity" => {
            "the server shows the certificate of an authority (CA:TRUE) in place of its own".to_owned()
        }
        "EndEntityUsedAsCa" => {
            "the server's certificate is signed by one that may not sign certificates (CA:FALSE)".to_owned()
        }
        "NameConstraintViolation" => {
            "the server's certificate has a name that its authority may not certify".to_owned()
        }
        "PathLenConstraintViolated" => {
            "the server's certificate has more intermediate authorities than its authority allows".to_owned()
        }
        other => format!("the server's certificate cannot be verified: {other}"),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_files_ports_or_memory_is_not_the_servers_fault() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM] {
            let fault = ConnectError::of_tcp(io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(!fault.blames_server(), "{fault}");
            assert_eq!(fault.reason(), "own");
        }
        for (errno, reason) in [
            (Errno::CONNREFUSED, "refused"),
            (Errno::HOSTUNREACH, "other"),
            (Errno::NETUNREACH, "other"),
            (Errno::CONNRESET, "other"),
        ] {
            let fault = ConnectError::of_tcp(io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(fault.blames_server(), "{fault}");
            assert_eq!(fault.reason(), reason);
        }
    }

    #[test]
    fn every_reason_is_one_that_the_metrics_know() {
        let error = || io::Error::other("x");
        let all = [
            ConnectError::Refused,
            ConnectError::Timeout(Duration::from_secs(2)),
            ConnectError::Name(error()),
            ConnectError::Tls(error()),
            ConnectError::Own(error()),
            ConnectError::Other(error()),
        ];
        assert_eq!(all.map(|fault| fault.reason()), ConnectError::REASONS);
    }
}
