//! The answer to a forwarded request.

use super::connection::pool::Pools;
use super::delivery::Delivery;
use super::http1::response_body::ResponseBody;
use super::http2::body::Http2Body;
use super::notes::Notes;
use super::tunnel::Tunnel;
use super::tunnel::server_end::ServerEnd;
use super::upstream::Upstream;
use crate::authorize::Permit;
use crate::denial::Denial;
use crate::journal::Level;
use crate::websocket::Handshake;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use std::time::Duration;

/// A response for the client.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A response whose whole body is in memory.
    Whole(Response<Bytes>),
    /// A response whose body streams from an upstream.
    Streamed(Response<Box<ResponseBody>>),
    /// A response whose body streams from an upstream over HTTP/2.
    Multiplexed(Response<Box<Http2Body>>),
    /// The answer to a handshake that the upstream accepted, and the WebSocket that follows it.
    Switched(Response<Box<Tunnel>>),
}

pub(super) fn response<B>(status: StatusCode, headers: HeaderMap, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // An empty map holds no memory, and dropping one takes 60 instructions.
    std::mem::forget(std::mem::replace(response.headers_mut(), headers));
    response
}

/// Returns the answer to an accepted handshake.
pub(super) fn switched_to(
    pools: &Pools,
    delivery: &Delivery,
    permit: &Permit,
    handshake: &Handshake,
    mut headers: HeaderMap,
    end: ServerEnd,
) -> Response<Box<Tunnel>> {
    handshake.complete(&mut headers);
    let status = if handshake.is_http2() { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
    let caller = permit.principal().filter(|_| delivery.ends_with_token).cloned();
    let stream = pools.open_websocket(caller, delivery.websocket_silence());
    response(status, headers, Box::new(Tunnel::new(end, stream)))
}

#[cold]
pub(super) fn reject_switch(notes: &mut Notes, fault: &str) -> Denial {
    let origin = notes.server.as_deref().unwrap_or_default();
    notes.detail = Some(format!("{origin}: {fault}"));
    Denial::UpstreamFailed
}

/// Logs a warning when an upstream first sets a cookie with one of the gateway's names. The upstream may be
/// compromised, or may be another gateway. The metrics count every such cookie.
#[cold]
pub(super) fn report_cookies(pools: &Pools, upstream: &Upstream) {
    if upstream.is_first_report_of_cookies() {
        pools.journal.event(
            Level::Warn,
            "an upstream's answer set a cookie with one of the gateway's names; the gateway removed it, and will remove all others",
            &[("upstream", &upstream.name)],
        );
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
