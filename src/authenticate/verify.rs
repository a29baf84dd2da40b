//! From a token to a principal.
//!
//! The order: the token's form, its issuer, its algorithm and key, its signature; and only then what it claims. Of
//! an unverified token nothing is believed but `iss`, and that only to choose whose keys to try.

use super::claims::{ClaimPath, ClaimValue};
use super::credential::REFRESH_TOKEN_PREFIX;
use super::json;
use super::jws::Jws;
use super::principal::{Local, Principal};
use super::trust::{Issuer, Trust, canonical_type};
use crate::clock::Now;
use crate::denial::{Denial, RequiredClaim, TokenPart};
use serde_json::{Map, Value};

/// How many roles, or scopes, of a token are taken; more make it malformed, for cutting could drop the one that
/// matters.
const NAMES_MAX: usize = 512;

type Claims = Map<String, Value>;

/// Whom a token must be meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MeantFor {
    /// The gate: one of the issuer's audiences.
    Gate,
    /// The gate, or whoever takes tokens that the local authority gives its clients: a token that somebody asks the
    /// authority about (RFC 7662 section 2.2, RFC 7009 section 2.1).
    Anybody,
}

/// Verifies a token: signature and claims.
///
/// # Errors
/// The first check that fails.
pub fn verify(token: &str, trust: &Trust, now: Now) -> Result<Principal, Denial> {
    verify_for(MeantFor::Gate, token, trust, now)
}

/// Verifies a token that is meant for the gate, or for others too.
pub(super) fn verify_for(
    meant_for: MeantFor,
    token: &str,
    trust: &Trust,
    now: Now,
) -> Result<Principal, Denial> {
    if token.starts_with(REFRESH_TOKEN_PREFIX) {
        return Err(Denial::WrongType);
    }
    let jws = Jws::read(token)?;
    let claims = json::object(jws.payload()).map_err(|_| Denial::MalformedToken(TokenPart::Claims))?;
    let Some(Value::String(issuer)) = claims.get("iss") else {
        return Err(Denial::MissingClaim(RequiredClaim::Issuer));
    };
    let (issuer, seen) = trust.issuer(issuer).ok_or(Denial::UnknownIssuer)?;
    let algorithm = jws.verify(&issuer.keys, &issuer.algorithms)?;
    check_type(jws.header(), issuer)?;
    check_kind(&claims)?;
    // A token that is bound to a key of its sender (RFC 7800) is worth nothing to whoever merely shows it; taken as a
    // bearer token, it could be used by a thief, which is what the binding is to prevent.
    if claims.contains_key("cnf") {
        return Err(Denial::WrongType);
    }
    let (not_before, mut expires) = check_times(&claims, issuer, now)?;
    check_audience(&claims, issuer, meant_for)?;
    let subject = match claims.get("sub") {
        Some(Value::String(subject)) if !subject.is_empty() => subject.as_str(),
        Some(Value::String(_)) | None => return Err(Denial::MissingClaim(RequiredClaim::Subject)),
        Some(_) => return Err(Denial::MissingClaim(RequiredClaim::SubjectText)),
    };
    let local = if issuer.local { Some(Box::new(local(&claims)?)) } else { None };
    if local.is_some() {
        // What was revoked is on record for as long as a token may live, and no token is accepted for longer.
        let issued = claims.get("iat").and_then(date).map_or(0, |time| time.floor() as u64);
        expires = expires.min(trust.revoked().accepted_until(issued, subject));
        if now.unix >= expires {
            return Err(Denial::ExpiredToken);
        }
    }
    let mut principal = Principal {
        issuer: issuer.name.clone(),
        subject: subject.into(),
        token_id: claims.get("jti").and_then(Value::as_str).map(Into::into),
        roles: names(&claims, &issuer.roles, |text| Box::new(std::iter::once(text)))?,
        scopes: names(&claims, &issuer.scopes, |text| Box::new(text.split(' ')))?,
        claims: trust.claims().iter().map(|path| path.find(&claims).map(ClaimValue::from)).collect(),
        not_before,
        expires,
        authenticated: claims.get("auth_time").and_then(date).map(|time| time.floor() as u64),
        leeway: issuer.leeway,
        fresh: claims.get("fresh") == Some(&Value::Bool(true)),
        local,
        proofs: Default::default(),
        headers: Box::new([]),
    };
    let headers = trust.identity().render(&principal);
    principal.headers = headers.ok_or(Denial::MalformedToken(TokenPart::Claims))?;
    let age = claims.get("iat").and_then(date).map(|made| now.unix.saturating_sub(made.floor() as u64));
    seen.record(algorithm, age, token.len());
    Ok(principal)
}

/// The claims of a token that was verified.
pub fn claims_of(token: &str) -> Option<Map<String, Value>> {
    json::object(Jws::read(token).ok()?.payload()).ok()
}

/// What the local authority says of its tokens; a token that says it wrongly is not one that it made.
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
    let client: Option<Box<str>> = text("client_id")?;
    let ends = claims.get("exp").and_then(date).map_or(u64::MAX, |time| time.floor() as u64);
    Ok(Local::new(text("sid")?, generation, text("csrf")?).of_service(client.is_some()).ending(ends))
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

/// Some issuers give refresh tokens that are JWTs of the same key, audience and `typ` as their access tokens, and say which
/// is which in a claim: Flask-JWT-Extended and others in `type`, Simple JWT in `token_type`, Keycloak in `typ`. Taken as
/// access tokens they would live for weeks, and pass where logging out means nothing.
fn check_kind(claims: &Claims) -> Result<(), Denial> {
    let is_refresh = |name| match claims.get(name) {
        Some(Value::String(kind)) => kind.eq_ignore_ascii_case("refresh"),
        Some(_) | None => false,
    };
    if ["type", "token_type", "typ"].into_iter().any(is_refresh) { Err(Denial::WrongType) } else { Ok(()) }
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

fn check_audience(claims: &Claims, issuer: &Issuer, meant_for: MeantFor) -> Result<(), Denial> {
    let clients = match meant_for {
        MeantFor::Gate => &[][..],
        MeantFor::Anybody => &issuer.audience_of_clients,
    };
    let ours = |text: &str| issuer.audience.iter().chain(clients).any(|audience| **audience == *text);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::{Algorithm, ClaimId, IdentityHeaders, KeySet};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use proptest::prelude::*;
    use rcgen::PublicKeyData;
    use serde_json::json;
    use std::sync::Arc;

    const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
    const OTHER: &[u8; 32] = b"fedcba9876543210fedcba9876543210";
    const NOW: u64 = 1_000_000;

    fn issuer(name: &str, secret: &[u8]) -> Issuer {
        let mut keys = KeySet::default();
        keys.add_secret(Some("k"), secret).unwrap();
        let path = |text: &str| ClaimPath::parse(text).unwrap();
        Issuer {
            name: Arc::from(name),
            audience: Box::new(["orders".into(), "stock".into()]),
            algorithms: vec![Algorithm::HS256],
            keys,
            leeway: 30,
            audience_of_clients: Box::new([]),
            local: false,
            roles: path("realm.roles"),
            scopes: path("scope"),
            types: Box::new(["JWT".into(), "at+jwt".into()]),
        }
    }

    fn trust() -> Trust {
        let claims = vec![ClaimPath::parse("tenant").unwrap(), ClaimPath::parse("plan").unwrap()];
        // Two issuers, and the same key id: a key belongs to its issuer.
        Trust::new(
            vec![issuer("https://a", SECRET), issuer("https://b", OTHER)],
            claims,
            IdentityHeaders::default(),
        )
    }

    fn claims() -> Value {
        json!({
            "iss": "https://a", "aud": "orders", "sub": "ada", "exp": NOW + 60, "iat": NOW, "jti": "1",
            "realm": { "roles": ["clerk", "admin"] }, "scope": "a:read b", "tenant": "acme",
        })
    }

    /// The claims with one member replaced, or (`null`) taken out.
    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => drop(claims.as_object_mut().unwrap().insert(name.to_owned(), value)),
        }
        claims
    }

    fn header() -> Value {
        json!({ "alg": "HS256", "typ": "JWT", "kid": "k" })
    }

    /// A token of whatever header and claims, signed by HS256 with the key of `https://a`.
    fn signed(header: &str, claims: &str) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
        let message = format!("{}.{}", B64.encode(header), B64.encode(claims));
        let key = EncodingKey::from_secret(SECRET);
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    fn outcome(header: &Value, claims: &Value) -> Result<Principal, Denial> {
        verify(&signed(&header.to_string(), &claims.to_string()), &trust(), Now::at(NOW))
    }

    fn refusal(header: &Value, claims: &Value) -> Denial {
        outcome(header, claims).expect_err(&format!("{header} {claims}"))
    }

    #[test]
    fn a_good_token_becomes_a_principal() {
        let principal = outcome(&header(), &claims()).unwrap();
        assert_eq!((&*principal.issuer, &*principal.subject), ("https://a", "ada"));
        assert_eq!(principal.token_id.as_deref(), Some("1"));
        assert_eq!(principal.roles.join(" "), "clerk admin");
        assert_eq!(principal.scopes.join(" "), "a:read b");
        assert_eq!(principal.claim(ClaimId(0)), Some(&ClaimValue::Text("acme".into())));
        assert_eq!(principal.claim(ClaimId(1)), None);
        assert_eq!((principal.not_before, principal.expires), (NOW - 30, NOW + 90));
        assert!(principal.headers.iter().any(|(name, value)| name == "x-auth-subject" && value == "ada"));
    }

    #[test]
    fn what_calls_itself_a_refresh_token_is_none_for_access() {
        for name in ["type", "token_type", "typ"] {
            for kind in ["refresh", "Refresh", "REFRESH"] {
                assert_eq!(refusal(&header(), &with(name, json!(kind))), Denial::WrongType, "{name} {kind}");
            }
            for kind in [json!("access"), json!("Bearer"), json!("user"), json!(""), json!(["refresh"])] {
                assert!(outcome(&header(), &with(name, kind.clone())).is_ok(), "{name} {kind}");
            }
        }
        let ours = format!("{REFRESH_TOKEN_PREFIX}{}", "A".repeat(43));
        for token in [ours, format!("{REFRESH_TOKEN_PREFIX}a.b.c")] {
            assert_eq!(verify(&token, &trust(), Now::at(NOW)).unwrap_err(), Denial::WrongType);
        }
    }

    #[test]
    fn a_token_of_the_authority_is_accepted_for_no_longer_than_any_life_on_record() {
        // What revokes it is kept for so long (attacks C1).
        let mut local = issuer("https://a", SECRET);
        (local.local, local.leeway) = (true, 0);
        let trust = Trust::new(vec![local], Vec::new(), IdentityHeaders::default());
        let token = |claims: Value| signed(&header().to_string(), &claims.to_string());
        let until = |token: &str| verify(token, &trust, Now::at(NOW)).map(|principal| principal.expires);
        let usual = token(with("exp", json!(NOW + 900)));
        let undated = token(with("iat", Value::Null));
        trust.revoked().set_lives(60, std::iter::empty());
        assert_eq!(until(&usual), Ok(NOW + 60));
        assert_eq!(verify(&usual, &trust, Now::at(NOW + 60)).unwrap_err(), Denial::ExpiredToken);
        assert_eq!(until(&undated), Err(Denial::ExpiredToken), "nobody knows how old it is");
        trust.revoked().set_lives(60, [("ada".to_owned(), NOW + 100)].into_iter());
        assert_eq!(until(&usual), Ok(NOW + 100));
        trust.revoked().set_lives(3600, std::iter::empty());
        let principal = verify(&usual, &trust, Now::at(NOW + 899)).unwrap();
        assert_eq!((principal.expires, principal.local.unwrap().ends), (NOW + 900, NOW + 900));
        // The tokens of other issuers cannot be revoked here, and live as long as they say.
        let other = self::trust();
        other.revoked().set_lives(1, std::iter::empty());
        assert_eq!(verify(&usual, &other, Now::at(NOW)).unwrap().expires, NOW + 930);
    }

    #[test]
    fn tokens_for_audiences_of_clients_are_examined_and_do_not_pass_the_gate() {
        // RFC 7662 section 2.2, RFC 7009 section 2.1 (attacks D7).
        let mut local = issuer("https://a", SECRET);
        local.audience_of_clients = Box::new(["billing".into()]);
        let trust = Trust::new(vec![local], Vec::new(), IdentityHeaders::default());
        let outcome = |meant_for, audience: Value| {
            let token = signed(&header().to_string(), &with("aud", audience).to_string());
            verify_for(meant_for, &token, &trust, Now::at(NOW)).map(drop)
        };
        for (audience, gate, anybody) in [
            (json!("orders"), Ok(()), Ok(())),
            (json!("billing"), Err(Denial::WrongAudience), Ok(())),
            (json!(["billing", "x"]), Err(Denial::WrongAudience), Ok(())),
            (json!("x"), Err(Denial::WrongAudience), Err(Denial::WrongAudience)),
        ] {
            assert_eq!(outcome(MeantFor::Gate, audience.clone()), gate, "{audience}");
            assert_eq!(outcome(MeantFor::Anybody, audience.clone()), anybody, "{audience}");
        }
    }

    #[test]
    fn a_key_belongs_to_its_issuer_even_where_ids_are_equal() {
        let other = with("iss", json!("https://b"));
        assert_eq!(refusal(&header(), &other), Denial::BadSignature);
    }

    #[test]
    fn the_header_decides_nothing_that_the_issuer_does_not_allow() {
        let header = |name: &str, value: Value| {
            let mut header = header();
            header[name] = value;
            header
        };
        use Denial::{MalformedToken, UnknownKey, UnsupportedAlgorithm, WrongType};
        for (header, expected) in [
            (header("alg", json!("none")), UnsupportedAlgorithm),
            (header("alg", json!("NoNe")), UnsupportedAlgorithm),
            (header("alg", json!("hs256")), UnsupportedAlgorithm),
            (header("alg", json!("HS512")), UnsupportedAlgorithm),
            (header("alg", json!("RS256")), UnsupportedAlgorithm),
            (header("alg", json!(["HS256"])), MalformedToken(TokenPart::Header)),
            (header("alg", json!(null)), MalformedToken(TokenPart::Header)),
            (header("kid", json!("other")), UnknownKey),
            (header("kid", json!(1)), MalformedToken(TokenPart::Header)),
            (header("crit", json!(["exp"])), MalformedToken(TokenPart::Critical)),
            (header("crit", json!([])), MalformedToken(TokenPart::Critical)),
            (header("zip", json!("DEF")), MalformedToken(TokenPart::Header)),
            (header("typ", json!("id+jwt")), WrongType),
            (header("typ", json!("")), WrongType),
            (header("typ", json!(1)), WrongType),
        ] {
            assert_eq!(refusal(&header, &claims()), expected, "{header}");
        }
        for kind in ["jwt", "JWT", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT"] {
            assert!(outcome(&header("typ", json!(kind)), &claims()).is_ok(), "{kind}");
        }
        for name in ["jku", "x5u", "jwk", "x5c"] {
            assert!(
                outcome(&header(name, json!("https://evil")), &claims()).is_ok(),
                "{name} is not followed"
            );
        }
        assert_eq!(refusal(&json!({ "alg": "HS256", "kid": "k" }), &claims()), WrongType, "typ is missing");
        assert!(
            outcome(&json!({ "alg": "HS256", "typ": "JWT" }), &claims()).is_ok(),
            "the only key needs no id"
        );
    }

    #[test]
    fn each_claim_is_of_its_type_and_says_what_it_must() {
        use Denial::{ExpiredToken, MissingClaim, TokenNotYetValid, UnknownIssuer, WrongAudience, WrongType};
        use RequiredClaim::{Audience, Expiry, Issuer, Subject, SubjectText, Time};
        for (name, value, expected) in [
            ("iss", Value::Null, MissingClaim(Issuer)),
            ("iss", json!(["https://a"]), MissingClaim(Issuer)),
            ("iss", json!("https://a/"), UnknownIssuer),
            ("iss", json!("https://"), UnknownIssuer),
            ("exp", Value::Null, MissingClaim(Expiry)),
            ("exp", json!((NOW + 60).to_string()), MissingClaim(Expiry)),
            ("exp", json!(-1), MissingClaim(Expiry)),
            ("exp", json!(1e300), MissingClaim(Expiry)),
            ("exp", json!(NOW - 30), ExpiredToken),
            ("exp", json!(NOW as f64 - 29.5), ExpiredToken),
            ("nbf", json!(NOW + 31), TokenNotYetValid),
            ("nbf", json!(NOW as f64 + 30.5), TokenNotYetValid),
            ("nbf", json!("0"), MissingClaim(Time)),
            ("iat", json!(NOW + 31), TokenNotYetValid),
            ("iat", json!(true), MissingClaim(Time)),
            ("aud", Value::Null, MissingClaim(Audience)),
            ("aud", json!([]), MissingClaim(Audience)),
            ("aud", json!(["orders", 1]), MissingClaim(Audience)),
            ("aud", json!({ "orders": 1 }), MissingClaim(Audience)),
            ("aud", json!("order"), WrongAudience),
            ("aud", json!("orders2"), WrongAudience),
            ("aud", json!("orders stock"), WrongAudience),
            ("aud", json!(["other"]), WrongAudience),
            ("sub", Value::Null, MissingClaim(Subject)),
            ("sub", json!(""), MissingClaim(Subject)),
            ("sub", json!(7), MissingClaim(SubjectText)),
            ("cnf", json!({ "jkt": "x" }), WrongType),
            ("sub", json!("x".repeat(9000)), Denial::MalformedToken(TokenPart::Claims)),
            ("realm", json!({ "roles": vec!["r"; 513] }), Denial::MalformedToken(TokenPart::Claims)),
        ] {
            assert_eq!(refusal(&header(), &with(name, value.clone())), expected, "{name} {value}");
        }
        for (name, value) in [
            ("exp", json!(NOW - 29)),
            ("nbf", json!(NOW + 30)),
            ("iat", json!(NOW + 30)),
            ("iat", Value::Null),
            ("aud", json!(["other", "stock"])),
            ("jti", json!(7)),
        ] {
            assert!(outcome(&header(), &with(name, value.clone())).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn roles_of_a_shape_that_is_not_known_are_no_roles() {
        for (roles, taken) in [
            (json!(["a", 1, "b", ""]), "a,b"),
            (json!("a b"), "a b"),
            (json!(""), ""),
            (json!({ "a": 1 }), ""),
            (json!(null), ""),
            (json!([["a"]]), ""),
        ] {
            let principal = outcome(&header(), &with("realm", json!({ "roles": roles }))).unwrap();
            assert_eq!(principal.roles.join(","), taken, "{roles}");
        }
    }

    #[test]
    fn what_is_not_one_token_in_one_spelling_is_malformed() {
        let good = signed(&header().to_string(), &claims().to_string());
        assert!(verify(&good, &trust(), Now::at(NOW)).is_ok());
        let parts: Vec<&str> = good.split('.').collect();
        let long = format!("{good}{}", "A".repeat(16 * 1024));
        for (token, part) in [
            (String::new(), TokenPart::Shape),
            (parts[..2].join("."), TokenPart::Shape),
            (format!("{good}."), TokenPart::Shape),
            (format!(".{}.{}", parts[1], parts[2]), TokenPart::Shape),
            (format!("{}..{}", parts[0], parts[2]), TokenPart::Shape),
            (long, TokenPart::Shape),
            (format!("{}=.{}.{}", parts[0], parts[1], parts[2]), TokenPart::Header),
            (format!(" {good}"), TokenPart::Header),
            (signed("[]", "{}"), TokenPart::Header),
            (signed(r#"{"alg":"HS256","alg":"none"}"#, "{}"), TokenPart::Header),
            (signed(r#"{"alg":"HS256"} "#, r#"{"sub":"a","sub":"b"}"#), TokenPart::Claims),
            (signed(r#"{"alg":"HS256"}"#, r#"{"a":{"b":1,"b":2}}"#), TokenPart::Claims),
            (signed(r#"{"alg":"HS256"}"#, "{} {}"), TokenPart::Claims),
            (signed(r#"{"alg":"HS256"}"#, "\"x\""), TokenPart::Claims),
            (format!("{}.{}.{}=", parts[0], parts[1], parts[2]), TokenPart::Signature),
            (format!("{}.{}.", parts[0], parts[1]), TokenPart::Signature),
            (format!("{}.{}.{}AAA", parts[0], parts[1], parts[2]), TokenPart::Signature),
        ] {
            let denial = verify(&token, &trust(), Now::at(NOW)).unwrap_err();
            assert_eq!(denial, Denial::MalformedToken(part), "{}", &token[..token.len().min(200)]);
        }
    }

    #[test]
    fn a_type_that_says_nothing_is_not_an_absent_one() {
        let mut issuer = issuer("https://a", SECRET);
        issuer.types = Box::new(["".into(), "JWT".into()]);
        let trust = Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default());
        let verdict = |header: Value| {
            verify(&signed(&header.to_string(), &claims().to_string()), &trust, Now::at(NOW)).map(drop)
        };
        assert_eq!(verdict(json!({ "alg": "HS256" })), Ok(()));
        for kind in ["application/", "APPLICATION/", "", " "] {
            assert_eq!(verdict(json!({ "alg": "HS256", "typ": kind })), Err(Denial::WrongType), "{kind:?}");
        }
    }

    #[test]
    fn a_public_key_is_no_secret_in_whatever_form_it_is_written() {
        // RFC 8725 section 2.1. The issuer accepts HS256 as well, so that only the key can say no.
        let kinds = [
            (&rcgen::PKCS_RSA_SHA256, Algorithm::RS256),
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
        ];
        for (kind, algorithm) in kinds {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let (pem, der, raw) =
                (pair.public_key_pem(), pair.subject_public_key_info(), pair.public_key_raw().to_vec());
            let mut issuer = issuer("https://a", SECRET);
            issuer.keys = KeySet::default();
            issuer.keys.add_pem(Some("k"), pem.as_bytes(), &[algorithm]).unwrap();
            issuer.algorithms = vec![algorithm, Algorithm::HS256];
            let trust = Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default());
            let crlf = pem.replace('\n', "\r\n");
            let spellings =
                [pem.as_bytes(), pem.trim_end().as_bytes(), crlf.as_bytes(), &der, &raw, b"", &[0; 32]];
            for (spelling, secret) in spellings.into_iter().enumerate() {
                for id in [Some("k".to_owned()), None] {
                    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
                    header.kid = id;
                    let token = encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
                    assert_eq!(
                        verify(&token, &trust, Now::at(NOW)).unwrap_err(),
                        Denial::UnsupportedAlgorithm,
                        "{algorithm} {spelling}"
                    );
                }
            }
            // The neighbour: the private half, by its own algorithm.
            let signing = match algorithm {
                Algorithm::RS256 => EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()),
                Algorithm::ES256 => EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()),
                Algorithm::EdDSA | Algorithm::HS256 => {
                    EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes())
                }
            };
            let mut header = Header::new(algorithm.as_library());
            header.kid = Some("k".to_owned());
            let token = encode(&header, &claims(), &signing.unwrap()).unwrap();
            assert!(verify(&token, &trust, Now::at(NOW)).is_ok(), "{algorithm}");
        }
    }

    #[test]
    fn the_text_of_a_key_set_is_no_secret() {
        // As a key set writes it: the key of RFC 7515 appendix A.3.
        let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"e","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let mut issuer = issuer("https://a", SECRET);
        issuer.keys = KeySet::from_jwks(jwks.as_bytes(), &[Algorithm::ES256]).unwrap().0;
        issuer.algorithms = vec![Algorithm::ES256];
        let trust = Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default());
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some("e".to_owned());
        for secret in [jwks.as_bytes(), b"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"] {
            let token = encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
            assert_eq!(verify(&token, &trust, Now::at(NOW)).unwrap_err(), Denial::UnsupportedAlgorithm);
        }
    }

    proptest! {
        #[test]
        fn a_token_with_one_character_changed_is_never_accepted(at in 0..200usize, by in "[A-Za-z0-9_-]") {
            let good = signed(&header().to_string(), &claims().to_string());
            let at = at % good.len();
            let bad = format!("{}{by}{}", &good[..at], &good[at + 1..]);
            prop_assume!(bad != good);
            prop_assert!(verify(&bad, &trust(), Now::at(NOW)).is_err());
        }

        #[test]
        fn no_text_makes_the_verifier_panic(token in "[A-Za-z0-9._=-]{0,200}") {
            prop_assert!(verify(&token, &trust(), Now::at(NOW)).is_err());
        }
    }
}
