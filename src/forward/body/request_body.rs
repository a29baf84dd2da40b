//! Streams request bodies to an upstream, within bounds on size and time.
//!
//! Each pause of the client may last `timeout`. All pauses together may last `timeout` plus one second for each
//! `min_rate` bytes received, as in Apache's `RequestReadTimeout`. Only the time spent waiting for the client counts. A
//! slow upstream does not make a client late.

use super::meter::{BodyBounds, BodyError, Meter, WaitingFor};
use super::request_trailers::{RequestTrailers, TooManyTrailers};
use super::tee::{CopyEnd, Tee};
use crate::denial::Denial;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The owner of a connection. It takes back a body that was not read to its end.
pub(crate) trait BodyOwner: fmt::Debug {
    /// Records that a request has a body. The connection is not idle until the matching [`Self::end_body`].
    fn begin_body(&self);

    /// Records that nothing reads the body any more. An unread rest was taken back before.
    fn end_body(&self);

    /// Takes back an unread body. `expects_continue` is true if the client still waits for `100 Continue`.
    fn take_back(self: Rc<Self>, body: Incoming, expects_continue: bool);
}

/// A client's body as it arrives. If the body is dropped before its end, it returns to the connection's owner.
#[derive(Debug)]
pub(crate) struct Inbound {
    incoming: Option<Incoming>,
    owner: Rc<dyn BodyOwner>,
    expects_continue: bool,
}

impl Inbound {
    /// Wraps the body of a request. Returns `None` if the body is empty.
    pub(crate) fn new(incoming: Incoming, owner: Rc<dyn BodyOwner>, headers: &HeaderMap) -> Option<Self> {
        let is_empty = incoming.is_end_stream();
        let expects_continue = !is_empty && headers.contains_key(header::EXPECT);
        (!is_empty).then(|| {
            owner.begin_body();
            Self { incoming: Some(incoming), owner, expects_continue }
        })
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        // hyper sends `100 Continue` when the body is first read.
        self.expects_continue = false;
        let polled = ready!(Pin::new(incoming).poll_frame(cx));
        if matches!(polled, None | Some(Err(_))) {
            self.incoming = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.owner.clone().take_back(incoming, self.expects_continue);
        }
        self.owner.end_body();
    }
}

/// A client's body as the upstream receives it. Trailers are dropped, unless [`RequestBody::pass_trailers`] lists them.
#[derive(Debug, Default)]
pub(crate) enum RequestBody {
    #[default]
    Empty,
    /// A body in memory that was read before the decision.
    Whole(Bytes),
    /// A body that streams from the client.
    Streamed(Box<Streamed>),
}

#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: Inbound,
    bounds: BodyBounds,
    /// The trailers that the upstream receives.
    trailers: Option<RequestTrailers>,
    meter: Rc<Meter>,
    /// The copy of the body, if the request is mirrored.
    tee: Option<Rc<Tee>>,
    /// The total length of all completed pauses.
    waited: Duration,
    pause: Option<Instant>,
    /// The timer of a pause. The first pause creates it, and later pauses reuse it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// Accepts a body whose announced length is within the bounds.
    ///
    /// # Errors
    /// Returns [`Denial::BodyTooLarge`] before any byte of the body is read.
    pub(crate) fn admit(incoming: Inbound, bounds: BodyBounds) -> Result<(Self, Rc<Meter>), Denial> {
        if incoming.size_hint().lower() > bounds.size {
            return Err(Denial::BodyTooLarge);
        }
        let meter = Rc::new(Meter::new(bounds));
        let waited = Duration::ZERO;
        let streamed = Streamed {
            incoming,
            bounds,
            trailers: None,
            meter: meter.clone(),
            tee: None,
            waited,
            pause: None,
            timer: None,
        };
        Ok((Self::Streamed(Box::new(streamed)), meter))
    }

    /// Lowers the maximum size of the body.
    ///
    /// # Errors
    /// Returns [`Denial::BodyTooLarge`] if the announced length is larger.
    pub(crate) fn bounded(mut self, size: u64) -> Result<Self, Denial> {
        if self.size_hint().lower() > size {
            return Err(Denial::BodyTooLarge);
        }
        if let Self::Streamed(streamed) = &mut self {
            streamed.bounds.size = streamed.bounds.size.min(size);
        }
        Ok(self)
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(in crate::forward) fn expects_continue(&self) -> bool {
        matches!(self, Self::Streamed(streamed) if streamed.incoming.expects_continue)
    }

    /// Passes these trailers, and no others.
    pub(in crate::forward) fn pass_trailers(&mut self, trailers: RequestTrailers) {
        if let Self::Streamed(streamed) = self {
            streamed.trailers = Some(trailers);
        }
    }

    /// Reads the whole body. It must arrive within the time of one pause: only small bodies are read before the
    /// decision.
    ///
    /// # Errors
    /// Returns the denial if the body failed.
    pub(crate) async fn gather(mut self) -> Result<Bytes, Denial> {
        let timeout = match &self {
            Self::Empty => return Ok(Bytes::new()),
            Self::Whole(bytes) => return Ok(bytes.clone()),
            Self::Streamed(streamed) => streamed.bounds.timeout,
        };
        let mut whole = Vec::new();
        let read = async {
            while let Some(frame) = self.frame().await {
                let frame = frame.map_err(|fault| fault.denial())?;
                whole.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            }
            Ok(())
        };
        let read = tokio::time::timeout(timeout, read).await;
        match read {
            Ok(read) => read.map(|()| whole.into()),
            Err(_elapsed) => {
                if let Self::Streamed(streamed) = &self {
                    streamed.meter.fault.set(Some(BodyError::TooSlow));
                }
                Err(Denial::RequestTimeout)
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(streamed) => streamed.poll(cx).map(|frame| {
                frame.map(|result| result.inspect_err(|fault| streamed.meter.fault.set(Some(*fault))))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(streamed) => streamed.incoming.size_hint(),
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if let Some(tee) = &self.tee {
            let is_whole = self.incoming.is_end_stream() && self.meter.fault.get().is_none();
            tee.end(if is_whole { CopyEnd::Whole } else { CopyEnd::Incomplete });
        }
        self.meter.ended.set(true);
    }
}

impl Streamed {
    /// Copies the body while it is read.
    pub(in crate::forward) fn copy_to(&mut self, tee: Rc<Tee>) {
        self.tee = Some(tee);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(polled) = self.incoming.poll_frame(cx) else { return self.wait(cx) };
        let now = Instant::now();
        if let Some(since) = self.pause.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.meter.waiting.set(WaitingFor::Server(now));
        let frame = match polled {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Broken))),
            None => {
                self.meter.ended.set(true);
                if let Some(tee) = &self.tee {
                    tee.end(CopyEnd::Whole);
                }
                return Poll::Ready(None);
            }
        };
        // Trailers end the body.
        let Some(data) = frame.data_ref() else {
            self.meter.ended.set(true);
            let selected = self.select(frame);
            if let Some(tee) = &self.tee {
                let is_refused = matches!(selected, Some(Err(_)));
                tee.end(if is_refused { CopyEnd::Incomplete } else { CopyEnd::Whole });
            }
            return Poll::Ready(selected);
        };
        let bytes = self.meter.bytes.get() + data.len() as u64;
        self.meter.bytes.set(bytes);
        if bytes > self.bounds.size {
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        if let Some(tee) = &self.tee {
            tee.add(data);
        }
        // hyper does not poll the body again after the last byte of an announced length. The end is therefore recorded
        // here.
        if self.incoming.size_hint().exact() == Some(0) {
            self.meter.ended.set(true);
            if let Some(tee) = &self.tee {
                tee.end(CopyEnd::Whole);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Returns the trailers that the upstream receives, if there are any.
    fn select(&self, frame: Frame<Bytes>) -> Option<Result<Frame<Bytes>, BodyError>> {
        let selected = self.trailers.as_ref()?.select(frame.into_trailers().ok()?);
        match selected {
            Ok(trailers) if trailers.is_empty() => None,
            Ok(trailers) => Some(Ok(Frame::trailers(trailers))),
            Err(TooManyTrailers) => Some(Err(BodyError::TooManyTrailers)),
        }
    }

    /// Waits for the client. Fails if the pause is too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.pause.is_none() {
            let now = Instant::now();
            self.pause = Some(now);
            self.meter.waiting.set(WaitingFor::Client);
            let left =
                self.bounds.allowance(self.meter.bytes.get()).map(|all| all.saturating_sub(self.waited));
            let due = now + left.map_or(self.bounds.timeout, |left| left.min(self.bounds.timeout));
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(due),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(due))),
            }
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(Some(Err(BodyError::TooSlow)))
    }
}
