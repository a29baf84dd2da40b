//! A protocol that takes over the byte stream of an HTTP/1.1 connection after a response with 101.

use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a client: a connection, or a stream of an HTTP/2 connection.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

pub(crate) type ClientStream = Box<dyn Duplex>;

/// Serves a client's byte stream until its end.
pub(crate) type Session = Pin<Box<dyn Future<Output = ()>>>;

type Begin = Box<dyn FnOnce(ClientStream, Bytes) -> Session>;

/// The successor of HTTP on a connection.
pub(crate) struct Takeover(Begin);

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover").finish_non_exhaustive()
    }
}

impl Takeover {
    pub(crate) fn new(begin: impl FnOnce(ClientStream, Bytes) -> Session + 'static) -> Self {
        Self(Box::new(begin))
    }

    /// Begins the session with the stream, and the bytes that the client sent after its request.
    pub(crate) fn begin(self, client: ClientStream, early: Bytes) -> Session {
        (self.0)(client, early)
    }
}
