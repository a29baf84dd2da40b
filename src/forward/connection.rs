//! One connection to a server, which its requests drive: no task of its own reads or writes it.

use super::pool::Slot;
use crate::http1::KnownHead;
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// The least and the greatest number of bytes that one read asks for. A read that fills its space doubles the next one:
/// large answers then cost few wake-ups, and small answers little memory. A client that does not read keeps one read in
/// memory.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 16 * 1024;

/// The byte stream of a connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    /// A connection to a Unix socket.
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to a server. The exchange with its answer reads it. The exchange with its request's body writes it, at
/// the same time if the server answers early. Dropping the last of them closes the connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: RefCell<Stream>,
    input: RefCell<Input>,
    /// Reserves the connection's place until it is closed.
    pub(super) slot: Slot,
}

/// The bytes that were read and not used yet.
#[derive(Debug)]
struct Input {
    buffer: BytesMut,
    /// The head of the last answer.
    known: KnownHead,
    /// The number of bytes that the next read asks for.
    ask: usize,
    /// Whether the last read was much smaller than the space for it.
    was_small: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, slot: Slot) -> Self {
        let known = KnownHead::default();
        let input = Input { buffer: BytesMut::new(), known, ask: READ_MIN, was_small: false };
        Self { stream: RefCell::new(stream), input: RefCell::new(input), slot }
    }

    /// Passes the bytes that have arrived and are not used yet to `read`, and the head of the last answer.
    pub(super) fn arrived_head<T>(&self, read: impl FnOnce(&mut BytesMut, &mut KnownHead) -> T) -> T {
        let Input { buffer, known, .. } = &mut *self.input.borrow_mut();
        read(buffer, known)
    }

    /// Passes the bytes that have arrived and are not used yet to `read`.
    pub(super) fn arrived<T>(&self, read: impl FnOnce(&mut BytesMut) -> T) -> T {
        read(&mut self.input.borrow_mut().buffer)
    }

    /// Reads more bytes. Returns their number, which is 0 if the server closed the connection.
    pub(super) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.borrow_mut().poll_fill(cx, &mut self.stream.borrow_mut())
    }

    /// Writes some of these slices. Returns the number of accepted bytes.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let stream = Pin::new(&mut *stream);
        let written = match slices {
            [one] => stream.poll_write(cx, one),
            _ => stream.poll_write_vectored(cx, slices),
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => written,
        }
    }

    /// Reads into `buf`, past the connection's own buffer, which must be empty.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf)
    }

    /// Takes the bytes that were read and not used, and releases the buffer.
    pub(super) fn take_arrived(&self) -> Bytes {
        let mut input = self.input.borrow_mut();
        let arrived = Bytes::copy_from_slice(&input.buffer);
        input.buffer = BytesMut::new();
        arrived
    }

    /// Closes the gateway's side of the connection.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }

    /// Sends the bytes that TLS still holds.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    /// Whether all bytes that were read are used.
    pub(super) fn is_input_used(&self) -> bool {
        self.input.borrow().buffer.is_empty()
    }

    /// Releases the memory of a large answer.
    pub(super) fn trim(&self) {
        let mut input = self.input.borrow_mut();
        if input.buffer.capacity() > 2 * READ_MIN {
            (input.buffer, input.ask, input.was_small) = (BytesMut::new(), READ_MIN, false);
        }
    }

    /// Returns the state of a connection that no request uses.
    pub(super) fn idle_state(&self) -> IdleState {
        let mut byte = [0];
        let now = |read: io::Result<usize>| match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            read => Poll::Ready(read),
        };
        let read = match &mut *self.stream.borrow_mut() {
            Stream::Plain(tcp) => now(tcp.try_read(&mut byte)),
            Stream::Unix(unix) => now(unix.try_read(&mut byte)),
            // A server may send session tickets at any time. Only TLS can tell them from an answer.
            Stream::Tls(tls) => {
                let mut buffer = ReadBuf::new(&mut byte);
                let read = Pin::new(tls).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
                read.map_ok(|()| buffer.filled().len())
            }
        };
        match read {
            Poll::Pending => IdleState::Ready,
            Poll::Ready(Ok(0) | Err(_)) => IdleState::Closed,
            Poll::Ready(Ok(_)) => IdleState::Unasked,
        }
    }
}

/// The state of a connection that no request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleState {
    /// A request can use the connection.
    Ready,
    /// The server has closed the connection.
    Closed,
    /// The server has sent bytes that no request asked for. They must not become the answer to the next request.
    Unasked,
}

impl Input {
    fn poll_fill(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        // After a small answer, the rest of its space is enough for the next one: `reserve` moves the buffer back to the
        // beginning of its memory, which costs more than a read of less.
        let least = if self.ask == READ_MIN { READ_MIN / 2 } else { self.ask };
        let mut space = self.buffer.capacity() - self.buffer.len();
        if space < least {
            self.buffer.reserve(self.ask);
            space = self.buffer.capacity() - self.buffer.len();
        }
        let count = std::task::ready!(pin!(stream.read_buf(&mut self.buffer)).poll(cx))?;
        if count == space {
            self.ask = (2 * self.ask).min(READ_MAX);
            self.was_small = false;
        } else if 2 * count < self.ask {
            if self.was_small {
                self.ask = (self.ask / 2).max(READ_MIN);
            }
            self.was_small = !self.was_small;
        } else {
            self.was_small = false;
        }
        Poll::Ready(Ok(count))
    }
}

impl Stream {
    /// Says goodbye to a TLS server, if that is possible without waiting (RFC 8446 section 6.1).
    fn close(&mut self) {
        struct Now<'s>(&'s TcpStream);
        impl io::Write for Now<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.try_write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        if let Self::Tls(tls) = self {
            let (tcp, session) = tls.get_mut();
            session.send_close_notify();
            // The connection ends in any case, so a failure changes nothing.
            let _ = session.write_tls(&mut Now(tcp));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
