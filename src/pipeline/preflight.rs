//! Answers preflights for the authority's endpoints. With a preflight, a browser asks whether a script of another
//! origin may call an endpoint.

use crate::authority::Endpoint;
use crate::policy::{Handler, Policy};
use crate::respond::cors;
use crate::route::Head;
use bytes::Bytes;
use http::Response;

/// Returns the route and the answer to a preflight from a listed origin, if scripts may use the endpoint. Returns
/// `None` for any other request, which is handled normally. The answer reveals nothing, because the gateway checks
/// the request that follows in full.
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
    /// Whether a script of a listed origin may read the endpoint's answers: those about a user's own session, and the
    /// public documents. The login page is meant for people, and the other endpoints are meant for services.
    pub(super) fn is_for_scripts(&self) -> bool {
        match self {
            // An upstream decides itself whether scripts may read its answers. The answer with the metadata of a
            // resource sets its CORS fields itself.
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
