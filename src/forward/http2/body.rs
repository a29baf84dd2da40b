//! The body of an HTTP/2 upstream's answer, as it streams to the client.

use super::trailers::AnswerTrailers;
use crate::forward::body::answer_wait::AnswerWait;
use crate::forward::body::early::EarlyAnswer;
use crate::forward::body::meter::Meter;
use crate::forward::connection::http2::StreamSlot;
use crate::forward::faults::ResponseError;
use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// The body of an answer. Dropping the body before its end resets the stream.
pub(crate) struct Http2Body {
    /// `None` after the end.
    open: Option<Open>,
    /// Whether the answer belongs to a gRPC call of a client that reads trailers.
    is_grpc: bool,
    /// Whether the head of the answer has a length.
    is_sized: bool,
    wait: AnswerWait,
    /// The end of a gRPC call's time.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// A stream whose answer has not ended.
pub(super) struct Open {
    pub(super) stream: RecvStream,
    pub(super) slot: Rc<StreamSlot>,
    pub(super) names: Rc<AnswerTrailers>,
    /// The rest of the request, if the answer began before the request was sent.
    pub(super) early: Option<EarlyAnswer>,
}

impl Http2Body {
    /// `upload` is the meter of a body that the client still sends, and `left` the time that is left of a gRPC call.
    pub(super) fn new(
        open: Open,
        is_grpc: bool,
        is_sized: bool,
        silence: Duration,
        upload: Option<Rc<Meter>>,
        left: Option<Duration>,
    ) -> Self {
        let is_ended = open.stream.is_end_stream();
        let deadline = left.filter(|_| !is_ended).map(|left| Box::pin(tokio::time::sleep(left)));
        let wait = AnswerWait::new(silence, upload);
        let mut body = Self { open: Some(open), is_grpc, is_sized, wait, deadline };
        if is_ended {
            body.end();
        }
        body
    }

    /// Returns whether a gRPC status reports to the client that the answer ended early.
    pub(crate) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// Returns whether the head of the answer has a length.
    pub(crate) fn is_sized(&self) -> bool {
        self.is_sized
    }

    /// Ends the answer. The server may still read the request.
    fn end(&mut self) {
        self.deadline = None;
        if let Some(early) = self.open.take().and_then(|open| open.early) {
            early.detach();
        }
    }

    /// Returns the next frame. The library reports a stream that was reset as an error, with NO_ERROR too.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        if let Some(error) = open.early.as_ref().and_then(|early| early.failure(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(ResponseError::Deadline)));
        }
        let frame = match open.stream.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                // A failure means that the stream has ended, which the next poll reports.
                let _ = open.stream.flow_control().release_capacity(data.len());
                Some(Frame::data(data))
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(ResponseError::Stream(error)))),
            Poll::Ready(None) => match open.stream.poll_trailers(cx) {
                Poll::Ready(Ok(trailers)) => trailers.map(|mut trailers| {
                    open.names.clean(&mut trailers);
                    Frame::trailers(trailers)
                }),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(ResponseError::Stream(error)))),
                Poll::Pending => return self.wait.poll_silence(cx).map(|error| Some(Err(error))),
            },
            Poll::Pending => return self.wait.poll_silence(cx).map(|error| Some(Err(error))),
        };
        open.slot.heard();
        self.wait.heard();
        if frame.as_ref().is_none_or(|frame| frame.is_trailers() || open.stream.is_end_stream()) {
            self.end();
        }
        Poll::Ready(frame.map(Ok))
    }
}

impl fmt::Debug for Http2Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Body").field("is_open", &self.open.is_some()).finish_non_exhaustive()
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        if let Some(error) = this.wait.take_failure() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(this.poll_open(cx)) {
            Some(Err(error)) => {
                this.open = None;
                this.wait.fail(error, cx)
            }
            polled => Poll::Ready(polled),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none() && !self.wait.is_failing()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
