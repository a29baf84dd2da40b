//! Preflights of the authority's endpoints: a browser checks whether a script of another origin may call one.

use crate::authority::Endpoint;
use crate::policy::{Handler, Policy};
use crate::respond::cors;
use crate::route::Head;
use bytes::Bytes;
use http::Response;

/// Returns the route and the answer to a preflight from a listed origin, if scripts may use the endpoint; `None` for
/// any other request, which is handled normally. The answer reveals nothing: the request that follows is checked in
/// full.
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
    /// Whether a script of a listed origin may read the answers. It may read those about a person's own session and the
    /// public documents. The login page is for people, and the other endpoints are for services.
    pub(super) fn is_for_scripts(&self) -> bool {
        match self {
            // The metadata of a resource has a CORS answer of its own.
            Self::Forward(_) | Self::Publish(_) => false,
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
