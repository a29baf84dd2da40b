//! Lists and ends the sessions of an account. The gateway rejects the tokens of a session before it responds that the
//! session has ended.

use super::counters::RevocationCause;
use super::grant::hash_of;
use super::refresh::{check_key, csrf_of_session};
use super::request::{EndpointRequest, Holder};
use super::response::{empty_response, json_response};
use super::runtime::{Authority, millis};
use super::settings::Compat;
use super::{cookie, page};
use crate::authenticate::{MARK_MARGIN, Mark};
use crate::denial::Denial;
use crate::journal::Level;
use crate::store::Session;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// Ends the session of the request's refresh token, or of its access token if there is no refresh token.
pub(super) async fn logout(
    authority: &Authority,
    request: EndpointRequest,
) -> Result<Response<Bytes>, Denial> {
    let ended = match request.refresh_token()? {
        Some((token, by_cookie)) => {
            if by_cookie {
                csrf_of_session(authority, &request, token).await?;
            }
            let session = authority.store.session_of_token(&hash_of(token)?).await;
            let session = session.map_err(|error| authority.unavailable(&error))?;
            // An unknown session has already ended, so this is not an error.
            if let Some(session) = session {
                check_key(authority, &request, &session).await?;
                end_known(authority, &request, None, &session.id, RevocationCause::Logout).await?;
            }
            if by_cookie { "logout successful" } else { "Refresh token revoked" }
        }
        // The user's session has expired, so show the logged-out page. There are no cookies to expire.
        None if request.caller.is_none() && request.own_site && page::wants_page(&request) => {
            return Ok(page::logout_response(&request, &empty_response(StatusCode::NO_CONTENT)));
        }
        None => {
            let holder = request.holder()?;
            match (&holder.session, &holder.token_id) {
                (Some(session), _) => {
                    end_known(authority, &request, Some(&holder.subject), session, RevocationCause::Logout)
                        .await?;
                }
                (None, Some(id)) => {
                    revoke_token(authority, &request, id, holder.ends, RevocationCause::Logout).await?
                }
                (None, None) => return Err(Denial::NotFound),
            }
            if holder.by_cookie { "logout successful" } else { "Access token revoked" }
        }
    };
    Ok(logged_out_response(&request, Some(ended)))
}

/// Ends all sessions of the account, and all its access tokens.
pub(super) async fn logout_all(
    authority: &Authority,
    request: EndpointRequest,
) -> Result<Response<Bytes>, Denial> {
    let holder = request.account()?;
    let marks = authority
        .store
        .end_sessions(&holder.subject, RevocationCause::LogoutAll.as_str(), millis(request.now))
        .await
        .map_err(|error| authority.unavailable(&error))?;
    authority.mark(&request.settings, &marks, request.now, RevocationCause::LogoutAll);
    authority.journal.event(Level::Info, "logged out everywhere", &[("subject", &holder.subject)]);
    Ok(logged_out_response(&request, None))
}

/// Returns the account's sessions, newest first.
pub(super) async fn list(authority: &Authority, request: EndpointRequest) -> Result<Response<Bytes>, Denial> {
    let holder = request.account()?;
    let sessions = authority.store.sessions(&holder.subject, millis(request.now)).await;
    let sessions = sessions.map_err(|error| authority.unavailable(&error))?;
    let is_current = |id: &str| holder.session.as_deref() == Some(id);
    let list: Vec<Value> =
        sessions.iter().map(|session| session_json(session, is_current(&session.id))).collect();
    Ok(json_response(StatusCode::OK, &json!({ "sessions": list })))
}

/// Ends one of the account's sessions. A session of another account gets the same response as an unknown session.
pub(super) async fn end(authority: &Authority, request: EndpointRequest) -> Result<Response<Bytes>, Denial> {
    let holder = request.account()?;
    let id = request.id.as_deref().ok_or(Denial::NotFound)?;
    if !end_one(authority, &request, Some(&holder.subject), id, RevocationCause::Session).await? {
        return Err(Denial::NotFound);
    }
    if holder.session.as_deref() == Some(id) {
        Ok(logged_out_response(&request, None))
    } else {
        Ok(empty_response(StatusCode::NO_CONTENT))
    }
}

/// Describes the authenticated caller.
pub(super) fn me(request: &EndpointRequest) -> Result<Response<Bytes>, Denial> {
    let holder = request.caller.as_ref().ok_or(Denial::MissingToken)?;
    let Holder { subject, issuer, session, roles, scopes, expires, fresh, .. } = holder;
    let mut body = Map::new();
    body.insert("sub".into(), subject.as_str().into());
    body.insert("iss".into(), (**issuer).into());
    body.insert("roles".into(), roles.as_slice().into());
    body.insert("scope".into(), scopes.join(" ").into());
    body.insert("exp".into(), (*expires).into());
    body.insert("fresh".into(), (*fresh).into());
    if let Some(session) = session {
        body.insert("sid".into(), session.as_str().into());
    }
    Ok(json_response(StatusCode::OK, &Value::Object(body)))
}

/// Ends a session, and returns whether this call ended it. If `account` is given, only a session of that account ends.
pub(super) async fn end_one(
    authority: &Authority,
    request: &EndpointRequest,
    account: Option<&str>,
    id: &str,
    cause: RevocationCause,
) -> Result<bool, Denial> {
    let ended = authority.store.end_session(account, id, cause.as_str(), millis(request.now)).await;
    let ended = ended.map_err(|error| authority.unavailable(&error))?;
    if ended {
        authority.mark(&request.settings, &[Mark::Session(id.to_owned())], request.now, cause);
        authority.journal.event(
            Level::Info,
            "a session is ended",
            &[("session", id), ("why", cause.as_str())],
        );
    }
    Ok(ended)
}

/// Ends a session that is known to exist. This gateway then refuses its tokens, even if another gateway has just ended the
/// session and this one has not read that yet.
pub(super) async fn end_known(
    authority: &Authority,
    request: &EndpointRequest,
    account: Option<&str>,
    id: &str,
    cause: RevocationCause,
) -> Result<(), Denial> {
    if !end_one(authority, request, account, id, cause).await? {
        let revoked = &request.settings.revoked;
        revoked.mark(&Mark::Session(id.to_owned()), revoked.kept_until(request.now.unix));
    }
    Ok(())
}

/// Revokes one access token. `expires` is its `exp` (seconds since 1970).
pub(super) async fn revoke_token(
    authority: &Authority,
    request: &EndpointRequest,
    id: &str,
    expires: u64,
    cause: RevocationCause,
) -> Result<(), Denial> {
    let end = i64::try_from(expires.saturating_mul(1000)).unwrap_or(i64::MAX);
    let revoked = authority.store.revoke_token(id, millis(request.now), end).await;
    revoked.map_err(|error| authority.unavailable(&error))?;
    let kept = request.now.unix.max(expires).saturating_add(MARK_MARGIN.as_secs());
    request.settings.revoked.mark(&Mark::Token(id.to_owned()), kept);
    authority.counters.revocations.add(cause);
    Ok(())
}

/// Returns the response after a logout. Clients of a replaced issuer get the message that they expect.
fn logged_out_response(request: &EndpointRequest, words: Option<&str>) -> Response<Bytes> {
    let mut response = match (request.settings.compat, words) {
        (Some(Compat::FlaskJwtExtended), Some(words)) => {
            json_response(StatusCode::OK, &json!({ "msg": words }))
        }
        (Some(Compat::FlaskJwtExtended), None) | (None, _) => empty_response(StatusCode::NO_CONTENT),
    };
    // A page of another site can send a form with any refresh token, and must not log its visitors out here. A browser keeps
    // cookies of the answer to such a form, although it sends none with it.
    if let Some(cookies) = request.settings.cookies.as_ref().filter(|_| request.own_site) {
        cookie::expire_session_cookies(response.headers_mut(), cookies);
    }
    if page::wants_page(request) { page::logout_response(request, &response) } else { response }
}

/// Renders a session for its owner.
fn session_json(session: &Session, current: bool) -> Value {
    json!({
        "id": session.id,
        "current": current,
        "created": session.created / 1000,
        "last_used": session.used / 1000,
        "expires": session.expires / 1000,
        "address": session.address,
        "user_agent": session.agent,
        "bound": session.key.is_some(),
    })
}
