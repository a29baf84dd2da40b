//! The decisions about a request in their order. Real requests and explanations of hypothetical requests use the same
//! functions.
//!
//! The order is [`redirect`], [`find`], [`Routed::decide`], [`Routed::check_protocol`]. The types ensure that no
//! decision precedes [`find`]: a decision needs the route, and only `find` returns a route. The pipeline applies limits
//! and reads bodies between these steps.

use crate::authenticate::{Credentials, TokenCache, Trust};
use crate::authorize::{Permit, Refusal};
use crate::clock::Now;
use crate::decision::decide;
use crate::denial::{Denial, Malformed};
use crate::policy::{Handler, Policy, Route};
use crate::route::{Found, Head, upgrade};
use http::HeaderMap;

/// A request whose route is known.
#[derive(Debug)]
pub(crate) struct Routed<'p, 'h> {
    /// The route.
    pub(crate) route: &'p Route,
    /// The route's position in the policy, and the values of its path parameters.
    pub(crate) found: Found<'p, 'h, usize>,
}

/// Checks that a request on the cleartext port may be redirected to the encrypted one.
///
/// # Errors
/// Returns [`Denial::InsecureTransport`] if the request carries a credential, which was already exposed.
pub(crate) fn redirect(policy: &Policy, head: &Head<'_>) -> Result<(), Denial> {
    if policy.carries_credential(head) { Err(Denial::InsecureTransport) } else { Ok(()) }
}

/// Finds the route of a request.
///
/// # Errors
/// Returns the errors of the route table.
#[inline]
pub(crate) fn find<'p, 'h>(policy: &'p Policy, head: &'h Head<'_>) -> Result<Routed<'p, 'h>, Denial> {
    let found = policy.table.find(head)?;
    Ok(Routed { route: &policy.routes[*found.entry], found })
}

impl Routed<'_, '_> {
    /// Authenticates the caller and checks the route's rule. For a real request, `trust` is the policy's `trust`. For
    /// an explanation, it may contain other keys.
    ///
    /// # Errors
    /// Returns the first refusal. On a route in shadow mode, [`Permit::in_shadow`] turns the refusal into a permit.
    #[inline]
    pub(crate) fn decide(
        &self,
        trust: &Trust,
        credentials: &Credentials<'_>,
        now: Now,
        tokens: &mut TokenCache,
    ) -> Result<Permit, Refusal> {
        let Self { route, found } = self;
        decide(&route.credential_policy, &route.rule, trust, credentials, &found.params, now, tokens)
    }

    /// Checks that the gateway can forward a permitted request. The gateway removes `Upgrade`, which would turn a
    /// WebSocket handshake into a plain GET, whose answer no WebSocket client understands.
    ///
    /// # Errors
    /// Returns [`Malformed::WebSocket`] for a WebSocket handshake.
    #[inline]
    pub(crate) fn check_protocol(&self, headers: &HeaderMap) -> Result<(), Denial> {
        match &self.route.handler {
            Handler::Forward(_) if upgrade::is_websocket(headers) => {
                Err(Denial::BadRequest(Malformed::WebSocket))
            }
            Handler::Forward(_) | Handler::Answer(_) | Handler::Publish(_) | Handler::Receive(..) => Ok(()),
        }
    }
}
