//! The body that a client still sends while its request is forwarded, and the caller's right to send it.

use super::deadline::WaitingFor;
use super::notes::Notes;
use super::open_streams::{OpenStream, StreamEnd};
use super::pool::Pools;
use super::request_body::Meter;
use crate::authenticate::Principal;
use crate::denial::Denial;
use crate::peer::Connection;
use std::cell::OnceCell;
use std::rc::Rc;
use std::task::Context;

/// The body of a request that is being forwarded.
///
/// Most bodies arrive at once. Only a body that takes longer than [`super::deadline::UPLOAD_LOOK`] is registered with
/// the core's sweep.
#[derive(Debug)]
pub(super) struct Inflow<'r> {
    pub(super) meter: &'r Rc<Meter>,
    pools: &'r Pools,
    /// The caller whose token has to last until the body has arrived.
    caller: Option<&'r Rc<Principal>>,
    /// The connection whose client certificate has to last as long.
    certified: Option<&'r Rc<Connection>>,
    stream: OnceCell<Rc<OpenStream>>,
}

impl<'r> Inflow<'r> {
    /// `caller` and `certified` are `None` if uploads of the route may outlive tokens.
    pub(super) fn new(
        pools: &'r Pools,
        meter: &'r Rc<Meter>,
        caller: Option<&'r Rc<Principal>>,
        certified: Option<&'r Rc<Connection>>,
    ) -> Self {
        Self { meter, pools, caller, certified, stream: OnceCell::new() }
    }

    /// Returns whether the request waits for the client or for the server.
    pub(super) fn waiting(&self) -> WaitingFor {
        self.meter.waiting()
    }

    /// Returns whether the rest of the body depends on the caller, and is not registered yet.
    pub(super) fn is_unregistered(&self) -> bool {
        let is_bound = self.caller.is_some() || self.certified.is_some();
        is_bound && self.stream.get().is_none() && !self.meter.is_ended()
    }

    /// Registers the body with the core's sweep, which ends it together with the caller's token.
    pub(super) fn register(&self) {
        if self.is_unregistered() {
            let stream = self.pools.open_upload(self.caller.cloned());
            if let Some(connection) = self.certified {
                stream.require_certificate(connection);
            }
            let _ = self.stream.set(stream);
        }
    }

    /// Returns the reason why the rest of the body must not reach the server. Without one, the end wakes the task of
    /// `cx`. The end of the token changes nothing once the body has arrived.
    pub(super) fn poll_end(&self, cx: &Context<'_>) -> Option<StreamEnd> {
        poll_end(self.stream.get(), self.meter, cx)
    }

    /// Returns the registration of the rest of the body, for an answer that has begun.
    pub(super) fn rest(&self) -> Option<Rc<OpenStream>> {
        self.register();
        self.stream.get().cloned()
    }
}

/// Records that the gateway has ended the upload, and returns the refusal of its request.
#[cold]
pub(super) fn refuse(inflow: Option<&Inflow<'_>>, end: StreamEnd, notes: &mut Notes) -> Denial {
    notes.ended = Some(end);
    notes.detail = Some(format!("the upload was ended: {}", end.as_str()));
    let stream = inflow.and_then(|inflow| inflow.stream.get());
    stream.and_then(|stream| stream.denial()).unwrap_or(Denial::RevokedToken)
}

/// Returns the reason why the rest of a body must not reach the server.
pub(super) fn poll_end(
    stream: Option<&Rc<OpenStream>>,
    meter: &Meter,
    cx: &Context<'_>,
) -> Option<StreamEnd> {
    stream.filter(|_| !meter.is_ended())?.poll_end(cx)
}
