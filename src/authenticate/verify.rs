//! Verifies a token and converts it to a principal.
//!
//! The checks run in this order: form, issuer, algorithm and key, signature, claims. Before the signature is verified,
//! the only claim in use is `iss`, which selects the issuer whose keys are tried. In a token without `iss`, `sub`
//! selects the issuer.

use super::Confirmation;
use super::api_key::{API_KEY_PREFIX, API_KEY_SUBJECT};
use super::claims::{ClaimPath, ClaimValue, DATE_MAX, LOGOUT_EVENT, numeric_date};
use super::credential::REFRESH_TOKEN_PREFIX;
use super::error::{ClaimText, CredentialError, Quoted, beside, quoted};
use super::introspected::{self, ActiveToken};
use super::jws::{Jws, canonical_type};
use super::keys::Algorithm;
use super::mark::Signalled;
use super::postponed::{take_turn, until_keys};
use super::principal::{Local, Principal, Shape, Shapes};
use super::token_stats::TokenStats;
use super::trust::{Issuer, Trust};
use crate::clock::Now;
use crate::denial::{Denial, RequiredClaim, TokenPart};
use crate::introspection::Introspector;
use crate::turns::Turns;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The maximum number of roles, and of scopes, in a token. A token with more names is refused as malformed, since
/// truncation could drop the relevant name.
const NAMES_MAX: usize = 512;

type Claims = Map<String, Value>;
type Names = Box<[Box<str>]>;

/// The recipient for which a token must be intended, according to `aud`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipient {
    /// The gateway: `aud` must contain one of the issuer's audiences.
    Gateway,
    /// The gateway or a client of the local authority. Introspection accepts tokens for both kinds of recipient (RFC 7662
    /// section 2.2).
    Anyone,
}

/// Verifies a token's signature and claims, for the gateway as the recipient. The caller checks the binding of the token
/// to its sender, which is in [`Principal::confirmation`].
///
/// # Errors
/// Returns the first check that failed.
pub fn verify(token: &str, trust: &Trust, now: Now) -> Result<Principal, CredentialError> {
    verify_for(Recipient::Gateway, token, trust, now, &mut None)
}

/// Verifies a token for this recipient. If `turns` is not `None`, the check of a signature takes a turn.
pub(super) fn verify_for(
    recipient: Recipient,
    token: &str,
    trust: &Trust,
    now: Now,
    turns: &mut Option<&Turns>,
) -> Result<Principal, CredentialError> {
    if token.starts_with(REFRESH_TOKEN_PREFIX) {
        return Err(CredentialError::because(Denial::WrongType, "a refresh token of this gateway (pcr_…)"));
    }
    if token.starts_with(API_KEY_PREFIX) {
        let detail = "an API key (pck_…), which has its own header field or the scheme ApiKey";
        return Err(CredentialError::because(Denial::WrongType, detail));
    }
    // Only the gateway's own callers cause questions to other issuers.
    if recipient == Recipient::Gateway
        && let Some((issuer, seen, introspector)) = trust.issuer_of_opaque(token)
    {
        return by_answer(token, (issuer, seen), introspector, trust, now);
    }
    let jws = Jws::read(token)?;
    // The check of a MAC takes less time than a turn. A token that has to wait is parsed again after its wait, so its claims
    // are not parsed before.
    if !jws.names_mac() {
        take_turn(turns)?;
    }
    let claims = jws.claims()?;
    let no_issuer = || missing(RequiredClaim::Issuer, "iss", &claims, &[]);
    let (issuer, name, seen) = match claims.get("iss") {
        Some(Value::String(name)) => trust.issuer(name).ok_or_else(|| unknown_issuer(name, trust))?,
        Some(_) => return Err(no_issuer()),
        None => trust.issuer_without_name(claims.get("sub")).ok_or_else(no_issuer)?,
    };
    if recipient == Recipient::Gateway
        && let Some(introspector) = issuer.judge()
    {
        // The claims are not verified, so they can only refuse the token.
        if claims.contains_key("exp") {
            check_times(&claims, issuer, None, now)?;
        }
        let principal = by_answer(token, (issuer, seen), introspector, trust, now)?;
        check_same_binding(&claims, &principal)?;
        return Ok(principal);
    }
    let key = jws.verify(&issuer.keys, &issuer.algorithms).map_err(|refused| {
        let is_current = check_times(&claims, issuer, None, now).is_ok();
        until_keys(refused, jws.header(), (&issuer.keys, issuer.source.as_ref()), is_current)
    })?;
    if !issuer.profile.tenants.admits_key(key.issuer(), &name) {
        let detail =
            format!("the key is for {}; iss is {}", Quoted(key.issuer().unwrap_or_default()), Quoted(&name));
        return Err(CredentialError::because(Denial::UnknownKey, detail));
    }
    check_type(jws.header(), issuer)?;
    let mut principal = principal(recipient, &claims, (issuer, name), None, trust, now)?;
    if let Some(introspector) = issuer.introspector.as_ref().filter(|asked| asked.settings().always) {
        let until = introspected::confirm(token, &claims, introspector, now)?;
        principal.expires = principal.expires.min(until);
    }
    key.record_use(now.unix);
    record(seen, Some(key.algorithm()), &claims, token, now);
    principal.key = Some(key.clone());
    Ok(principal)
}

/// Verifies a token by its issuer's answer alone.
fn by_answer(
    token: &str,
    (issuer, seen): (&Issuer, &TokenStats),
    introspector: &Arc<Introspector>,
    trust: &Trust,
    now: Now,
) -> Result<Principal, CredentialError> {
    let ActiveToken { claims, until } = introspected::answer(token, issuer, introspector, now)?;
    // An answer without `exp` counts until the issuer is asked again. One second more, because the answer may be in use
    // in the second in which it ends.
    let ends = Some(until.saturating_add(1));
    let named = (issuer, issuer.name.clone());
    let mut principal = principal(Recipient::Gateway, &claims, named, ends, trust, now)?;
    // The issuer itself says when the token ends, so no leeway extends its `exp` (RFC 7662 section 4).
    let expires = principal.expires.saturating_sub(issuer.leeway);
    if now.unix >= expires {
        let detail = format!("exp is {expires}; leeway does not extend an exp in the issuer's answer");
        return Err(CredentialError::because(Denial::ExpiredToken, detail));
    }
    principal.expires = expires.min(until);
    record(seen, None, &claims, token, now);
    Ok(principal)
}

/// Refuses a JWT with a `cnf` that the issuer's answer does not repeat. Otherwise an issuer whose answers lack `cnf` would
/// turn bound tokens into bearer tokens.
fn check_same_binding(claims: &Claims, answered: &Principal) -> Result<(), CredentialError> {
    match Confirmation::of(claims)? {
        Some(own) if answered.confirmation != Some(own) => {
            let detail = "the token has a cnf, and the issuer's answer has none or another";
            Err(CredentialError::because(Denial::WrongType, detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// Counts a valid token.
fn record(seen: &TokenStats, algorithm: Option<Algorithm>, claims: &Claims, token: &str, now: Now) {
    let issued = claims.get("iat").and_then(numeric_date);
    let age = issued.map(|issued| now.unix.saturating_sub(issued.floor() as u64));
    seen.record(algorithm, age, token.len());
}

/// Checks the claims of a token whose origin is verified, and returns the principal. `ends` is the end of a token
/// without `exp`, in seconds since 1970; `None` if a token must have `exp`.
fn principal(
    recipient: Recipient,
    claims: &Claims,
    (issuer, name): (&Issuer, Arc<str>),
    ends: Option<u64>,
    trust: &Trust,
    now: Now,
) -> Result<Principal, CredentialError> {
    check_kind(claims)?;
    // A `jti` must be text (RFC 7519 section 4.1.7). If the gateway ignored any other `jti`, the token could not be
    // revoked by its `jti`.
    if claims.get("jti").is_some_and(|id| !id.is_string()) {
        let detail = format!("jti is {}, not text", ClaimText(claims.get("jti")));
        return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail));
    }
    let confirmation = Confirmation::of(claims)?;
    let (not_before, mut expires) = check_times(claims, issuer, ends, now)?;
    check_audience(claims, issuer, recipient)?;
    issuer.profile.check(claims, &name)?;
    let subject = issuer.profile.subject(claims)?;
    // Services that look only at the subject could take the caller for an API key.
    if subject.starts_with(API_KEY_SUBJECT) && trust.api_keys().is_some() {
        let detail = format!("sub is {}: such a subject is that of an API key", Quoted(&subject));
        return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail));
    }
    let local = if issuer.local { Some(Box::new(local(claims)?)) } else { None };
    if local.is_some() {
        // A token is accepted only for the longest recorded life of a token, even if its `exp` is later, because
        // revocations are not kept for longer.
        let issued = claims.get("iat").and_then(numeric_date).map_or(0, |time| time.floor() as u64);
        expires = expires.min(trust.revoked().accepted_until(issued, &subject));
        if now.unix >= expires {
            let detail = format!("accepted only until {expires}, since revocations are kept no longer");
            return Err(CredentialError::because(Denial::ExpiredToken, detail));
        }
    }
    let signalled = trust.is_signalled(issuer).then(|| Box::new(signalled(claims, &name, &subject)));
    let (roles, roles_shape) = names(claims, &issuer.roles, issuer.profile.roles_are_keys, std::iter::once)?;
    let (scopes, scopes_shape) = names(claims, &issuer.scopes, false, |text| text.split(' '))?;
    check_scopes(&scopes, issuer)?;
    let mut principal = Principal {
        issuer: name,
        subject,
        token_id: claims.get("jti").and_then(Value::as_str).map(Into::into),
        roles,
        scopes,
        shapes: Shapes { roles: roles_shape, scopes: scopes_shape },
        claims: trust.claims().iter().map(|path| path.find(claims).map(ClaimValue::from)).collect(),
        not_before,
        expires,
        api_key: None,
        authenticated: claims.get("auth_time").and_then(numeric_date).map(|time| time.floor() as u64),
        lead_max: issuer.lead_max(),
        fresh: claims.get("fresh") == Some(&Value::Bool(true)),
        confirmation,
        local,
        signalled,
        proofs: Default::default(),
        headers: Default::default(),
        caller_hash: Default::default(),
        is_used: Default::default(),
        key: None,
        trusted_at: Default::default(),
    };
    principal.headers = trust.identity().render(&principal).ok_or_else(|| {
        let detail = "the subject, the roles or the scopes are too long for a header field";
        CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail)
    })?;
    Ok(principal)
}

/// Returns the error for a required claim that is missing or has the wrong type. `instead` lists the claims in which
/// some issuers put the same fact.
fn missing(claim: RequiredClaim, name: &str, claims: &Claims, instead: &[&str]) -> CredentialError {
    let detail = format!("{name} is {}{}", ClaimText(claims.get(name)), beside(claims, instead));
    CredentialError::because(Denial::MissingClaim(claim), detail)
}

fn unknown_issuer(name: &str, trust: &Trust) -> CredentialError {
    let known = || trust.issuers().iter().map(|issuer| &*issuer.name);
    let bare = |name: &str| name.trim_end_matches('/').to_ascii_lowercase();
    let near = if known().any(|known| bare(known) == bare(name)) {
        " (they differ by a trailing slash or by case)"
    } else {
        ""
    };
    CredentialError::because(
        Denial::UnknownIssuer,
        format!("iss is {}; known: {}{near}", Quoted(name), quoted(known())),
    )
}

/// Returns the claims of an access token that the local authority has signed, also if it is not valid now. Clocks of
/// gateways differ, so another gateway may accept a token that this one does not, and a revocation is for all of them.
///
/// # Errors
/// Returns the first check that failed: form, issuer, signature or type.
pub(super) fn own_claims(token: &str, trust: &Trust) -> Result<Claims, CredentialError> {
    let jws = Jws::read(token)?;
    let claims = jws.claims()?;
    let name = claims.get("iss").and_then(Value::as_str);
    let found = name.and_then(|name| trust.issuer(name)).filter(|(issuer, ..)| issuer.local);
    let Some((issuer, ..)) = found else { return Err(Denial::UnknownIssuer.into()) };
    jws.verify(&issuer.keys, &issuer.algorithms)?;
    check_type(jws.header(), issuer)?;
    check_kind(&claims)?;
    Ok(claims)
}

/// Returns the claims of a token without verifying it.
pub fn claims_of(token: &str) -> Option<Map<String, Value>> {
    Jws::read(token).ok()?.claims().ok()
}

/// Parses the claims that only the local authority's tokens have. A token in which one of these claims has the wrong
/// type is malformed.
fn local(claims: &Claims) -> Result<Local, Denial> {
    let text = |name| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err(Denial::MalformedToken(TokenPart::Claims)),
    };
    let generation = match claims.get("gen") {
        None => 0,
        Some(value) => value.as_i64().ok_or(Denial::MalformedToken(TokenPart::Claims))?,
    };
    let _: Option<Box<str>> = text("client_id")?;
    let ends = claims.get("exp").and_then(numeric_date).map_or(u64::MAX, |time| time.floor() as u64);
    Ok(Local::new(text("sid")?, generation, text("csrf")?)
        .of_service(service_of(claims).is_some())
        .ending(ends))
}

/// Returns the id of the service to which the local authority issued a token for itself. Such a token has no session, and its
/// subject is the service. A token of an account may have a `client_id` too, that of `[authority] client_id`.
pub(crate) fn service_of(claims: &Claims) -> Option<&str> {
    let client = claims.get("client_id").and_then(Value::as_str)?;
    let is_service = !claims.contains_key("sid") && claims.get("sub").and_then(Value::as_str) == Some(client);
    is_service.then_some(client)
}

/// Returns the facts by which signals revoke a token. The issuer has a `max_lifetime`, so the token has `iat`.
fn signalled(claims: &Claims, issuer: &str, subject: &str) -> Signalled {
    let text = |name| claims.get(name).and_then(Value::as_str);
    // Signals name the claim `sub`, whatever claim the policy takes as the subject.
    let subject = text("sub").unwrap_or(subject);
    let issued = claims.get("iat").and_then(numeric_date).map_or(0, |time| time.floor() as u64);
    Signalled::new(issuer, Some(subject), text("sid"), text("jti"), issued)
}

/// Checks the header's `typ`, so that an ID token is not accepted as an access token (RFC 8725 section 3.11).
fn check_type(header: &Claims, issuer: &Issuer) -> Result<(), CredentialError> {
    let kind = match header.get("typ") {
        None => Some(String::new()),
        Some(Value::String(kind)) if !kind.is_empty() => Some(canonical_type(kind)),
        Some(_) => None,
    };
    if kind.is_some_and(|kind| issuer.types.iter().any(|accepted| **accepted == *kind)) {
        return Ok(());
    }
    let accepted = issuer.types.iter().map(|kind| if kind.is_empty() { "(no typ)" } else { kind });
    let detail =
        format!("the header's typ is {}; accepted: {}", ClaimText(header.get("typ")), quoted(accepted));
    Err(CredentialError::because(Denial::WrongType, detail))
}

/// The claims with which issuers mark tokens that are not access tokens. Such a token often has the key, the audience
/// and the header of an access token (RFC 8725 sections 3.11 and 3.12).
const OTHER_KINDS: [(&str, &[&str]); 5] = [
    // Keycloak marks the kind in `typ`.
    ("typ", &["refresh", "offline", "id", "logout"]),
    // Amazon Cognito and Ory Hydra mark the kind in `token_use`.
    ("token_use", &["id", "refresh", "refresh_token"]),
    // ForgeRock and PingAM mark the kind in `tokenName`.
    ("tokenName", &["id_token", "refresh_token"]),
    // Simple JWT and others mark the kind in `token_type`.
    ("token_type", &["refresh", "refresh_token", "id_token"]),
    // Flask-JWT-Extended and others mark the kind in `type`.
    ("type", &["refresh", "refresh_token", "id_token"]),
];

/// Rejects a token that is marked as a refresh, ID or logout token. A refresh token accepted as an access token would
/// be valid for weeks and survive a logout. An ID token is intended only for the client.
fn check_kind(claims: &Claims) -> Result<(), CredentialError> {
    for (name, kinds) in OTHER_KINDS {
        if let Some(Value::String(kind)) = claims.get(name)
            && kinds.iter().any(|other| kind.eq_ignore_ascii_case(other))
        {
            let detail = format!("not an access token: {name} is {}", Quoted(kind));
            return Err(CredentialError::because(Denial::WrongType, detail));
        }
    }
    match claims.get("events") {
        Some(Value::Object(events)) if events.contains_key(LOGOUT_EVENT) => Err(CredentialError::because(
            Denial::WrongType,
            "not an access token: a logout token, by its events",
        )),
        Some(_) | None => Ok(()),
    }
}

/// Checks the times of a token. Returns the start and the end (exclusive) of its validity, leeway included, in seconds
/// since 1970. `ends` is the end of a token without `exp`.
fn check_times(
    claims: &Claims,
    issuer: &Issuer,
    ends: Option<u64>,
    now: Now,
) -> Result<(u64, u64), CredentialError> {
    let leeway = issuer.leeway;
    // Fractions of a second never extend the validity: `exp` is rounded down, and `nbf` is rounded up.
    let expires = match claims.get("exp").map(|value| (numeric_date(value), value.as_f64())) {
        Some((Some(expires), _)) => expires.floor() as u64,
        // A date before 1970 is a valid date (RFC 7519 section 2) and lies in the past.
        Some((None, Some(seconds))) if seconds < 0.0 => {
            let detail = format!("exp is {}, before 1970", ClaimText(claims.get("exp")));
            return Err(CredentialError::because(Denial::ExpiredToken, detail));
        }
        None if ends.is_some() => ends.unwrap_or_default(),
        Some((None, _)) | None => return Err(no_date(RequiredClaim::Expiry, "exp", claims)),
    };
    let (mut begins, mut by) = (0, "nbf");
    for name in ["nbf", "iat"] {
        match claims.get(name).map(numeric_date) {
            None => {}
            Some(Some(time)) => {
                let time = time.ceil() as u64;
                if time > begins {
                    (begins, by) = (time, name);
                }
            }
            Some(None) => return Err(no_date(RequiredClaim::Time, name, claims)),
        }
    }
    if now.unix >= expires.saturating_add(leeway) {
        let detail = format!("exp is {expires}, {} s ago; leeway is {leeway} s", now.unix - expires);
        return Err(CredentialError::because(Denial::ExpiredToken, detail));
    }
    let lead = issuer.lead_max();
    let not_before = begins.saturating_sub(lead);
    if now.unix < not_before {
        let detail = format!("{by} is {begins}, {} s ahead; leeway is {lead} s", begins - now.unix);
        return Err(CredentialError::because(Denial::TokenNotYetValid, detail));
    }
    Ok((not_before, expires.saturating_add(leeway)))
}

/// Returns the error for a claim that is not a date.
fn no_date(claim: RequiredClaim, name: &str, claims: &Claims) -> CredentialError {
    let why = match claims.get(name).and_then(Value::as_f64) {
        Some(seconds) if seconds < 0.0 => ", before 1970",
        Some(seconds) if seconds < DATE_MAX * 1000.0 => ", out of range (milliseconds?)",
        Some(_) => ", out of range",
        None if claims.contains_key(name) => ", not a number of seconds",
        None => "",
    };
    CredentialError::because(
        Denial::MissingClaim(claim),
        format!("{name} is {}{why}", ClaimText(claims.get(name))),
    )
}

fn check_audience(claims: &Claims, issuer: &Issuer, recipient: Recipient) -> Result<(), CredentialError> {
    let clients = match recipient {
        Recipient::Gateway => &[][..],
        Recipient::Anyone => &issuer.audience_of_clients,
    };
    let ours = |text: &str| issuer.audience.iter().chain(clients).any(|audience| **audience == *text);
    issuer.profile.check_audience(claims, &issuer.audience, ours)
}

/// Rejects scopes that contain white space (RFC 6749 section 3.3). Services split the scopes of an assertion, and some
/// split at any white space. Such a scope would become two scopes that the gateway never checked.
fn check_scopes(scopes: &[Box<str>], issuer: &Issuer) -> Result<(), CredentialError> {
    let splits = |scope: &str| scope.chars().any(|c| c.is_whitespace() || c.is_control());
    match scopes.iter().find(|scope| splits(scope)) {
        None => Ok(()),
        Some(scope) => Err(CredentialError::because(
            Denial::MalformedToken(TokenPart::Claims),
            format!("{} contains a scope with white space: {}", issuer.scopes, Quoted(scope)),
        )),
    }
}

/// Returns the names at a path. The value is a list of strings, or one string that `split` divides. With `are_keys`,
/// the value may also be an object whose members are the names. Any other value yields no names, so that a token never
/// has more names than the issuer intended. Also returns the shape of the value, for the operator.
fn names<'c, I: Iterator<Item = &'c str>>(
    claims: &'c Claims,
    path: &ClaimPath,
    are_keys: bool,
    split: impl Fn(&'c str) -> I,
) -> Result<(Names, Shape), CredentialError> {
    let (list, shape): (Names, _) = match path.find(claims) {
        Some(Value::String(text)) => {
            (split(text).filter(|name| !name.is_empty()).map(Into::into).collect(), Shape::Text)
        }
        Some(Value::Array(list)) => {
            let texts = list.iter().filter_map(Value::as_str);
            let shape = if list.iter().all(Value::is_string) { Shape::List } else { Shape::Mixed };
            (texts.filter(|name| !name.is_empty()).map(Into::into).collect(), shape)
        }
        // Zitadel writes each role as a member with the organizations that grant the role. A member without a grant is
        // not a role.
        Some(Value::Object(members)) if are_keys => {
            let grants = |value: &Value| match value {
                Value::Object(grants) => !grants.is_empty(),
                Value::Bool(is_granted) => *is_granted,
                Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
            };
            let names = members.iter().filter(|(name, value)| !name.is_empty() && grants(value));
            let names: Names = names.map(|(name, _)| name.as_str().into()).collect();
            let shape = if names.len() == members.len() { Shape::Names } else { Shape::Mixed };
            (names, shape)
        }
        Some(Value::Object(_)) => (Box::new([]), Shape::Object),
        Some(Value::Null | Value::Bool(_) | Value::Number(_)) => (Box::new([]), Shape::Other),
        None => (Box::new([]), Shape::Absent),
    };
    if list.len() > NAMES_MAX {
        let detail = format!("{path} holds {} names, and at most {NAMES_MAX} are read", list.len());
        return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail));
    }
    Ok((list, shape))
}

#[cfg(test)]
mod tests;
