//! Detects credentials that clients send in cleartext to a listener that redirects to TLS.
//!
//! A redirect would hide the mistake: anyone on the network could read the credential, but the client would still work,
//! so nobody would notice. The gateway therefore refuses such a request, and redirects only requests without a
//! credential (OWASP REST Security, HTTPS; ASVS 12.2.1).

use super::Policy;
use crate::authenticate::csrf::is_unsafe;
use crate::route::Head;
use crate::route::host::is_own_machine;
use http::header;

impl Policy {
    /// Whether a request carries a credential: an `Authorization` field, a cookie of the local authority, a token in a
    /// place where the request's route looks for tokens, or a body for an endpoint of the authority. Requests to the
    /// local machine are exempt, because they cross no network.
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

    /// Whether the request has one of the authority's cookies.
    fn has_cookie(&self, head: &Head<'_>) -> bool {
        let Some(names) = self.trust.cookies() else { return false };
        let fields = head.headers.get_all(header::COOKIE).iter();
        let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        pairs.any(|pair| {
            names.includes(pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii())
        })
    }
}
