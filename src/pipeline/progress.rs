//! Defines the results of the stages that a request has passed.

use super::record::Record;
use super::stages::Routed;
use crate::authorize::Permit;
use crate::forward::{Meter, RequestBody};
use crate::limit::Standing;
use std::rc::Rc;

/// The results that a response needs, regardless of the stage that creates it.
#[derive(Debug, Default)]
pub(super) struct Progress<'p> {
    /// The index of the route, once it is found.
    pub(super) route: Option<usize>,
    /// The state of the rate limits for this request.
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

    /// Returns whether the client may still be sending its body.
    pub(super) fn is_body_on_its_way(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| !meter.is_ended())
    }
}

/// A request that passed all checks of its route.
pub(super) struct Admitted<'p, 'h> {
    pub(super) routed: Routed<'p, 'h>,
    pub(super) permit: Permit,
    pub(super) body: RequestBody,
}
