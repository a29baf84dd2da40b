//! Answers CORS preflights for the authority's endpoints. In a preflight, a browser asks whether a script of another
//! origin may call an endpoint.

use crate::authority::Endpoint;
use crate::policy::{Handler, Policy};
use crate::respond::cors;
use crate::route::Head;
use bytes::Bytes;
use http::Response;

/// Returns the route and the response to a preflight, if the origin is listed and scripts may use the endpoint. All
/// other requests get `None` and are handled normally.
///
/// The response reveals nothing about the caller. The gateway checks the actual request in full.
pub(super) fn preflight(policy: &Policy, head: &Head<'_>) -> Option<(usize, Response<Bytes>)> {
    cors::listed(head.headers, policy.origins())?;
    let method = cors::method_asked(head.method, head.headers)?;
    let asked = Head {
        method: &method,
        host: head.host.clone(),
        port: head.port,
        path: head.path.clone(),
        query: head.query,
        headers: head.headers,
    };
    let entry = *policy.table.find(&asked).ok()?.entry;
    if !policy.routes[entry].handler.is_for_scripts() {
        return None;
    }
    let answer = cors::preflight(&method, policy.trust.cookies().map(|names| &names.csrf_header));
    Some((entry, answer))
}

impl Handler {
    /// Returns whether a script of a listed origin may read the endpoint's responses. Scripts may read responses about
    /// the user's session and public documents. The other endpoints are for services, and the login page is for people.
    pub(super) fn is_for_scripts(&self) -> bool {
        match self {
            // An upstream decides about CORS itself. The response with a resource's metadata already has CORS fields.
            Self::Forward(_) | Self::Publish(_) | Self::Receive(..) => false,
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
