//! The body of every answer, and the record that it carries to its end.

use crate::forward::{Cut, ResponseBody};
use crate::record::Record;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// An answer's body. When it is dropped, read to its end or not, the request's record is written.
#[derive(Debug)]
pub struct Body {
    source: Source,
    record: Option<Box<Record>>,
}

#[derive(Debug)]
enum Source {
    Whole(Bytes),
    Streamed(ResponseBody),
}

impl Body {
    /// A body that is all there.
    pub fn whole(bytes: Bytes) -> Self {
        Self { source: Source::Whole(bytes), record: None }
    }

    /// A body that comes from an upstream.
    pub fn streamed(body: ResponseBody) -> Self {
        Self { source: Source::Streamed(body), record: None }
    }

    /// Lets the record end with this body.
    pub(crate) fn carry(&mut self, mut record: Record) {
        if self.is_end_stream() {
            record.completed();
        } else {
            self.record = Some(Box::new(record));
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Streamed(body) => Pin::new(body).poll_frame(cx),
        };
        if let (Some(record), Poll::Ready(frame)) = (&mut this.record, &polled) {
            // Three ways to say that this was the last of it: the length is reached, trailers come, nothing more does.
            // hyper asks no further after the first two.
            let last = match frame {
                Some(Ok(frame)) => {
                    record.sent(frame.data_ref().map_or(0, Bytes::len));
                    frame.is_trailers() || this.is_end_stream()
                }
                Some(Err(cut)) => {
                    record.cut(cut);
                    false
                }
                None => true,
            };
            if last && let Some(mut record) = this.record.take() {
                record.completed();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Streamed(body) => body.size_hint(),
        }
    }
}
