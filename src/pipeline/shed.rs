//! Refuses requests beyond the bound on requests in progress, before the gateway spends anything else on them.

use super::Body;
use crate::denial::Denial;
use crate::forward::{Inbound, X_REQUEST_ID};
use crate::peer::Connection;
use crate::respond::{self, Format};
use crate::worker::Worker;
use http::request::Parts;
use http::{HeaderValue, Response, Version, header};

/// Returns whether the core has as many requests in progress as `[server.bounds] requests` allows.
#[inline]
pub(super) fn is_due(worker: &Worker) -> bool {
    worker.counters().requests_in_progress.get() >= worker.settings().requests_max
}

/// Refuses a request. It gets no route, no access line and no signature check; the core's sweep reports the number of
/// such requests.
#[cold]
pub(super) fn refuse(
    worker: &Worker,
    connection: &Connection,
    parts: &Parts,
    body: Option<Inbound>,
) -> Response<Body> {
    connection.activity.begin_request();
    worker.counters().requests_shed.add(1);
    worker.counters().unrouted.record(&Denial::Overloaded);
    let id = worker.request_ids().next().header();
    let format = Format::of(&parts.headers);
    let mut response = respond::refuse(&Denial::Overloaded, format, &id, &parts.method).map(Body::whole);
    response.headers_mut().insert(X_REQUEST_ID, id);
    // The connection takes the body back, and may have to close then.
    drop(body);
    if connection.must_close() && parts.version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    connection.activity.end_request(connection.coarse_now());
    response
}
