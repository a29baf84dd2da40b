//! Opens a connection to a server: name resolution, TCP and TLS, or a Unix socket.

use super::connect_error::ConnectError;
use super::server::Server;
use super::stream::Stream;
use crate::forward::faults::is_own;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// The time that further hosts of a service have for an answer once one host is resolved, in the time of a connection.
const FURTHER_HOSTS: Duration = Duration::from_millis(200);

/// Opens a connection that is ready for a request.
pub(in crate::forward) async fn connect(server: &Server, timeout: Duration) -> Result<Stream, ConnectError> {
    match tokio::time::timeout(timeout, open(server)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ConnectError::Timeout(timeout)),
    }
}

async fn open(server: &Server) -> Result<Stream, ConnectError> {
    if let Some(path) = &server.socket {
        return UnixStream::connect(path).await.map(Stream::Unix).map_err(ConnectError::of_tcp);
    }
    let stream = match server.address {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect(&*resolve(server).await?).await,
    };
    let stream = stream.map_err(ConnectError::of_tcp)?;
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

/// Resolves the name of a server without an address.
async fn resolve(server: &Server) -> Result<Vec<SocketAddr>, ConnectError> {
    if !server.nameservers.is_system() || server.is_service() {
        let found = server.nameservers.lookup(server.question(), FURTHER_HOSTS).await;
        let found = found.map_err(|error| ConnectError::Name(io::Error::other(error.to_string())))?;
        return Ok(found.all.into_iter().map(|endpoint| endpoint.address).collect());
    }
    let found = tokio::net::lookup_host((&*server.host, server.port)).await;
    let found = found.map_err(|error| match is_own(&error) {
        true => ConnectError::Own(error),
        false => ConnectError::Name(error),
    })?;
    Ok(found.collect())
}
