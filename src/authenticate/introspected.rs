//! Reads the answers of issuers about tokens (RFC 7662), plain or signed (RFC 9701).
//!
//! `verify` checks the claims of an answer like those of a JWT. `iss` and `exp` may be missing, because the answer is
//! recent and comes from the issuer. `token_type` must be `Bearer` or `DPoP`, because issuers also call refresh tokens
//! active.

use super::claims::{audience_matches, numeric_date};
use super::digest::digest_of;
use super::error::{ClaimText, CredentialError, Quoted};
use super::json;
use super::jws::{Jws, TOKEN_MAX, canonical_type};
use super::pending::Pending;
use super::trust::Issuer;
use crate::clock::Now;
use crate::denial::{Denial, RequiredClaim, TokenPart};
use crate::introspection::{Introspector, Standing, Verdict};
use serde_json::{Map, Value};
use std::sync::Arc;

type Claims = Map<String, Value>;

/// The type of a signed answer (RFC 9701 section 5).
const SIGNED_TYPE: &str = "token-introspection+jwt";

/// Returns the issuer's answer about an active token. Without an answer, the refusal says that a request can wait for
/// one.
fn active(token: &str, introspector: &Arc<Introspector>, now: Now) -> Result<ActiveToken, CredentialError> {
    let digest = digest_of(token);
    match introspector.standing(&digest, now) {
        Some(Standing::Active { claims, until }) => {
            let not_object = |_| malformed("the issuer's answer is not an object".to_owned());
            Ok(ActiveToken { claims: json::object(&claims).map_err(not_object)?, until })
        }
        Some(Standing::Inactive) => Err(Denial::InactiveToken.into()),
        None => {
            let issuer = Quoted(&introspector.settings().issuer).to_string();
            let detail = format!("there is no answer of the issuer {issuer} about the token");
            Err(CredentialError::because(Denial::CheckUnavailable, detail)
                .until(Pending::Introspection(introspector.inquiry(digest, token))))
        }
    }
}

fn malformed(detail: String) -> CredentialError {
    CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail)
}

/// The issuer's answer about an active token.
pub(super) struct ActiveToken {
    /// The claims of the answer.
    pub(super) claims: Claims,
    /// The time after which the answer is not used, in seconds since 1970.
    pub(super) until: u64,
}

/// Returns the issuer's answer about a token that only the issuer can judge.
///
/// # Errors
/// If the token is not active, the answer is about a token of another issuer or of another type, or there is no answer.
pub(super) fn answer(
    token: &str,
    issuer: &Issuer,
    introspector: &Arc<Introspector>,
    now: Now,
) -> Result<ActiveToken, CredentialError> {
    if token.len() > TOKEN_MAX {
        let detail = format!("the token has {} bytes, and at most {TOKEN_MAX} are read", token.len());
        return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Length), detail));
    }
    let mut active = active(token, introspector, now)?;
    if let Some(iss) = active.claims.get("iss")
        && !iss.as_str().is_some_and(|iss| issuer.is_named(iss))
    {
        let detail = format!("the answer's iss is {}; asked: {}", ClaimText(Some(iss)), Quoted(&issuer.name));
        return Err(CredentialError::because(Denial::UnknownIssuer, detail));
    }
    check_token_type(&active.claims, issuer)?;
    // Rules may compare `iss`, which the answer may lack.
    active.claims.entry("iss").or_insert_with(|| (*issuer.name).into());
    Ok(active)
}

/// Checks that the issuer calls a token active whose signature and claims are verified already. Returns the time after
/// which the answer is not used.
///
/// # Errors
/// If the token is not active, the answer is about another token, or there is no answer.
pub(super) fn confirm(
    token: &str,
    claims: &Claims,
    introspector: &Arc<Introspector>,
    now: Now,
) -> Result<u64, CredentialError> {
    let active = active(token, introspector, now)?;
    for name in ["iss", "sub", "jti", "cnf"] {
        if let Some(said) = active.claims.get(name)
            && claims.get(name) != Some(said)
        {
            let own = ClaimText(claims.get(name));
            let detail = format!("{name} is {own} in the token and {} in the answer", ClaimText(Some(said)));
            return Err(malformed(detail));
        }
    }
    Ok(active.until)
}

/// Checks that an answer is about an access token whose holder needs no proof, or the proof that `cnf` names. Issuers
/// also call refresh tokens active (RFC 7662 section 2.2).
fn check_token_type(claims: &Claims, issuer: &Issuer) -> Result<(), CredentialError> {
    match claims.get("token_type") {
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => Ok(()),
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("dpop") && claims.contains_key("cnf") => {
            Ok(())
        }
        None if issuer.profile.may_lack_token_type => Ok(()),
        other => {
            let detail = format!("the answer's token_type is {}, not 'Bearer'", ClaimText(other));
            Err(CredentialError::because(Denial::WrongType, detail))
        }
    }
}

/// Returns the `kid` of a signed answer; `None` if the answer has none or cannot be parsed.
pub fn signer_of(answer: &[u8]) -> Option<String> {
    let jws = Jws::read(std::str::from_utf8(answer).ok()?).ok()?;
    Some(jws.header().get("kid")?.as_str()?.to_owned())
}

/// Reads an issuer's answer: JSON, or a JWT that `signed_for` is the audience of. `asked` is when the question was
/// sent, in seconds since 1970.
///
/// # Errors
/// If the answer is neither that a token is active nor that it is not, or is not signed as it must be.
pub fn read_introspection(
    answer: &[u8],
    issuer: &Issuer,
    signed_for: Option<&str>,
    asked: u64,
    now: Now,
) -> Result<Verdict, CredentialError> {
    let claims = match signed_for {
        None => json::object(answer)
            .map_err(|error| malformed(format!("the answer is not a JSON object: {error}")))?,
        Some(audience) => signed(answer, issuer, audience, asked, now)?,
    };
    match claims.get("active") {
        Some(Value::Bool(true)) => {
            let claims = serde_json::to_vec(&claims).map_err(|error| malformed(error.to_string()))?;
            Ok(Verdict::Active(claims))
        }
        Some(Value::Bool(false)) => Ok(Verdict::Inactive),
        other => Err(malformed(format!("the answer's active is {}, not true or false", ClaimText(other)))),
    }
}

/// Verifies a signed answer, and returns its `token_introspection` (RFC 9701 section 5).
fn signed(
    answer: &[u8],
    issuer: &Issuer,
    audience: &str,
    asked: u64,
    now: Now,
) -> Result<Claims, CredentialError> {
    let text = std::str::from_utf8(answer).map_err(|_| Denial::MalformedToken(TokenPart::Shape))?;
    let jws = Jws::read(text.trim_ascii_end())?;
    let mut claims = jws.claims()?;
    let key = jws.verify(&issuer.keys, &issuer.algorithms)?;
    let typ = jws.header().get("typ");
    if typ.and_then(Value::as_str).is_none_or(|typ| canonical_type(typ) != SIGNED_TYPE) {
        let detail = format!("the answer's typ is {}, not '{SIGNED_TYPE}'", ClaimText(typ));
        return Err(CredentialError::because(Denial::WrongType, detail));
    }
    let iss = claims.get("iss");
    if iss.and_then(Value::as_str) != Some(&*issuer.name) {
        let detail = format!("the answer's iss is {}; asked: {}", ClaimText(iss), Quoted(&issuer.name));
        return Err(CredentialError::because(Denial::UnknownIssuer, detail));
    }
    let aud = claims.get("aud");
    if aud.and_then(|aud| audience_matches(aud, |aud| aud == audience)) != Some(true) {
        let detail = format!("the answer's aud is {}; wanted: {}", ClaimText(aud), Quoted(audience));
        return Err(CredentialError::because(Denial::WrongAudience, detail));
    }
    // An answer from before the question is an old one that was stored.
    let earliest = asked.saturating_sub(issuer.leeway.max(1));
    let latest = now.unix.saturating_add(issuer.leeway.max(1));
    let iat = claims.get("iat").and_then(numeric_date);
    if !iat.is_some_and(|iat| (earliest..=latest).contains(&(iat.floor() as u64))) {
        let detail = format!(
            "the answer's iat is {}, not between the question and now, {earliest} to {latest}",
            ClaimText(claims.get("iat"))
        );
        return Err(CredentialError::because(Denial::MissingClaim(RequiredClaim::Time), detail));
    }
    if let Some(exp) = claims.get("exp")
        && numeric_date(exp).is_none_or(|exp| exp + issuer.leeway as f64 <= now.unix as f64)
    {
        let detail = format!("the answer's exp is {}", ClaimText(Some(exp)));
        return Err(CredentialError::because(Denial::ExpiredToken, detail));
    }
    // An access token that claims to be an answer has these claims beside `token_introspection` (RFC 9701 section 8.1).
    if claims.contains_key("sub") {
        return Err(malformed("the answer has a sub beside token_introspection".to_owned()));
    }
    key.record_use(now.unix);
    match claims.remove("token_introspection") {
        Some(Value::Object(claims)) => Ok(claims),
        other => {
            Err(malformed(format!("token_introspection is {}, not an object", ClaimText(other.as_ref()))))
        }
    }
}

#[cfg(test)]
mod tests;
