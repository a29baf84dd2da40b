//! Detects credentials that a client sends in cleartext.
//!
//! A request with a credential is rejected instead of redirected to TLS. A redirect would hide the mistake: the client
//! would work, but the credential would be readable on the network (OWASP REST Security, HTTPS; ASVS 12.2.1).

use super::Policy;
use crate::authenticate::csrf::is_unsafe;
use crate::route::Head;
use crate::route::host::is_own_machine;
use http::header;

impl Policy {
    /// Whether a request contains a credential: an `Authorization` header, a cookie of the local authority, a token
    /// where the route looks for tokens, or a body for an endpoint of the authority. Requests to the local machine are
    /// exempt.
    pub fn carries_credential(&self, head: &Head<'_>) -> bool {
        if head.host.as_deref().is_some_and(is_own_machine) {
            return false;
        }
        if head.headers.contains_key(header::AUTHORIZATION) || self.has_cookie(head) {
            return true;
        }
        let Ok(found) = self.table.find(head) else { return false };
        let route = &self.routes[*found.entry];
        let sources = &route.credential_policy.sources;
        let is_posted = route.handler.is_own() && is_unsafe(head.method);
        is_posted || sources.others.iter().any(|source| source.is_used(head))
    }

    /// Whether the request has a cookie of the authority.
    fn has_cookie(&self, head: &Head<'_>) -> bool {
        let Some(names) = self.trust.cookies() else { return false };
        let fields = head.headers.get_all(header::COOKIE).iter();
        let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        pairs.any(|pair| {
            names.includes(pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii())
        })
    }
}
