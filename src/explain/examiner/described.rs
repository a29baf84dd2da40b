//! Inserts the credential of a question into its request: the given token, or a token with the given claims.

use super::Examiner;
use crate::authenticate::csrf::{SEC_FETCH_SITE, is_unsafe, names_site};
use crate::authenticate::{
    API_KEY_ISSUER, API_KEY_PREFIX, API_KEY_SUBJECT, ApiKeyFacts, ApiKeys, CookieNames, NamedHeader, Source,
    TokenCache, Trust, claims_of, digest_of, generate_api_key, hint_of,
};
use crate::clock::Now;
use crate::explain::matched_route;
use crate::policy::{Credential, Question};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Uri, header};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

/// The lifetime in seconds of a token that is created from claims without `exp`.
const LIFE: u64 = 60;

impl Examiner<'_> {
    /// Returns the request with its credential, and the trust and cache that verify the credential.
    pub(super) fn prepare(&self, question: &Question) -> (Parts, Cow<'_, Trust>, &RefCell<TokenCache>) {
        let mut parts = question.parts.clone();
        let ours = || Cow::Borrowed(&self.trust);
        match &question.credential {
            Credential::AsSent => (parts, ours(), &self.tokens),
            Credential::Token(key) if key.starts_with(API_KEY_PREFIX) => {
                self.place_api_key(&mut parts, question, key);
                (parts, ours(), &self.tokens)
            }
            Credential::Claims(claims) if claims.get("iss").is_some_and(|iss| iss == API_KEY_ISSUER) => {
                // Without random numbers the key is malformed, and the request is refused.
                let key = generate_api_key().unwrap_or_default();
                self.place_api_key(&mut parts, question, &key);
                let keys = ApiKeys::after([described_key(claims, &key)], None);
                (parts, Cow::Owned(self.assuming.with_api_keys(Arc::new(keys))), &self.described)
            }
            Credential::Token(token) => {
                let csrf = claims_of(token).and_then(|claims| Some(claims.get("csrf")?.as_str()?.to_owned()));
                let is_bound = claims_of(token).is_some_and(|claims| claims.contains_key("cnf"));
                self.place(&mut parts, question, token, csrf.as_deref(), is_bound);
                (parts, ours(), &self.tokens)
            }
            Credential::Claims(claims) => {
                let (token, csrf) = self.token_of(claims.clone(), question.now);
                self.place(&mut parts, question, &token, Some(&csrf), claims.contains_key("cnf"));
                (parts, Cow::Borrowed(&self.assuming), &self.described)
            }
        }
    }

    /// Inserts an API key into the matching route's header for API keys. If the route accepts no API keys, nothing is
    /// inserted.
    fn place_api_key(&self, parts: &mut Parts, question: &Question, key: &str) {
        let Some(route) = matched_route(self.policy, question) else { return };
        let sources = &self.policy.routes[route].credential_policy.sources.others;
        if let Some(Source::ApiKey(name)) = sources.iter().find(|source| matches!(source, Source::ApiKey(_)))
        {
            append(parts, name.clone(), key.to_owned());
        }
    }

    /// Creates a token with these claims. Returns the token and its CSRF token.
    pub(super) fn token_of(&self, mut claims: Map<String, Value>, now: Now) -> (String, String) {
        let issuers = self.assuming.issuers();
        let issuer = match claims.get("iss") {
            Some(named) => {
                issuers.iter().find(|issuer| named.as_str().is_some_and(|name| issuer.is_named(name)))
            }
            None => issuers.first(),
        };
        let mut typ = None;
        if let Some(issuer) = issuer {
            claims.entry("iss").or_insert_with(|| (*issuer.example_name()).into());
            issuer.complete(&mut claims, now.unix);
            typ = issuer.types.iter().find(|kind| !kind.is_empty()).map(|kind| kind.to_string());
            if issuer.local {
                claims.entry("gen").or_insert_with(|| i64::MAX.into());
                claims.entry("iat").or_insert_with(|| now.unix.into());
            }
        }
        let life = LIFE.min(self.assuming.revoked().longest());
        claims.entry("exp").or_insert_with(|| now.unix.saturating_add(life).into());
        let csrf = claims.entry("csrf").or_insert_with(|| "of-this-question".into());
        let csrf = csrf.as_str().unwrap_or_default().to_owned();
        let header = Header { typ, ..Header::default() };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&self.key));
        (
            token.expect("a map of JSON values can be written as JSON, and HMAC signs whatever it is given"),
            csrf,
        )
    }

    /// Inserts a token in a place where the matching route accepts tokens. The order of preference is `Authorization`,
    /// a named header, the authority's cookie, any other place. A bound token gets the scheme `DPoP`.
    fn place(&self, parts: &mut Parts, question: &Question, token: &str, csrf: Option<&str>, is_bound: bool) {
        let route = matched_route(self.policy, question).map(|route| &self.policy.routes[route]);
        let sources = route.map(|route| &route.credential_policy.sources);
        let cookies = self.policy.trust.cookies();
        let Some(sources) = sources.filter(|sources| !sources.header) else {
            let scheme = if is_bound { "DPoP" } else { "Bearer" };
            append(parts, header::AUTHORIZATION, format!("{scheme} {token}"));
            return;
        };
        let is_header = |source: &&Source| matches!(source, Source::Header(_));
        let named = sources.others.iter().find(is_header);
        match (named, cookies) {
            (None, Some(names)) if sources.cookie => {
                let unsafe_method = is_unsafe(&parts.method);
                cookie(parts, names, token, csrf.filter(|_| unsafe_method));
                return;
            }
            (Some(_) | None, _) => {}
        }
        let is_for_tokens = |source: &&Source| !matches!(source, Source::ApiKey(_));
        match named.or_else(|| sources.others.iter().find(is_for_tokens)) {
            Some(Source::Header(NamedHeader { name, prefix })) => {
                append(parts, name.clone(), format!("{prefix}{token}"));
            }
            Some(Source::Cookie(name)) => {
                append(parts, header::COOKIE, format!("{name}={token}"));
                // The caller is assumed to use a browser that shows a page of the same origin.
                if is_unsafe(&parts.method) && !names_site(&parts.headers) {
                    append(parts, SEC_FETCH_SITE, "same-origin".to_owned());
                }
            }
            Some(Source::WebSocket(marker)) => {
                append(parts, header::SEC_WEBSOCKET_PROTOCOL, format!("{marker}, {token}"));
            }
            Some(Source::Query(name)) => {
                let separator = if parts.uri.query().is_some() { '&' } else { '?' };
                let target = format!("{}{separator}{name}={token}", parts.uri);
                parts.uri = target.parse::<Uri>().unwrap_or_else(|_| parts.uri.clone());
            }
            Some(Source::ApiKey(_)) | None => {}
        }
    }
}

/// Returns the facts of an API key with these claims.
fn described_key(claims: &Map<String, Value>, key: &str) -> ApiKeyFacts {
    let names = |claim: &str| match claims.get(claim) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(Into::into).collect(),
        Some(Value::String(names)) => names.split(' ').map(Into::into).collect(),
        Some(_) | None => Box::default(),
    };
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("described");
    ApiKeyFacts {
        name: subject.strip_prefix(API_KEY_SUBJECT).unwrap_or(subject).into(),
        digest: digest_of(key),
        hint: hint_of(key).into(),
        roles: names("roles"),
        scopes: names("scope"),
        claims: claims.clone(),
        created: 0,
        expires: claims.get("exp").and_then(Value::as_u64),
    }
}

/// Appends a header field. If the value is not valid, nothing is appended, and the request is refused because it has no
/// token.
fn append(parts: &mut Parts, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        parts.headers.append(name, value);
    }
}

/// Inserts a token as the authority's access cookie, and the CSRF header if `csrf` is given.
fn cookie(parts: &mut Parts, names: &CookieNames, token: &str, csrf: Option<&str>) {
    append(parts, header::COOKIE, format!("{}={token}", names.access));
    if let Some(csrf) = csrf.and_then(|csrf| HeaderValue::from_str(csrf).ok()) {
        parts.headers.insert(names.csrf_header.clone(), csrf);
    }
}
