//! The body that a client still sends while its request is forwarded, and the caller's right to send it.

use super::meter::{Meter, WaitingFor};
use crate::authenticate::Principal;
use crate::denial::Denial;
use crate::forward::notes::Notes;
use crate::forward::open_streams::{OpenStream, OpenStreams, StreamEnd, StreamKind};
use crate::peer::Connection;
use std::cell::OnceCell;
use std::rc::Rc;
use std::task::Context;

/// The body of a request that is being forwarded.
///
/// Most bodies arrive at once. Only a body that takes longer than a sweep's interval is registered with the core's sweep.
#[derive(Debug)]
pub(in crate::forward) struct Inflow<'r> {
    pub(in crate::forward) meter: &'r Rc<Meter>,
    streams: &'r OpenStreams,
    /// The caller whose token has to last until the body has arrived.
    caller: Option<&'r Rc<Principal>>,
    /// The connection whose client certificate has to last as long.
    certified: Option<&'r Rc<Connection>>,
    stream: OnceCell<Rc<OpenStream>>,
}

impl<'r> Inflow<'r> {
    /// `caller` and `certified` are `None` if uploads of the route may outlive tokens.
    pub(in crate::forward) fn new(
        streams: &'r OpenStreams,
        meter: &'r Rc<Meter>,
        caller: Option<&'r Rc<Principal>>,
        certified: Option<&'r Rc<Connection>>,
    ) -> Self {
        Self { meter, streams, caller, certified, stream: OnceCell::new() }
    }

    /// Returns whether the request waits for the client or for the server.
    pub(in crate::forward) fn waiting(&self) -> WaitingFor {
        self.meter.waiting()
    }

    /// Returns whether the rest of the body depends on the caller, and is not registered yet.
    pub(in crate::forward) fn is_unregistered(&self) -> bool {
        let is_bound = self.caller.is_some() || self.certified.is_some();
        is_bound && self.stream.get().is_none() && !self.meter.is_ended()
    }

    /// Registers the body with the core's sweep, which ends it together with the caller's token.
    pub(in crate::forward) fn register(&self) {
        if self.is_unregistered() {
            let stream = self.streams.open_unbounded(StreamKind::Upload, self.caller.cloned());
            if let Some(connection) = self.certified {
                stream.require_certificate(connection);
            }
            let _ = self.stream.set(stream);
        }
    }

    /// Returns the reason why the rest of the body must not reach the server. Without one, the end wakes the task of
    /// `cx`. The end of the token changes nothing once the body has arrived.
    pub(in crate::forward) fn poll_end(&self, cx: &Context<'_>) -> Option<StreamEnd> {
        poll_end(self.stream.get(), self.meter, cx)
    }

    /// Returns the registration of the rest of the body, for an answer that has begun.
    pub(in crate::forward) fn rest(&self) -> Option<Rc<OpenStream>> {
        self.register();
        self.stream.get().cloned()
    }
}

/// Records that the gateway has ended the upload, and returns the refusal of its request.
#[cold]
pub(in crate::forward) fn refuse(inflow: Option<&Inflow<'_>>, end: StreamEnd, notes: &mut Notes) -> Denial {
    notes.ended = Some(end);
    notes.detail = Some(format!("the upload was ended: {}", end.as_str()));
    let stream = inflow.and_then(|inflow| inflow.stream.get());
    stream.and_then(|stream| stream.denial()).unwrap_or(Denial::RevokedToken)
}

/// Returns the reason why the rest of a body must not reach the server.
pub(in crate::forward) fn poll_end(
    stream: Option<&Rc<OpenStream>>,
    meter: &Meter,
    cx: &Context<'_>,
) -> Option<StreamEnd> {
    stream.filter(|_| !meter.is_ended())?.poll_end(cx)
}
