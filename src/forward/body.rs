//! Bodies on their way through: bounded, timed, counted, and never gathered.

use super::pool::Lease;
use crate::denial::{Denial, Malformed};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// What a client's body may be.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Bytes in all.
    pub size: u64,
    /// Between two reads.
    pub timeout: Duration,
}

/// What is known of a request's body after it was handed on: shared with the request's record.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: Cell<u64>,
    fault: Cell<Option<BodyFault>>,
}

impl Meter {
    /// How many bytes went through.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// The refusal that the body earned, if it did.
    pub fn denial(&self) -> Option<Denial> {
        self.fault.get().map(BodyFault::denial)
    }
}

/// Why a request's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// More bytes than the bound.
    TooLarge,
    /// No bytes for too long.
    TooSlow,
    /// The client broke off, or its framing is wrong.
    Broken,
}

impl BodyFault {
    /// The refusal that it earns.
    const fn denial(self) -> Denial {
        match self {
            Self::TooLarge => Denial::BodyTooLarge,
            Self::TooSlow => Denial::RequestTimeout,
            Self::Broken => Denial::BadRequest(Malformed::Framing),
        }
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is too large",
            Self::TooSlow => "the request's body did not come in time",
            Self::Broken => "the request's body broke off",
        })
    }
}

impl std::error::Error for BodyFault {}

/// A client's body as the upstream gets it. Trailers are dropped: an identity name in one would pass unseen.
#[derive(Debug, Default)]
pub enum RequestBody {
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
pub struct Streamed {
    incoming: Incoming,
    bounds: BodyBounds,
    meter: Rc<Meter>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// Admits a body whose announced length is within bounds.
    ///
    /// # Errors
    /// [`Denial::BodyTooLarge`], before a byte of it is read.
    pub fn admit(incoming: Incoming, bounds: BodyBounds) -> Result<(Self, Option<Rc<Meter>>), Denial> {
        if incoming.is_end_stream() {
            return Ok((Self::Empty, None));
        }
        if incoming.size_hint().lower() > bounds.size {
            return Err(Denial::BodyTooLarge);
        }
        let meter = Rc::new(Meter::default());
        let streamed = Streamed { incoming, bounds, meter: meter.clone(), waiting: None };
        Ok((Self::Streamed(Box::new(streamed)), Some(meter)))
    }

    /// With a tighter bound.
    ///
    /// # Errors
    /// [`Denial::BodyTooLarge`] where it is announced to be larger.
    pub fn bounded(mut self, size: u64) -> Result<Self, Denial> {
        if self.size_hint().lower() > size {
            return Err(Denial::BodyTooLarge);
        }
        if let Self::Streamed(streamed) = &mut self {
            streamed.bounds.size = streamed.bounds.size.min(size);
        }
        Ok(self)
    }

    /// Reads it to its end, within the bounds that it was admitted with.
    ///
    /// # Errors
    /// What it met on its way.
    pub async fn gather(mut self) -> Result<Bytes, Denial> {
        let mut whole = Vec::new();
        while let Some(frame) = self.frame().await {
            let frame = frame.map_err(|fault| fault.denial())?;
            whole.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
        }
        Ok(whole.into())
    }

    /// The same body once more, for a request that may be sent again; `None` for one that is still on its way, and is
    /// nowhere once it was sent.
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
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
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

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = None;
                let Some(data) = frame.data_ref() else { return Poll::Ready(None) };
                let bytes = self.meter.bytes.get() + data.len() as u64;
                self.meter.bytes.set(bytes);
                if bytes > self.bounds.size {
                    return Poll::Ready(Some(Err(BodyFault::TooLarge)));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BodyFault::Broken))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let timeout = self.bounds.timeout;
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(waiting.as_mut().poll(cx));
                Poll::Ready(Some(Err(BodyFault::TooSlow)))
            }
        }
    }
}

/// An upstream's body as the client gets it. Read to its end it gives its connection back to the pool; dropped
/// before, it closes it.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    timeout: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

/// Why an upstream's body ended early. The client must see it cut, not complete.
#[derive(Debug)]
pub enum Cut {
    /// The upstream broke off, or its framing is wrong.
    Broken(hyper::Error),
    /// The upstream sent nothing for too long.
    Silent,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the upstream's answer broke off: {}", super::chain(error)),
            Self::Silent => {
                f.write_str("the upstream's answer stopped: no byte of it came within the timeout")
            }
        }
    }
}

/// How an upstream's answer broke off after its head: for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The upstream closed the connection before the announced end.
    Closed,
    /// The connection was reset.
    Reset,
    /// A chunk is not well-formed.
    Invalid,
    /// Nothing came for too long.
    Stalled,
}

impl Broken {
    /// All reasons, as the metrics name them.
    pub const REASONS: [&str; 4] = ["closed", "reset", "invalid", "stalled"];

    /// The reason, as the metrics name it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Invalid => "invalid",
            Self::Stalled => "stalled",
        }
    }
}

impl Cut {
    /// How the answer broke off.
    pub fn kind(&self) -> Broken {
        let Self::Broken(error) = self else { return Broken::Stalled };
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return match error.kind() {
                    io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Broken::Invalid,
                    io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe => Broken::Reset,
                    _ => Broken::Closed,
                };
            }
            cause = error.source();
        }
        Broken::Closed
    }
}

impl std::error::Error for Cut {}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, timeout: Duration) -> Self {
        let mut body = Self { incoming, lease: Some(lease), timeout, waiting: None };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = None;
                match frame {
                    Some(Ok(mut frame)) => {
                        let last = match frame.trailers_mut() {
                            Some(trailers) => {
                                super::reframe::trailers(trailers);
                                true
                            }
                            None => this.incoming.is_end_stream(),
                        };
                        if last {
                            this.end();
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Some(Err(error)) => Poll::Ready(Some(Err(Cut::Broken(error)))),
                    None => {
                        this.end();
                        Poll::Ready(None)
                    }
                }
            }
            Poll::Pending => {
                let timeout = this.timeout;
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(waiting.as_mut().poll(cx));
                Poll::Ready(Some(Err(Cut::Silent)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
