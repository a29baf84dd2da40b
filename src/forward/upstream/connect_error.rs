//! Defines the failures of connections that cannot be opened. Each reason has a name in the metrics.

use super::pins::PinFault;
use crate::forward::faults::is_own;
use crate::tls::server_certificate_fault;
use std::fmt;
use std::io;
use std::time::Duration;

/// The reason why a connection to a server could not be opened.
#[derive(Debug)]
pub(in crate::forward) enum ConnectError {
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
    pub(in crate::forward) const REASONS: [&str; 6] = ["refused", "timeout", "dns", "tls", "own", "other"];

    /// Returns the name of the reason in the metrics.
    pub(in crate::forward) fn reason(&self) -> &'static str {
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
    pub(in crate::forward) fn blames_server(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    pub(in crate::forward) fn of_tcp(error: io::Error) -> Self {
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
    match other.0.downcast_ref::<PinFault>() {
        Some(fault) => Some(fault.to_string()),
        None => server_certificate_fault(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

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
