//! A connection's byte stream, watched: reads and writes feed its [`Activity`](crate::peer::activity::Activity).

use super::connection::Protocol;
use super::frames::{Scanner, Seen};
use crate::peer::Connection;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of bytes from and to a client.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    connection: Rc<Connection>,
    /// Over HTTP/2: where its frames begin.
    frames: Option<Box<Scanner>>,
    withheld: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, connection: Rc<Connection>, protocol: Protocol) -> Self {
        let frames = (protocol == Protocol::Http2).then(|| Box::new(Scanner::new()));
        Self { stream, connection, frames, withheld: false }
    }

    /// The stream, and whether an answer of the HTTP library itself was withheld from it.
    pub(super) fn into_inner(self) -> (S, bool) {
        (self.stream, self.withheld)
    }

    fn read(&mut self, bytes: &[u8]) {
        let connection = &self.connection;
        match &mut self.frames {
            None => {
                if connection.activity.received(connection.coarse_now()) {
                    connection.head_begins(bytes);
                }
            }
            Some(frames) => frames.scan(bytes, |seen| match seen {
                Seen::HeadBegins => connection.activity.head_begins(connection.coarse_now()),
                Seen::FrameEnds(head) => connection.activity.frame_ends(head, connection.coarse_now()),
            }),
        }
    }

    /// Over HTTP/1.1, what is written while no request is being answered is the HTTP library's answer to bytes that are
    /// not HTTP. It is withheld: the gateway writes its own, with a request id and a reason.
    fn withholds(&mut self) -> bool {
        let own = self.frames.is_none() && !self.connection.activity.is_answering();
        self.withheld |= own;
        own
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.connection.activity.write_blocked(self.connection.coarse_now()),
            Poll::Ready(written) => {
                let written = written.as_ref().map_or(0, |written| *written);
                self.connection.activity.write_progressed(written, || self.connection.coarse_now());
            }
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            self.read(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.withholds() {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        let activity = &self.connection.activity;
        match &result {
            Poll::Pending => activity.write_blocked(self.connection.coarse_now()),
            Poll::Ready(_) => {
                activity.write_progressed(0, || self.connection.coarse_now());
                activity.flushed();
            }
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.withheld {
            // The gateway's own answer comes first.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.withholds() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
