//! Wraps a connection's byte stream, and reports its reads and writes to [`Activity`](crate::peer::activity::Activity).

use super::frames::{FrameEvent, FrameScanner};
use crate::peer::{Connection, Protocol};
use bytes::{Buf, Bytes};
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The time that a closed HTTP/2 connection waits for its client to close it too.
const LINGER: Duration = Duration::from_secs(1);

/// Up to this number of bytes, a head and a body are joined before they are written. TLS would allocate a list of both, and
/// in cleartext, one `send` costs less than a `writev`.
const JOINED_MAX: usize = 4096;

/// A client's byte stream that reports reads and writes to the connection.
#[derive(Debug)]
pub(super) struct ObservedStream<S> {
    stream: S,
    connection: Rc<Connection>,
    /// The bytes that were read before the bytes of `stream`.
    unread: Bytes,
    /// The bytes that the HTTP library has written and the client's socket does not accept yet. They precede all further
    /// output. The library then keeps no piece of a body, whose block of memory may be much larger than the rest of it.
    unsent: Bytes,
    /// Scans the HTTP/2 frames. `None` over HTTP/1.1.
    frames: Option<Box<FrameScanner>>,
    has_suppressed_output: bool,
    /// The end of the wait for the client to close an HTTP/2 connection, once its output is shut down.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> ObservedStream<S> {
    pub(super) fn new(stream: S, connection: Rc<Connection>, protocol: Protocol) -> Self {
        let frames = (protocol == Protocol::Http2).then(|| Box::new(FrameScanner::new()));
        let (unread, unsent) = (Bytes::new(), Bytes::new());
        Self { stream, connection, unread, unsent, frames, has_suppressed_output: false, linger: None }
    }

    /// Continues an HTTP/1.1 connection. `unread` precedes the bytes of `stream`.
    pub(super) fn resumed(stream: S, unread: Bytes, connection: Rc<Connection>) -> Self {
        Self { unread, ..Self::new(stream, connection, Protocol::Http1) }
    }

    /// Returns the stream, and whether a response of the HTTP library was suppressed.
    pub(super) fn into_inner(self) -> (S, bool) {
        (self.stream, self.has_suppressed_output)
    }

    fn observe_read(&mut self, bytes: &[u8]) {
        let connection = &self.connection;
        match &mut self.frames {
            None => {
                if connection.activity.receive(connection.coarse_now()) {
                    connection.inspect_head(bytes);
                }
            }
            Some(frames) => frames.scan(bytes, |event| match event {
                FrameEvent::HeadBegins => connection.activity.begin_head(connection.coarse_now()),
                FrameEvent::FrameEnds { ends_head } => {
                    connection.activity.end_frame(ends_head, connection.coarse_now())
                }
            }),
        }
    }

    /// Discards input until the client closes the connection, for up to [`LINGER`].
    ///
    /// An HTTP/2 client often sends a frame, such as WINDOW_UPDATE, after it received its last response. If the socket
    /// were closed by then, the kernel would reset the connection, and the client could lose the response.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()>
    where
        S: AsyncRead + Unpin,
    {
        let end = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut sink = [0; 4096];
        loop {
            let mut sink = ReadBuf::new(&mut sink);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut sink)) {
                Ok(()) if !sink.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Returns whether the current output must be discarded. Also records that output was discarded.
    ///
    /// Over HTTP/1.1, output that is not a response of the pipeline is the HTTP library's response to invalid input.
    /// The gateway writes a response with a request id and a reason instead.
    fn suppress_library_output(&mut self) -> bool {
        let is_library_output = self.frames.is_none() && !self.connection.activity.is_answering();
        self.has_suppressed_output |= is_library_output;
        is_library_output
    }

    /// Records that the client does not read. The task runs once more, so that the body of the answer releases memory.
    fn observe_blocked(&self, cx: &Context<'_>) {
        let activity = &self.connection.activity;
        if !activity.is_blocked() && self.frames.is_none() {
            cx.waker().wake_by_ref();
        }
        activity.record_blocked_write(self.connection.coarse_now());
    }

    fn observe_write(&self, cx: &Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.observe_blocked(cx),
            Poll::Ready(written) => {
                let written = written.as_ref().map_or(0, |written| *written);
                self.connection.activity.record_write(written, || self.connection.coarse_now());
            }
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.unread.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let count = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..count]);
            self.unread.advance(count);
        }
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            self.observe_read(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> ObservedStream<S> {
    /// Writes the output that was kept.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let result = Pin::new(&mut self.stream).poll_write(cx, &self.unsent);
            match ready!(self.observe_write(cx, result))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.unsent.advance(written),
            }
            if self.unsent.is_empty() {
                self.unsent = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.suppress_library_output() {
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_unsent(cx))?;
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.observe_write(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        let activity = &self.connection.activity;
        match &result {
            Poll::Pending => self.observe_blocked(cx),
            Poll::Ready(_) => {
                activity.record_write(0, || self.connection.coarse_now());
                activity.record_flush();
            }
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_suppressed_output {
            // The gateway still has to write a response.
            return Poll::Ready(Ok(()));
        }
        if self.linger.is_none() {
            ready!(self.poll_unsent(cx))?;
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.frames.is_some() { self.poll_linger(cx).map(Ok) } else { Poll::Ready(Ok(())) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.suppress_library_output() {
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_unsent(cx))?;
        let stream = Pin::new(&mut self.stream);
        let result = match bufs {
            [one] => stream.poll_write(cx, one),
            _ if length <= JOINED_MAX => {
                let mut space = [MaybeUninit::uninit(); JOINED_MAX];
                let mut joined = ReadBuf::uninit(&mut space);
                bufs.iter().for_each(|buf| joined.put_slice(buf));
                stream.poll_write(cx, joined.filled())
            }
            _ => stream.poll_write_vectored(cx, bufs),
        };
        match self.observe_write(cx, result) {
            // The task is woken once the socket accepts more.
            Poll::Pending if self.frames.is_none() => {
                let mut unsent = Vec::with_capacity(length);
                bufs.iter().for_each(|buf| unsent.extend_from_slice(buf));
                self.unsent = unsent.into();
                Poll::Ready(Ok(length))
            }
            result => result,
        }
    }

    fn is_write_vectored(&self) -> bool {
        // Over HTTP/1.1, the HTTP library then queues the pieces of a body, which leave memory once they are written.
        // Otherwise it would copy them behind the head, and keep the space for the copy as long as it serves the connection.
        self.frames.is_none() || self.stream.is_write_vectored()
    }
}
