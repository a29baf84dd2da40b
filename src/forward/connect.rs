//! Opens a connection to a server: name resolution, TCP and TLS.

use super::faults::{ConnectError, is_own};
use super::link::{AbandonedLinks, Link};
use super::upstream::Server;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Opens a connection that is ready for a request. `alive` is dropped when the connection closes.
pub(super) async fn connect<A: 'static>(
    server: &Server,
    timeout: Duration,
    alive: A,
    abandoned: &Rc<AbandonedLinks>,
) -> Result<Link, ConnectError> {
    match tokio::time::timeout(timeout, open(server, alive, abandoned)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ConnectError::Timeout(timeout)),
    }
}

async fn open<A: 'static>(
    server: &Server,
    alive: A,
    abandoned: &Rc<AbandonedLinks>,
) -> Result<Link, ConnectError> {
    let name = (&*server.host, server.port);
    let addresses = tokio::net::lookup_host(name).await.map_err(|error| match is_own(&error) {
        true => ConnectError::Own(error),
        false => ConnectError::Name(error),
    })?;
    let addresses: Vec<_> = addresses.collect();
    let stream = TcpStream::connect(&*addresses).await.map_err(ConnectError::of_tcp)?;
    stream.set_nodelay(true).map_err(ConnectError::of_tcp)?;
    match &server.tls {
        None => handshake(stream, alive, abandoned).await,
        Some(tls) => {
            let name = ServerName::try_from(server.host.to_string());
            let name = name.map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
            let stream = tls.connector.connect(name, stream).await.map_err(ConnectError::Tls)?;
            handshake(stream, alive, abandoned).await
        }
    }
}

async fn handshake<S, A>(stream: S, alive: A, abandoned: &Rc<AbandonedLinks>) -> Result<Link, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    A: 'static,
{
    let (sender, connection) = settings()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ConnectError::Other(io::Error::other(error)))?;
    let task = tokio::task::spawn_local(async move {
        // hyper also reports an error to the waiting request, if there is one.
        let _ = connection.await;
        drop(alive);
    });
    Ok(Link::new(sender, task.abort_handle(), abandoned.clone()))
}

fn settings() -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        // A proxy removes white space between a field's name and its colon from an answer (RFC 9112 section 5.1). In
        // a request, such white space is an error, because it was used for request smuggling.
        .allow_spaces_after_header_name_in_responses(true)
        // Bounds the memory that the head of an upstream's answer can occupy.
        .max_headers(256)
        .max_buf_size(256 * 1024);
    settings
}
