//! Exchanges a refresh token for a new pair of tokens, once.
//!
//! Each refresh spends the token. A client that presents a spent token ends the session, because the authority cannot
//! tell a thief from the owner (RFC 9700 section 4.14.2).
//!
//! A second tab or a lost response is not a theft. Within the grace period, the last spent token therefore yields the
//! same successor again. A token never has two successors.

use super::counters::{RefreshOutcome, RevocationCause};
use super::grant::{Grant, RefreshToken, hash_of, random};
use super::request::EndpointRequest;
use super::runtime::{Authority, millis, millis_of};
use crate::authenticate::csrf::token_shown;
use crate::authenticate::{Mark, Thumbprint, digest_of};
use crate::denial::{Denial, ProofFault};
use crate::journal::Level;
use crate::store::{Rotation, RotationRequest, Session};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::Response;

pub(super) async fn refresh(
    authority: &Authority,
    request: EndpointRequest,
) -> Result<Response<Bytes>, Denial> {
    let (token, by_cookie) = request.refresh_token()?.ok_or(Denial::MissingToken)?;
    if by_cookie && request.proof.is_some() {
        return Err(Denial::ProofWithCookies);
    }
    let csrf = if by_cookie { Some(csrf_of_session(authority, &request, token).await?) } else { None };
    spend(authority, &request, token, csrf.as_deref()).await
}

/// Returns the CSRF value of a request whose refresh token is in a cookie. Rejects the value if it does not match the
/// session.
pub(super) async fn csrf_of_session(
    authority: &Authority,
    request: &EndpointRequest,
    token: &str,
) -> Result<String, Denial> {
    let cookies = request.settings.cookies.as_ref().ok_or(Denial::MissingToken)?;
    if !request.own_site {
        return Err(Denial::CsrfMismatch);
    }
    let field = request.fields.optional("csrf_token")?;
    let shown = token_shown(&request.headers, &cookies.names, field)?.ok_or(Denial::CsrfMissing)?;
    let shown = std::str::from_utf8(shown).map_err(|_| Denial::CsrfMismatch)?;
    check_csrf(authority, token, shown).await?;
    Ok(shown.to_owned())
}

/// Rejects a CSRF value that does not match the token's session.
///
/// Accepts an unknown token, because `spend` rejects it with the exact reason.
pub(super) async fn check_csrf(authority: &Authority, token: &str, csrf: &str) -> Result<(), Denial> {
    let session = authority.store.session_of_token(&hash_of(token)?).await;
    let session = session.map_err(|error| authority.unavailable(&error))?;
    match session.map(|session| session.csrf) {
        None => Ok(()),
        Some(Some(hash)) if verify_slices_are_equal(&hash, &digest_of(csrf.as_bytes())).is_ok() => Ok(()),
        // A session without a CSRF value was not created for cookies.
        Some(_) => Err(Denial::CsrfMismatch),
    }
}

/// Returns the key whose possession the request proves. If the token is bound to this key, the proof cannot be used
/// again. Other proofs are not remembered, so that invented tokens cannot fill the memory.
async fn shown_key(
    authority: &Authority,
    request: &EndpointRequest,
    token: &str,
) -> Result<Option<Thumbprint>, Denial> {
    let Some(proof) = &request.proof else { return Ok(None) };
    let session = authority.store.session_of_token(&hash_of(token)?).await;
    let session = session.map_err(|error| authority.unavailable(&error))?;
    if session.is_some_and(|session| session.key == Some(proof.key())) {
        authority.accept_proof(proof).await?;
    }
    Ok(Some(proof.key()))
}

/// Rejects a request without a proof by the session's key. Without this check, a thief of a refresh token could end the
/// session.
pub(super) async fn check_key(
    authority: &Authority,
    request: &EndpointRequest,
    session: &Session,
) -> Result<(), Denial> {
    match (session.key, &request.proof) {
        (None, _) => Ok(()),
        (Some(key), Some(proof)) if proof.key() == key => authority.accept_proof(proof).await.map(drop),
        (Some(_), _) => Err(unproven(request)),
    }
}

/// Returns the refusal of a request without a proof by the token's key.
fn unproven(request: &EndpointRequest) -> Denial {
    let has_proof = request.proof.is_some();
    Denial::InvalidProof(if has_proof { ProofFault::OtherKey } else { ProofFault::Missing })
}

/// Spends a refresh token and returns a new pair of tokens: in cookies if `csrf` is set, otherwise in the body.
pub(super) async fn spend(
    authority: &Authority,
    request: &EndpointRequest,
    token: &str,
    csrf: Option<&str>,
) -> Result<Response<Bytes>, Denial> {
    let settings = &request.settings;
    let now = millis(request.now);
    let successor = |nonce: &[u8; 32]| RefreshToken::successor(token, nonce).hash();
    let outage = authority.last_outage(now);
    let spend = RotationRequest {
        token: &hash_of(token)?,
        key: shown_key(authority, request, token).await?,
        nonce: random()?,
        successor: &successor,
        now,
        expires: now.saturating_add(millis_of(settings.refresh_expires)),
        grace: millis_of(settings.refresh_grace),
        outage_over: outage.over,
        alive_before_outage: outage.alive_before,
    };
    authority.record_life(settings).await?;
    let rotation = authority.store.rotate(&spend).await.map_err(|error| authority.unavailable(&error))?;
    let (outcome, result) = match rotation {
        Rotation::Rotated(renewed) => (RefreshOutcome::Ok, Ok(renewed)),
        Rotation::Repeated(renewed) => (RefreshOutcome::Grace, Ok(renewed)),
        Rotation::Reused { session, account } => {
            let mark = Mark::Session(session.clone());
            authority.mark(settings, &[mark], request.now, RevocationCause::Reuse);
            authority.journal.event(
                Level::Warn,
                "a refresh token was used twice: its session is ended",
                &[("subject", &account), ("session", &session), ("client", &request.address.to_string())],
            );
            (RefreshOutcome::Reuse, Err(Denial::RefreshReused))
        }
        Rotation::Unproven => (RefreshOutcome::Unproven, Err(unproven(request))),
        Rotation::Expired => (RefreshOutcome::Expired, Err(Denial::ExpiredToken)),
        Rotation::Ended => (RefreshOutcome::Ended, Err(Denial::RevokedToken)),
        Rotation::Disabled => (RefreshOutcome::Disabled, Err(Denial::AccountDisabled)),
        Rotation::Unknown => (RefreshOutcome::Unknown, Err(Denial::UnknownToken)),
    };
    authority.counters.refreshes.add(outcome);
    authority.spent();
    let renewed = result?;
    let grant = Grant {
        settings,
        account: &renewed.account,
        session: &renewed.session,
        fresh: false,
        refresh: &RefreshToken::successor(token, &renewed.nonce),
        refresh_expires: renewed.expires,
        csrf,
        now: request.now,
    };
    grant.response(&authority.counters, &authority.journal)
}
