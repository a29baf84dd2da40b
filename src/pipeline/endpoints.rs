//! Serves the authority's endpoints. Reads the request on the core that received it, and sends the facts to the
//! authority's thread. Returns the response of that thread.

use super::exchange::Exchange;
use super::progress::Admitted;
use super::record::Record;
use super::rejection::{DeadCookies, Guidance, Rejection};
use super::waiting;
use crate::authenticate::credential::REFRESH_TOKEN_PREFIX;
use crate::authenticate::csrf::{another_site, same_site};
use crate::authenticate::dpop::{DPOP, DPOP_NONCE};
use crate::authenticate::{
    Access, CredentialError, CredentialPolicy, Credentials, Pending, Place, Principal, authenticate,
    claims_of, examine, revocable,
};
use crate::authority::{
    BODY_MAX, Endpoint, EndpointRequest, Fields, Holder, Refused, document, is_client_known, refused,
};
use crate::clock::Now;
use crate::denial::Denial;
use crate::policy::{Handler, Policy, Route};
use crate::route::Head;
use crate::worker::Worker;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value};
use std::rc::Rc;
use std::sync::Arc;

/// Serves a permitted request to an endpoint.
///
/// # Errors
/// Returns the reason why the endpoint rejects the request.
pub(super) async fn answer(
    worker: &Worker,
    policy: &Policy,
    exchange: &Exchange,
    endpoint: Endpoint,
    head: &Head<'_>,
    admitted: Admitted<'_, '_>,
    record: &mut Record,
) -> Result<Response<Bytes>, Rejection> {
    let Admitted { routed, permit, body } = admitted;
    let settings = policy.issuer_settings.as_ref().ok_or(Denial::StoreUnavailable)?;
    if matches!(endpoint, Endpoint::Jwks | Endpoint::Metadata) {
        return Ok(document(settings, endpoint, head.headers)?);
    }
    let authority = policy.authority.as_ref().ok_or(Denial::StoreUnavailable)?;
    let body = body.bounded(BODY_MAX)?.gather().await?;
    let caller = exchange.caller;
    let credentials =
        Credentials { relayed: exchange.relayed.as_deref(), ..Credentials::new(head, caller.scheme) };
    let fields = match Fields::read(head.headers, &body) {
        Ok(fields) => fields,
        Err(denial) => return Ok(record_refusal(refused(endpoint, denial)?, policy, exchange, record)),
    };
    let mut request = EndpointRequest {
        endpoint,
        settings: Arc::clone(settings),
        method: head.method.clone(),
        address: caller.address,
        scheme: caller.scheme,
        authority: head.authority().unwrap_or_default().into_owned(),
        request_id: exchange.id_header.to_str().unwrap_or_default().to_owned(),
        headers: head.headers.clone(),
        query: head.query.map(str::to_owned),
        id: routed.found.params.get(0).map(str::to_owned),
        fields,
        own_site: same_site(&credentials, &settings.origins).is_ok(),
        caller: permit.principal().zip(permit.place()).map(|(principal, place)| Holder::of(principal, place)),
        proof: None,
        inspected: None,
        // A client has up to `body_timeout` for its body, and tokens and proofs may expire meanwhile.
        now: worker.now(),
    };
    if head.headers.contains_key(DPOP) && uses_proof(&request)? {
        if let Err(untimely) = waiting::turn(worker).await {
            return unverified(endpoint, untimely, policy, exchange, record);
        }
        request.proof = match policy.trust.dpop().check_token_request(&credentials, worker.now()) {
            Ok(proof) => proof,
            Err(unproven) => return unverified(endpoint, unproven, policy, exchange, record),
        };
    }
    if matches!(endpoint, Endpoint::Introspect | Endpoint::Revoke)
        && let Ok(Some(token)) = request.fields.optional("token")
        // The authority knows its refresh tokens by their hashes.
        && !token.starts_with(REFRESH_TOKEN_PREFIX)
        && is_client_known(&request)
    {
        if let Err(untimely) = waiting::turn(worker).await {
            return unverified(endpoint, untimely, policy, exchange, record);
        }
        request.inspected = match inspected(endpoint, token, policy, worker.now()) {
            Ok(claims) => claims,
            Err(undecided) => return unverified(endpoint, undecided, policy, exchange, record),
        };
    }
    // A logout request may contain an access token or a refresh token. If it contains a refresh token, the access token
    // may have expired. Otherwise the access token must be valid.
    if endpoint == Endpoint::Logout && request.refresh_token()?.is_none() {
        let credential_policy = CredentialPolicy::from(Access::Authenticated);
        let csrf_field = request.fields.optional("csrf_token")?;
        let credentials = Credentials { csrf_field, ..credentials };
        request.caller = match caller_of(worker, policy, &credential_policy, &credentials, request.now).await
        {
            Ok(found) => found.map(|(principal, place)| Holder::of(&principal, place)),
            // Without a token, the logout page reports that the session is already over.
            Err(refused) if refused.denial == Denial::MissingToken => None,
            Err(refused) => {
                if let Some(detail) = refused.detail {
                    record.explained(detail.into());
                }
                return Err(refused.denial.into());
            }
        };
    }
    // A logged-in user skips the login page. A caller with an invalid token sees the page.
    if endpoint == Endpoint::LoginPage {
        let credential_policy = CredentialPolicy::from(Access::Optional);
        let found = caller_of(worker, policy, &credential_policy, &credentials, request.now).await;
        request.caller = found.ok().flatten().map(|(principal, place)| Holder::of(&principal, place));
    }
    // A rejected refresh cookie is useless. The response deletes all cookies of its session.
    let by_cookie = endpoint == Endpoint::Refresh && matches!(request.refresh_token(), Ok(Some((_, true))));
    let is_own_site = request.own_site;
    match authority.answer(request).await {
        Ok(response) => {
            if let Some(Refused(Denial::CsrfMismatch)) = response.extensions().get() {
                record.explained(mismatch(is_own_site, head));
            }
            Ok(record_refusal(response, policy, exchange, record))
        }
        Err(denial) => {
            if denial == Denial::CsrfMismatch {
                record.explained(mismatch(is_own_site, head));
            }
            if endpoint == Endpoint::Login && denial == Denial::CsrfMissing {
                record.explained(LOGIN_FORM.to_owned());
            }
            let ends_session = by_cookie && denial.status() == StatusCode::UNAUTHORIZED;
            let guidance =
                ends_session.then(|| Guidance { deletes: Some(DeadCookies::Session), ..Guidance::default() });
            Err(Rejection::guided(denial, guidance))
        }
    }
}

/// Answers a request whose proof or token could not be verified, and records why.
#[cold]
fn unverified(
    endpoint: Endpoint,
    error: CredentialError,
    policy: &Policy,
    exchange: &Exchange,
    record: &mut Record,
) -> Result<Response<Bytes>, Rejection> {
    if let Some(detail) = error.detail {
        record.explained(detail.into());
    }
    Ok(record_refusal(refused(endpoint, error.denial)?, policy, exchange, record))
}

/// Describes a CSRF mismatch at an endpoint for the operator.
#[cold]
fn mismatch(is_own_site: bool, head: &Head<'_>) -> String {
    if is_own_site {
        "the request has a CSRF token that is not that of the session or the login page of its cookie"
            .to_owned()
    } else {
        another_site("the request", head.headers, "[authority] origins")
    }
}

/// Authenticates the caller of an endpoint that does not require a token. A new token takes a turn of the core.
async fn caller_of(
    worker: &Worker,
    policy: &Policy,
    credential_policy: &CredentialPolicy,
    credentials: &Credentials<'_>,
    now: Now,
) -> Result<Option<(Rc<Principal>, Place)>, CredentialError> {
    let first = Credentials { turns: Some(worker.turns()), ..*credentials };
    // This is a separate statement because the token cache must not stay borrowed during a wait.
    let found = authenticate(credential_policy, &policy.trust, &first, now, &mut worker.tokens());
    let waits = |refused: &CredentialError| matches!(refused.pending.as_deref(), Some(Pending::Turn(_)));
    if !found.as_ref().is_err_and(waits) {
        return found;
    }
    waiting::turn(worker).await?;
    authenticate(credential_policy, &policy.trust, credentials, worker.now(), &mut worker.tokens())
}

/// Whether the endpoint uses the proof of this request. The proof of a logout with an access token is for that token,
/// and is verified with it. A request of an unknown service is refused, and its proof is not verified. The same holds for a
/// login from a page of another site, to which no limit applies.
fn uses_proof(request: &EndpointRequest) -> Result<bool, Denial> {
    Ok(match request.endpoint {
        Endpoint::Login => request.own_site,
        Endpoint::Token => is_client_known(request),
        Endpoint::Refresh => true,
        Endpoint::Logout => request.refresh_token()?.is_some(),
        Endpoint::LoginPage
        | Endpoint::LogoutAll
        | Endpoint::Me
        | Endpoint::Sessions
        | Endpoint::EndSession
        | Endpoint::Revoke
        | Endpoint::Introspect
        | Endpoint::Jwks
        | Endpoint::Metadata
        | Endpoint::Verify => false,
    })
}

/// The logged reason for rejecting a login form without proof that the login page sent it.
const LOGIN_FORM: &str = "a form without csrf_token, and without Origin or Sec-Fetch-Site: a client that is not a browser sends \
    deliver=body, and no cookies";

/// Returns whether another site's page sent a login request. Such a request does not count against a limit. It comes
/// from the address of a visitor of that page, and must not use up the visitor's attempts.
#[inline]
pub(super) fn is_sent_by_another_site(
    policy: &Policy,
    route: &Route,
    head: &Head<'_>,
    exchange: &Exchange,
) -> bool {
    let Handler::Answer(Endpoint::Login) = route.handler else { return false };
    let Some(settings) = &policy.issuer_settings else { return false };
    let (scheme, relayed) = (exchange.caller.scheme, exchange.relayed.as_deref());
    let credentials = Credentials { relayed, ..Credentials::new(head, scheme) };
    same_site(&credentials, &settings.origins).is_err()
}

/// Records the refusal that the authority attached to a response. Adds the nonce that the client needs to a refusal that
/// requires one.
fn record_refusal(
    mut response: Response<Bytes>,
    policy: &Policy,
    exchange: &Exchange,
    record: &mut Record,
) -> Response<Bytes> {
    if let Some(Refused(denial)) = response.extensions_mut().remove() {
        if denial == Denial::UseDpopNonce {
            response.headers_mut().insert(DPOP_NONCE, policy.trust.dpop().nonce(exchange.now));
        }
        record.refused(denial);
    }
    response
}

/// Verifies the token of an introspection or revocation request, and returns its claims. Returns `None` for a token that
/// the gateway does not accept, and for a token to revoke that the authority has not signed.
///
/// # Errors
/// Returns why the gateway cannot state whether a token to introspect is valid.
fn inspected(
    endpoint: Endpoint,
    token: &str,
    policy: &Policy,
    now: Now,
) -> Result<Option<Map<String, Value>>, CredentialError> {
    if endpoint == Endpoint::Revoke {
        return Ok(revocable(token.as_bytes(), &policy.trust));
    }
    match examine(token.as_bytes(), &policy.trust, now) {
        Ok(_) => Ok(claims_of(token)),
        Err(error) if error.denial.status().is_server_error() => Err(error),
        Err(_) => Ok(None),
    }
}
