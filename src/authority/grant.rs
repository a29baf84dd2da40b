//! Builds the response that grants tokens: an access token and a refresh token, in the body or as cookies.

use super::cookie;
use super::counters::{Counters, TokenSize, Trimmed};
use super::response::filled;
use super::settings::{Compat, IssuerSettings};
use super::token::{AccessClaims, mint};
use crate::authenticate::credential::REFRESH_TOKEN_PREFIX as PREFIX;
use crate::authenticate::{Thumbprint, digest_of};
use crate::clock::Now;
use crate::denial::Denial;
use crate::journal::{Journal, Level};
use crate::store::{Account, Session};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// The prefix of a refresh token that is bound to a key. Older versions of the gateway reject such a token as
/// malformed, so they never accept it without a proof.
const BOUND_PREFIX: &str = "pcr_dpop_";
/// The length of 256 bits in base64url.
const TEXT_LENGTH: usize = 43;
/// Above this size in bytes, a token is close to the browsers' limit for a cookie: 4 KiB with its name (RFC 6265
/// section 6.1).
const SIZE_WARN: usize = 4096 - 256;
/// Above this size in bytes, a token is close to the servers' limit for a header field (nginx and Apache: 8 KiB).
const SIZE_WARN_MORE: usize = 8192 - 512;

/// A refresh token: 256 unguessable bits as text.
pub(super) struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// Generates a token. `is_bound`: whether the session is bound to a key.
    pub(super) fn random(is_bound: bool) -> Result<Self, Denial> {
        Ok(Self::of(&random()?, is_bound))
    }

    /// Derives the successor of the token `of` from the token and from the nonce in the store.
    pub(super) fn successor(of: &str, nonce: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, of.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&key, nonce).as_ref());
        Self::of(&bytes, is_bound(of))
    }

    fn of(bytes: &[u8; 32], is_bound: bool) -> Self {
        let prefix = if is_bound { BOUND_PREFIX } else { PREFIX };
        Self(Zeroizing::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Returns the hash under which the store keeps the token.
    pub(super) fn hash(&self) -> [u8; 32] {
        digest_of(self.0.as_bytes())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether a text has the prefix and the length of a bound token. The length decides too, because the random
/// part of another token may begin with `dpop_`.
fn is_bound(text: &str) -> bool {
    text.len() == BOUND_PREFIX.len() + TEXT_LENGTH && text.starts_with(BOUND_PREFIX)
}

/// Returns the hash under which the store keeps a client's refresh token.
///
/// # Errors
/// [`Denial::WrongType`] for an access token, [`Denial::MalformedToken`] for any other text.
pub(super) fn hash_of(text: &str) -> Result<[u8; 32], Denial> {
    let is_text = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let rest = if is_bound(text) { text.strip_prefix(BOUND_PREFIX) } else { text.strip_prefix(PREFIX) };
    match rest {
        Some(rest) if rest.len() == TEXT_LENGTH && rest.bytes().all(is_text) => Ok(digest_of(text)),
        None if text.matches('.').count() == 2 => Err(Denial::WrongType),
        Some(_) | None => Err(Denial::MalformedToken(crate::denial::TokenPart::Shape)),
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], Denial> {
    let mut bytes = [0; N];
    // Without random numbers, the authority cannot issue tokens.
    rand::fill(&mut bytes).map_err(|_| Denial::StoreUnavailable)?;
    Ok(bytes)
}

/// Returns 128 random bits as text, for session ids and CSRF values.
pub(super) fn random_text() -> Result<String, Denial> {
    Ok(URL_SAFE_NO_PAD.encode(random::<16>()?))
}

/// The content of a response that grants tokens.
pub(super) struct Grant<'g> {
    pub(super) settings: &'g IssuerSettings,
    pub(super) account: &'g Account,
    pub(super) session: &'g Session,
    /// Whether the user has just entered a password.
    pub(super) fresh: bool,
    pub(super) refresh: &'g RefreshToken,
    /// When the refresh token expires, in milliseconds since 1970.
    pub(super) refresh_expires: i64,
    /// The session's CSRF value; `None` if the tokens are returned in the body.
    pub(super) csrf: Option<&'g str>,
    pub(super) now: Now,
}

impl Grant<'_> {
    /// Builds the response, with the tokens in the body or in cookies.
    pub(super) fn response(&self, counters: &Counters, journal: &Journal) -> Result<Response<Bytes>, Denial> {
        let access = self.access_token(counters, journal)?;
        let expires_in = self.settings.access_expires.as_secs();
        let refresh_in = u64::try_from((self.refresh_expires / 1000).saturating_sub_unsigned(self.now.unix));
        let refresh_in = refresh_in.unwrap_or(0);
        let mut body = Map::new();
        body.insert("token_type".into(), token_type(self.session.key).into());
        body.insert("expires_in".into(), expires_in.into());
        body.insert("refresh_expires_in".into(), refresh_in.into());
        let mut response = Response::new(Bytes::new());
        match (self.csrf, &self.settings.cookies) {
            (Some(csrf), Some(cookies)) => {
                body.insert("csrf_token".into(), csrf.into());
                if self.settings.compat == Some(Compat::FlaskJwtExtended) {
                    let words = if self.fresh { "login successful" } else { "refresh successful" };
                    body.insert("msg".into(), words.into());
                }
                cookie::set_session_cookies(
                    response.headers_mut(),
                    cookies,
                    (&access, expires_in),
                    (self.refresh.as_str(), refresh_in),
                    csrf,
                    self.now.unix,
                );
            }
            (_, _) => {
                body.insert("access_token".into(), access.into());
                body.insert("refresh_token".into(), self.refresh.as_str().into());
            }
        }
        Ok(filled(response, StatusCode::OK, &Value::Object(body)))
    }

    fn access_token(&self, counters: &Counters, journal: &Journal) -> Result<String, Denial> {
        let Self { settings, account, session, .. } = self;
        let mut roles = account.roles.clone();
        if let Some(limit) = settings.role_limit
            && roles.len() > limit
        {
            roles.truncate(limit);
            counters.trimmed.add(Trimmed::Roles);
            journal.event(
                Level::Warn,
                "a token leaves out roles",
                &[("subject", &account.id), ("right", "fewer roles, or a higher [authority] role_limit")],
            );
        }
        let mut extra = Map::new();
        for (claim, attribute) in &settings.claims {
            if let Some(value) = account.attributes.get(attribute) {
                extra.insert(claim.clone(), value.clone());
            }
        }
        let claims = AccessClaims {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            subject: account.id.clone(),
            roles,
            scopes: account.scopes.clone(),
            expires_in: settings.access_expires,
            session: Some(session.id.clone()),
            generation: account.generation,
            fresh: self.fresh,
            authenticated: Some(u64::try_from(session.authenticated / 1000).unwrap_or(0)),
            csrf: self.csrf.map(str::to_owned),
            client: settings.client_id.clone(),
            key: session.key,
            compat: settings.compat,
            extra,
        };
        let token = mint(&settings.keyring, claims, self.now).map_err(|why| {
            journal.event(Level::Error, "cannot create an access token", &[("error", &why)]);
            Denial::StoreUnavailable
        })?;
        record_size(&token, &account.id, counters, journal);
        Ok(token)
    }
}

/// Returns the `token_type` of an access token that is bound to this key (RFC 9449 section 5).
pub(super) fn token_type(key: Option<Thumbprint>) -> &'static str {
    if key.is_some() { "DPoP" } else { "Bearer" }
}

/// Counts a token by its size. Logs a warning if the size is close to a limit of browsers or servers.
pub(super) fn record_size(token: &str, subject: &str, counters: &Counters, journal: &Journal) {
    let size = match token.len() {
        size if size <= SIZE_WARN => TokenSize::Normal,
        size if size <= SIZE_WARN_MORE => TokenSize::Over4KiB,
        _ => TokenSize::Over8KiB,
    };
    counters.tokens.add(size);
    if size != TokenSize::Normal {
        journal.event_with(
            Level::Warn,
            "an access token exceeds what browsers store in a cookie or servers accept in a header",
            &[
                ("subject", subject.into()),
                ("bytes", token.len().into()),
                ("right", "fewer roles (role_limit), scopes or [authority.claims]".into()),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::TokenPart;

    #[test]
    fn a_successor_needs_both_the_token_and_what_the_store_keeps() {
        let first = RefreshToken::random(false).unwrap();
        let nonce = random().unwrap();
        let next = RefreshToken::successor(first.as_str(), &nonce);
        assert_eq!(next.as_str(), RefreshToken::successor(first.as_str(), &nonce).as_str());
        assert_ne!(next.as_str(), RefreshToken::successor(first.as_str(), &random().unwrap()).as_str());
        let other = RefreshToken::random(false).unwrap();
        assert_ne!(next.as_str(), RefreshToken::successor(other.as_str(), &nonce).as_str());
        assert_eq!(hash_of(next.as_str()), Ok(next.hash()));
    }

    #[test]
    fn the_tokens_of_a_bound_session_have_their_own_form() {
        let first = RefreshToken::random(true).unwrap();
        let next = RefreshToken::successor(first.as_str(), &random().unwrap());
        for token in [&first, &next] {
            let text = token.as_str();
            assert_eq!(hash_of(text), Ok(token.hash()));
            let bearer = text.replace("dpop_", "");
            assert_ne!(hash_of(&bearer).unwrap(), token.hash(), "the forms cannot be exchanged");
            // Older versions require exactly 43 characters after `pcr_`.
            assert_eq!(text.strip_prefix(PREFIX).map(str::len), Some(48));
            assert!(hash_of(&text[..text.len() - 1]).is_err() && hash_of(&format!("{text}A")).is_err());
        }
    }

    #[test]
    fn a_bearer_token_whose_random_part_begins_like_a_bound_one_stays_a_bearer_token() {
        let text = format!("pcr_dpop_{}", "A".repeat(TEXT_LENGTH - "dpop_".len()));
        assert_eq!(hash_of(&text), Ok(digest_of(&*text)));
        let next = RefreshToken::successor(&text, &random().unwrap());
        assert_eq!(next.as_str().len(), PREFIX.len() + TEXT_LENGTH);
    }

    #[test]
    fn a_token_that_is_no_refresh_token_is_refused_by_its_kind() {
        let malformed = Err(Denial::MalformedToken(TokenPart::Shape));
        assert_eq!(hash_of("eyJh.eyJp.sig"), Err(Denial::WrongType));
        let good = RefreshToken::random(false).unwrap();
        let good = good.as_str();
        for text in
            ["", "x", "pcr_", &good[4..], &good[..46], &format!("{good}A"), &good.replace("pcr_", "PCR_")]
        {
            assert_eq!(hash_of(text), malformed, "{text}");
        }
        assert_eq!(hash_of(&format!("{}'", &good[..46])), malformed);
    }
}
