//! The body of an upstream's answer, as it streams to the client.

use crate::forward::body::answer_wait::AnswerWait;
use crate::forward::body::early::EarlyAnswer;
use crate::forward::body::meter::Meter;
use crate::forward::connection::pool::Lease;
use crate::forward::faults::ResponseError;
use crate::forward::head::reframe;
use crate::http1::{BodyReader, Piece};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The body of an upstream's answer. A body that is read to its end returns its connection to the pool. Dropping the
/// body before its end closes the connection.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    reader: BodyReader,
    /// `None` after the end.
    lease: Option<Lease>,
    /// Whether another request may use the connection.
    keep: bool,
    wait: AnswerWait,
    /// The rest of the request, if the server answered before it had read the request.
    early: Option<EarlyAnswer>,
}

impl ResponseBody {
    pub(in crate::forward) fn new(
        reader: BodyReader,
        lease: Lease,
        keep: bool,
        silence: Duration,
        early: Option<EarlyAnswer>,
        upload: Option<Rc<Meter>>,
    ) -> Self {
        let wait = AnswerWait::new(silence, upload);
        let mut body = Self { reader, lease: Some(lease), keep, wait, early };
        if body.reader.is_ended() {
            body.end();
        }
        body
    }

    /// Ends the exchange. The connection is used again only if its server has the whole request.
    fn end(&mut self) {
        let (lease, early) = (self.lease.take(), self.early.take());
        match (early, lease) {
            (Some(early), Some(_)) if self.keep => early.detach(),
            (None, Some(lease)) if self.keep => lease.release(),
            (Some(_) | None, _) => {}
        }
    }

    /// Releases memory that the bytes that have arrived do not use.
    pub(crate) fn compact(&self) {
        if let Some(lease) = &self.lease {
            lease.connection.compact();
        }
    }

    /// Returns the next piece of the body, or `None` after its end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, ResponseError>> {
        let Some(lease) = &self.lease else { return Poll::Ready(Ok(None)) };
        if let Some(error) = self.early.as_ref().and_then(|early| early.failure(cx)) {
            return Poll::Ready(Err(error));
        }
        let piece = loop {
            let piece = lease.connection.arrived(|buffer| self.reader.read(buffer));
            let piece = piece.map_err(ResponseError::Invalid)?;
            if piece.is_some() || self.reader.is_ended() {
                break piece;
            }
            match lease.connection.poll_fill(cx) {
                Poll::Ready(Ok(0)) => self.reader.close().map_err(ResponseError::Invalid)?,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ResponseError::Broken(error))),
                Poll::Pending => return self.wait.poll_silence(cx).map(Err),
            }
        };
        self.wait.heard();
        if self.reader.is_ended() {
            self.end();
        }
        Poll::Ready(Ok(piece))
    }
}

impl Body for ResponseBody {
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
        match ready!(this.poll_piece(cx)) {
            Ok(Some(Piece::Data(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(Some(Piece::Trailers(mut trailers))) => {
                reframe::trailers(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => {
                this.lease = None;
                this.wait.fail(error, cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none() && !self.wait.is_failing()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.missing().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
