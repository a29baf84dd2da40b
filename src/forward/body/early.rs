//! Sends the rest of a request's body after the response has begun, for a server that responds before it has read the
//! whole request.
//!
//! A separate task sends the rest. A client that sends its whole body before it reads the response would otherwise wait
//! for the gateway, and the gateway for the client.

use super::inflow;
use super::meter::Meter;
use super::sending::UploadError;
use crate::forward::faults::ResponseError;
use crate::forward::open_streams::{OpenStream, StreamEnd};
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::AbortHandle;

/// The time after which the gateway stops once the answer is complete and the server accepts nothing
/// of the request's body any more.
const STUCK_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which the task looks for a server that accepts nothing.
const STUCK_CHECK: Duration = Duration::from_secs(1);

/// The rest of a request's body that is being sent. Dropping this value stops the transfer.
pub(in crate::forward) struct EarlyAnswer {
    shared: Rc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    is_answered: Cell<bool>,
    failed: Cell<Option<Failure>>,
    reader: Cell<Option<Waker>>,
}

/// The reason why the rest of the body cannot be sent.
#[derive(Clone, Copy)]
enum Failure {
    /// The client's body failed.
    Body,
    /// The client may send no more.
    Ended(StreamEnd),
}

impl EarlyAnswer {
    /// Sends the rest of the request's body with `send`. Once the body is sent, `send` is dropped. `stream` ends the
    /// transfer together with the caller's token.
    pub(in crate::forward) fn begin(
        mut send: impl FnMut(&mut Context<'_>) -> Poll<Result<(), UploadError>> + 'static,
        meter: Option<Rc<Meter>>,
        stream: Option<Rc<OpenStream>>,
    ) -> Self {
        let shared = Rc::<Shared>::default();
        let state = shared.clone();
        let task = tokio::task::spawn_local(async move {
            let is_stuck = || meter.as_ref().is_none_or(|meter| meter.is_stuck(STUCK_TIMEOUT));
            let mut send = |cx: &mut Context<'_>| {
                let end = meter.as_ref().and_then(|meter| inflow::poll_end(stream.as_ref(), meter, cx));
                match end {
                    Some(end) => Poll::Ready(Err(Failure::Ended(end))),
                    None => send(cx).map(|sent| match sent {
                        Err(UploadError::Body) => Err(Failure::Body),
                        // A server that takes no more of the request may still send its answer.
                        Ok(()) | Err(UploadError::Connection(_)) => Ok(()),
                    }),
                }
            };
            loop {
                match tokio::time::timeout(STUCK_CHECK, poll_fn(&mut send)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(failure)) => {
                        if let (Failure::Ended(_), Some(stream), true) =
                            (failure, &stream, state.is_answered.get())
                        {
                            stream.count_by_sweep();
                        }
                        state.failed.set(Some(failure));
                        break;
                    }
                    Err(_elapsed) if state.is_answered.get() && is_stuck() => break,
                    Err(_elapsed) => {}
                }
            }
            if let Some(waker) = state.reader.take() {
                waker.wake();
            }
        });
        Self { shared, task: task.abort_handle() }
    }

    /// Returns the error of an answer whose request cannot be sent to its end. Without one, such a failure wakes the task
    /// of `cx`.
    pub(in crate::forward) fn failure(&self, cx: &Context<'_>) -> Option<ResponseError> {
        match self.shared.failed.get() {
            Some(Failure::Body) => Some(ResponseError::Upload),
            Some(Failure::Ended(end)) => Some(ResponseError::Ended(end)),
            None => {
                self.shared.reader.set(Some(cx.waker().clone()));
                None
            }
        }
    }

    /// Continues to send after the response has ended, because the server may still read the request.
    pub(in crate::forward) fn detach(self) {
        self.shared.is_answered.set(true);
    }
}

impl fmt::Debug for EarlyAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyAnswer").finish_non_exhaustive()
    }
}

impl Drop for EarlyAnswer {
    fn drop(&mut self) {
        if !self.shared.is_answered.get() {
            self.task.abort();
        }
    }
}
