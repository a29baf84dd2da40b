//! Checks an assertion in a Rust service, with jsonwebtoken.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

/// Returns the claims of an assertion that `keys` verifies. Fetch the authority's key set once, cache it for five minutes,
/// and fetch it again for an unknown `kid`. With `assertion_binds = true`, `request` is the method and target of the
/// request that carried the assertion.
///
/// # Errors
/// Returns why the assertion is not valid for this audience or this request.
pub fn check(
    assertion: &str,
    keys: &JwkSet,
    issuer: &str,
    audience: &str,
    request: Option<(&str, &str)>,
) -> Result<Value, String> {
    let header = decode_header(assertion).map_err(|error| error.to_string())?;
    if header.typ.as_deref() != Some("assertion+jwt") {
        return Err("not an assertion".to_owned());
    }
    let jwk = header.kid.and_then(|kid| keys.find(&kid)).ok_or("no such key")?;
    // The key says which algorithm it is for, never the token.
    let algorithm = match jwk.common.key_algorithm.map(|algorithm| algorithm.to_string()).as_deref() {
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        _ => return Err("not an algorithm of assertions".to_owned()),
    };
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.leeway = 5;
    let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
    let token = decode::<Value>(assertion, &key, &validation).map_err(|error| error.to_string())?;
    let Some((method, target)) = request else { return Ok(token.claims) };
    if token.claims["htm"] == method && token.claims["htu"] == target {
        Ok(token.claims)
    } else {
        Err("made for another request".to_owned())
    }
}
