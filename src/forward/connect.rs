//! Opens one connection to a server: name resolution, TCP, TLS, and the errors of each.

use super::link::{Abandoned, Link};
use super::upstream::Server;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Why a connection to a server could not be made.
#[derive(Debug)]
pub(super) enum ConnectFault {
    /// The server's host refused it.
    Refused,
    /// The attempt timed out.
    Timeout(Duration),
    /// The server's name has no address.
    Name(io::Error),
    /// TLS failed: the server's certificate, its versions, or it does not speak TLS.
    Tls(io::Error),
    /// The gateway itself lacks a file, a port or memory; the server is not to blame.
    Own(io::Error),
    /// Anything else, such as a network without a route.
    Other(io::Error),
}

impl ConnectFault {
    /// All reasons, as the metrics name them.
    pub(super) const REASONS: [&str; 6] = ["refused", "timeout", "dns", "tls", "own", "other"];

    /// The reason, as the metrics name it.
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

    /// Whether the fault says anything about the server.
    pub(super) fn is_the_servers(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    fn of_tcp(error: io::Error) -> Self {
        if is_own(&error) {
            return Self::Own(error);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Timeout(timeout) => write!(f, "no connection within {timeout:?}"),
            Self::Name(error) => write!(f, "cannot resolve its name: {error}"),
            Self::Tls(error) if speaks_no_tls(error) => {
                f.write_str("the server does not speak TLS on this port")
            }
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Own(error) => write!(f, "the gateway is out of resources: {error}"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// Whether the error is due to the gateway's own resources. EADDRNOTAVAIL means that no local port is left for this
/// destination.
fn is_own(error: &io::Error) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| own.iter().any(|errno| errno.raw_os_error() == code))
}

/// Whether the other side answered a `ClientHello` with something other than a TLS record.
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

/// Opens a connection that is ready for a request. `alive` is held for as long as the connection is open.
pub(super) async fn connect<A: 'static>(
    server: &Server,
    timeout: Duration,
    alive: A,
    abandoned: &Rc<Abandoned>,
) -> Result<Link, ConnectFault> {
    match tokio::time::timeout(timeout, open(server, alive, abandoned)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ConnectFault::Timeout(timeout)),
    }
}

async fn open<A: 'static>(
    server: &Server,
    alive: A,
    abandoned: &Rc<Abandoned>,
) -> Result<Link, ConnectFault> {
    let name = (&*server.host, server.port);
    let addresses = tokio::net::lookup_host(name).await.map_err(|error| match is_own(&error) {
        true => ConnectFault::Own(error),
        false => ConnectFault::Name(error),
    })?;
    let addresses: Vec<_> = addresses.collect();
    let stream = TcpStream::connect(&*addresses).await.map_err(ConnectFault::of_tcp)?;
    stream.set_nodelay(true).map_err(ConnectFault::of_tcp)?;
    match &server.tls {
        None => handshake(stream, alive, abandoned).await,
        Some(tls) => {
            let name = ServerName::try_from(server.host.to_string());
            let name = name.map_err(|error| ConnectFault::Tls(io::Error::other(error)))?;
            let stream = tls.connector.connect(name, stream).await.map_err(ConnectFault::Tls)?;
            handshake(stream, alive, abandoned).await
        }
    }
}

async fn handshake<S, A>(stream: S, alive: A, abandoned: &Rc<Abandoned>) -> Result<Link, ConnectFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    A: 'static,
{
    let (sender, connection) = settings()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ConnectFault::Other(io::Error::other(error)))?;
    let task = tokio::task::spawn_local(async move {
        // An error is reported to the waiting request, if there is one.
        let _ = connection.await;
        drop(alive);
    });
    Ok(Link::new(sender, task.abort_handle(), abandoned.clone()))
}

fn settings() -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        // RFC 9112 section 5.1: a proxy removes white space between a field's name and its colon from an answer. (In a
        // request it is an error: such requests were used to smuggle others.)
        .allow_spaces_after_header_name_in_responses(true)
        // The memory that an upstream's head may take.
        .max_headers(256)
        .max_buf_size(256 * 1024);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_files_ports_or_memory_is_not_the_servers_fault() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM] {
            let fault = ConnectFault::of_tcp(io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(!fault.is_the_servers(), "{fault}");
            assert_eq!(fault.reason(), "own");
        }
        for (errno, reason) in [
            (Errno::CONNREFUSED, "refused"),
            (Errno::HOSTUNREACH, "other"),
            (Errno::NETUNREACH, "other"),
            (Errno::CONNRESET, "other"),
        ] {
            let fault = ConnectFault::of_tcp(io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(fault.is_the_servers(), "{fault}");
            assert_eq!(fault.reason(), reason);
        }
    }

    #[test]
    fn every_reason_is_one_that_the_metrics_know() {
        let error = || io::Error::other("x");
        let all = [
            ConnectFault::Refused,
            ConnectFault::Timeout(Duration::from_secs(2)),
            ConnectFault::Name(error()),
            ConnectFault::Tls(error()),
            ConnectFault::Own(error()),
            ConnectFault::Other(error()),
        ];
        assert_eq!(all.map(|fault| fault.reason()), ConnectFault::REASONS);
    }
}
