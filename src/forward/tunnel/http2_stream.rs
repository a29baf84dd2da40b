//! A WebSocket over a stream of an HTTP/2 connection (RFC 8441).

use crate::forward::connection::http2::StreamSlot;
use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// The reason for refusing a handshake. The server must announce that it accepts WebSockets (RFC 8441 section 3).
pub(in crate::forward) const NOT_ANNOUNCED: &str =
    "the server accepts no WebSockets over HTTP/2: its SETTINGS have no ENABLE_CONNECT_PROTOCOL";

/// The stream of an accepted handshake. Dropping it resets the stream, unless both ends have closed it.
pub(in crate::forward) struct WebSocketStream {
    slot: StreamSlot,
    halves: RefCell<Halves>,
}

struct Halves {
    sender: SendStream<Bytes>,
    receiver: RecvStream,
    /// The bytes that were received and not read yet: at most one frame.
    data: Bytes,
    is_ended: bool,
}

impl WebSocketStream {
    pub(in crate::forward) fn new(slot: StreamSlot, sender: SendStream<Bytes>, receiver: RecvStream) -> Self {
        let halves = Halves { sender, receiver, data: Bytes::new(), is_ended: false };
        Self { slot, halves: RefCell::new(halves) }
    }

    pub(in crate::forward) fn scratch(&self) -> &RefCell<Vec<u8>> {
        self.slot.scratch()
    }

    pub(in crate::forward) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Halves { receiver, data, .. } = &mut *self.halves.borrow_mut();
        while data.is_empty() {
            match ready!(receiver.poll_data(cx)) {
                Some(Ok(more)) => {
                    // A failure means that the stream has ended, which the next poll reports.
                    let _ = receiver.flow_control().release_capacity(more.len());
                    self.slot.heard();
                    *data = more;
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = buf.remaining().min(data.len());
        buf.put_slice(&data[..count]);
        data.advance(count);
        if data.is_empty() {
            // An empty slice would keep the library's buffer.
            *data = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }

    pub(in crate::forward) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sender = &mut self.halves.borrow_mut().sender;
        sender.reserve_capacity(bytes.len());
        while sender.capacity() == 0 {
            match ready!(sender.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = sender.capacity().min(bytes.len());
        let sent = sender.send_data(Bytes::copy_from_slice(&bytes[..count]), false);
        Poll::Ready(sent.map(|()| count).map_err(io::Error::other))
    }

    /// Closes the gateway's side of the stream.
    pub(in crate::forward) fn end(&self) -> io::Result<()> {
        let halves = &mut *self.halves.borrow_mut();
        if std::mem::replace(&mut halves.is_ended, true) {
            return Ok(());
        }
        halves.sender.send_data(Bytes::new(), true).map_err(io::Error::other)
    }
}

impl fmt::Debug for WebSocketStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketStream").finish_non_exhaustive()
    }
}
