//! Sends the body of a request over an HTTP/2 stream. The beginning of the body is kept until the answer begins, so that
//! a request which no server has processed can be sent again.

use crate::forward::body::request_body::RequestBody;
use crate::forward::body::sending::{Held, UploadError};
use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The maximum number of bytes of a body that are kept. A larger body is sent only once.
const KEPT_MAX: usize = 64 * 1024;

/// The body of a request on its way to a server.
pub(super) struct Upload {
    /// The body that is not read yet.
    source: RequestBody,
    /// The number of bytes that are missing from an announced length.
    missing: Option<u64>,
    is_read: bool,
    /// The pieces that were read. Empty if the body is not kept.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    is_kept: bool,
    /// The number of kept pieces that the current stream has taken.
    taken: usize,
    /// The part of the current piece that the stream has not accepted.
    data: Bytes,
    trailers: Option<HeaderMap>,
    is_sent: bool,
    /// Present while the body waits for the server's `100 Continue`.
    held: Option<Held>,
}

impl Upload {
    /// With `is_held`, the body is not read before the server asks for it, or a second has passed.
    pub(super) fn new(source: RequestBody, is_held: bool) -> Self {
        let missing = source.size_hint().exact();
        Self {
            is_read: source.is_end_stream(),
            source,
            missing,
            kept: Vec::new(),
            kept_bytes: 0,
            is_kept: true,
            taken: 0,
            data: Bytes::new(),
            trailers: None,
            is_sent: false,
            held: is_held.then(Held::default),
        }
    }

    /// Whether the request has no body.
    pub(super) fn is_empty(&self) -> bool {
        self.is_read && self.kept.is_empty() && self.trailers.is_none()
    }

    /// Whether the server has not asked for the body yet.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Lets the body follow. Returns whether it was held.
    pub(super) fn release(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Whether the request can be sent again from its first byte.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Prepares to send a kept body again.
    pub(super) fn rewind(&mut self) {
        (self.taken, self.data, self.is_sent) = (0, Bytes::new(), false);
    }

    /// Releases the pieces that are sent. The body is sent only once from here on.
    pub(super) fn forget(&mut self) {
        self.kept.drain(..self.taken);
        (self.taken, self.is_kept) = (0, false);
    }

    /// Sends the body. Returns once the stream has accepted all of it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), UploadError>> {
        while !self.is_sent {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(refused()));
            }
            if !self.data.is_empty() {
                ready!(self.poll_data(cx, stream))?;
            } else if let Some(piece) = self.kept.get(self.taken) {
                self.data = piece.clone();
                self.taken += 1;
            } else if !self.is_read {
                ready!(self.poll_source(cx))?;
            } else {
                self.is_sent = true;
                let sent = match self.trailers.clone() {
                    Some(trailers) => stream.send_trailers(trailers),
                    None => stream.send_data(Bytes::new(), true),
                };
                sent.map_err(|_| refused())?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends as much of the current piece as the server's windows allow.
    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), UploadError>> {
        stream.reserve_capacity(self.data.len());
        let room = match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(refused())),
            },
            room => room,
        };
        let part = self.data.split_to(room.min(self.data.len()));
        let is_last =
            self.data.is_empty() && self.is_read && self.taken == self.kept.len() && self.trailers.is_none();
        self.is_sent = is_last;
        Poll::Ready(stream.send_data(part, is_last).map_err(|_| refused()))
    }

    /// Reads the next piece from the client.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        if let Some(held) = &mut self.held {
            ready!(held.poll(cx));
            self.held = None;
        }
        match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if let Some(missing) = &mut self.missing {
                        *missing = missing.checked_sub(data.len() as u64).ok_or(UploadError::Body)?;
                    }
                    self.keep(&data);
                    self.data = data;
                    self.is_read = self.source.is_end_stream();
                }
                Err(frame) => {
                    self.is_read = true;
                    self.trailers = frame.into_trailers().ok();
                }
            },
            Some(Err(_)) => return Poll::Ready(Err(UploadError::Body)),
            None => self.is_read = true,
        }
        if self.is_read {
            self.source = RequestBody::Empty;
            // A body that ends before its announced length must not look complete.
            if self.missing.is_some_and(|missing| missing > 0) {
                return Poll::Ready(Err(UploadError::Body));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept_bytes += data.len();
        if self.is_kept && self.kept_bytes <= KEPT_MAX {
            self.kept.push(data.clone());
            self.taken += 1;
        } else {
            (self.kept, self.taken, self.is_kept) = (Vec::new(), 0, false);
        }
    }
}

/// The server takes no more of the request. It may still answer.
fn refused() -> UploadError {
    UploadError::Connection(io::ErrorKind::BrokenPipe.into())
}
