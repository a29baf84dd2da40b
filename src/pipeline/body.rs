//! Defines the body of a response. It holds the record of its request until the response ends.

use super::compressed::{AT_ONCE_MAX, Compressed, MEMORY_MAX};
use super::record::Record;
use crate::forward::files::FileBody;
use crate::forward::{Http2Body, ResponseBody, ResponseError, StreamEnd, Tunnel};
use crate::peer::streams::Reader;
use crate::respond::coding::Coding;
use crate::respond::grpc_trailers;
use crate::worker::Worker;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Maximum number of bytes passed to an HTTP/2 stream at once: one frame. The HTTP library requests the next piece only
/// after the client has opened its window for the current piece. Each request for a piece therefore shows that the
/// client reads.
const PIECE: usize = 16 * 1024;

/// The body of a response. The record of the request is written when the body is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    source: Source,
    record: Option<Box<Record>>,
    paced: Option<Box<Paced>>,
}

/// The client's reading progress over HTTP/2, and the part of the last frame that is not yet sent.
#[derive(Debug)]
struct Paced {
    reader: Rc<Reader>,
    rest: Bytes,
}

#[derive(Debug)]
pub(super) enum Source {
    Whole(Bytes),
    Streamed(Box<ResponseBody>),
    Multiplexed(Box<Http2Body>),
    Compressed(Box<Compressed>),
    File(Box<FileBody>),
    /// The WebSocket that follows the response.
    Tunnel(Box<Tunnel>),
    /// A streamed body that the gateway has ended.
    Ended,
}

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { source: Source::Whole(bytes), record: None, paced: None }
    }

    pub(super) fn streamed(body: Box<ResponseBody>) -> Self {
        Self { source: Source::Streamed(body), record: None, paced: None }
    }

    pub(super) fn multiplexed(body: Box<Http2Body>) -> Self {
        Self { source: Source::Multiplexed(body), record: None, paced: None }
    }

    pub(super) fn file(body: FileBody) -> Self {
        Self { source: Source::File(Box::new(body)), record: None, paced: None }
    }

    /// Creates the empty body of a response that a WebSocket follows.
    pub(super) fn tunnel(tunnel: Box<Tunnel>) -> Self {
        Self { source: Source::Tunnel(tunnel), record: None, paced: None }
    }

    /// Takes the WebSocket that follows the response.
    pub(super) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        if !matches!(self.source, Source::Tunnel(_)) {
            return None;
        }
        match std::mem::replace(&mut self.source, Source::Whole(Bytes::new())) {
            Source::Tunnel(tunnel) => Some(tunnel),
            Source::Whole(_)
            | Source::Streamed(_)
            | Source::Multiplexed(_)
            | Source::Compressed(_)
            | Source::File(_)
            | Source::Ended => None,
        }
    }

    /// Returns the length of the body, if it is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// Whether the core can compress one more answer.
    pub(super) fn can_compress(worker: &Worker, coding: Coding) -> bool {
        let memory = worker.encoder_memory().get() + coding.memory();
        let is_free = worker.counters().compressing.get() < AT_ONCE_MAX && memory <= MEMORY_MAX;
        if !is_free {
            worker.counters().compressions_skipped.add(1);
        }
        is_free
    }

    /// Compresses the body while it streams.
    pub(super) fn compress(mut self, coding: Coding, worker: Rc<Worker>) -> Self {
        let source = std::mem::replace(&mut self.source, Source::Ended);
        self.source = Source::Compressed(Box::new(Compressed::new(source, coding, worker)));
        self
    }

    /// Attaches the record of the request. The record is written when this body ends, or now if the body is empty.
    pub(super) fn carry(&mut self, mut record: Box<Record>) {
        if self.is_end_stream() {
            record.completed();
        } else {
            self.record = Some(record);
        }
    }

    /// Enforces a minimum reading rate on an HTTP/2 stream.
    pub(super) fn pace(&mut self, reader: Rc<Reader>) {
        if !self.is_end_stream() {
            self.paced = Some(Box::new(Paced { reader, rest: Bytes::new() }));
        }
    }

    /// Cuts the answer off, so that the client sees that it is incomplete.
    #[cold]
    fn end(&mut self, cx: &Context<'_>, end: StreamEnd) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if self.is_grpc() {
            return Poll::Ready(Some(Ok(self.end_call(&ResponseError::Ended(end)))));
        }
        if self.source.is_streamed() {
            // The connection to the upstream closes. An error makes the HTTP library drop what it has not written yet,
            // so the library can first write what it holds.
            self.break_off();
            self.source = Source::Ended;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let error = ResponseError::Ended(end);
        if let Some(record) = &mut self.record {
            record.cut(&error);
        }
        Poll::Ready(Some(Err(error)))
    }

    /// Records that the answer ends early, unless it was complete. Must precede the end of its source.
    fn break_off(&self) {
        if let Some(record) = &self.record
            && !record.is_complete()
        {
            record.break_off(self.source.is_sized());
        }
    }

    /// Whether a gRPC status can report that the answer ended early.
    fn is_grpc(&self) -> bool {
        matches!(&self.source, Source::Multiplexed(body) if body.is_grpc())
    }

    /// Ends a gRPC call with a status, as trailers. The stream to the upstream is reset.
    #[cold]
    fn end_call(&mut self, error: &ResponseError) -> Frame<Bytes> {
        if let Some(record) = &mut self.record {
            record.cut(error);
        }
        self.source = Source::Whole(Bytes::new());
        if let Some(paced) = &mut self.paced {
            paced.rest = Bytes::new();
        }
        let (status, message) = error.grpc_end();
        Frame::trailers(grpc_trailers(status, message))
    }

    #[inline(never)]
    fn poll_paced(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Some(paced) = &mut self.paced else { return self.source.poll_frame(cx) };
        paced.reader.request_data();
        let mut data = std::mem::take(&mut paced.rest);
        if data.is_empty() {
            match std::task::ready!(self.source.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(frame) => data = frame,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = data.split_to(data.len().min(PIECE));
        if let Some(paced) = &mut self.paced {
            paced.rest = data;
            paced.reader.deliver(piece.len());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Source {
    /// Whether the body arrives piece by piece.
    fn is_streamed(&self) -> bool {
        match self {
            Self::Streamed(_) | Self::Multiplexed(_) | Self::Compressed(_) | Self::File(_) => true,
            Self::Whole(_) | Self::Tunnel(_) | Self::Ended => false,
        }
    }

    /// Whether the head of the answer has a length.
    fn is_sized(&self) -> bool {
        match self {
            Self::Whole(_) | Self::File(_) => true,
            Self::Streamed(body) => body.size_hint().exact().is_some(),
            Self::Multiplexed(body) => body.is_sized(),
            Self::Compressed(_) | Self::Tunnel(_) | Self::Ended => false,
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
            Self::Multiplexed(body) => Pin::new(body).poll_frame(cx),
            Self::Compressed(body) => body.poll_frame(cx),
            Self::File(body) => Pin::new(body).poll_frame(cx),
            Self::Tunnel(_) | Self::Ended => Poll::Ready(None),
        }
    }

    /// Releases memory that the unread rest of the body does not use. Returns false if the body must be polled on.
    #[cold]
    pub(super) fn pause(&mut self) -> bool {
        match self {
            Self::Streamed(body) => {
                body.compact();
                true
            }
            Self::Compressed(body) => body.pause(),
            // A read waits for a place that other reads of the folder need.
            Self::File(body) => !body.is_reading(),
            Self::Multiplexed(_) | Self::Whole(_) | Self::Tunnel(_) | Self::Ended => true,
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(body) => body.is_end_stream(),
            Self::Multiplexed(body) => body.is_end_stream(),
            Self::Compressed(body) => body.is_end_stream(),
            Self::File(body) => body.is_end_stream(),
            Self::Tunnel(_) => true,
            Self::Ended => false,
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let (Some(paced), Some(record)) = (&self.paced, &mut self.record)
            && paced.reader.is_timed_out()
        {
            record.not_read();
        }
        self.break_off();
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        if let Some(record) = &this.record
            && let Some(end) = record.poll_end(cx)
        {
            return this.end(cx, end);
        }
        let is_blocked = this.record.as_ref().is_some_and(|record| record.is_client_blocked());
        let polled = if is_blocked && this.source.pause() {
            // The HTTP library polls the body again once the client's socket has accepted all output.
            Poll::Pending
        } else if this.paced.is_none() {
            this.source.poll_frame(cx)
        } else {
            this.poll_paced(cx)
        };
        if let Poll::Ready(Some(Err(error))) = &polled
            && this.is_grpc()
        {
            return Poll::Ready(Some(Ok(this.end_call(error))));
        }
        let is_end = this.is_end_stream();
        let mut is_over = false;
        if let (Some(record), Poll::Ready(frame)) = (&mut this.record, &polled) {
            // A body ends when its length is reached, when its trailers arrive, or when nothing follows. In the first
            // two cases, hyper does not poll again.
            let last = match frame {
                Some(Ok(frame)) => {
                    record.sent(frame.data_ref().map_or(0, Bytes::len));
                    frame.is_trailers() || is_end
                }
                Some(Err(cut)) => {
                    record.cut(cut);
                    false
                }
                None => true,
            };
            if last {
                record.completed();
                is_over = this.paced.is_none();
            }
        }
        if let (Some(record), true, false) = (&mut this.record, this.source.is_streamed(), is_over)
            && (polled.is_pending() || record.has_sent())
        {
            record.bound();
            // The token may have ended before the stream was registered. This call also registers the waker.
            let _ = record.poll_end(cx);
        }
        // Over HTTP/2, the HTTP library may hold the last piece until the client opens its window. The request
        // therefore ends only when the library drops the body.
        if is_over {
            this.record = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if self.paced.as_ref().is_some_and(|paced| !paced.rest.is_empty()) {
            return false;
        }
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Streamed(body) => body.size_hint(),
            Source::Multiplexed(body) => body.size_hint(),
            Source::Tunnel(_) => SizeHint::with_exact(0),
            Source::File(body) => body.size_hint(),
            Source::Compressed(_) | Source::Ended => SizeHint::default(),
        }
    }
}
