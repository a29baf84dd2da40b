//! The public key in the header of a proof. The key verifies only this proof. The token must contain the key's
//! thumbprint.

use super::Thumbprint;
use crate::authenticate::keys::{Algorithm, ED25519, Key};
use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// The names of the algorithms of proofs, separated by spaces. All are asymmetric: with a shared secret, the gateway
/// could create proofs itself (RFC 9449 section 4.3, check 5).
static ALGORITHMS: LazyLock<String> = LazyLock::new(|| {
    let mut names = Vec::new();
    for algorithm in Algorithm::ALL.into_iter().filter(|it| !it.has_secret()) {
        names.push(algorithm.as_str());
        if algorithm == Algorithm::EdDSA {
            names.push(ED25519);
        }
    }
    // A client may take the first one, and keys on elliptic curves cost it the least.
    names.sort_by_key(|name| !name.starts_with('E'));
    names.join(" ")
});

/// Returns the names of the algorithms of proofs, separated by spaces, as in `algs` (RFC 9449 section 7.1).
pub fn algorithms() -> &'static str {
    &ALGORITHMS
}

/// The maximum length of an RSA modulus in bytes: 4096 bits. Clients choose their keys, and a longer key makes each
/// check slower.
const RSA_BYTES_MAX: usize = 512;

/// The members of private and symmetric keys (RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 9964 section 3).
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// A public key that verifies the signature of one proof.
pub(super) struct ProofKey {
    key: Key,
    pub(super) thumbprint: Thumbprint,
}

/// The reason why a key cannot be used.
pub(super) enum KeyFault {
    /// The algorithm is not one of [`algorithms`].
    Algorithm,
    /// The key is not a public key for the algorithm.
    Key(Box<str>),
}

fn fault(why: &str) -> KeyFault {
    KeyFault::Key(why.into())
}

impl ProofKey {
    /// Reads the key of a proof with this algorithm.
    ///
    /// # Errors
    /// Returns an error unless the key is a public key for this algorithm.
    pub(super) fn read(jwk: &Map<String, Value>, name: &str) -> Result<Self, KeyFault> {
        let algorithm: Algorithm = name.parse().map_err(|()| KeyFault::Algorithm)?;
        if algorithm.has_secret() {
            return Err(KeyFault::Algorithm);
        }
        if PRIVATE.iter().any(|member| jwk.contains_key(*member)) {
            return Err(fault("jwk contains a private key or a secret"));
        }
        // The alternative names of one algorithm are equal.
        let is_other = |named: &Value| named.as_str().and_then(|text| text.parse().ok()) != Some(algorithm);
        if jwk.get("use").is_some_and(|purpose| purpose != "sig") || jwk.get("alg").is_some_and(is_other) {
            return Err(fault("jwk is meant for another use or algorithm"));
        }
        let key = Key::from_jwk(jwk, algorithm).map_err(|why| fault(&format!("jwk is unusable: {why}")))?;
        if key.signature_bytes() > RSA_BYTES_MAX && jwk.contains_key("n") {
            return Err(fault("jwk is an RSA key of more than 4096 bits"));
        }
        let thumbprint = thumbprint(jwk).ok_or_else(|| fault("jwk lacks a member of its kty"))?;
        Ok(Self { key, thumbprint })
    }

    /// Returns whether the signature of the message is by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verifies(message, signature)
    }
}

/// Returns the thumbprint of a valid key: the hash of its required members, in alphabetical order (RFC 7638 section 3,
/// RFC 8037 section 2, RFC 9964 section 6). The values in a valid key need no escaping.
fn thumbprint(jwk: &Map<String, Value>) -> Option<Thumbprint> {
    let members: &[&str] = match jwk.get("kty")?.as_str()? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        "AKP" => &["alg", "kty", "pub"],
        _ => return None,
    };
    let mut context = Context::new(&SHA256);
    for (index, member) in members.iter().enumerate() {
        for part in
            [if index == 0 { "{\"" } else { ",\"" }, member, "\":\"", jwk.get(*member)?.as_str()?, "\""]
        {
            context.update(part.as_bytes());
        }
    }
    context.update(b"}");
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Some(Thumbprint(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn read(jwk: &Value, algorithm: &str) -> Result<String, &'static str> {
        match ProofKey::read(jwk.as_object().unwrap(), algorithm) {
            Ok(key) => Ok(key.thumbprint.to_string()),
            Err(KeyFault::Algorithm) => Err("algorithm"),
            Err(KeyFault::Key(_)) => Err("key"),
        }
    }

    #[test]
    fn thumbprints_are_those_of_the_standards() {
        // RFC 7638 section 3.1.
        let rsa = json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        });
        assert_eq!(read(&rsa, "RS256").unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        // RFC 9449 sections 4.1 and 6.1.
        let ec = json!({
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        });
        assert_eq!(read(&ec, "ES256").unwrap(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        // RFC 8037 appendix A.3.
        let okp = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        assert_eq!(read(&okp, "EdDSA").unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(read(&okp, "Ed25519"), read(&okp, "EdDSA"));
    }

    #[test]
    fn only_a_public_key_of_its_algorithm_is_read() {
        let good = json!({
            "kty": "EC", "crv": "P-256", "key_ops": ["verify"], "ext": true,
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        });
        assert!(read(&good, "ES256").is_ok());
        for algorithm in ["none", "HS256", "es256", "ES256K", "", "RS1"] {
            assert_eq!(read(&good, algorithm), Err("algorithm"), "{algorithm}");
        }
        for algorithm in ["ES384", "ES512", "EdDSA", "RS256", "PS256"] {
            assert_eq!(read(&good, algorithm), Err("key"), "{algorithm}");
        }
        for (name, value) in [
            ("d", json!("AA")),
            ("d", json!(null)),
            ("k", json!("AA")),
            ("kty", json!("oct")),
            ("kty", json!(7)),
            ("crv", json!("P-384")),
            ("x", json!("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs=")),
            ("x", json!("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBF")),
            ("x", json!("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFt")),
            ("y", json!("")),
            ("y", json!(["9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"])),
            ("use", json!("enc")),
            ("alg", json!("ES384")),
        ] {
            let mut jwk = good.clone();
            jwk[name] = value.clone();
            assert_eq!(read(&jwk, "ES256"), Err("key"), "{name} {value}");
        }
        let rsa = |n: &[u8], e: &[u8]| json!({ "kty": "RSA", "e": URL_SAFE_NO_PAD.encode(e), "n": URL_SAFE_NO_PAD.encode(n) });
        let usual = [1, 0, 1];
        for (n, e, is_read) in [
            (vec![0xff; 256], &usual[..], true),
            (vec![0xff; 512], &usual, true),
            (vec![0xff; 255], &usual, false),
            (vec![0xff; 513], &usual, false),
            (vec![0xff; 1024], &usual, false),
            (vec![0xff; 4096], &usual, false),
            (vec![0xfe; 256], &usual, false),
            (vec![0xff; 256], &[1], false),
            (vec![0xff; 256], &[2], false),
            (vec![0xff; 256], &[], false),
            // An exponent as long as the modulus makes each verification hundreds of times slower.
            (vec![0xff; 256], &[0xff; 256], false),
        ] {
            assert_eq!(read(&rsa(&n, e), "RS256").is_ok(), is_read, "{} bytes, {e:?}", n.len());
        }
        // The point is not on the curve.
        let mut off = good.clone();
        off["y"] = good["x"].clone();
        assert_eq!(read(&off, "ES256"), Err("key"));
    }

    #[test]
    fn the_algorithms_of_proofs_are_the_asymmetric_ones_of_tokens() {
        let names: Vec<&str> = algorithms().split(' ').collect();
        for name in &names {
            assert!(!name.parse::<Algorithm>().unwrap().has_secret(), "{name}");
        }
        let asymmetric = Algorithm::ALL.into_iter().filter(|it| !it.has_secret()).count();
        assert_eq!(names.len(), asymmetric + 1, "{names:?}");
        assert!(names.contains(&"Ed25519") && names.contains(&"EdDSA"));
        assert_eq!(names[0], "ES256");
    }
}
