//! Passes the bytes of a WebSocket between a client and a server, unchanged and in both directions at once.
//!
//! An idle WebSocket holds no buffer. All WebSockets of a core read into one buffer, and bytes are copied out of it
//! only if the receiver does not accept them. The sender is not read while they wait, so each direction holds at most
//! one read.

pub(in crate::forward) mod http2_stream;
pub(in crate::forward) mod server_end;

use crate::forward::open_streams::{OpenStream, StreamEnd};
use crate::peer::ClientStream;
use crate::websocket::{FrameTracker, close_frame, masked_close_frame};
use bytes::Bytes;
use server_end::ServerEnd;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// Maximum number of bytes of one write. The HTTP library copies a write to an HTTP/2 stream as a whole.
const WRITE_MAX: usize = 16 * 1024;
/// Maximum number of reads of one direction before other tasks of the core run.
const ROUNDS: u32 = 16;
/// Maximum time for the gateway's close frames, and for the client's answer to its own.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// A WebSocket whose handshake both ends have accepted.
#[derive(Debug)]
pub(crate) struct Tunnel {
    server: ServerEnd,
    /// Shared with the core's sweep and with the record of the request.
    pub(crate) stream: Rc<OpenStream>,
    to_client: Flow,
    to_server: Flow,
    /// The end that closed first.
    first: Option<StreamEnd>,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    frames: FrameTracker,
    /// The bytes that the receiver has not accepted yet.
    held: Bytes,
    /// Whether the sender has closed its side.
    is_ended: bool,
    /// Whether the receiver knows that the sender has closed its side.
    is_shut: bool,
    /// Whether the receiver may hold bytes that it has not sent.
    is_unflushed: bool,
}

/// An end that failed.
enum Failed {
    Sender,
    Receiver,
}

impl Tunnel {
    /// Begins with the bytes that the server sent after its answer.
    pub(in crate::forward) fn new(server: ServerEnd, stream: Rc<OpenStream>) -> Self {
        let mut to_client = Flow::default();
        to_client.hold(server.take_arrived());
        Self { server, stream, to_client, to_server: Flow::default(), first: None }
    }

    /// Passes bytes until both ends have closed, one fails, or the sweep ends the stream. `early` contains the
    /// bytes that the client sent after its handshake.
    pub(crate) async fn run(mut self, mut client: ClientStream, early: Bytes) -> StreamEnd {
        // A slice would keep the HTTP library's buffer.
        self.to_server.hold(Bytes::copy_from_slice(&early));
        drop(early);
        let end = poll_fn(|cx| self.poll(cx, &mut client)).await;
        self.stream.finish(end);
        if let Some(code) = end.close_code() {
            // The WebSocket ends in any case.
            let _ = timeout(CLOSE_TIME, self.close(&mut client, code, end.as_str())).await;
        }
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>, client: &mut ClientStream) -> Poll<StreamEnd> {
        let Self { server: end, stream, to_client, to_server, first } = self;
        if let Some(end) = stream.poll_end(cx) {
            return Poll::Ready(end);
        }
        let mut server = end.stream();
        let mut scratch = end.scratch().borrow_mut();
        let mut from_client = to_server.poll(cx, client, &mut server, &mut scratch, &stream.bytes_in);
        let from_server = to_client.poll(cx, &mut server, client, &mut scratch, &stream.bytes_out);
        stream.is_unread.set(!to_client.held.is_empty());
        if let Poll::Ready(Err(Failed::Receiver)) = from_client {
            // A server that has closed its connection may have sent bytes before, which must still reach the client.
            first.get_or_insert(StreamEnd::Server);
            to_server.abandon();
            from_client = Poll::Ready(Ok(()));
        }
        if first.is_none() {
            let (end, sent) = match (to_server.is_ended, to_client.is_ended) {
                (true, _) => (Some(StreamEnd::Client), &*to_server),
                (false, true) => (Some(StreamEnd::Server), &*to_client),
                (false, false) => (None, &*to_client),
            };
            *first = end;
            // A client that reset its HTTP/2 stream looks like one that closed its side.
            stream.half_closed.set(end.filter(|_| !sent.frames.has_closed()));
        }
        match (from_client, from_server) {
            (Poll::Ready(Err(Failed::Sender)), _) | (_, Poll::Ready(Err(Failed::Receiver))) => {
                Poll::Ready(first.unwrap_or(StreamEnd::Client))
            }
            (_, Poll::Ready(Err(Failed::Sender))) => Poll::Ready(first.unwrap_or(StreamEnd::Server)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(first.unwrap_or(StreamEnd::Client)),
            (Poll::Pending | Poll::Ready(Err(Failed::Receiver)), _) | (_, Poll::Pending) => Poll::Pending,
        }
    }

    /// Sends close frames to both ends, each after a whole frame, and waits for the client's close frame.
    async fn close(&mut self, client: &mut ClientStream, code: u16, reason: &'static str) -> io::Result<()> {
        let Self { server: end, to_client, to_server, .. } = self;
        let mut server = end.stream();
        // The server gets no further byte of the client's: the caller may no longer send any.
        if to_server.held.is_empty() && to_server.frames.is_at_boundary() && !to_server.frames.has_closed() {
            let mut mask = [0; 4];
            // If the system provides no random numbers, the mask stays zero. The gateway chose the payload itself.
            let _ = aws_lc_rs::rand::fill(&mut mask);
            let frame = masked_close_frame(1001, reason, mask);
            // A server that does not read now gets no close frame.
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut server).poll_write(cx, &frame))).await;
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut server).poll_flush(cx))).await;
        }
        let is_whole = poll_fn(|cx| to_client.poll_to_boundary(cx, &mut server, client, end)).await?;
        if is_whole && !to_client.frames.has_closed() {
            to_client.held = close_frame(code, reason).into();
            poll_fn(|cx| to_client.poll_write(cx, client, &Cell::new(0))).await?;
        }
        poll_fn(|cx| Pin::new(&mut *client).poll_flush(cx)).await?;
        // The server closes the connection first (RFC 6455 section 7.1.1), but not before the client has read its close
        // frame: a reset could destroy it.
        if !to_server.is_ended && !to_server.frames.has_closed() {
            poll_fn(|cx| to_server.poll_discard(cx, client, end)).await?;
        }
        poll_fn(|cx| Pin::new(&mut *client).poll_shutdown(cx)).await
    }
}

impl Flow {
    /// Takes over bytes that have arrived already.
    fn hold(&mut self, bytes: Bytes) {
        self.frames.advance(&bytes);
        self.held = bytes;
    }

    /// Passes bytes. Ready once the receiver knows that the sender has closed its side.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        sender: &mut (impl AsyncRead + Unpin),
        receiver: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
        count: &Cell<u64>,
    ) -> Poll<Result<(), Failed>> {
        for _ in 0..ROUNDS {
            ready!(self.poll_write(cx, receiver, count)).map_err(|_| Failed::Receiver)?;
            if self.is_shut {
                return Poll::Ready(Ok(()));
            }
            if self.is_ended {
                ready!(Pin::new(&mut *receiver).poll_shutdown(cx)).map_err(|_| Failed::Receiver)?;
                self.is_shut = true;
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(scratch);
            let Poll::Ready(read) = Pin::new(&mut *sender).poll_read(cx, &mut buffer) else {
                if self.is_unflushed {
                    ready!(Pin::new(&mut *receiver).poll_flush(cx)).map_err(|_| Failed::Receiver)?;
                    self.is_unflushed = false;
                }
                return Poll::Pending;
            };
            read.map_err(|_| Failed::Sender)?;
            let mut bytes = buffer.filled();
            self.is_ended = bytes.is_empty();
            self.frames.advance(bytes);
            while !bytes.is_empty() {
                let piece = &bytes[..bytes.len().min(WRITE_MAX)];
                match Pin::new(&mut *receiver).poll_write(cx, piece) {
                    Poll::Ready(Ok(written @ 1..)) => {
                        bytes = &bytes[written..];
                        self.is_unflushed = true;
                        count.set(count.get() + written as u64);
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failed::Receiver)),
                    Poll::Pending => {
                        self.held = Bytes::copy_from_slice(bytes);
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Drops the bytes that wait. The receiver is gone.
    fn abandon(&mut self) {
        self.held = Bytes::new();
        (self.is_ended, self.is_shut) = (true, true);
    }

    /// Writes the bytes that wait for the receiver.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        receiver: &mut (impl AsyncWrite + Unpin),
        count: &Cell<u64>,
    ) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let piece = &self.held[..self.held.len().min(WRITE_MAX)];
            let written = ready!(Pin::new(&mut *receiver).poll_write(cx, piece))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_unflushed = true;
            count.set(count.get() + written as u64);
            self.held = if written == self.held.len() { Bytes::new() } else { self.held.slice(written..) };
        }
        Poll::Ready(Ok(()))
    }

    /// Passes the rest of the frame that has begun. Returns whether the receiver has only whole frames.
    fn poll_to_boundary(
        &mut self,
        cx: &mut Context<'_>,
        sender: &mut (impl AsyncRead + Unpin),
        receiver: &mut (impl AsyncWrite + Unpin),
        server: &ServerEnd,
    ) -> Poll<io::Result<bool>> {
        loop {
            ready!(self.poll_write(cx, receiver, &Cell::new(0)))?;
            if self.is_ended || self.frames.is_at_boundary() {
                return Poll::Ready(Ok(self.frames.is_at_boundary()));
            }
            let mut scratch = server.scratch().borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut *sender).poll_read(cx, &mut buffer))?;
            self.is_ended = buffer.filled().is_empty();
            let length = self.frames.advance_to_boundary(buffer.filled());
            self.held = Bytes::copy_from_slice(&buffer.filled()[..length]);
        }
    }

    /// Discards bytes until the sender sends a close frame or closes its side.
    fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        sender: &mut (impl AsyncRead + Unpin),
        server: &ServerEnd,
    ) -> Poll<io::Result<()>> {
        while !self.is_ended && !self.frames.has_closed() {
            let mut scratch = server.scratch().borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut *sender).poll_read(cx, &mut buffer))?;
            self.is_ended = buffer.filled().is_empty();
            self.frames.advance(buffer.filled());
        }
        Poll::Ready(Ok(()))
    }
}
