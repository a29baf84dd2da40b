//! Opens connections for the gateway's own requests. A single timeout covers the resolution of the name, the check of
//! the address, and the TCP and TLS handshakes.

use super::address::Networks;
use super::error::Error;
use super::url::Url;
use crate::tls::describe_handshake;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// The maximum number of addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Opens connections to the addresses that `networks` allows.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: TlsConnector,
    pub(super) networks: Arc<Networks>,
    pub(super) allows_http: bool,
    /// The maximum time for the resolution of the name, the TCP handshake and the TLS handshake together.
    pub(super) timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("networks", &self.networks).finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = Pipe;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Pipe, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(connector.timeout, connector.open(&uri)).await {
                Ok(opened) => opened,
                Err(_elapsed) => Err(Error::ConnectTimeout(connector.timeout)),
            }
        })
    }
}

impl Connector {
    async fn open(&self, uri: &Uri) -> Result<Pipe, Error> {
        let url = Url::parse(&uri.to_string()).map_err(Error::Protocol)?;
        if !url.is_https() && !self.allows_http {
            return Err(Error::Cleartext);
        }
        let resolved = tokio::net::lookup_host((url.host(), url.port())).await;
        let resolved: Vec<SocketAddr> = resolved.map_err(|error| Error::Name(error.to_string()))?.collect();
        // The name is resolved only once, so the gateway connects only to addresses that were checked.
        let allowed = resolved.iter().filter(|address| self.networks.allow(address.ip()));
        let allowed: Vec<SocketAddr> = allowed.copied().take(ADDRESSES_MAX).collect();
        let stream = self.connect(&resolved, &allowed).await?;
        // Each request is sent at once: it is small, and no data follows until its answer has arrived.
        let _ = stream.set_nodelay(true);
        if !url.is_https() {
            return Ok(Pipe(TokioIo::new(Box::new(stream))));
        }
        let name =
            ServerName::try_from(url.host().to_owned()).map_err(|error| Error::Tls(error.to_string()))?;
        let stream = self.tls.connect(name, stream).await;
        let stream = stream.map_err(|error| Error::Tls(describe_handshake(&error)))?;
        Ok(Pipe(TokioIo::new(Box::new(stream))))
    }

    /// Connects to the first address that answers. Each address gets an equal share of the time, so that an address
    /// that does not answer leaves time for the next one.
    async fn connect(&self, resolved: &[SocketAddr], allowed: &[SocketAddr]) -> Result<TcpStream, Error> {
        let mut failed = match resolved.first() {
            Some(first) => Error::Address(first.ip()),
            None => Error::Name("the answer has no address".to_owned()),
        };
        let share = self.timeout / u32::try_from(allowed.len().max(1)).unwrap_or(1);
        for address in allowed {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = Error::Connect(format!("{address}: {error}")),
                Err(_elapsed) => {
                    failed = Error::Connect(format!("{address}: no answer within {} ms", share.as_millis()))
                }
            }
        }
        Err(failed)
    }
}

/// A stream that can be read and written.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An open connection, with or without TLS.
pub(super) struct Pipe(TokioIo<Box<dyn Duplex>>);

/// The time at which a connection was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened(pub(super) Instant);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new().extra(Opened(Instant::now()))
    }
}

impl Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
