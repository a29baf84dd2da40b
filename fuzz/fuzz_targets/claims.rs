//! Signed claims. An accepted token is unambiguous JSON with the right issuer, audience and times. Its roles and scopes
//! are those in the claims. The identity headers state the same facts, and nothing in them begins another field.
#![no_main]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::{
    Algorithm, ClaimId, ClaimPath, IdentityHeaders, Issuer, KeySet, Principal, Profile, Trust, verify,
};
use portcullis::clock::Now;
use serde_json::Value;
use std::sync::{Arc, LazyLock};

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, SECRET).expect("32 bytes");
    let path = |text: &str| ClaimPath::parse(text).expect("a claim path");
    let issuer = Issuer {
        name: Arc::from("i"),
        audience: Box::new(["a".into()]),
        audience_of_clients: Box::new([]),
        algorithms: vec![Algorithm::HS256],
        keys,
        source: None,
        introspector: None,
        leeway: 5,
        local: false,
        roles: path("realm.roles"),
        scopes: path("scope"),
        types: Box::new(["".into()]),
        profile: Profile::default(),
    };
    let name = |name: &'static str| Some(http::HeaderName::from_static(name));
    let tenant = (http::HeaderName::from_static("x-auth-tenant"), ClaimId(0));
    let identity = IdentityHeaders::new(
        name("x-auth-subject"),
        name("x-auth-roles"),
        name("x-auth-scopes"),
        None,
        vec![tenant],
    );
    Trust::new(vec![issuer], vec![path("tenant")], identity)
});

fn signed(claims: &[u8], secret: &[u8]) -> String {
    let message = format!("eyJhbGciOiJIUzI1NiJ9.{}", URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Returns the number of colons outside strings, which is the number of members in a JSON text.
fn members_written(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut is_escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        Value::Array(list) => list.iter().map(members).sum(),
        _ => 0,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Returns the names in a claim: a list's texts, or the parts of a text.
fn names<'v>(value: Option<&'v Value>, split: impl Fn(&'v str) -> Vec<&'v str>) -> Vec<&'v str> {
    let names = match value {
        Some(Value::String(text)) => split(text),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Reads an identity header as an upstream does.
fn decoded(field: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), field.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit =
                    || char::from(rest.next().expect("two digits")).to_digit(16).expect("a digit");
                (digit() * 16 + digit()) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("a claim is UTF-8")
}

fn check(principal: &Principal, claims: &Value) {
    assert_eq!((&claims["iss"], &*principal.issuer), (&Value::from("i"), "i"));
    let audiences = names(claims.get("aud"), |text| vec![text]);
    assert!(audiences.contains(&"a"), "another audience");
    assert_eq!(claims["sub"].as_str(), Some(&*principal.subject));
    assert!(!principal.subject.is_empty());
    let date = |name: &str| claims.get(name).map(|date| date.as_f64().expect("a number"));
    assert!(date("exp").is_some_and(|exp| exp + 5.0 > NOW as f64), "expired");
    assert!(principal.expires > NOW && principal.not_before <= NOW);
    for name in ["nbf", "iat"] {
        assert!(date(name).is_none_or(|time| time <= NOW as f64 + 5.0), "{name}");
    }
    assert!(claims.get("jti").is_none_or(Value::is_string));
    let roles = names(claims["realm"].get("roles"), |text| vec![text]);
    let scopes = names(claims.get("scope"), |text| text.split(' ').collect());
    assert!(principal.roles.iter().map(|role| &**role).eq(roles.iter().copied()));
    assert!(principal.scopes.iter().map(|scope| &**scope).eq(scopes.iter().copied()));
    let field = |name: &str| {
        let found = principal.headers.iter().find(|(known, _)| known == name)?;
        Some(found.1.to_str().expect("visible ASCII"))
    };
    assert_eq!(field("x-auth-subject").map(decoded).as_deref(), Some(&*principal.subject));
    for (name, values) in [("x-auth-roles", roles), ("x-auth-scopes", scopes)] {
        let stated: Vec<_> = field(name).map_or(Vec::new(), |field| field.split(',').map(decoded).collect());
        assert_eq!(stated, values, "{name}");
    }
    if let Some(Value::String(tenant)) = claims.get("tenant") {
        assert_eq!(field("x-auth-tenant").map(decoded).unwrap_or_default(), *tenant);
    }
    let lines: Vec<u8> = principal
        .headers
        .iter()
        .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat())
        .collect();
    assert_eq!(principal.headers.lines(), lines);
    let breaks = lines.iter().filter(|byte| byte.is_ascii_control()).count();
    assert_eq!(breaks, 2 * principal.headers.len(), "a line break within a field");
}

fuzz_target!(|data: &[u8]| {
    let now = Now::at(NOW);
    if let Ok(principal) = verify(&signed(data, SECRET), &TRUST, now) {
        let claims: Value = serde_json::from_slice(data).expect("accepted claims are JSON");
        assert_eq!(members(&claims), members_written(data), "a repeated member");
        assert!(claims.is_object() && depth(&claims) <= 16);
        check(&principal, &claims);
    }
    assert!(verify(&signed(data, b"another secret of thirty-two by."), &TRUST, now).is_err());
});
