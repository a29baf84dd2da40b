use super::super::pending::Pending;
use super::*;
use crate::authenticate::{Algorithm, ClaimId, IdentityHeaders, KeySet, Profile};
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
    keys.add_secret(Some("k"), Algorithm::HS256, secret).unwrap();
    let path = |text: &str| ClaimPath::parse(text).unwrap();
    Issuer {
        name: Arc::from(name),
        audience: Box::new(["orders".into(), "stock".into()]),
        algorithms: vec![Algorithm::HS256],
        keys,
        source: None,
        introspector: None,
        leeway: 30,
        audience_of_clients: Box::new([]),
        local: false,
        roles: path("realm.roles"),
        scopes: path("scope"),
        types: Box::new(["JWT".into(), "at+jwt".into()]),
        profile: Profile::default(),
    }
}

fn trust() -> Trust {
    let claims = vec![ClaimPath::parse("tenant").unwrap(), ClaimPath::parse("plan").unwrap()];
    // Both issuers have a key with the same `kid`. Each key verifies only the tokens of its own issuer.
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

/// Returns the claims with one member replaced, or removed if the value is `null`.
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

/// Returns a token with this header and these claims, signed with the HS256 key of `https://a`.
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
    verdict(&signed(&header.to_string(), &claims.to_string()), &trust()).map_err(|refused| refused.denial)
}

fn verdict(token: &str, trust: &Trust) -> Result<Principal, CredentialError> {
    verify(token, trust, Now::at(NOW))
}

/// Returns the operator's explanation of a refusal.
fn words(header: &Value, claims: &Value) -> String {
    let token = signed(&header.to_string(), &claims.to_string());
    let refused = verdict(&token, &trust()).expect_err(&format!("{header} {claims}"));
    refused.words().unwrap_or_default().to_owned()
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
fn a_refresh_token_grants_no_access() {
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
        assert_eq!(verdict(&token, &trust()).unwrap_err().denial, Denial::WrongType);
    }
}

#[test]
fn a_token_that_calls_itself_an_id_or_logout_token_is_no_access_token() {
    // RFC 8725 sections 3.11 and 3.12 recommend that recipients distinguish kinds of tokens.
    for (name, kind) in [
        ("typ", json!("ID")),
        ("typ", json!("Logout")),
        ("typ", json!("Offline")),
        ("token_use", json!("id")),
        ("tokenName", json!("id_token")),
        ("token_type", json!("id_token")),
        ("events", json!({ LOGOUT_EVENT: {} })),
    ] {
        assert_eq!(refusal(&header(), &with(name, kind.clone())), Denial::WrongType, "{name} {kind}");
    }
    for (name, kind) in [
        ("token_use", json!("access")),
        ("tokenName", json!("access_token")),
        ("type", json!("id")),
        ("events", json!(["login"])),
    ] {
        assert!(outcome(&header(), &with(name, kind.clone())).is_ok(), "{name} {kind}");
    }
}

#[test]
fn a_refusal_says_what_came_and_what_was_expected() {
    // Each refusal names the value found and the value expected.
    let header_with = |name: &str, value: Value| {
        let mut header = header();
        header[name] = value;
        header
    };
    for (header, claims, expected) in [
        (header(), with("iss", json!("https://x")), "iss is 'https://x'; known: 'https://a', 'https://b'"),
        (
            header(),
            with("iss", json!("https://a/")),
            "iss is 'https://a/'; known: 'https://a', 'https://b' (they differ by a trailing slash or by case)",
        ),
        (header(), with("iss", json!("https://b")), "not by the key 'k' (HS256)"),
        (header(), with("aud", json!(["x", "y"])), "aud is ['x', 'y']; wanted: 'orders', 'stock'"),
        (header_with("kid", json!("x")), claims(), "kid is 'x'; the issuer's keys: 'k'"),
        (header_with("alg", json!("RS512")), claims(), "alg is 'RS512'; the issuer's algorithms: HS256"),
        (
            header_with("typ", json!("id+jwt")),
            claims(),
            "the header's typ is 'id+jwt'; accepted: 'jwt', 'at+jwt'",
        ),
        (header(), with("exp", json!(NOW - 72)), "exp is 999928, 72 s ago; leeway is 30 s"),
        (header(), with("nbf", json!(NOW + 100)), "nbf is 1000100, 100 s ahead; leeway is 30 s"),
        (header(), with("iat", json!(NOW + 100)), "iat is 1000100, 100 s ahead; leeway is 30 s"),
        (
            header(),
            with("exp", json!(1_795_000_000_000_u64)),
            "exp is 1795000000000, out of range (milliseconds?)",
        ),
        (header(), with("exp", json!(1.733162101e26)), "exp is 1.733162101e+26, out of range"),
        (header(), with("exp", json!(-1)), "exp is -1, before 1970"),
        (header(), with("exp", json!("7")), "exp is '7', not a number of seconds"),
        (header(), with("exp", Value::Null), "exp is missing"),
        (header(), with("sub", Value::Null), "sub is missing"),
        (header(), with("token_use", json!("id")), "not an access token: token_use is 'id'"),
        (header(), with("scope", json!(["a admin"])), "scope contains a scope with white space: 'a admin'"),
    ] {
        assert_eq!(words(&header, &claims), expected, "{header} {claims}");
    }
    let mut cognito = with("aud", Value::Null);
    cognito["client_id"] = json!("orders");
    assert_eq!(words(&header(), &cognito), "aud is missing; client_id is there");
}

#[test]
fn a_scope_that_a_service_would_split_is_refused() {
    // Services split scopes at spaces (RFC 6749 section 3.3), and some at any white space.
    for scope in [
        json!(["a admin"]),
        json!(["a", "b\tadmin"]),
        json!("a\tadmin"),
        json!(["a\u{a0}admin"]),
        json!("a\nb"),
    ] {
        let expected = Denial::MalformedToken(TokenPart::Claims);
        assert_eq!(refusal(&header(), &with("scope", scope.clone())), expected, "{scope}");
    }
    for (scope, taken) in [(json!("a  b"), "a,b"), (json!(["a", "b"]), "a,b"), (json!(["a,b"]), "a,b")] {
        let principal = outcome(&header(), &with("scope", scope.clone())).unwrap();
        assert_eq!(principal.scopes.join(","), taken, "{scope}");
    }
}

#[test]
fn a_token_of_the_authority_is_accepted_for_no_longer_than_any_life_on_record() {
    // A mark is kept for the longest recorded life of a token and one more day.
    let mut local = issuer("https://a", SECRET);
    (local.local, local.leeway) = (true, 0);
    let trust = Trust::new(vec![local], Vec::new(), IdentityHeaders::default());
    let token = |claims: Value| signed(&header().to_string(), &claims.to_string());
    let until = |token: &str| verify(token, &trust, Now::at(NOW)).map(|principal| principal.expires);
    let usual = token(with("exp", json!(NOW + 900)));
    let undated = token(with("iat", Value::Null));
    trust.revoked().set_lives(60, std::iter::empty());
    assert_eq!(until(&usual), Ok(NOW + 60));
    assert_eq!(verify(&usual, &trust, Now::at(NOW + 60)).unwrap_err().denial, Denial::ExpiredToken);
    assert_eq!(
        until(&undated).map_err(|refused| refused.denial),
        Err(Denial::ExpiredToken),
        "nobody knows how old it is"
    );
    trust.revoked().set_lives(60, [("ada".to_owned(), NOW + 100)].into_iter());
    assert_eq!(until(&usual), Ok(NOW + 100));
    trust.revoked().set_lives(3600, std::iter::empty());
    let principal = verify(&usual, &trust, Now::at(NOW + 899)).unwrap();
    assert_eq!((principal.expires, principal.local.unwrap().ends), (NOW + 900, NOW + 900));
    // Tokens of other issuers cannot be revoked here, so only their `exp` limits them.
    let other = self::trust();
    other.revoked().set_lives(1, std::iter::empty());
    assert_eq!(verify(&usual, &other, Now::at(NOW)).unwrap().expires, NOW + 930);
}

#[test]
fn a_token_of_the_authority_may_come_from_a_gateway_whose_clock_is_ahead() {
    let mut local = issuer("https://a", SECRET);
    (local.local, local.leeway) = (true, 0);
    let trust = Trust::new(vec![local], Vec::new(), IdentityHeaders::default());
    trust.revoked().set_lives(900, std::iter::empty());
    for (name, ahead, accepted) in [("iat", 5, true), ("iat", 6, false), ("nbf", 5, true), ("nbf", 6, false)]
    {
        let token = signed(&header().to_string(), &with(name, json!(NOW + ahead)).to_string());
        let outcome = verify(&token, &trust, Now::at(NOW));
        assert_eq!(
            outcome.as_ref().map(|principal| principal.lead_max).ok(),
            accepted.then_some(5),
            "{name} {ahead}"
        );
        if let Err(refused) = outcome {
            assert_eq!(refused.denial, Denial::TokenNotYetValid);
        }
    }
    // By its own clock, a gateway accepts no token after its end.
    let token = signed(&header().to_string(), &with("exp", json!(NOW + 1)).to_string());
    assert!(verify(&token, &trust, Now::at(NOW)).is_ok());
    assert_eq!(verify(&token, &trust, Now::at(NOW + 1)).unwrap_err().denial, Denial::ExpiredToken);
}

#[test]
fn the_signature_of_a_public_key_takes_a_turn_and_a_mac_takes_none() {
    let (trust, turns) = (trust(), Turns::default());
    let outcome = |alg: &str| {
        let token =
            signed(&json!({ "alg": alg, "kid": "k", "typ": "JWT" }).to_string(), &claims().to_string());
        let verified = verify_for(Recipient::Gateway, &token, &trust, Now::at(NOW), &mut Some(&turns));
        let waits =
            |refused: CredentialError| refused.pending == Some(Box::new(Pending::Turn(turns.clone())));
        verified.map(drop).map_err(waits)
    };
    assert_eq!(outcome("HS256"), Ok(()));
    assert_eq!(outcome("ES256"), Err(false), "judged in the first turn");
    assert_eq!(outcome("ES256"), Err(true), "waits for the next turn");
    assert_eq!(outcome("HS256"), Ok(()));
    // The claims, and with them the issuer, are read only in the turn.
    let stranger =
        signed(&json!({ "alg": "ES256", "typ": "JWT" }).to_string(), &with("iss", json!("x")).to_string());
    let in_turn = |turns| verify_for(Recipient::Gateway, &stranger, &trust, Now::at(NOW), &mut Some(turns));
    assert!(matches!(in_turn(&turns).unwrap_err().pending.as_deref(), Some(Pending::Turn(_))));
    let refused = in_turn(&Turns::default()).unwrap_err();
    assert_eq!((refused.denial, refused.pending), (Denial::UnknownIssuer, None));
}

#[test]
fn tokens_for_audiences_of_clients_are_examined_and_do_not_pass_the_gate() {
    // Introspection (RFC 7662 section 2.2) and revocation (RFC 7009 section 2.1) accept tokens whose audience is a
    // client of the authority.
    let mut local = issuer("https://a", SECRET);
    local.audience_of_clients = Box::new(["billing".into()]);
    let trust = Trust::new(vec![local], Vec::new(), IdentityHeaders::default());
    let outcome = |recipient, audience: Value| {
        let token = signed(&header().to_string(), &with("aud", audience).to_string());
        verify_for(recipient, &token, &trust, Now::at(NOW), &mut None).map(drop)
    };
    for (audience, gate, anybody) in [
        (json!("orders"), Ok(()), Ok(())),
        (json!("billing"), Err(Denial::WrongAudience), Ok(())),
        (json!(["billing", "x"]), Err(Denial::WrongAudience), Ok(())),
        (json!("x"), Err(Denial::WrongAudience), Err(Denial::WrongAudience)),
    ] {
        assert_eq!(
            outcome(Recipient::Gateway, audience.clone()).map_err(|refused| refused.denial),
            gate,
            "{audience}"
        );
        assert_eq!(
            outcome(Recipient::Anyone, audience.clone()).map_err(|refused| refused.denial),
            anybody,
            "{audience}"
        );
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
        assert!(outcome(&header(name, json!("https://evil")), &claims()).is_ok(), "{name} is not followed");
    }
    assert_eq!(refusal(&json!({ "alg": "HS256", "kid": "k" }), &claims()), WrongType, "typ is missing");
    assert!(outcome(&json!({ "alg": "HS256", "typ": "JWT" }), &claims()).is_ok(), "the only key needs no id");
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
        // A negative number is a valid date (RFC 7519 section 2) and lies in the past.
        ("exp", json!(-1), ExpiredToken),
        ("exp", json!(-1e300), ExpiredToken),
        ("exp", json!(1_795_000_000_000_u64), MissingClaim(Expiry)),
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
        ("jti", json!(7), Denial::MalformedToken(TokenPart::Claims)),
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
    ] {
        assert!(outcome(&header(), &with(name, value.clone())).is_ok(), "{name} {value}");
    }
}

#[test]
fn roles_of_a_shape_that_is_not_known_are_no_roles() {
    for (roles, taken, shape) in [
        (json!(["a", 1, "b", ""]), "a,b", Shape::Mixed),
        (json!(["a"]), "a", Shape::List),
        (json!("a b"), "a b", Shape::Text),
        (json!(""), "", Shape::Text),
        (json!({ "a": 1 }), "", Shape::Object),
        (json!(null), "", Shape::Other),
        (json!([["a"]]), "", Shape::Mixed),
    ] {
        let principal = outcome(&header(), &with("realm", json!({ "roles": roles }))).unwrap();
        assert_eq!((principal.roles.join(","), principal.shapes.roles), (taken.to_owned(), shape), "{roles}");
    }
}

#[test]
fn a_credential_must_be_one_token_in_one_spelling() {
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
        (long, TokenPart::Length),
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
        let denial = verdict(&token, &trust()).unwrap_err().denial;
        assert_eq!(denial, Denial::MalformedToken(part), "{}", &token[..token.len().min(200)]);
    }
}

#[test]
fn a_type_that_says_nothing_is_not_an_absent_one() {
    let mut issuer = issuer("https://a", SECRET);
    issuer.types = Box::new(["".into(), "JWT".into()]);
    let trust = Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default());
    let verdict = |header: Value| {
        let token = signed(&header.to_string(), &claims().to_string());
        super::verify(&token, &trust, Now::at(NOW)).map(drop).map_err(|refused| refused.denial)
    };
    assert_eq!(verdict(json!({ "alg": "HS256" })), Ok(()));
    for kind in ["application/", "APPLICATION/", "", " "] {
        assert_eq!(verdict(json!({ "alg": "HS256", "typ": kind })), Err(Denial::WrongType), "{kind:?}");
    }
}

#[test]
fn a_public_key_is_no_secret_in_whatever_form_it_is_written() {
    // RFC 8725 section 2.1 describes the attack in which a public key is used as an HMAC secret. The issuer also
    // accepts HS256, so only the check of the secret can reject the key.
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
                    verify(&token, &trust, Now::at(NOW)).unwrap_err().denial,
                    Denial::UnsupportedAlgorithm,
                    "{algorithm} {spelling}"
                );
            }
        }
        // A token that is signed with the private key, by the key's own algorithm, is accepted.
        let signing = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()),
            _ => EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()),
        };
        let mut header = Header::new(algorithm.as_library().unwrap());
        header.kid = Some("k".to_owned());
        let token = encode(&header, &claims(), &signing.unwrap()).unwrap();
        assert!(verify(&token, &trust, Now::at(NOW)).is_ok(), "{algorithm}");
    }
}

#[test]
fn the_text_of_a_key_set_is_no_secret() {
    // The key set contains the key of RFC 7515 appendix A.3.
    let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"e","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let mut issuer = issuer("https://a", SECRET);
    issuer.keys = KeySet::from_jwks(jwks.as_bytes(), &[Algorithm::ES256]).unwrap().0;
    issuer.algorithms = vec![Algorithm::ES256];
    let trust = Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default());
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("e".to_owned());
    for secret in [jwks.as_bytes(), b"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"] {
        let token = encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(verdict(&token, &trust).unwrap_err().denial, Denial::UnsupportedAlgorithm);
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
