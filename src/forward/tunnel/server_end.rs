//! The server's end of a WebSocket: an HTTP/1.1 connection, or a stream of an HTTP/2 connection.

use super::http2_stream::WebSocketStream;
use crate::forward::connection::http1::Connection;
use crate::forward::connection::pool::Lease;
use bytes::Bytes;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection or stream that a WebSocket holds.
#[derive(Debug)]
pub(in crate::forward) enum ServerEnd {
    Connection(Lease),
    Stream(Box<WebSocketStream>),
}

impl ServerEnd {
    /// Returns the core's buffer for reads of WebSockets. Its content is undefined.
    pub(in crate::forward) fn scratch(&self) -> &RefCell<Vec<u8>> {
        match self {
            Self::Connection(lease) => lease.scratch(),
            Self::Stream(stream) => stream.scratch(),
        }
    }

    /// Takes the bytes that the server sent after its answer and that were read with the answer.
    pub(in crate::forward) fn take_arrived(&self) -> Bytes {
        match self {
            Self::Connection(lease) => lease.connection.take_arrived(),
            Self::Stream(_) => Bytes::new(),
        }
    }

    /// Returns the server's byte stream.
    pub(in crate::forward) fn stream(&self) -> ServerStream<'_> {
        match self {
            Self::Connection(lease) => ServerStream::Connection(&lease.connection),
            Self::Stream(stream) => ServerStream::Stream(stream),
        }
    }
}

/// The server's byte stream.
#[derive(Clone, Copy)]
pub(in crate::forward) enum ServerStream<'e> {
    Connection(&'e Connection),
    Stream(&'e WebSocketStream),
}

impl AsyncRead for ServerStream<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match *self {
            Self::Connection(connection) => connection.poll_read(cx, buf),
            Self::Stream(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ServerStream<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match *self {
            Self::Connection(connection) => connection.poll_write(cx, &[IoSlice::new(buf)]),
            Self::Stream(stream) => stream.poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {
            Self::Connection(connection) => connection.poll_flush(cx),
            // The connection's own task writes what the stream has accepted.
            Self::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {
            Self::Connection(connection) => connection.poll_shutdown(cx),
            Self::Stream(stream) => Poll::Ready(stream.end()),
        }
    }
}
