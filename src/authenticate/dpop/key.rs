//! The public key in the header of a proof.
//!
//! The key is used only for the proof that contains it. Whether the key may be used at all is decided by its
//! thumbprint, which the token must name.

use super::Thumbprint;
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The algorithms of proofs, separated by spaces. All of them are asymmetric: with a shared secret, the gateway could
/// create the proofs that it verifies (RFC 9449 section 4.3, check 5).
pub const ALGORITHMS: &str = "ES256 ES384 ES512 EdDSA Ed25519 PS256 RS256";

/// The accepted lengths of an RSA modulus in bytes: 2048 to 4096 bits. A client chooses its key, and each check with a
/// longer key would cost the gateway more time.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// The members of private and symmetric keys (RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 9964 section 3).
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// A public key that verifies the signature of one proof.
pub(super) struct ProofKey {
    material: Material,
    pub(super) thumbprint: Thumbprint,
}

enum Material {
    Plain { verification: &'static dyn VerificationAlgorithm, bytes: Vec<u8> },
    Rsa { parameters: &'static RsaParameters, modulus: Vec<u8>, exponent: Vec<u8> },
}

/// The kind of key that an algorithm needs.
enum Kind {
    /// A point on this curve, with coordinates of this length in bytes.
    Point(&'static str, usize, &'static dyn VerificationAlgorithm),
    Ed25519,
    Rsa(&'static RsaParameters),
}

/// Returns the kind of key that an algorithm needs; `None` if proofs must not have this algorithm.
fn kind_of(algorithm: &str) -> Option<Kind> {
    Some(match algorithm {
        "ES256" => Kind::Point("P-256", 32, &ECDSA_P256_SHA256_FIXED),
        "ES384" => Kind::Point("P-384", 48, &ECDSA_P384_SHA384_FIXED),
        "ES512" => Kind::Point("P-521", 66, &ECDSA_P521_SHA512_FIXED),
        "EdDSA" | "Ed25519" => Kind::Ed25519,
        "PS256" => Kind::Rsa(&RSA_PSS_2048_8192_SHA256),
        "RS256" => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        _ => return None,
    })
}

/// The reason why a key cannot be used.
pub(super) enum KeyFault {
    /// The algorithm is not one of [`ALGORITHMS`].
    Algorithm,
    /// The key is not a public key for the algorithm.
    Key(&'static str),
}

impl ProofKey {
    /// Reads the key of a proof with this algorithm.
    ///
    /// # Errors
    /// Returns an error unless the key is a public key for this algorithm.
    pub(super) fn read(jwk: &Map<String, Value>, algorithm: &str) -> Result<Self, KeyFault> {
        let kind = kind_of(algorithm).ok_or(KeyFault::Algorithm)?;
        if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            return Err(KeyFault::Key("jwk contains a private key or a secret"));
        }
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        if jwk.get("use").is_some_and(|purpose| purpose != "sig")
            || jwk.get("alg").is_some_and(|named| named != algorithm)
        {
            return Err(KeyFault::Key("jwk is meant for another use or algorithm"));
        }
        let text = |name: &str| member(name).ok_or(KeyFault::Key("jwk lacks a member of its kty"));
        let of = |kty: &str, crv: Option<&str>| member("kty") == Some(kty) && member("crv") == crv;
        let wrong = Err(KeyFault::Key("the kty and crv of jwk do not fit alg"));
        match kind {
            Kind::Point(curve, length, verification) => {
                if !of("EC", Some(curve)) {
                    return wrong;
                }
                let (x, y) = (text("x")?, text("y")?);
                let mut bytes = Vec::with_capacity(1 + 2 * length);
                bytes.push(4);
                decode_into(x, length, &mut bytes)?;
                decode_into(y, length, &mut bytes)?;
                let thumbprint = thumbprint(&[
                    "{\"crv\":\"",
                    curve,
                    "\",\"kty\":\"EC\",\"x\":\"",
                    x,
                    "\",\"y\":\"",
                    y,
                    "\"}",
                ]);
                Ok(Self { material: Material::Plain { verification, bytes }, thumbprint })
            }
            Kind::Ed25519 => {
                if !of("OKP", Some("Ed25519")) {
                    return wrong;
                }
                let x = text("x")?;
                let mut bytes = Vec::with_capacity(32);
                decode_into(x, 32, &mut bytes)?;
                let thumbprint = thumbprint(&["{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"", x, "\"}"]);
                Ok(Self { material: Material::Plain { verification: &ED25519, bytes }, thumbprint })
            }
            Kind::Rsa(parameters) => {
                if !of("RSA", None) {
                    return wrong;
                }
                let (n, e) = (text("n")?, text("e")?);
                let (modulus, exponent) = (number(n)?, number(e)?);
                if !RSA_BYTES.contains(&modulus.len()) {
                    return Err(KeyFault::Key("jwk is an RSA key of fewer than 2048 or more than 4096 bits"));
                }
                let thumbprint = thumbprint(&["{\"e\":\"", e, "\",\"kty\":\"RSA\",\"n\":\"", n, "\"}"]);
                Ok(Self { material: Material::Rsa { parameters, modulus, exponent }, thumbprint })
            }
        }
    }

    /// Whether the signature of the message is by this key. A point that is not on its curve verifies nothing.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Plain { verification, bytes } => {
                UnparsedPublicKey::new(*verification, bytes).verify(message, signature).is_ok()
            }
            Material::Rsa { parameters, modulus, exponent } => {
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(parameters, message, signature)
                    .is_ok()
            }
        }
    }
}

/// Decodes base64url of exactly `length` bytes. The decoder accepts only the canonical spelling, so that a key has one
/// thumbprint.
fn decode_into(text: &str, length: usize, bytes: &mut Vec<u8>) -> Result<(), KeyFault> {
    let before = bytes.len();
    let decoded = URL_SAFE_NO_PAD.decode_vec(text, bytes);
    match decoded {
        Ok(()) if bytes.len() - before == length => Ok(()),
        Ok(()) | Err(_) => Err(KeyFault::Key("a member of jwk is not base64url of its length")),
    }
}

/// Decodes a number without leading zeros (RFC 7518 section 2, Base64urlUInt).
fn number(text: &str) -> Result<Vec<u8>, KeyFault> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if bytes.first().is_some_and(|first| *first != 0) => Ok(bytes),
        Ok(_) | Err(_) => Err(KeyFault::Key("a member of jwk is not a number in base64url")),
    }
}

/// Returns the thumbprint of the required members of a key, in the order of RFC 7638 section 3. Their values are
/// base64url, so nothing needs to be escaped.
fn thumbprint(parts: &[&str]) -> Thumbprint {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Thumbprint(out)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let rsa = |n: &[u8]| json!({ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(n) });
        for (n, is_read) in [
            (vec![0xff; 256], true),
            (vec![0xff; 512], true),
            (vec![0xff; 255], false),
            (vec![0xff; 513], false),
        ] {
            assert_eq!(read(&rsa(&n), "RS256").is_ok(), is_read, "{} bytes", n.len());
        }
        assert!(read(&rsa(&[&[0][..], &[0xff; 256]].concat()), "RS256").is_err(), "a leading zero");
    }
}
