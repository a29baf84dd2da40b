use super::*;
use jsonwebtoken::{EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::json;

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const ISSUER: &str = "https://id.test";
const TRANSMITTER: &str = "https://ssf.test";
const NOW: u64 = 1_800_000_000;
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

fn keys() -> KeySet {
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, SECRET).unwrap();
    keys
}

fn terms<'r>(keys: &'r KeySet, audience: &'r [Box<str>]) -> Terms<'r> {
    Terms {
        issuer: ISSUER,
        transmitter: TRANSMITTER,
        audience,
        keys,
        source: None,
        algorithms: &[Algorithm::HS256],
        leeway: 10,
        life: 3600,
        opaque: Opaque::Unknown,
        has_sid: false,
    }
}

fn sign(kind: &str, claims: &Value, secret: &[u8]) -> String {
    let typ = (!kind.is_empty()).then(|| kind.to_owned());
    encode(&Header { typ, ..Header::default() }, claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// Reads tokens of both kinds.
fn read(kind: &str, claims: &Value) -> Result<Signal, &'static str> {
    let (keys, audience) = (keys(), ["gateway".into()]);
    let (terms, now) = (terms(&keys, &audience), Now::at(NOW));
    let text = sign(kind, claims, SECRET);
    let read = match kind.contains("logout") {
        true => read_logout_token(&text, &terms, now),
        false => read_event_token(&text, &terms, now),
    };
    read.map_err(|error| error.code)
}

fn event() -> Value {
    json!({
        "iss": TRANSMITTER, "aud": "gateway", "iat": NOW, "jti": "1",
        "sub_id": { "format": "iss_sub", "iss": ISSUER, "sub": "ada" },
        "events": { REVOKED: { "event_timestamp": NOW - 5 } },
    })
}

fn logout() -> Value {
    json!({
        "iss": ISSUER, "aud": ["gateway"], "iat": NOW, "exp": NOW + 120, "jti": "1", "sub": "ada", "sid": "s1",
        "events": { LOGOUT_EVENT: {} },
    })
}

/// Returns the claims with one of them replaced, or removed by null.
fn with(mut claims: Value, name: &str, value: Value) -> Value {
    let members = claims.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    claims
}

#[test]
fn an_event_marks_the_tokens_that_were_issued_until_its_time() {
    let signal = read("secevent+jwt", &event()).unwrap();
    assert_eq!(signal.events, [EventKind::SessionRevoked]);
    let expected = SignalMark {
        digest: MarkedClaim::Subject.digest(ISSUER, "ada"),
        before: mark_seconds(NOW - 5),
        until: mark_seconds(NOW + 3600 + 10 + MARK_MARGIN.as_secs()),
    };
    assert_eq!(signal.marks, [expected]);
}

#[test]
fn the_time_of_an_event_is_never_after_its_token() {
    let before = |claims: &Value| read("secevent+jwt", claims).unwrap().marks[0].before;
    for (timestamp, toe, expected) in [
        (json!(NOW - 5), Value::Null, NOW - 5),
        (json!(NOW - 5), json!(NOW - 9), NOW - 5),
        (Value::Null, json!(NOW - 9), NOW - 9),
        (Value::Null, Value::Null, NOW),
        (json!(NOW + 5), Value::Null, NOW),
        // Milliseconds.
        (json!(NOW * 1000), Value::Null, NOW),
        (json!("yesterday"), Value::Null, NOW),
        (json!(-1), Value::Null, NOW),
        (json!(NOW as f64 - 4.5), Value::Null, NOW - 5),
    ] {
        let event = if timestamp.is_null() { json!({}) } else { json!({ "event_timestamp": timestamp }) };
        let claims = with(with(self::event(), "events", json!({ REVOKED: event })), "toe", toe);
        assert_eq!(before(&claims), mark_seconds(expected), "{claims}");
    }
}

#[test]
fn an_event_token_that_breaks_one_rule_is_refused() {
    let stream = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";
    for (name, value, expected) in [
        ("iss", json!(ISSUER), Err("invalid_issuer")),
        ("iss", Value::Null, Err("invalid_issuer")),
        ("aud", json!("other"), Err("invalid_audience")),
        ("aud", json!(["other", "gateway"]), Ok(1)),
        ("aud", json!(["gateway", 7]), Err("invalid_audience")),
        ("aud", json!([]), Err("invalid_audience")),
        ("aud", Value::Null, Err("invalid_audience")),
        ("exp", json!(NOW + 60), Err("invalid_request")),
        ("iat", Value::Null, Err("invalid_request")),
        ("iat", json!(NOW + 10), Ok(1)),
        ("iat", json!(NOW + 11), Err("invalid_request")),
        ("iat", json!("now"), Err("invalid_request")),
        ("iat", json!(NOW - 86_400 * 30), Ok(1)),
        ("jti", Value::Null, Err("invalid_request")),
        ("jti", json!(""), Err("invalid_request")),
        ("jti", json!(7), Err("invalid_request")),
        ("jti", json!("x".repeat(1025)), Err("invalid_request")),
        ("events", Value::Null, Err("invalid_request")),
        ("events", json!({}), Err("invalid_request")),
        ("events", json!([REVOKED]), Err("invalid_request")),
        ("events", json!({ REVOKED: 1 }), Err("invalid_request")),
        ("events", (0..9).map(|n| (n.to_string(), json!({}))).collect(), Err("invalid_request")),
        ("events", json!({ "https://x.test/other": {} }), Ok(0)),
        ("events", json!({ stream: { "status": "paused" } }), Ok(0)),
    ] {
        let outcome = read("secevent+jwt", &with(event(), name, value.clone()));
        assert_eq!(outcome.map(|signal| signal.marks.len()), expected, "{name} {value}");
    }
    for (kind, is_accepted) in [
        ("secevent+jwt", true),
        ("application/secevent+jwt", true),
        ("", true),
        ("JWT", false),
        ("at+jwt", false),
    ] {
        assert_eq!(read(kind, &event()).is_ok(), is_accepted, "{kind}");
    }
}

#[test]
fn a_subject_that_is_not_understood_is_said_and_marks_nothing() {
    let email = json!({ "format": "email", "email": "ada@x.test" });
    let signal = read("secevent+jwt", &with(event(), "sub_id", email)).unwrap();
    assert!(signal.marks.is_empty() && signal.not_understood.is_some());
    let signal = read("secevent+jwt", &with(event(), "sub_id", Value::Null)).unwrap();
    assert!(signal.marks.is_empty() && signal.not_understood.is_some());
    // The transmitter's own subjects are not the issuer's.
    let claims = with(with(event(), "sub_id", Value::Null), "sub", json!("ada"));
    assert!(read("secevent+jwt", &claims).unwrap().not_understood.is_some());
}

#[test]
fn a_subject_in_the_event_is_that_of_the_event() {
    let subject = json!({ "subject_type": "iss-sub", "iss": ISSUER, "sub": "bob" });
    let claims = with(event(), "events", json!({ REVOKED: { "subject": subject } }));
    let signal = read("secevent+jwt", &with(claims, "sub_id", Value::Null)).unwrap();
    assert_eq!(signal.marks[0].digest, MarkedClaim::Subject.digest(ISSUER, "bob"));
}

#[test]
fn a_signature_by_nobody_or_another_is_refused() {
    let (keys, audience) = (keys(), ["gateway".into()]);
    let terms = terms(&keys, &audience);
    let text = sign("secevent+jwt", &event(), b"another secret of thirty-two byte");
    assert_eq!(read_event_token(&text, &terms, Now::at(NOW)).unwrap_err().code, "invalid_key");
    let none = [r#"{"alg":"none","typ":"secevent+jwt"}"#, &event().to_string()].map(|part| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part)
    });
    let none = format!("{}.{}.", none[0], none[1]);
    assert_eq!(read_event_token(&none, &terms, Now::at(NOW)).unwrap_err().code, "invalid_key");
    assert_eq!(read_event_token("x", &terms, Now::at(NOW)).unwrap_err().code, "invalid_request");
}

#[test]
fn a_logout_token_marks_the_session_and_the_subject() {
    let digests = |claims: &Value| -> Vec<_> {
        read("logout+jwt", claims).unwrap().marks.iter().map(|mark| (mark.digest, mark.before)).collect()
    };
    let session = (MarkedClaim::Session.digest(ISSUER, "s1"), u32::MAX);
    let subject = (MarkedClaim::Subject.digest(ISSUER, "ada"), mark_seconds(NOW));
    assert_eq!(digests(&logout()), [session, subject]);
    assert_eq!(digests(&with(logout(), "sid", Value::Null)), [subject]);
    assert_eq!(digests(&with(logout(), "sub", Value::Null)), [session]);
    let (keys, audience) = (keys(), ["gateway".into()]);
    let terms = Terms { has_sid: true, ..terms(&keys, &audience) };
    let text = sign("logout+jwt", &logout(), SECRET);
    let signal = read_logout_token(&text, &terms, Now::at(NOW)).unwrap();
    assert_eq!(signal.marks.len(), 1, "every token has the session, so the others are spared");
}

#[test]
fn a_logout_token_that_breaks_one_rule_is_refused() {
    for (name, value, is_accepted) in [
        ("iss", json!(TRANSMITTER), false),
        ("aud", json!("other"), false),
        ("aud", Value::Null, false),
        ("iat", Value::Null, false),
        ("iat", json!(NOW + 60), false),
        ("exp", Value::Null, false),
        ("exp", json!(NOW - 9), true),
        ("exp", json!(NOW - 10), false),
        ("jti", Value::Null, false),
        ("nonce", json!("n"), false),
        ("events", Value::Null, false),
        ("events", json!({ REVOKED: {} }), false),
        ("events", json!({ LOGOUT_EVENT: true }), false),
        ("sub", json!(7), false),
        ("sid", json!(""), false),
    ] {
        let outcome = read("logout+jwt", &with(logout(), name, value.clone()));
        assert_eq!(outcome.is_ok(), is_accepted, "{name} {value}");
    }
    let neither = with(with(logout(), "sub", Value::Null), "sid", Value::Null);
    assert!(read("logout+jwt", &neither).is_err());
    let (keys, audience) = (keys(), ["gateway".into()]);
    let terms = terms(&keys, &audience);
    for (kind, is_accepted) in [("JWT", true), ("", true), ("at+jwt", false), ("secevent+jwt", false)] {
        let text = sign(kind, &logout(), SECRET);
        assert_eq!(read_logout_token(&text, &terms, Now::at(NOW)).is_ok(), is_accepted, "{kind}");
    }
}

proptest! {
    /// With any claims, only tokens of this issuer can be marked, and never for less than their life.
    #[test]
    fn no_signal_marks_tokens_of_another_issuer(
        iss in "https://(id|ssf|other)\\.test",
        subject_issuer in "https://(id|ssf|other)\\.test",
        format in "(iss_sub|jwt_id|opaque|email|complex|aliases)",
        sub in "[a-c]{0,2}",
        timestamp in proptest::option::of(any::<i64>()),
    ) {
        let subject = json!({
            "format": format, "iss": subject_issuer, "sub": sub, "jti": sub, "id": sub,
            "identifiers": [{ "format": "iss_sub", "iss": subject_issuer, "sub": sub }],
            "user": { "format": "iss_sub", "iss": subject_issuer, "sub": sub },
        });
        let claims = with(with(event(), "sub_id", subject), "iss", json!(iss));
        let claims = with(claims, "events", json!({ REVOKED: { "event_timestamp": timestamp } }));
        match read("secevent+jwt", &claims) {
            Ok(signal) => {
                prop_assert_eq!(iss, TRANSMITTER);
                prop_assert_eq!(signal.marks.is_empty(), signal.not_understood.is_some());
                for mark in signal.marks {
                    prop_assert_eq!(&subject_issuer, ISSUER);
                    let ours = [MarkedClaim::Subject, MarkedClaim::Token];
                    prop_assert!(ours.iter().any(|kind| kind.digest(ISSUER, &sub) == mark.digest));
                    prop_assert!(mark.until >= mark_seconds(NOW + 3600));
                }
            }
            Err(_) => prop_assert_ne!(iss, TRANSMITTER),
        }
    }
}
