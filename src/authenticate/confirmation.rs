//! The binding of a token to its sender (`cnf`, RFC 7800). A bound token is not accepted as a bearer token, because the
//! binding makes a stolen token useless.

use super::dpop::Thumbprint;
use super::error::{ClaimText, CredentialError};
use crate::denial::Denial;
use serde_json::{Map, Value};

/// The proof that a sender must provide in order to use its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The possession of the private key with this thumbprint (`jkt`, RFC 9449 section 6.1).
    Key(Thumbprint),
    /// A connection with the client certificate that has this SHA-256 (`x5t#S256`, RFC 8705 section 3.1).
    Certificate(Thumbprint),
}

impl Confirmation {
    /// Reads the binding of a token; `None` if the token is not bound.
    ///
    /// # Errors
    /// Returns [`Denial::WrongType`] for a binding that the gateway cannot check, and for a second binding.
    pub(super) fn of(claims: &Map<String, Value>) -> Result<Option<Self>, CredentialError> {
        let Some(bound) = claims.get("cnf") else { return Ok(None) };
        let members = bound.as_object().filter(|members| members.len() == 1);
        let member = |name: &str| members.and_then(|members| members.get(name)?.as_str()?.parse().ok());
        let found = member("jkt").map(Self::Key).or_else(|| member("x5t#S256").map(Self::Certificate));
        found.map(Some).ok_or_else(|| {
            let detail = match bound {
                Value::Object(members) => {
                    let names: Vec<&str> = members.keys().map(String::as_str).take(4).collect();
                    let names = Value::from(names);
                    format!(
                        "the token is bound to its sender in a way that cannot be checked: cnf contains {}",
                        ClaimText(Some(&names))
                    )
                }
                other => format!("the token's cnf is {}", ClaimText(Some(other))),
            };
            CredentialError::because(Denial::WrongType, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_single_thumbprint_is_a_binding_and_every_other_is_refused() {
        const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        let of = |claims: Value| Confirmation::of(claims.as_object().unwrap()).map_err(|error| error.denial);
        assert_eq!(of(json!({})), Ok(None));
        assert_eq!(of(json!({ "cnf": { "jkt": JKT } })), Ok(Some(Confirmation::Key(JKT.parse().unwrap()))));
        let by_certificate = Some(Confirmation::Certificate(JKT.parse().unwrap()));
        assert_eq!(of(json!({ "cnf": { "x5t#S256": JKT } })), Ok(by_certificate));
        for cnf in [
            json!(null),
            json!({}),
            json!([]),
            json!(JKT),
            json!({ "jkt": null }),
            json!({ "jkt": "" }),
            json!({ "jkt": format!("{JKT}=") }),
            json!({ "jkt": &JKT[1..] }),
            json!({ "JKT": JKT }),
            json!({ "x5t#S256": &JKT[1..] }),
            json!({ "x5t": JKT }),
            json!({ "jkt": JKT, "x5t#S256": JKT }),
            json!({ "jkt": JKT, "kid": "1" }),
            json!({ "jwk": { "kty": "EC" } }),
        ] {
            assert_eq!(of(json!({ "cnf": cnf })), Err(Denial::WrongType), "{cnf}");
        }
    }
}
