use super::*;
use crate::authenticate::{Algorithm, ClaimPath, IdentityHeaders, KeySet, Principal, Profile, Trust, verify};
use crate::introspection::IntrospectionSettings;
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use rustls::RootCertStore;
use serde_json::json;

const SECRET: &[u8; 32] = b"k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc";
const ISSUER: &str = "https://id.test/";
const NOW: u64 = 1_000_000;

fn introspector(issuer: &str, prefixes: &[&str], always: bool) -> Arc<Introspector> {
    let prefixes = prefixes.iter().map(|prefix| (*prefix).into()).collect();
    let settings = IntrospectionSettings {
        issuer: Arc::from(issuer),
        always,
        prefixes,
        ..IntrospectionSettings::for_tests()
    };
    Introspector::after(settings, Arc::new(RootCertStore::empty()), None).unwrap()
}

fn keys() -> KeySet {
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, SECRET).unwrap();
    keys
}

fn issuer(name: &str, keys: KeySet, introspector: Option<Arc<Introspector>>) -> Issuer {
    let path = |text: &str| ClaimPath::parse(text).unwrap();
    Issuer {
        name: Arc::from(name),
        audience: Box::new(["orders".into()]),
        audience_of_clients: Box::new([]),
        algorithms: vec![Algorithm::HS256],
        keys,
        source: None,
        introspector,
        leeway: 30,
        local: false,
        roles: path("roles"),
        scopes: path("scope"),
        types: Box::new(["JWT".into()]),
        profile: Profile::default(),
    }
}

fn trust(issuers: Vec<Issuer>) -> Trust {
    Trust::new(issuers, Vec::new(), IdentityHeaders::default())
}

/// Returns the claims of an active token with these changes; `null` removes a claim.
fn active(changes: Value) -> Value {
    let mut claims = json!({
        "active": true, "token_type": "Bearer", "iss": ISSUER, "aud": "orders", "sub": "ada", "scope": "read write",
        "iat": NOW - 10, "exp": NOW + 600,
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn now() -> Now {
    Now::at(NOW)
}

/// Verifies a token about which the issuer has given this answer just now.
fn outcome(changes: Value, profile: Profile) -> Result<Principal, Denial> {
    let (now, introspector) = (now(), introspector(ISSUER, &[], false));
    let issuer = Issuer { profile, ..issuer(ISSUER, KeySet::default(), Some(introspector.clone())) };
    let answer = active(changes).to_string();
    let answer = read_introspection(answer.as_bytes(), &issuer, None, NOW, now);
    introspector.answer_for_tests(digest_of("opaque"), answer.map_err(|refused| refused.denial)?, now);
    verify("opaque", &trust(vec![issuer]), now).map_err(|refused| refused.denial)
}

#[test]
fn the_claims_of_an_answer_are_checked_like_those_of_a_jwt() {
    let lax = Profile { may_lack_token_type: true, may_lack_audience: true, ..Profile::default() };
    let strict = Profile::default;
    let code = |changes: Value, profile: Profile| {
        outcome(changes, profile).map(drop).map_err(|denial| denial.code().to_owned())
    };
    for (changes, code_of) in [
        (json!({}), ""),
        (json!({ "iss": null }), ""),
        (json!({ "exp": null }), ""),
        (json!({ "iat": null }), ""),
        (json!({ "token_type": "bearer" }), ""),
        (json!({ "active": false }), "inactive_token"),
        (json!({ "active": "true" }), "malformed_token"),
        (json!({ "active": 1 }), "malformed_token"),
        (json!({ "active": null }), "malformed_token"),
        (json!({ "iss": "https://id.test" }), "unknown_issuer"),
        (json!({ "iss": [ISSUER] }), "unknown_issuer"),
        (json!({ "aud": null }), "missing_claim"),
        (json!({ "aud": "elsewhere" }), "wrong_audience"),
        (json!({ "aud": ["elsewhere", "orders"] }), ""),
        (json!({ "sub": null }), "missing_claim"),
        (json!({ "exp": NOW }), "expired_token"),
        (json!({ "exp": NOW + 1 }), ""),
        (json!({ "exp": 1e300 }), "missing_claim"),
        (json!({ "exp": "soon" }), "missing_claim"),
        (json!({ "nbf": NOW + 31 }), "token_not_yet_valid"),
        (json!({ "token_type": null }), "wrong_type"),
        (json!({ "token_type": "refresh_token" }), "wrong_type"),
        (json!({ "token_type": "DPoP" }), "wrong_type"),
        (json!({ "token_use": "refresh_token" }), "wrong_type"),
        (json!({ "typ": "Refresh" }), "wrong_type"),
        (json!({ "jti": 7 }), "malformed_token"),
    ] {
        let expected = if code_of.is_empty() { Ok(()) } else { Err(code_of.to_owned()) };
        assert_eq!(code(changes.clone(), strict()), expected, "{changes}");
    }
    assert_eq!(code(json!({ "token_type": null, "aud": null }), lax), Ok(()));
}

#[test]
fn an_answer_ends_with_its_token_and_with_its_age() {
    for (changes, expires) in [
        (json!({}), NOW + 60),
        (json!({ "exp": NOW + 20 }), NOW + 20),
        (json!({ "exp": null }), NOW + 60),
        (json!({ "exp": 253_402_300_799_u64 }), NOW + 60),
    ] {
        let principal = outcome(changes.clone(), Profile::default()).unwrap();
        assert_eq!(principal.expires, expires, "{changes}");
        let scopes: Vec<&str> = principal.scopes.iter().map(AsRef::as_ref).collect();
        assert_eq!(
            (&*principal.subject, &*principal.issuer, &scopes[..]),
            ("ada", ISSUER, &["read", "write"][..])
        );
    }
}

#[test]
fn a_bound_token_keeps_its_binding() {
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    for kind in ["DPoP", "Bearer"] {
        let changes = json!({ "token_type": kind, "cnf": { "jkt": jkt } });
        assert!(outcome(changes, Profile::default()).unwrap().confirmation.is_some(), "{kind}");
    }
    assert!(outcome(json!({ "cnf": { "x5t#S256": "AA" } }), Profile::default()).is_err());
    assert!(outcome(json!({ "cnf": {} }), Profile::default()).is_err());
}

/// Returns the issuer that the gateway would ask about a token, or the code of the refusal.
fn asked(token: &str, trust: &Trust) -> String {
    let refused = verify(token, trust, now()).unwrap_err();
    match refused.pending.as_deref() {
        Some(Pending::Introspection(inquiry)) => inquiry.introspector().settings().issuer.to_string(),
        Some(Pending::Keys(_) | Pending::Turn(_)) | None => refused.denial.code().to_owned(),
    }
}

fn jwt(claims: &Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret)).unwrap()
}

#[test]
fn the_issuer_of_an_opaque_token_is_found_by_its_prefix() {
    let one = |name: &str, prefixes: &[&str]| {
        issuer(name, KeySet::default(), Some(introspector(name, prefixes, false)))
    };
    let trust = trust(vec![
        one("https://a.test", &["aa_", "eyJ-not-a-jwt"]),
        one("https://b.test", &[]),
        one("https://c.test", &["cc_at_"]),
        issuer("https://jwt.test", keys(), None),
    ]);
    let of =
        |iss: &str, exp: u64| jwt(&json!({ "iss": iss, "aud": "orders", "sub": "ada", "exp": exp }), SECRET);
    for (token, expected) in [
        ("aa_1".to_owned(), "https://a.test"),
        ("aa_1.2.3".to_owned(), "https://a.test"),
        ("cc_at_x".to_owned(), "https://c.test"),
        ("cc_".to_owned(), "https://b.test"),
        ("x".to_owned(), "https://b.test"),
        ("a.b.c.d.e".to_owned(), "https://b.test"),
        ("a.b.c".to_owned(), "malformed_token"),
        ("pcr_x".to_owned(), "wrong_type"),
        ("pck_x".to_owned(), "wrong_type"),
        (format!("x{}", "y".repeat(TOKEN_MAX)), "malformed_token"),
        (of("https://b.test", NOW + 60), "https://b.test"),
        (of("https://c.test", NOW + 60), "https://c.test"),
        (of("https://c.test", NOW - 60), "expired_token"),
        (of("https://d.test", NOW + 60), "unknown_issuer"),
        (
            jwt(&json!({ "iss": "https://jwt.test", "exp": NOW + 60 }), b"another secret of thirty-two byte"),
            "bad_signature",
        ),
    ] {
        assert_eq!(asked(&token, &trust), expected, "{}", &token[..token.len().min(60)]);
    }
}

#[test]
fn the_answer_about_a_bound_jwt_repeats_its_binding() {
    let jkt = json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" });
    let other = json!({ "jkt": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" });
    for (cnf, answered, is_accepted) in [
        (Value::Null, Value::Null, true),
        (Value::Null, jkt.clone(), true),
        (jkt.clone(), jkt.clone(), true),
        (jkt.clone(), Value::Null, false),
        (jkt, other, false),
        (json!({ "x5t#S256": "AA" }), Value::Null, false),
    ] {
        let mut claims = json!({ "iss": ISSUER, "exp": NOW + 600 });
        if !cnf.is_null() {
            claims["cnf"] = cnf.clone();
        }
        let (token, introspector) = (jwt(&claims, SECRET), introspector(ISSUER, &[], false));
        let issuer = issuer(ISSUER, KeySet::default(), Some(introspector.clone()));
        let answer = active(json!({ "cnf": answered })).to_string();
        let answer = read_introspection(answer.as_bytes(), &issuer, None, NOW, now()).unwrap();
        introspector.answer_for_tests(digest_of(&token), answer, now());
        let outcome = verify(&token, &trust(vec![issuer]), now());
        assert_eq!(outcome.is_ok(), is_accepted, "{cnf} {answered}: {outcome:?}");
    }
}

#[test]
fn a_verified_token_is_confirmed_only_if_the_issuer_is_always_asked() {
    let good = json!({ "iss": ISSUER, "aud": "orders", "sub": "ada", "exp": NOW + 600 });
    let token = jwt(&good, SECRET);
    let forged = jwt(&good, b"another secret of thirty-two byte");
    let now = now();
    let sometimes = trust(vec![issuer(ISSUER, keys(), Some(introspector(ISSUER, &[], false)))]);
    assert_eq!(verify(&token, &sometimes, now).unwrap().expires, NOW + 630);
    for (answer, expected) in [
        (None, Err("check_unavailable")),
        (Some(json!({ "active": false })), Err("inactive_token")),
        (Some(json!({ "active": true })), Ok(NOW + 60)),
        (Some(json!({ "active": true, "sub": "ada", "iss": ISSUER })), Ok(NOW + 60)),
        (Some(json!({ "active": true, "sub": "eve" })), Err("malformed_token")),
        (Some(json!({ "active": true, "cnf": { "jkt": "x" } })), Err("malformed_token")),
    ] {
        let introspector = introspector(ISSUER, &[], true);
        let asked = issuer(ISSUER, keys(), Some(introspector.clone()));
        if let Some(answer) = &answer {
            let verdict = read_introspection(answer.to_string().as_bytes(), &asked, None, NOW, now).unwrap();
            introspector.answer_for_tests(digest_of(&token), verdict, now);
        }
        let trust = trust(vec![asked]);
        let outcome = verify(&token, &trust, now).map(|principal| principal.expires);
        assert_eq!(outcome.map_err(|refused| refused.denial.code()), expected, "{answer:?}");
        let refused = verify(&forged, &trust, now).unwrap_err();
        assert_eq!((refused.denial.code(), refused.pending), ("bad_signature", None), "nobody asks about it");
    }
}

fn signed_answer(typ: Option<&str>, changes: Value, secret: &[u8]) -> String {
    let mut claims = json!({ "iss": ISSUER, "aud": "gateway", "iat": NOW,
                             "token_introspection": active(json!({})) });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    let header = Header { typ: typ.map(str::to_owned), ..Header::default() };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
}

#[test]
fn a_signed_answer_is_of_the_issuer_for_the_gateway_and_recent() {
    let issuer = issuer(ISSUER, keys(), None);
    let typ = Some("token-introspection+jwt");
    let read = |answer: &str, signed_for| {
        let outcome = read_introspection(answer.as_bytes(), &issuer, signed_for, NOW - 2, now());
        outcome.map(|verdict| verdict != Verdict::Inactive).map_err(|refused| refused.denial.code())
    };
    for (typ, changes, expected) in [
        (typ, json!({}), Ok(true)),
        (Some("application/token-introspection+JWT"), json!({}), Ok(true)),
        (typ, json!({ "token_introspection": { "active": false } }), Ok(false)),
        (typ, json!({ "aud": ["gateway", "other"] }), Ok(true)),
        (typ, json!({ "iat": NOW - 32 }), Ok(true)),
        (typ, json!({ "exp": NOW + 1 }), Ok(true)),
        (Some("JWT"), json!({}), Err("wrong_type")),
        (Some("at+jwt"), json!({}), Err("wrong_type")),
        (None, json!({}), Err("wrong_type")),
        (typ, json!({ "iss": "https://id.test" }), Err("unknown_issuer")),
        (typ, json!({ "iss": null }), Err("unknown_issuer")),
        (typ, json!({ "aud": "other" }), Err("wrong_audience")),
        (typ, json!({ "aud": null }), Err("wrong_audience")),
        (typ, json!({ "iat": NOW - 33 }), Err("missing_claim")),
        (typ, json!({ "iat": NOW + 31 }), Err("missing_claim")),
        (typ, json!({ "iat": null }), Err("missing_claim")),
        (typ, json!({ "exp": NOW - 30 }), Err("expired_token")),
        (typ, json!({ "exp": "later" }), Err("expired_token")),
        (typ, json!({ "sub": "ada" }), Err("malformed_token")),
        (typ, json!({ "active": true, "token_introspection": null }), Err("malformed_token")),
        (typ, json!({ "token_introspection": [true] }), Err("malformed_token")),
        (typ, json!({ "token_introspection": {} }), Err("malformed_token")),
    ] {
        let answer = signed_answer(typ, changes.clone(), SECRET);
        assert_eq!(read(&answer, Some("gateway")), expected, "{typ:?} {changes}");
    }
    let forged = signed_answer(typ, json!({}), b"another secret of thirty-two byte");
    assert_eq!(read(&forged, Some("gateway")), Err("bad_signature"));
    let plain = active(json!({})).to_string();
    assert_eq!(read(&plain, Some("gateway")), Err("malformed_token"), "an answer that is not signed");
    assert_eq!(read(&signed_answer(typ, json!({}), SECRET), None), Err("malformed_token"));
}

proptest! {
    #[test]
    fn an_answer_is_active_only_if_it_says_so(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in "\\{\"active\":(true|false|null|1|\"true\"|\\[true\\])(,\"[a-z]{1,3}\":[0-9\"]{0,4}){0,2}\\}?",
    ) {
        let issuer = issuer(ISSUER, keys(), None);
        for answer in [&bytes[..], text.as_bytes()] {
            for signed_for in [None, Some("gateway")] {
                if let Ok(Verdict::Active(claims)) = read_introspection(answer, &issuer, signed_for, NOW, now()) {
                    let claims: Value = serde_json::from_slice(&claims).unwrap();
                    prop_assert_eq!(&claims["active"], &Value::Bool(true));
                    prop_assert!(signed_for.is_none(), "nobody signed it");
                }
            }
            let _ = signer_of(answer);
        }
    }
}
