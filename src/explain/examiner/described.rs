//! Inserts the credential of a question into its request: the given token, or a token with the given claims.

use super::{Examiner, Prepared};
use crate::authenticate::csrf::{SEC_FETCH_SITE, is_unsafe, names_site};
use crate::authenticate::{
    API_KEY_ISSUER, API_KEY_PREFIX, API_KEY_SUBJECT, ApiKeyFacts, ApiKeys, CertificateCallers, CookieNames,
    NamedHeader, Source, claims_of, digest_of, generate_api_key, hint_of,
};
use crate::clock::Now;
use crate::explain::matched_route;
use crate::policy::{Credential, Question};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Uri, header};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// The lifetime in seconds of a token that is created from claims without `exp`.
const LIFE: u64 = 60;

impl Examiner<'_> {
    /// Returns the request with its credential, and the trust and cache that verify the credential.
    pub(super) fn prepare(&self, question: &Question) -> Prepared<'_> {
        let parts = question.parts.clone();
        let mut prepared =
            Prepared { parts, trust: Cow::Borrowed(&self.trust), cache: &self.tokens, certificate: None };
        let parts = &mut prepared.parts;
        match &question.credential {
            Credential::AsSent => {}
            Credential::Token(key) if key.starts_with(API_KEY_PREFIX) => {
                self.place_api_key(parts, question, key);
            }
            Credential::Token(token) => {
                let csrf = claims_of(token).and_then(|claims| Some(claims.get("csrf")?.as_str()?.to_owned()));
                self.place(parts, question, token, csrf.as_deref(), claims_of(token).as_ref());
            }
            Credential::Claims(claims) if claims.get("iss").is_some_and(|iss| iss == API_KEY_ISSUER) => {
                // Without random numbers the key is malformed, and the request is refused.
                let key = generate_api_key().unwrap_or_default();
                self.place_api_key(parts, question, &key);
                let keys = ApiKeys::after([described_key(claims, &key)], None);
                prepared.trust = Cow::Owned(self.assuming.with_api_keys(Arc::new(keys)));
                prepared.cache = &self.described;
            }
            Credential::Claims(claims) => {
                prepared.cache = &self.described;
                if let Some(callers) = self.certificate_callers(claims, question) {
                    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("described");
                    let roles = claims.contains_key("roles").then(|| names(claims, "roles"));
                    let (callers, certificate) = callers.describe(subject, roles);
                    let trust = self.assuming.clone().with_certificate_callers(vec![callers]);
                    prepared.trust = Cow::Owned(trust);
                    prepared.certificate = Some(certificate);
                } else {
                    let (token, csrf) = self.token_of(claims.clone(), question.now);
                    self.place(parts, question, &token, Some(&csrf), Some(claims));
                    prepared.trust = Cow::Borrowed(&self.assuming);
                }
            }
        }
        prepared
    }

    /// Returns the table that contains the described caller, if the caller has a client certificate: `iss` says so, or the
    /// matching route has no place for a token.
    fn certificate_callers(
        &self,
        claims: &Map<String, Value>,
        question: &Question,
    ) -> Option<&CertificateCallers> {
        let known = self.assuming.certificate_callers();
        if let Some(issuer) = claims.get("iss") {
            return known.iter().find(|known| issuer.as_str() == Some(&**known.issuer()));
        }
        let route = &self.policy.routes[matched_route(self.policy, question)?];
        let sources = &route.credential_policy.sources;
        let has_place = sources.header || sources.cookie;
        let only = |source: &Source| matches!(source, Source::Certificate | Source::ApiKey(_));
        let is_only = !has_place && sources.takes_certificates() && sources.others.iter().all(only);
        known.first().filter(|_| is_only)
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
    /// a named header, the authority's cookie, any other place. A token that is bound to
    /// a key gets the scheme `DPoP`.
    fn place(
        &self,
        parts: &mut Parts,
        question: &Question,
        token: &str,
        csrf: Option<&str>,
        claims: Option<&Map<String, Value>>,
    ) {
        let route = matched_route(self.policy, question).map(|route| &self.policy.routes[route]);
        let sources = route.map(|route| &route.credential_policy.sources);
        let cookies = self.policy.trust.cookies();
        let Some(sources) = sources.filter(|sources| !sources.header) else {
            // A token that is bound to a certificate is a bearer token on the right connection.
            let bound = claims.and_then(|claims| claims.get("cnf")).and_then(Value::as_object);
            let is_for_dpop = bound.is_some_and(|bound| !bound.contains_key("x5t#S256"));
            let scheme = if is_for_dpop { "DPoP" } else { "Bearer" };
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
        let is_for_tokens = |source: &&Source| !matches!(source, Source::ApiKey(_) | Source::Certificate);
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
            Some(Source::ApiKey(_) | Source::Certificate) | None => {}
        }
    }
}

/// Returns the names in a claim of a described caller.
fn names(claims: &Map<String, Value>, claim: &str) -> Vec<String> {
    match claims.get(claim) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(names)) => names.split(' ').map(str::to_owned).collect(),
        Some(_) | None => Vec::new(),
    }
}

fn boxed(names: Vec<String>) -> Box<[Box<str>]> {
    names.into_iter().map(String::into_boxed_str).collect()
}

/// Returns the facts of an API key with these claims.
fn described_key(claims: &Map<String, Value>, key: &str) -> ApiKeyFacts {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("described");
    ApiKeyFacts {
        name: subject.strip_prefix(API_KEY_SUBJECT).unwrap_or(subject).into(),
        digest: digest_of(key),
        hint: hint_of(key).into(),
        roles: boxed(names(claims, "roles")),
        scopes: boxed(names(claims, "scope")),
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
