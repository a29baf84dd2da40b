//! Sends a request: its head, and its body as the client sends it.

use crate::forward::body::meter::BodyError;
use crate::forward::body::request_body::RequestBody;
use crate::forward::body::request_trailers::RequestTrailers;
use crate::forward::body::sending::{Held, UploadError};
use crate::forward::connection::http1::Connection;
use crate::http1::{RequestFraming, write_field, write_host, write_last_chunk};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method};
use http_body::Body;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A request on its way to a server. Its head is kept in the form in which it is sent, so that a retry sends the same
/// bytes again.
#[derive(Debug)]
pub(in crate::forward) struct Upload {
    /// The method.
    pub(in crate::forward) method: Method,
    head: Vec<u8>,
    /// The number of bytes of `head` before its `Host`, if the server's own name is to be written there.
    unnamed: Option<usize>,
    /// The number of bytes of `head` that the connection has accepted.
    head_sent: usize,
    /// The body that is not read yet.
    body: RequestBody,
    /// Present while the body waits for the server's `100 Continue`.
    held: Option<Held>,
    framing: RequestFraming,
    /// The piece of the body that is being sent, with the framing around it.
    before: Bytes,
    data: Bytes,
    after: &'static [u8],
    /// The whole body, if it is in memory.
    whole: Option<Bytes>,
}

impl Upload {
    /// Prepares a request with this framing of its body (`sending::framing`). An HTTP/1.0 client may omit `Host`, but the
    /// forwarded HTTP/1.1 request needs it (RFC 9112 section 3.2): unless `is_named`, [`Self::name_host`] must add it.
    pub(in crate::forward) fn new(
        method: Method,
        mut head: Vec<u8>,
        framing: RequestFraming,
        body: RequestBody,
        is_named: bool,
    ) -> Self {
        let unnamed = (!is_named).then_some(head.len());
        if is_named {
            head.extend_from_slice(b"\r\n");
        }
        let (body, data, whole) = match (body, framing) {
            (RequestBody::Streamed(streamed), RequestFraming::Length(_) | RequestFraming::Chunked) => {
                (RequestBody::Streamed(streamed), Bytes::new(), None)
            }
            (RequestBody::Whole(bytes), _) => (RequestBody::Empty, bytes.clone(), Some(bytes)),
            (RequestBody::Empty | RequestBody::Streamed(_), _) => {
                (RequestBody::Empty, Bytes::new(), Some(Bytes::new()))
            }
        };
        let framing = if whole.is_some() { RequestFraming::None } else { framing };
        Self {
            method,
            head,
            unnamed,
            head_sent: 0,
            body,
            held: None,
            framing,
            before: Bytes::new(),
            data,
            after: b"",
            whole,
        }
    }

    /// Writes this server's own name as `Host`, unless the client sent a host.
    pub(in crate::forward) fn name_host(&mut self, authority: impl FnOnce() -> Option<HeaderValue>) {
        if let Some(length) = self.unnamed {
            self.head.truncate(length);
            // A request without any authority has an empty `Host`.
            let host = authority().unwrap_or_else(|| HeaderValue::from_static(""));
            write_host(&mut self.head, &host);
        }
    }

    /// Forwards `Expect: 100-continue`: the body is not read before the server asks for it, or a second has passed. Must
    /// precede [`Self::name_host`]. `is_named` is that of [`Self::new`].
    pub(in crate::forward) fn expect_continue(&mut self) {
        self.add_field("expect", b"100-continue");
        self.held = Some(Held::default());
    }

    /// Passes these trailers of a chunked body, and announces them. Must precede [`Self::name_host`].
    #[cold]
    pub(in crate::forward) fn pass_trailers(&mut self, trailers: RequestTrailers) {
        if let Some(names) = trailers.announcement() {
            self.add_field("trailer", names.as_bytes());
        }
        self.body.pass_trailers(trailers);
    }

    fn add_field(&mut self, name: &str, value: &[u8]) {
        let mut line = Vec::new();
        write_field(&mut line, name, value);
        let end = match &mut self.unnamed {
            Some(length) => {
                *length += line.len();
                self.head.len()
            }
            // The last line break ends the head.
            None => self.head.len() - 2,
        };
        self.head.splice(end..end, line);
    }

    /// Whether the server has not asked for the body yet.
    pub(in crate::forward) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Lets the body follow. Returns whether it was held.
    pub(in crate::forward) fn release(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Whether a connection has accepted any byte of the request.
    pub(in crate::forward) fn is_begun(&self) -> bool {
        self.head_sent > 0
    }

    /// Whether the request can be sent a second time although a server may have processed it (RFC 9110 section
    /// 9.2.2). A streamed body is not kept.
    pub(in crate::forward) fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() && self.whole.is_some()
    }

    /// Prepares to send a repeatable request again, from its first byte.
    pub(in crate::forward) fn rewind(&mut self) {
        self.head_sent = 0;
        self.data = self.whole.clone().unwrap_or_default();
    }

    /// Sends the request. Returns once the server's connection has accepted all of it.
    pub(in crate::forward) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
    ) -> Poll<Result<(), UploadError>> {
        connection.owe(true);
        let sent = self.poll_rest(cx, connection);
        if let Poll::Ready(Ok(())) = sent {
            connection.owe(false);
        }
        sent
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<Result<(), UploadError>> {
        loop {
            // The first piece of the body is sent together with the head, if it is there already.
            let more = match self.is_piece_sent() {
                true => self.poll_piece(cx)?,
                false => Poll::Ready(true),
            };
            self.send(cx, connection).map_err(UploadError::Connection)?;
            if !self.is_sent() {
                return Poll::Pending;
            }
            match more {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    return connection.poll_flush(cx).map_err(UploadError::Connection);
                }
                Poll::Pending => {
                    ready!(connection.poll_flush(cx)).map_err(UploadError::Connection)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads the next piece of the body. Returns false if nothing follows.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, UploadError>> {
        if matches!(self.framing, RequestFraming::None | RequestFraming::Length(0)) {
            self.body = RequestBody::Empty;
            return Poll::Ready(Ok(false));
        }
        if let Some(held) = &mut self.held {
            ready!(held.poll(cx));
            self.held = None;
        }
        let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(frame) => return Poll::Ready(self.end(frame.into_trailers().ok().as_ref())),
            },
            Some(Err(
                BodyError::TooLarge | BodyError::TooSlow | BodyError::TooManyTrailers | BodyError::Broken,
            )) => {
                return Poll::Ready(Err(UploadError::Body));
            }
            None => return Poll::Ready(self.end(None)),
        };
        match &mut self.framing {
            RequestFraming::Length(missing) => match missing.checked_sub(data.len() as u64) {
                Some(left) => *missing = left,
                None => return Poll::Ready(Err(UploadError::Body)),
            },
            RequestFraming::Chunked if data.is_empty() => {}
            RequestFraming::Chunked => {
                let mut size = String::new();
                let _ = write!(size, "{:x}\r\n", data.len());
                (self.before, self.after) = (size.into(), b"\r\n");
            }
            RequestFraming::None => {}
        }
        self.data = data;
        Poll::Ready(Ok(true))
    }

    /// Ends the body, with its trailers.
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<bool, UploadError> {
        // A body that ends before its announced length must not look complete.
        if self.framing != RequestFraming::Chunked {
            return Err(UploadError::Body);
        }
        self.framing = RequestFraming::None;
        match trailers {
            None => self.after = b"0\r\n\r\n",
            Some(trailers) => {
                let mut last = Vec::new();
                write_last_chunk(&mut last, trailers);
                self.before = last.into();
            }
        }
        Ok(true)
    }

    /// Writes until the connection accepts no more, or everything is written.
    fn send(&mut self, cx: &mut Context<'_>, connection: &Connection) -> io::Result<()> {
        while !self.is_sent() {
            let all = [&self.head[self.head_sent..], &self.before, &self.data, self.after];
            let mut slices = [IoSlice::new(&[]); 4];
            let mut count = 0;
            for part in all.into_iter().filter(|part| !part.is_empty()) {
                slices[count] = IoSlice::new(part);
                count += 1;
            }
            match connection.poll_write(cx, &slices[..count]) {
                Poll::Ready(Ok(written)) => self.advance(written),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        let head = written.min(self.head.len() - self.head_sent);
        self.head_sent += head;
        written -= head;
        for part in [&mut self.before, &mut self.data] {
            let count = written.min(part.len());
            part.advance(count);
            written -= count;
        }
        self.after = &self.after[written..];
    }

    fn is_piece_sent(&self) -> bool {
        self.before.is_empty() && self.data.is_empty() && self.after.is_empty()
    }

    fn is_sent(&self) -> bool {
        self.head_sent == self.head.len() && self.is_piece_sent()
    }
}
