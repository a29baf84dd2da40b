//! Opens a connection to a server: name resolution, TCP and TLS, or a Unix socket.

use super::connection::Stream;
use super::faults::{ConnectError, is_own};
use super::upstream::Server;
use rustls::pki_types::ServerName;
use std::io;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Opens a connection that is ready for a request.
pub(super) async fn connect(server: &Server, timeout: Duration) -> Result<Stream, ConnectError> {
    match tokio::time::timeout(timeout, open(server)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ConnectError::Timeout(timeout)),
    }
}

async fn open(server: &Server) -> Result<Stream, ConnectError> {
    if let Some(path) = &server.socket {
        return UnixStream::connect(path).await.map(Stream::Unix).map_err(ConnectError::of_tcp);
    }
    let name = (&*server.host, server.port);
    let addresses = tokio::net::lookup_host(name).await.map_err(|error| match is_own(&error) {
        true => ConnectError::Own(error),
        false => ConnectError::Name(error),
    })?;
    let addresses: Vec<_> = addresses.collect();
    let stream = TcpStream::connect(&*addresses).await.map_err(ConnectError::of_tcp)?;
    stream.set_nodelay(true).map_err(ConnectError::of_tcp)?;
    match &server.tls {
        None => Ok(Stream::Plain(stream)),
        Some(tls) => {
            let name = match &tls.name {
                Some(name) => name.clone(),
                None => ServerName::try_from(server.host.to_string())
                    .map_err(|error| ConnectError::Tls(io::Error::other(error)))?,
            };
            let stream = tls.connector.connect(name, stream).await.map_err(ConnectError::Tls)?;
            Ok(Stream::Tls(Box::new(stream)))
        }
    }
}
