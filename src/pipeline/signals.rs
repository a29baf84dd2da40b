//! Receives signals that a transmitter pushes: security event tokens (RFC 8935) and logout tokens (OpenID Connect
//! Back-Channel Logout section 2.5).

use super::progress::Admitted;
use super::record::Record;
use super::rejection::Rejection;
use super::waiting;
use crate::authority::Fields;
use crate::denial::Denial;
use crate::policy::Policy;
use crate::route::Head;
use crate::signals::{Receiver, SignalError, SignalKind};
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

/// Maximum size of the body in bytes: a token, and the form around a logout token.
const BODY_MAX: u64 = 32 * 1024;

/// Processes a signal, and returns the response for the transmitter.
///
/// # Errors
/// Returns the denial if the body cannot be read.
pub(super) async fn answer(
    worker: &Worker,
    policy: &Policy,
    (receiver, kind): (&Receiver, SignalKind),
    head: &Head<'_>,
    admitted: Admitted<'_, '_>,
    record: &mut Record,
) -> Result<Response<Bytes>, Rejection> {
    // Check the bearer token before the body is read.
    let field = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if kind == SignalKind::EventToken
        && let Err(error) = receiver.authorize(field)
    {
        return Ok(refusal(kind, error, record));
    }
    let body = admitted.body.bounded(BODY_MAX)?.gather().await?;
    let outcome = match token(kind, head, &body) {
        Ok(token) => {
            // The issuer's keys change while a signal waits for them.
            let issuer = || worker.policy().trust.issuer_named(&receiver.issuer).cloned();
            let recorder = policy.recorder();
            match waiting::turn(worker).await {
                Ok(()) => {
                    receiver.accept(kind, &token, issuer, &recorder, worker.journal(), worker.now()).await
                }
                Err(untimely) => Err(untimely.into()),
            }
        }
        Err(error) => Err(error),
    };
    Ok(match outcome {
        Ok(()) => accepted(kind),
        Err(error) => refusal(kind, error, record),
    })
}

/// Returns the token in the body.
fn token(kind: SignalKind, head: &Head<'_>, body: &[u8]) -> Result<String, SignalError> {
    let media = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let unusable =
        |description| SignalError::new("invalid_request", description, Denial::UnsupportedMediaType);
    match kind {
        SignalKind::EventToken => {
            if !media.eq_ignore_ascii_case("application/secevent+jwt") {
                return Err(unusable("The content type is not application/secevent+jwt."));
            }
            let text = std::str::from_utf8(body).map_err(|_| unusable("The body is not a JWT."))?;
            Ok(text.trim_ascii().to_owned())
        }
        SignalKind::LogoutToken => {
            if !media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
                return Err(unusable("The content type is not application/x-www-form-urlencoded."));
            }
            // A repeated field makes the form invalid. Unknown fields are ignored (section 2.5).
            let fields =
                Fields::form(body).map_err(|_| unusable("The body is not a form with unique fields."))?;
            match fields.required("logout_token") {
                Ok(token) => Ok(token.to_owned()),
                Err(_) => Err(unusable("The form has no logout_token.")),
            }
        }
    }
}

fn accepted(kind: SignalKind) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = match kind {
        // RFC 8935 section 2.2.
        SignalKind::EventToken => StatusCode::ACCEPTED,
        // Back-Channel Logout section 2.8.
        SignalKind::LogoutToken => StatusCode::OK,
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns an error in the transmitter's format (RFC 8935 section 2.3, Back-Channel Logout section 2.8). The status is
/// 400 if a retry cannot succeed.
#[cold]
fn refusal(kind: SignalKind, error: SignalError, record: &mut Record) -> Response<Bytes> {
    let body = match kind {
        SignalKind::EventToken => json!({ "err": error.code, "description": error.description }),
        SignalKind::LogoutToken => json!({ "error": error.code, "error_description": error.description }),
    };
    let mut response = Response::new(Bytes::from(format!("{body}\n")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let status = match error.denial {
        Denial::StoreUnavailable | Denial::CheckUnavailable => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            StatusCode::SERVICE_UNAVAILABLE
        }
        Denial::InvalidClient => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            StatusCode::UNAUTHORIZED
        }
        _ => StatusCode::BAD_REQUEST,
    };
    *response.status_mut() = status;
    if let Some(detail) = error.detail {
        record.explained(detail.into());
    }
    record.refused(error.denial);
    response
}
