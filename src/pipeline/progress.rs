//! The results of the stages that a request has passed so far.

use super::record::Record;
use super::stages::Routed;
use crate::authorize::Permit;
use crate::forward::{Meter, RequestBody};
use crate::limit::Standing;
use std::rc::Rc;

/// The results that an answer needs, whichever stage creates the answer.
#[derive(Debug, Default)]
pub(super) struct Progress<'p> {
    /// The route, once it is found.
    pub(super) route: Option<usize>,
    /// The state of the request's rate limits.
    pub(super) standing: Standing<'p>,
    /// The meter of the request's body, once the body is admitted.
    pub(super) meter: Option<Rc<Meter>>,
}

impl Progress<'_> {
    /// Stores the route in the progress and in the record.
    pub(super) fn routed(&mut self, route: usize, record: &mut Record) {
        self.route = Some(route);
        record.routed(route);
    }

    /// Whether the client may still be sending its body.
    pub(super) fn is_body_on_its_way(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| !meter.is_ended())
    }
}

/// A request that passed every check of its route.
pub(super) struct Admitted<'p, 'h> {
    pub(super) routed: Routed<'p, 'h>,
    pub(super) permit: Permit,
    pub(super) body: RequestBody,
}
