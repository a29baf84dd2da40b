//! One connection to a server, which its requests drive: no task of its own reads or writes it.

use crate::forward::upstream::stream::Stream;
use crate::http1::KnownHead;
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The least and the greatest number of bytes that one read asks for. A read that fills its space doubles the next one:
/// large answers then cost few wake-ups, and small answers little memory.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 64 * 1024;

/// A connection to a server. The exchange with its answer reads it. The exchange with its request's body writes it, at
/// the same time if the server answers early. Dropping the last of them closes the connection: with a reset, if a request
/// was not sent to its end. Some servers pass the beginning of a body on as the whole one after an orderly end, although it
/// is shorter than its announced length (findings/half-an-upload-in-gunicorn.sh).
#[derive(Debug)]
pub(in crate::forward) struct Connection {
    stream: RefCell<Stream>,
    input: RefCell<Input>,
    /// Whether a part of a request is sent, and the rest is not.
    owes: Cell<bool>,
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
    /// The greatest size of the block of memory that the buffer shares with the pieces of bodies that were taken from it.
    block: usize,
}

impl Connection {
    pub(in crate::forward) fn new(stream: Stream) -> Self {
        let known = KnownHead::default();
        let input = Input { buffer: BytesMut::new(), known, ask: READ_MIN, was_small: false, block: 0 };
        Self { stream: RefCell::new(stream), input: RefCell::new(input), owes: Cell::new(false) }
    }

    /// Records whether the server waits for the rest of a request.
    pub(in crate::forward) fn owe(&self, owes: bool) {
        self.owes.set(owes);
    }

    /// Passes the bytes that have arrived and are not used yet to `read`, and the head of the last answer.
    pub(in crate::forward) fn arrived_head<T>(
        &self,
        read: impl FnOnce(&mut BytesMut, &mut KnownHead) -> T,
    ) -> T {
        let Input { buffer, known, .. } = &mut *self.input.borrow_mut();
        read(buffer, known)
    }

    /// Passes the bytes that have arrived and are not used yet to `read`.
    pub(in crate::forward) fn arrived<T>(&self, read: impl FnOnce(&mut BytesMut) -> T) -> T {
        read(&mut self.input.borrow_mut().buffer)
    }

    /// Reads more bytes. Returns their number, which is 0 if the server closed the connection.
    pub(in crate::forward) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.borrow_mut().poll_fill(cx, &mut self.stream.borrow_mut())
    }

    /// Writes some of these slices. Returns the number of accepted bytes.
    pub(in crate::forward) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
    pub(in crate::forward) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf)
    }

    /// Takes the bytes that were read and not used, and releases the buffer.
    pub(in crate::forward) fn take_arrived(&self) -> Bytes {
        let mut input = self.input.borrow_mut();
        let arrived = Bytes::copy_from_slice(&input.buffer);
        input.buffer = BytesMut::new();
        arrived
    }

    /// Closes the gateway's side of the connection.
    pub(in crate::forward) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }

    /// Sends the bytes that TLS still holds.
    pub(in crate::forward) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    /// Whether all bytes that were read are used.
    pub(in crate::forward) fn is_input_used(&self) -> bool {
        self.input.borrow().buffer.is_empty()
    }

    /// Releases the memory of a large answer.
    pub(in crate::forward) fn trim(&self) {
        let mut input = self.input.borrow_mut();
        if input.block > 2 * READ_MIN {
            (input.buffer, input.block, input.ask, input.was_small) = (BytesMut::new(), 0, READ_MIN, false);
        }
    }

    /// Releases the memory of bytes that were used.
    pub(in crate::forward) fn compact(&self) {
        let mut input = self.input.borrow_mut();
        if input.block > input.buffer.len() {
            input.block = input.buffer.len();
            input.buffer = BytesMut::from(&input.buffer[..]);
        }
    }

    /// Returns the state of a connection that no request uses.
    pub(in crate::forward) fn idle_state(&self) -> IdleState {
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

impl Drop for Connection {
    fn drop(&mut self) {
        if self.owes.get() {
            self.stream.get_mut().abort();
        }
    }
}

/// The state of a connection that no request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum IdleState {
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
            self.block = self.block.max(self.buffer.capacity());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;
    use tokio::net::TcpStream;

    /// Reads until the connection has bytes in a large block.
    async fn fill(connection: &Connection) {
        loop {
            poll_fn(|cx| connection.poll_fill(cx)).await.unwrap();
            if connection.input.borrow().block > 2 * READ_MIN {
                return;
            }
            connection.arrived(BytesMut::clear);
        }
    }

    #[test]
    fn a_large_block_of_memory_lives_no_longer_than_its_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The thread ends once the connection is closed.
        thread::spawn(move || {
            let (mut server, _) = listener.accept().unwrap();
            while server.write_all(&[7; READ_MAX]).is_ok() {}
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let connection = Connection::new(Stream::Plain(TcpStream::connect(address).await.unwrap()));

            fill(&connection).await;
            let piece = connection.arrived(|buffer| buffer.split_to(buffer.len() - 9).freeze());
            assert!(!piece.is_unique(), "the connection keeps the block");
            connection.compact();
            assert!(piece.is_unique(), "the connection has a copy of the rest");
            assert_eq!(connection.arrived(|buffer| buffer.to_vec()), [7; 9]);

            fill(&connection).await;
            let piece = connection.arrived(|buffer| buffer.split().freeze());
            connection.trim();
            assert!(piece.is_unique(), "an idle connection has no large block");
        });
    }
}
