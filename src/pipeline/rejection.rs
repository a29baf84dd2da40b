//! Defines a refusal before it is rendered as a response: the denial, and guidance for the client.

use super::exchange::Exchange;
use super::forward_auth;
use super::progress::Progress;
use super::record::Record;
use crate::authenticate::dpop::DPOP_NONCE;
use crate::authority::{expire_access_cookie, expire_session_cookies, refused};
use crate::denial::{Denial, HandshakeFault, Malformed};
use crate::policy::Policy;
use crate::respond::compat::CompatRequest;
use crate::respond::problem::{self, API_KEY};
use crate::respond::{self, PageLinks};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response};
use std::borrow::Cow;

/// A denial, and guidance for the client.
#[derive(Debug)]
pub(super) struct Rejection {
    denial: Denial,
    guidance: Option<Box<Guidance>>,
}

/// Guidance for the client. A person gets links or a redirect, and a program gets more challenge parameters.
#[derive(Debug, Default)]
pub(super) struct Guidance {
    /// The address of the login page. If set, the response redirects there instead of showing the refusal.
    pub(super) redirect: Option<HeaderValue>,
    /// The links of the refusal page.
    pub(super) ways: PageLinks,
    /// The cookies that the response deletes.
    pub(super) deletes: Option<DeadCookies>,
    /// More parameters for the challenge, each with a leading comma.
    pub(super) challenge: Option<String>,
    /// The way in which the answer offers DPoP (RFC 9449 section 7.1).
    pub(super) dpop: SchemeOffer,
    /// The way in which the answer offers API keys.
    pub(super) api_keys: SchemeOffer,
}

/// The way in which a refusal with a challenge for bearer tokens offers another scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SchemeOffer {
    /// The answer does not offer the scheme.
    #[default]
    None,
    /// A second field offers the scheme.
    Beside,
    /// The scheme replaces `Bearer` in the challenge.
    Only,
}

/// Cookies whose tokens can never be accepted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadCookies {
    /// The cookie of the access token.
    Access,
    /// All cookies of the session.
    Session,
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        Self { denial, guidance: None }
    }
}

impl Rejection {
    pub(super) fn guided(denial: Denial, guidance: Option<Guidance>) -> Self {
        Self { denial, guidance: guidance.map(Box::new) }
    }

    /// Returns whether the connection must close because the next input might be read as a request by mistake. The head
    /// or the body's framing is ambiguous, or the request was not read to its end.
    pub(super) fn is_of_framing(&self) -> bool {
        matches!(
            self.denial,
            Denial::BadRequest(_) | Denial::HeadersTooLarge | Denial::BodyTooLarge | Denial::RequestTimeout
        )
    }

    /// Renders the response in a format that the client can read, and records the refusal. `method` is the method that
    /// the client sent.
    #[cold]
    pub(super) fn answer(
        self,
        policy: &Policy,
        exchange: &Exchange,
        compat: Option<&CompatRequest>,
        method: &Method,
        progress: &Progress<'_>,
        record: &mut Record,
    ) -> Response<Bytes> {
        let Self { denial, guidance } = self;
        let Guidance { redirect, ways, deletes, challenge, dpop, api_keys } =
            guidance.map(|guidance| *guidance).unwrap_or_default();
        let ways = exchange.ways(ways);
        let (format, id) = (exchange.format, &exchange.id_header);
        let mut response = match (exchange.verdict, redirect) {
            (Some(style), redirect) => {
                forward_auth::refused(&denial, redirect, style, format, id, method, &ways)
            }
            (None, Some(location)) => respond::see_other(location),
            (None, None) => compat
                .and_then(|compat| compat.refuse(&denial, format, &policy.places(progress.route), method))
                .unwrap_or_else(|| {
                    let plain = respond::refuse_with(&denial, denial.status(), format, id, method, &ways);
                    for_service(plain, policy, progress.route, &denial)
                }),
        };
        if let Some(challenge) = challenge
            && let Some(value) = response.headers().get(WWW_AUTHENTICATE)
            && let Ok(value) = HeaderValue::try_from([value.as_bytes(), challenge.as_bytes()].concat())
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        offer(response.headers_mut(), api_keys, || API_KEY.into());
        offer(response.headers_mut(), dpop, || problem::dpop().into());
        // RFC 6455 section 4.4
        if denial == Denial::BadRequest(Malformed::Handshake(HandshakeFault::Version)) {
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if denial == Denial::UseDpopNonce {
            response.headers_mut().insert(DPOP_NONCE, policy.trust.dpop().nonce(exchange.now));
        }
        if let Some(deletes) = deletes
            && let Some(cookies) =
                policy.issuer_settings.as_ref().and_then(|settings| settings.cookies.as_ref())
        {
            match deletes {
                DeadCookies::Session => expire_session_cookies(response.headers_mut(), cookies),
                DeadCookies::Access => expire_access_cookie(response.headers_mut(), cookies),
            }
        }
        if matches!(denial, Denial::RateLimited { .. } | Denial::LimitUnavailable) {
            record.limited(&progress.standing);
        }
        record.refused(denial);
        response
    }
}

/// Renders the refusal of a request to an endpoint for services in the form of RFC 6749 section 5.2. Some clients take any
/// other body of a refusal for the token (findings/authlib-takes-a-refusal-for-a-token.sh).
fn for_service(
    plain: Response<Bytes>,
    policy: &Policy,
    route: Option<usize>,
    denial: &Denial,
) -> Response<Bytes> {
    let is_document = plain.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == problem::DOCUMENT)
        && !plain.body().is_empty();
    let endpoint = route.filter(|_| is_document).and_then(|route| policy.endpoint(route));
    let Some(Ok(answer)) = endpoint.map(|endpoint| refused(endpoint, denial.clone())) else { return plain };
    let (mut parts, body) = (plain.into_parts().0, answer.into_body());
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Response::from_parts(parts, body)
}

/// Offers a scheme in an answer that has a challenge for bearer tokens. `scheme` returns the challenge for the scheme,
/// without parameters of the refusal.
fn offer(headers: &mut HeaderMap, offer: SchemeOffer, scheme: impl Fn() -> Cow<'static, str>) {
    if offer == SchemeOffer::None {
        return;
    }
    let scheme = scheme();
    let Some(alone) = headers.get(WWW_AUTHENTICATE).and_then(|field| problem::rewritten(field, &scheme))
    else {
        return;
    };
    if offer == SchemeOffer::Only {
        headers.insert(WWW_AUTHENTICATE, alone);
    } else if let Ok(beside) = HeaderValue::from_str(&scheme) {
        headers.append(WWW_AUTHENTICATE, beside);
    }
}
