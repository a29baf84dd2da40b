//! From a token to a principal.
//!
//! The order: the token's form, its issuer, its algorithm and key, its signature; and only then what it claims. Of
//! an unverified token nothing is believed but `iss`, and that only to choose whose keys to try.

use super::claims::{ClaimPath, ClaimValue};
use super::json;
use super::keys::{Algorithm, Found, Key};
use super::principal::Principal;
use super::trust::{Issuer, Trust, canonical_type};
use crate::clock::Now;
use crate::denial::{Denial, RequiredClaim, TokenPart};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The longest token that is looked at.
const TOKEN_MAX: usize = 16 * 1024;
/// How many roles, or scopes, of a token are taken; more make it malformed, for cutting could drop the one that
/// matters.
const NAMES_MAX: usize = 512;

type Claims = Map<String, Value>;

/// Verifies a token: signature and claims.
///
/// # Errors
/// The first check that fails.
pub fn verify(token: &str, trust: &Trust, now: Now) -> Result<Principal, Denial> {
    let (issuer, header, claims) = verify_signature(token, trust)?;
    check_type(&header, issuer)?;
    // A token that is bound to a key of its sender (RFC 7800) is worth nothing to whoever merely shows it; taken as a
    // bearer token, it could be used by a thief, which is what the binding is to prevent.
    if claims.contains_key("cnf") {
        return Err(Denial::WrongType);
    }
    let (not_before, expires) = check_times(&claims, issuer, now)?;
    check_audience(&claims, issuer)?;
    let subject = match claims.get("sub") {
        Some(Value::String(subject)) if !subject.is_empty() => subject.as_str(),
        Some(_) | None => return Err(Denial::MissingClaim(RequiredClaim::Subject)),
    };
    let mut principal = Principal {
        issuer: issuer.name.clone(),
        subject: subject.into(),
        token_id: claims.get("jti").and_then(Value::as_str).map(Into::into),
        roles: names(&claims, &issuer.roles, |text| Box::new(std::iter::once(text)))?,
        scopes: names(&claims, &issuer.scopes, |text| Box::new(text.split(' ')))?,
        claims: trust.claims().iter().map(|path| path.find(&claims).map(ClaimValue::from)).collect(),
        not_before,
        expires,
        headers: Box::new([]),
    };
    let headers = trust.identity().render(&principal);
    principal.headers = headers.ok_or(Denial::MalformedToken(TokenPart::Claims))?;
    Ok(principal)
}

fn verify_signature<'t>(token: &str, trust: &'t Trust) -> Result<(&'t Issuer, Claims, Claims), Denial> {
    let malformed = Denial::MalformedToken;
    if token.len() > TOKEN_MAX {
        return Err(malformed(TokenPart::Shape));
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed(TokenPart::Shape));
    };
    if header.is_empty() || claims.is_empty() {
        return Err(malformed(TokenPart::Shape));
    }
    let message = &token[..header.len() + 1 + claims.len()];
    let header = part(header, TokenPart::Header)?;
    let claims = part(claims, TokenPart::Claims)?;
    // RFC 7515 section 4.1.11: whoever does not understand what `crit` names must refuse; nothing is understood.
    if header.contains_key("crit") {
        return Err(malformed(TokenPart::Critical));
    }
    let Some(Value::String(algorithm)) = header.get("alg") else { return Err(malformed(TokenPart::Header)) };
    let id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err(malformed(TokenPart::Header)),
    };

    let Some(Value::String(name)) = claims.get("iss") else {
        return Err(Denial::MissingClaim(RequiredClaim::Issuer));
    };
    let issuer = trust.issuer(name).ok_or(Denial::UnknownIssuer)?;
    let algorithm: Algorithm = algorithm.parse().map_err(|()| Denial::UnsupportedAlgorithm)?;
    if !issuer.algorithms.contains(&algorithm) {
        return Err(Denial::UnsupportedAlgorithm);
    }
    let key = match issuer.keys.find(id, algorithm) {
        Found::Key(key) => key,
        Found::OtherAlgorithm => return Err(Denial::UnsupportedAlgorithm),
        Found::None => return Err(Denial::UnknownKey),
    };
    check_signature(key, message, signature)?;
    Ok((issuer, header, claims))
}

/// Checks a signature by a key, whose algorithm it is.
pub(super) fn check_signature(key: &Key, message: &str, signature: &str) -> Result<(), Denial> {
    // The length first: ES256 is two numbers of 32 bytes (RFC 7518 section 3.4), never DER, never more.
    let malformed = Denial::MalformedToken(TokenPart::Signature);
    let bytes = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed.clone())?;
    if bytes.len() != key.signature_bytes() {
        return Err(malformed);
    }
    let algorithm = key.algorithm().as_library();
    match jsonwebtoken::crypto::verify(signature, message.as_bytes(), key.decoding_key(), algorithm) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Denial::BadSignature),
    }
}

/// A part of a token: base64url without padding, and in the one spelling that its bytes have; a JSON object.
fn part(text: &str, part: TokenPart) -> Result<Claims, Denial> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Denial::MalformedToken(part))?;
    json::object(&bytes).map_err(|_| Denial::MalformedToken(part))
}

/// RFC 8725 section 3.11: what kind of token it is, lest an id token pass for an access token.
fn check_type(header: &Claims, issuer: &Issuer) -> Result<(), Denial> {
    let kind = match header.get("typ") {
        None => String::new(),
        Some(Value::String(kind)) if !kind.is_empty() => canonical_type(kind),
        Some(_) => return Err(Denial::WrongType),
    };
    if issuer.types.iter().any(|accepted| **accepted == *kind) { Ok(()) } else { Err(Denial::WrongType) }
}

/// From when and until when it holds, leeway included.
fn check_times(claims: &Claims, issuer: &Issuer, now: Now) -> Result<(u64, u64), Denial> {
    // A fraction of a second is in nobody's favour: `exp` is rounded down, `nbf` up.
    let expires = match claims.get("exp").map(date) {
        Some(Some(expires)) => expires.floor() as u64,
        Some(None) | None => return Err(Denial::MissingClaim(RequiredClaim::Expiry)),
    };
    let mut begins = 0;
    for name in ["nbf", "iat"] {
        match claims.get(name).map(date) {
            None => {}
            Some(Some(time)) => begins = begins.max(time.ceil() as u64),
            Some(None) => return Err(Denial::MissingClaim(RequiredClaim::Time)),
        }
    }
    let expires = expires.saturating_add(issuer.leeway);
    let not_before = begins.saturating_sub(issuer.leeway);
    if now.unix >= expires {
        return Err(Denial::ExpiredToken);
    }
    if now.unix < not_before {
        return Err(Denial::TokenNotYetValid);
    }
    Ok((not_before, expires))
}

/// A NumericDate (RFC 7519 section 2): a number of seconds, not negative, within what clocks can say. A string that
/// looks like one is none (CVE-2026-25537).
fn date(value: &Value) -> Option<f64> {
    const YEAR_9999: f64 = 253_402_300_799.0;
    value.as_f64().filter(|seconds| (0.0..=YEAR_9999).contains(seconds))
}

fn check_audience(claims: &Claims, issuer: &Issuer) -> Result<(), Denial> {
    let ours = |text: &str| issuer.audience.iter().any(|audience| **audience == *text);
    let meant = match claims.get("aud") {
        Some(Value::String(audience)) => ours(audience),
        Some(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).any(ours)
        }
        Some(_) | None => return Err(Denial::MissingClaim(RequiredClaim::Audience)),
    };
    if meant { Ok(()) } else { Err(Denial::WrongAudience) }
}

/// The names at a path: a list of strings, or one string that `split` takes apart. Whatever else is there gives none:
/// less, never more, than the issuer meant.
fn names(
    claims: &Claims,
    path: &ClaimPath,
    split: impl for<'s> Fn(&'s str) -> Box<dyn Iterator<Item = &'s str> + 's>,
) -> Result<Box<[Box<str>]>, Denial> {
    let list: Box<[Box<str>]> = match path.find(claims) {
        Some(Value::String(text)) => split(text).filter(|name| !name.is_empty()).map(Into::into).collect(),
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).filter(|name| !name.is_empty()).map(Into::into).collect()
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Box::new([]),
    };
    if list.len() > NAMES_MAX { Err(Denial::MalformedToken(TokenPart::Claims)) } else { Ok(list) }
}
