//! Defines the stages of a decision. Real requests and explanations of hypothetical requests use the same functions.
//!
//! The order is [`redirect`], [`admit`], [`find`], [`Routed::decide`], [`check_protocol`]. A decision needs a route, and
//! only [`find`] returns a route. The pipeline applies limits and reads bodies between the stages.

use super::exchange::Exchange;
use crate::authenticate::sources::marker_offered;
use crate::authenticate::{Credentials, TokenCache, Trust};
use crate::authorize::{Permit, Refusal};
use crate::clock::Now;
use crate::decision::decide;
use crate::denial::{Denial, Malformed};
use crate::peer::{Peer, Scheme};
use crate::policy::{Handler, Policy, Route};
use crate::route::{Found, Head, upgrade};
use crate::tls::{ClientRule, HostMap, Misdirected, TlsSession};
use crate::websocket::Handshake;
use http::Version;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Routed<'p, 'h> {
    pub(crate) route: &'p Route,
    /// The route's index in the policy, and the values of its path parameters.
    pub(crate) found: Found<'p, 'h, usize>,
}

/// Checks whether a request on the cleartext port may be redirected to HTTPS.
///
/// # Errors
/// Returns [`Denial::InsecureTransport`] if the request carries a credential, because the credential was sent in
/// cleartext.
pub(crate) fn redirect(policy: &Policy, head: &Head<'_>) -> Result<(), Denial> {
    if policy.carries_credential(head) { Err(Denial::InsecureTransport) } else { Ok(()) }
}

/// Checks whether a connection may carry a request, if hosts of the policy differ in TLS.
///
/// # Errors
/// Returns why a new connection is required.
#[cold]
pub(crate) fn admit(
    rules: &HostMap<Arc<ClientRule>>,
    peer: &Peer,
    session: Option<&TlsSession>,
    head: &Head<'_>,
    exchange: &Exchange,
) -> Result<(), Misdirected> {
    let host = head.host.as_deref();
    let rule = rules.get(host).map(|rule| &**rule);
    match (session, peer.scheme) {
        (Some(session), _) => session.admit(host, rule, exchange.caller.by_trusted_proxy, exchange.now.unix),
        // The connection is older than the rules.
        (None, Scheme::Https) if rule.is_some() => Err(Misdirected::OtherRule),
        (None, Scheme::Http) if rule.is_some_and(|rule| rule.required) => Err(Misdirected::Cleartext),
        (None, Scheme::Http | Scheme::Https) => Ok(()),
    }
}

/// Checks that the upstream gets a valid path. The pipeline makes the same check when it builds the target.
///
/// # Errors
/// Refuses a request whose path the route's pattern turns into an invalid path.
pub(crate) fn check_rewrite(route: &Route, head: &Head<'_>) -> Result<(), Denial> {
    let rewrite = match &route.handler {
        Handler::Forward(delivery) => delivery.rewrite.as_deref(),
        Handler::Files(files) => files.rewrite.as_deref(),
        Handler::Answer(_) | Handler::Publish(_) | Handler::Redirect(_) | Handler::Receive(..) => None,
    };
    let path = rewrite.map(|rewrite| rewrite.path(&head.path)).transpose();
    path.map(|_| ()).map_err(Denial::BadRequest)
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
    /// Authenticates the caller and checks the route's rule. `trust` is the policy's `trust` for a real request. For an
    /// explanation, it may contain other keys.
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
}

/// Returns the WebSocket handshake that a permitted request makes, if any. The gateway ignores an offer of any other
/// protocol (RFC 9110 section 7.8).
///
/// # Errors
/// Returns [`Malformed::WebSocket`] if the route forwards no WebSockets. Without its `Upgrade`, the handshake would
/// be a plain GET, whose response no WebSocket client understands. Returns [`Malformed::Handshake`] for a
/// request that looks like a handshake and is not a valid one.
#[inline]
pub(crate) fn check_protocol(
    route: &Route,
    head: &Head<'_>,
    version: Version,
) -> Result<Option<Box<Handshake>>, Denial> {
    match &route.handler {
        Handler::Forward(delivery) if upgrade::is_websocket(head.headers) => {
            if !delivery.websocket {
                return Err(Denial::BadRequest(Malformed::WebSocket));
            }
            let own_protocol = marker_offered(head.headers, &route.credential_policy.sources);
            Handshake::read(head.method, version, head.headers, own_protocol)
                .map(|handshake| Some(Box::new(handshake)))
                .map_err(|fault| Denial::BadRequest(Malformed::Handshake(fault)))
        }
        Handler::Forward(_)
        | Handler::Files(_)
        | Handler::Answer(_)
        | Handler::Publish(_)
        | Handler::Redirect(_)
        | Handler::Receive(..) => Ok(None),
    }
}
