//! Clients' bodies on their way to an upstream: bounded, timed, counted, and never gathered.
//!
//! Each pause of a client that sends a body may last `timeout`. All pauses together may last that time plus one second
//! for each `min_rate` bytes received, as in Apache's `RequestReadTimeout`. Only waiting for the client counts, so a
//! slow upstream does not make a client late.

use super::deadline::WaitingFor;
use crate::denial::{Denial, Malformed};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The bounds on a client's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Bytes in all.
    pub(crate) size: u64,
    /// Between two reads.
    pub(crate) timeout: Duration,
    /// The minimum rate in bytes a second, after `timeout`; 0: any.
    pub(crate) min_rate: u64,
}

impl BodyBounds {
    /// The total waiting time allowed to a client that has sent this many bytes; `None`: unlimited.
    fn allowance(&self, bytes: u64) -> Option<Duration> {
        let seconds = bytes.checked_div(self.min_rate)?;
        Some(self.timeout.saturating_add(Duration::from_secs(seconds)))
    }
}

/// The owner of a connection, which gets an unread body back.
pub(crate) trait BodyOwner: fmt::Debug {
    /// This body was not read to its end. `expects_continue`: the client waits for `100 Continue` before it sends any
    /// of it.
    fn take_back(self: Rc<Self>, body: Incoming, expects_continue: bool);
}

/// A client's body as it comes in. Dropped before its end, it goes back to the owner of its connection.
#[derive(Debug)]
pub(crate) struct Inbound {
    incoming: Option<Incoming>,
    owner: Rc<dyn BodyOwner>,
    expects_continue: bool,
}

impl Inbound {
    /// The body of a request on this owner's connection; `None` if it is empty.
    pub(crate) fn new(incoming: Incoming, owner: Rc<dyn BodyOwner>, headers: &HeaderMap) -> Option<Self> {
        let is_empty = incoming.is_end_stream();
        let expects_continue = !is_empty && headers.contains_key(header::EXPECT);
        (!is_empty).then(|| Self { incoming: Some(incoming), owner, expects_continue })
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        // Reading the body requests it.
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
    }
}

/// Measures a request's body after it was handed on. The request's record shares it.
#[derive(Debug)]
pub(crate) struct Meter {
    bytes: Cell<u64>,
    fault: Cell<Option<BodyError>>,
    waiting: Cell<WaitingFor>,
    ended: Cell<bool>,
    bounds: BodyBounds,
}

impl Meter {
    fn new(bounds: BodyBounds) -> Self {
        Self {
            bytes: Cell::new(0),
            fault: Cell::new(None),
            waiting: Cell::new(WaitingFor::Server(Instant::now())),
            ended: Cell::new(false),
            bounds,
        }
    }

    /// How many bytes went through.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the body came to its end, or nobody reads it any more.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Records whether the client or the server is being waited for.
    pub(super) fn waiting(&self) -> WaitingFor {
        self.waiting.get()
    }

    /// Whether the server has taken nothing of the body for this long, although there was some of it to take.
    pub(super) fn is_stuck(&self, time: Duration) -> bool {
        match self.waiting.get() {
            WaitingFor::Client => self.is_ended(),
            WaitingFor::Server(since) => since.elapsed() >= time,
        }
    }

    /// Describes the failure of the body for the operator.
    pub(crate) fn detail(&self) -> Option<String> {
        let BodyBounds { size, timeout, min_rate } = self.bounds;
        self.fault.get().map(|fault| match fault {
            BodyError::TooLarge => format!("the request's body is larger than {size} bytes"),
            BodyError::TooSlow => format!(
                "the request's body arrived too slowly: {} bytes, with pauses of {timeout:?} or below {min_rate} bytes a second",
                self.bytes.get()
            ),
            BodyError::Broken => fault.to_string(),
        })
    }

    /// The refusal that the body earned, if it did.
    pub(crate) fn denial(&self) -> Option<Denial> {
        self.fault.get().map(BodyError::denial)
    }
}

/// Why a request's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// More bytes than the bound.
    TooLarge,
    /// No bytes for too long, or too few.
    TooSlow,
    /// The client broke off, or its framing is wrong.
    Broken,
}

impl BodyError {
    /// The refusal that it earns.
    const fn denial(self) -> Denial {
        match self {
            Self::TooLarge => Denial::BodyTooLarge,
            Self::TooSlow => Denial::RequestTimeout,
            Self::Broken => Denial::BadRequest(Malformed::Framing),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is too large",
            Self::TooSlow => "the request's body did not arrive in time",
            Self::Broken => "the request's body ended early",
        })
    }
}

impl std::error::Error for BodyError {}

/// A client's body as the upstream gets it. Trailers are dropped: an identity name in one would pass unseen.
#[derive(Debug, Default)]
pub(crate) enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// All there: it was read before the request was decided on.
    Whole(Bytes),
    /// Streamed.
    Streamed(Box<Streamed>),
}

/// A body that is still on its way.
#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: Inbound,
    bounds: BodyBounds,
    meter: Rc<Meter>,
    /// The waiting time so far, without the current pause.
    waited: Duration,
    pause: Option<Instant>,
    /// Created with the first pause, and reused for the others.
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// Admits a body whose announced length is within bounds.
    ///
    /// # Errors
    /// [`Denial::BodyTooLarge`], before a byte of it is read.
    pub(crate) fn admit(incoming: Inbound, bounds: BodyBounds) -> Result<(Self, Rc<Meter>), Denial> {
        if incoming.size_hint().lower() > bounds.size {
            return Err(Denial::BodyTooLarge);
        }
        let meter = Rc::new(Meter::new(bounds));
        let waited = Duration::ZERO;
        let streamed = Streamed { incoming, bounds, meter: meter.clone(), waited, pause: None, timer: None };
        Ok((Self::Streamed(Box::new(streamed)), meter))
    }

    /// With a tighter bound.
    ///
    /// # Errors
    /// [`Denial::BodyTooLarge`] where it is announced to be larger.
    pub(crate) fn bounded(mut self, size: u64) -> Result<Self, Denial> {
        if self.size_hint().lower() > size {
            return Err(Denial::BodyTooLarge);
        }
        if let Self::Streamed(streamed) = &mut self {
            streamed.bounds.size = streamed.bounds.size.min(size);
        }
        Ok(self)
    }

    /// Reads the whole body, within the bounds that it was admitted with. The whole body has the time that other bodies
    /// have for one pause: bodies that are read first are small, and no answer can start meanwhile.
    ///
    /// # Errors
    /// The error that the body met on its way.
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

    /// A copy of the body, for a request that may be retried; `None` for a streamed body, which is not kept.
    pub(super) fn copy(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Streamed(_) => None,
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
        // The rest of the body goes back to the connection.
        self.meter.ended.set(true);
    }
}

impl Streamed {
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
                return Poll::Ready(None);
            }
        };
        // Trailers end the body; they are dropped.
        let Some(data) = frame.data_ref() else {
            self.meter.ended.set(true);
            return Poll::Ready(None);
        };
        let bytes = self.meter.bytes.get() + data.len() as u64;
        self.meter.bytes.set(bytes);
        if bytes > self.bounds.size {
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        // A body with a length must not be polled again.
        if self.incoming.size_hint().exact() == Some(0) {
            self.meter.ended.set(true);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Waits for the client, within bounds.
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
