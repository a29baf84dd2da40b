//! Defines a refusal before it is rendered as a response: the denial, and guidance for the client.

use super::exchange::Exchange;
use super::forward_auth;
use super::progress::Progress;
use super::record::Record;
use crate::authenticate::dpop::DPOP_NONCE;
use crate::authority::{expire_access_cookie, expire_session_cookies};
use crate::denial::Denial;
use crate::policy::Policy;
use crate::respond::compat::CompatRequest;
use crate::respond::problem::{API_KEY_CHALLENGE, as_api_key_challenge, as_dpop_challenge, dpop_challenge};
use crate::respond::{self, PageLinks};
use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Method, Response};

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
    /// Whether and how the answer offers DPoP.
    pub(super) dpop: DpopOffer,
    /// Whether and how the answer offers API keys.
    pub(super) api_keys: ApiKeyOffer,
}

/// How a refusal with a challenge offers DPoP (RFC 9449 section 7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DpopOffer {
    /// Not at all.
    #[default]
    None,
    /// Beside the challenge for bearer tokens, in a field of its own.
    Beside,
    /// In place of the challenge for bearer tokens.
    Only,
}

/// How a refusal with a challenge offers API keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ApiKeyOffer {
    /// Not at all.
    #[default]
    None,
    /// Beside the challenge for tokens, in a field of its own.
    Beside,
    /// In place of the challenge for tokens, which the route does not take from `Authorization`.
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
                .unwrap_or_else(|| respond::refuse_with(&denial, denial.status(), format, id, method, &ways)),
        };
        if let Some(challenge) = challenge
            && let Some(value) = response.headers().get(WWW_AUTHENTICATE)
            && let Ok(value) = HeaderValue::try_from([value.as_bytes(), challenge.as_bytes()].concat())
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        offer_api_keys(response.headers_mut(), api_keys);
        offer_dpop(response.headers_mut(), dpop);
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
        if matches!(denial, Denial::RateLimited { .. }) {
            record.limited(&progress.standing);
        }
        record.refused(denial);
        response
    }
}

/// Offers DPoP in an answer that has a challenge for bearer tokens.
fn offer_dpop(headers: &mut HeaderMap, offer: DpopOffer) {
    let Some(bound) = headers.get(WWW_AUTHENTICATE).and_then(as_dpop_challenge) else { return };
    match offer {
        DpopOffer::None => {}
        DpopOffer::Beside => drop(headers.append(WWW_AUTHENTICATE, dpop_challenge())),
        DpopOffer::Only => drop(headers.insert(WWW_AUTHENTICATE, bound)),
    }
}

/// Offers API keys in an answer that has a challenge for bearer tokens.
fn offer_api_keys(headers: &mut HeaderMap, offer: ApiKeyOffer) {
    let Some(alone) = headers.get(WWW_AUTHENTICATE).and_then(as_api_key_challenge) else { return };
    match offer {
        ApiKeyOffer::None => {}
        ApiKeyOffer::Beside => drop(headers.append(WWW_AUTHENTICATE, API_KEY_CHALLENGE)),
        ApiKeyOffer::Only => drop(headers.insert(WWW_AUTHENTICATE, alone)),
    }
}
