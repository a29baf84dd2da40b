//! The issuer and the token of the decisions that `tests/alloc.rs`, `tests/instructions.rs` and the benches measure.
//! Each of them includes this file.

#![allow(dead_code, reason = "each program uses a part of it")]

use http::HeaderValue;
use portcullis::authenticate::{Algorithm, ClaimPath, IdentityHeaders, Issuer, KeySet, Profile, Trust};
use portcullis::clock::Now;
use serde_json::{Value, json};
use std::sync::Arc;

/// The name of the issuer.
pub(crate) const ISSUER: &str = "https://id.example.com";
/// The audience of its tokens.
pub(crate) const AUDIENCE: &str = "orders";
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// Returns an issuer that signs with a shared secret.
pub(crate) fn issuer() -> Issuer {
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, SECRET).expect("32 bytes are enough");
    let path = |text: &str| ClaimPath::parse(text).expect("a claim path");
    Issuer {
        name: Arc::from(ISSUER),
        audience: Box::new([AUDIENCE.into()]),
        audience_of_clients: Box::new([]),
        algorithms: vec![Algorithm::HS256],
        keys,
        source: None,
        introspector: None,
        leeway: 0,
        // A local issuer, so that the decision also looks up revocations.
        local: true,
        roles: path("roles"),
        scopes: path("scope"),
        types: Box::new(["JWT".into()]),
        profile: Profile::default(),
    }
}

/// Returns the trust in one issuer. `claims` are the names of the claims that the policy uses.
pub(crate) fn trust(issuer: Issuer, claims: &[&str]) -> Trust {
    let claims = claims.iter().map(|name| ClaimPath::parse(name).expect("a claim path"));
    Trust::new(vec![issuer], claims.collect(), IdentityHeaders::default())
}

/// Returns the field `Authorization` with a token of [`issuer`] that is valid for an hour and has these claims.
pub(crate) fn authorization(now: Now, claims: Value) -> HeaderValue {
    let mut all = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now.unix + 3600 });
    let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) else {
        panic!("claims are an object")
    };
    all.extend(claims);
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &all, &key).expect("a token");
    format!("Bearer {token}").parse().expect("a header value")
}
