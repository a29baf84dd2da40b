//! Answers CORS preflights, and lets scripts of other origins read answers. In a preflight, a browser asks whether a
//! script of another origin may send a request.

use crate::authority::Endpoint;
use crate::policy::{Handler, Policy, Route};
use crate::respond::cors;
use crate::route::Head;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};

/// Returns the route and the response to a preflight, if the route has a `[cors.NAME]`, or if the origin is listed and
/// scripts may use the endpoint. All other requests get `None` and are handled normally.
///
/// The response reveals nothing about the caller. The gateway checks the actual request in full.
pub(crate) fn preflight(policy: &Policy, head: &Head<'_>) -> Option<(usize, Response<Bytes>)> {
    if !policy.front.reads_origin {
        return None;
    }
    let method = cors::asked_by_browser(head.method, head.headers)?;
    let entry = *policy.table.find(&asked(head, &method)).ok()?.entry;
    let route = &policy.routes[entry];
    if let Some(cors) = &route.cors {
        return Some((entry, cors.preflight(&method, head.headers)));
    }
    if !route.handler.is_for_scripts() {
        return None;
    }
    cors::listed(head.headers, policy.origins())?;
    let answer = cors::preflight(&method, policy.trust.cookies().map(|names| &names.csrf_header));
    Some((entry, answer))
}

/// Returns the reason for which this route refuses a preflight, for the operator.
#[cold]
pub(crate) fn refusal(policy: &Policy, route: usize, head: &Head<'_>) -> Option<String> {
    let cors = policy.routes[route].cors.as_ref()?;
    Some(cors.unlisted(&cors::asked_by_browser(head.method, head.headers)?, head.headers))
}

/// Returns the head of the request that a preflight asks about.
pub(crate) fn asked<'h>(preflight: &Head<'h>, method: &'h Method) -> Head<'h> {
    Head {
        method,
        host: preflight.host.clone(),
        port: preflight.port,
        path: preflight.path.clone(),
        query: preflight.query,
        headers: preflight.headers,
    }
}

/// Lets scripts of the allowed origins read an answer: every answer of a route with a `[cors.NAME]`, and the gateway's
/// own answers to the policy's `origins`. A granted verdict is only for the proxy.
#[cold]
pub(crate) fn share(
    policy: &Policy,
    route: Option<&Route>,
    is_verdict: bool,
    is_refused: bool,
    origin: Option<&HeaderValue>,
    headers: &mut HeaderMap,
) {
    let is_own = is_refused || (!is_verdict && route.is_some_and(|route| route.handler.is_for_scripts()));
    if let Some(cors) = route.and_then(|route| route.cors.as_ref()) {
        if is_refused || !is_verdict {
            cors.share(headers, origin);
        }
    } else if is_own && !policy.origins().is_empty() {
        let origin = origin.filter(|origin| cors::is_listed(origin, policy.origins()));
        cors::share(headers, origin, policy.trust.cookies().is_some());
    }
}

impl Handler {
    /// Returns whether a script of a listed origin may read the endpoint's responses. Scripts may read responses about
    /// the user's session and public documents. The other endpoints are for services, and the login page is for people.
    pub(super) fn is_for_scripts(&self) -> bool {
        match self {
            // An upstream decides about CORS itself. The response with a resource's metadata already has CORS fields.
            Self::Forward(_) | Self::Files(_) | Self::Redirect(_) | Self::Publish(_) | Self::Receive(..) => {
                false
            }
            Self::Answer(endpoint) => match endpoint {
                Endpoint::Login
                | Endpoint::Refresh
                | Endpoint::Logout
                | Endpoint::LogoutAll
                | Endpoint::Me
                | Endpoint::Sessions
                | Endpoint::EndSession
                | Endpoint::Jwks
                | Endpoint::Metadata => true,
                Endpoint::LoginPage
                | Endpoint::Token
                | Endpoint::Revoke
                | Endpoint::Introspect
                | Endpoint::Verify => false,
            },
        }
    }
}
