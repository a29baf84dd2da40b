//! Bounds the pauses of a server that sends the body of an answer, and ends an answer that fails.

use super::meter::Meter;
use crate::forward::faults::ResponseError;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The wait for the next piece of an answer's body, and the error that ends the body.
pub(in crate::forward) struct AnswerWait {
    /// The maximum time without a byte.
    silence: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The meter of the request's body, if the client was still sending it when the answer began.
    upload: Option<Rc<Meter>>,
    failed: Option<ResponseError>,
}

impl AnswerWait {
    pub(in crate::forward) fn new(silence: Duration, upload: Option<Rc<Meter>>) -> Self {
        Self { silence, timer: None, upload, failed: None }
    }

    /// Records that the server has sent something.
    pub(in crate::forward) fn heard(&mut self) {
        self.timer = None;
    }

    /// Waits for the server. While the gateway waits for the client to send the rest of the request's body, the time
    /// does not run.
    pub(in crate::forward) fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<ResponseError> {
        let silence = self.silence;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        loop {
            ready!(timer.as_mut().poll(cx));
            match self.upload.as_ref().and_then(|upload| upload.waiting().left(silence)) {
                Some(left) => timer.as_mut().reset(Instant::now() + left),
                None => return Poll::Ready(ResponseError::Silent),
            }
        }
    }

    /// Ends the body with this error at the next poll. The error makes hyper drop what it has not written yet, so hyper
    /// gets the time to write it first.
    pub(in crate::forward) fn fail<T>(&mut self, error: ResponseError, cx: &Context<'_>) -> Poll<T> {
        self.failed = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns the error that ends the body now.
    pub(in crate::forward) fn take_failure(&mut self) -> Option<ResponseError> {
        self.failed.take()
    }

    /// Returns whether the next poll returns an error.
    pub(in crate::forward) fn is_failing(&self) -> bool {
        self.failed.is_some()
    }
}

impl fmt::Debug for AnswerWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerWait").field("silence", &self.silence).finish_non_exhaustive()
    }
}
