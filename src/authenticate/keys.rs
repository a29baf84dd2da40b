//! Verification keys: each with one algorithm, each belonging to one issuer.
//!
//! The key decides the algorithm, never the token (RFC 8725 section 3.1): a set is asked for the key of an id and an
//! algorithm, and has it or not.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A signature algorithm of JWS that is accepted here. `none` is no algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519 (RFC 8037).
    EdDSA,
}

impl Algorithm {
    /// Its name (RFC 7518 section 3.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }

    /// As the library names it.
    pub(crate) const fn as_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::HS256, Self::RS256, Self::ES256, Self::EdDSA]
            .into_iter()
            .find(|a| a.as_str() == text)
            .ok_or(())
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One verification key.
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// How long its signatures are.
    signature_bytes: usize,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Its id (`kid`).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its one algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many bytes a signature of it has.
    pub const fn signature_bytes(&self) -> usize {
        self.signature_bytes
    }

    pub(super) const fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }

    /// Whether what this key verifies the other one verifies too, under the same id.
    fn is_same(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let same_material = match (self.key.kind(), other.key.kind()) {
            (SecretOrDer(ours), SecretOrDer(theirs)) => verify_slices_are_equal(ours, theirs).is_ok(),
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: their_n, e: their_e }) => {
                n == their_n && e == their_e
            }
            (SecretOrDer(_), RsaModulusExponent { .. }) | (RsaModulusExponent { .. }, SecretOrDer(_)) => {
                false
            }
        };
        self.id == other.id && self.algorithm == other.algorithm && same_material
    }
}

/// The keys of one issuer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Arc<Key>>);

/// How it is told that a key is of no use because its algorithm is not accepted.
const NOT_ACCEPTED: &str = ", which is not in algorithms";
/// How many keys a set may hold.
const KEYS_MAX: usize = 100;
/// HMAC keys are at least as long as their hash (RFC 7518 section 3.2).
const SECRET_MIN: usize = 32;
/// RSA moduli that are accepted, in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// A point of P-256 has two coordinates of so many bytes; an Ed25519 key is as long.
const COORDINATE: usize = 32;

impl KeySet {
    /// Adds a shared secret for HS256.
    ///
    /// # Errors
    /// When it is too short, or a key of another kind: with the text of a public key as the secret, whoever has that key
    /// could sign (RFC 8725 section 2.1).
    pub fn add_secret(&mut self, id: Option<&str>, secret: &[u8]) -> Result<(), String> {
        if let Some(what) = no_secret(secret) {
            return Err(what.to_owned());
        }
        if secret.len() < SECRET_MIN {
            return Err(format!(
                "a secret of {} bits, and HS256 needs 256 (RFC 7518 section 3.2)",
                secret.len() * 8
            ));
        }
        self.add(id, Algorithm::HS256, DecodingKey::from_secret(secret), 32)
    }

    /// Adds a public key in PEM (`BEGIN PUBLIC KEY`), of one of these algorithms.
    ///
    /// # Errors
    /// When it is none.
    pub fn add_pem(&mut self, id: Option<&str>, pem: &[u8], accepted: &[Algorithm]) -> Result<(), String> {
        use rustls::pki_types::SubjectPublicKeyInfoDer;
        use rustls::pki_types::pem::PemObject;
        let text = String::from_utf8_lossy(pem);
        if text.contains("PRIVATE KEY") {
            return Err("a private key: only its public half belongs here (openssl pkey -pubout)".to_owned());
        }
        if text.contains("BEGIN CERTIFICATE") {
            return Err(
                "a certificate: take the public key out of it (openssl x509 -pubkey -noout)".to_owned()
            );
        }
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|error| format!("no public key in PEM (BEGIN PUBLIC KEY): {error}"))?;
        let (algorithm, key, length) = public_key(&spki)?;
        if !accepted.contains(&algorithm) {
            return Err(format!("a key for {algorithm}, which is not in algorithms"));
        }
        self.add(id, algorithm, key, length)
    }

    /// Reads a JSON Web Key Set (RFC 7517), key by key: a key that cannot be used here does not spoil the others. Returns
    /// what was skipped, and why.
    ///
    /// # Errors
    /// When it is no key set, or holds no key that can be used.
    pub fn from_jwks(text: &[u8], accepted: &[Algorithm]) -> Result<(Self, Vec<String>), String> {
        let set: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Err("no \"keys\" with a list".to_owned());
        };
        if keys.len() > KEYS_MAX {
            return Err(format!("{} keys, and at most {KEYS_MAX} are read", keys.len()));
        }
        let (mut known, mut skipped) = (Self::default(), Vec::new());
        let mut others = false;
        let ids: Vec<_> = keys.iter().map(|key| (key.get("kid"), key.get("kty"), key.get("crv"))).collect();
        for (index, key) in keys.iter().enumerate() {
            let key = key.as_object();
            let id = key.and_then(|key| key.get("kid")).and_then(Value::as_str);
            let added = match key {
                None => Err("no object".to_owned()),
                // Which of two is meant nobody can say; whoever reads the set may take either for the issuer's.
                Some(_) if ids.iter().filter(|known| **known == ids[index]).count() > 1 => {
                    Err("another key of its kind has the same kid".to_owned())
                }
                Some(key) => known.add_jwk(id, key, accepted),
            };
            // An issuer publishes keys for whatever it signs; that one is for an algorithm which is not accepted is no news.
            match added {
                Ok(()) => {}
                Err(why) if why.ends_with(NOT_ACCEPTED) => others = true,
                Err(why) => {
                    let id = id.unwrap_or("without kid");
                    skipped.push(format!("key {} ({id}) is not used: {why}", index + 1));
                }
            }
        }
        if known.0.is_empty() {
            if others {
                skipped.push("the others are for algorithms that are not in algorithms".to_owned());
            } else if keys.is_empty() {
                skipped.push("the list is empty".to_owned());
            }
            return Err(format!("no key that can be used: {}", skipped.join("; ")));
        }
        Ok((known, skipped))
    }

    fn add_jwk(
        &mut self,
        id: Option<&str>,
        key: &Map<String, Value>,
        accepted: &[Algorithm],
    ) -> Result<(), String> {
        let member = |name: &str| key.get(name).and_then(Value::as_str);
        // A member of a wrong type says something that is not understood, which is not the same as saying nothing.
        if key.get("kid").is_some_and(|id| !id.is_string()) {
            return Err("its kid is not a string".to_owned());
        }
        if key.get("use").is_some_and(|purpose| purpose != "sig") {
            return Err("its use is not sig".to_owned());
        }
        if let Some(operations) = key.get("key_ops")
            && !operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
        {
            return Err("its key_ops do not allow verify".to_owned());
        }
        let algorithm = match (member("kty"), member("crv")) {
            (Some("RSA"), _) => Algorithm::RS256,
            (Some("EC"), Some("P-256")) => Algorithm::ES256,
            (Some("OKP"), Some("Ed25519")) => Algorithm::EdDSA,
            (Some("oct"), _) => Algorithm::HS256,
            (kty, crv) => {
                return Err(format!(
                    "kty {} with crv {} is not known here",
                    kty.unwrap_or("absent"),
                    crv.unwrap_or("absent")
                ));
            }
        };
        if let Some(named) = key.get("alg")
            && named != algorithm.as_str()
            // Its name since RFC 9864; the same algorithm.
            && !(algorithm == Algorithm::EdDSA && named == "Ed25519")
        {
            return Err(format!("its alg {named} is not what its kty is used for here, {algorithm}"));
        }
        if algorithm != Algorithm::HS256 && key.contains_key("d") {
            return Err(
                "a private key: only its public half belongs here, and a new one where others could read it"
                    .to_owned(),
            );
        }
        if !accepted.contains(&algorithm) {
            return Err(format!("it is for {algorithm}{NOT_ACCEPTED}"));
        }
        let bytes = |name: &str| -> Result<Vec<u8>, String> {
            let text = member(name).ok_or_else(|| format!("it has no {name}"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its {name} is not base64url"))
        };
        match algorithm {
            Algorithm::HS256 => {
                // A published set with a secret in it would be no secret (RFC 8725 section 3.1).
                if accepted.iter().any(|algorithm| *algorithm != Algorithm::HS256) {
                    return Err("a shared secret among public keys".to_owned());
                }
                self.add_secret(id, &bytes("k")?)
            }
            Algorithm::RS256 => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                let (key, length) = rsa_key(&modulus, &exponent)?;
                self.add(id, algorithm, key, length)
            }
            Algorithm::ES256 => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != COORDINATE || y.len() != COORDINATE {
                    return Err("its coordinates are not of 32 bytes".to_owned());
                }
                let point = [&[4], &x[..], &y[..]].concat();
                on_curve(&point)?;
                self.add(id, algorithm, DecodingKey::from_ec_der(&point), 64)
            }
            Algorithm::EdDSA => {
                let x = bytes("x")?;
                if x.len() != COORDINATE {
                    return Err("its x is not of 32 bytes".to_owned());
                }
                self.add(id, algorithm, DecodingKey::from_ed_der(&x), 64)
            }
        }
    }

    fn add(
        &mut self,
        id: Option<&str>,
        algorithm: Algorithm,
        key: DecodingKey,
        signature_bytes: usize,
    ) -> Result<(), String> {
        if self.0.iter().any(|known| known.id.as_deref() == id && known.algorithm == algorithm) {
            return Err(format!("a second key for {algorithm} under the same kid"));
        }
        self.0.push(Arc::new(Key { id: id.map(Into::into), algorithm, key, signature_bytes }));
        Ok(())
    }

    /// The keys, for listing.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(Arc::as_ref)
    }

    /// Whether the sets hold the same keys.
    pub fn is_same(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }

    /// Whether every key of the other set is in this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|key| self.0.iter().any(|ours| ours.is_same(key)))
    }

    /// The key of this id; without an id, the only key of the algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        let of_id = || self.0.iter().filter(|key| id.is_none_or(|id| key.id.as_deref() == Some(id)));
        let mut fitting = of_id().filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(key),
            (Some(_), Some(_)) => Found::None,
            // A single key that was given without an id is the issuer's key, whatever id its tokens name.
            (None, _) => match (&self.0[..], of_id().next()) {
                ([only], None) if only.id.is_none() && only.algorithm == algorithm => Found::Key(only),
                (_, Some(_)) => Found::OtherAlgorithm,
                (_, None) => Found::None,
            },
        }
    }
}

/// What a set has for an id and an algorithm.
pub(super) enum Found<'k> {
    /// The key.
    Key(&'k Key),
    /// A key of this id, for another algorithm.
    OtherAlgorithm,
    /// No key of this id.
    None,
}

/// An RSA key, and the length of its signatures.
fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Result<(DecodingKey, usize), String> {
    // DER puts a zero before a number whose first bit is set, and some writers of JSON do too (RFC 7518 section
    // 6.3.1.1); with it the library would take no signature at all.
    let (modulus, exponent) = (strip_zeros(modulus), strip_zeros(exponent));
    if !RSA_BYTES.contains(&modulus.len()) || modulus.len() == *RSA_BYTES.start() && modulus[0] < 0x80 {
        return Err("an RSA key that is not of 2048 to 8192 bits".to_owned());
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !odd(modulus) {
        return Err("an RSA modulus that is even, and so none".to_owned());
    }
    // The library takes exponents of up to 33 bits; with a longer one it would take no signature at all.
    let short = exponent.len() < 5 || exponent.len() == 5 && exponent[0] == 1;
    if !odd(exponent) || exponent == [1] || !short {
        return Err("an RSA exponent that is none: odd, from 3 to 33 bits of length".to_owned());
    }
    Ok((DecodingKey::from_rsa_raw_components(modulus, exponent), modulus.len()))
}

/// What a supposed secret is instead, when it is a key in a form that keys are published in (CVE-2022-29217).
fn no_secret(secret: &[u8]) -> Option<&'static str> {
    let text = secret.trim_ascii_start();
    if text.starts_with(b"-----BEGIN ") {
        return Some("a file in PEM, not a secret: a public key is given as public_key");
    }
    if text.starts_with(b"ssh-") || text.starts_with(b"ecdsa-sha2-") {
        return Some("a public key of SSH, not a secret: it is given as public_key, in PEM");
    }
    if public_key(secret).is_ok() {
        return Some("a public key in DER, not a secret: it is given as public_key, in PEM");
    }
    let json = if text.starts_with(b"{") { serde_json::from_slice::<Value>(text).ok() } else { None };
    if json.is_some_and(|json| json.get("kty").is_some() || json.get("keys").is_some()) {
        return Some("a JSON Web Key, not a secret: a key set is given as jwks");
    }
    None
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Whether the point is one of the curve: the library would find out with the first signature, an operator wants to
/// know when the policy loads.
fn on_curve(point: &[u8]) -> Result<(), String> {
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .map(|_| ())
        .map_err(|_| "a point that is not on P-256".to_owned())
}

/// A SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) into a key of the kind that its object identifier names.
fn public_key(spki: &[u8]) -> Result<(Algorithm, DecodingKey, usize), String> {
    let none = || "a public key of a kind that is not known here: RSA, P-256 or Ed25519".to_owned();
    let (header, key) = spki_parts(spki).ok_or_else(none)?;
    /// rsaEncryption (RFC 8017 appendix A.1), NULL.
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    /// id-ecPublicKey on prime256v1 (RFC 5480 section 2.1.1).
    const P256: &[u8] = &[
        0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
        0x01, 0x07,
    ];
    /// id-Ed25519 (RFC 8410 section 3).
    const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    match header {
        RSA => {
            let (sequence, []) = tlv(0x30, key).ok_or_else(none)? else { return Err(none()) };
            let (modulus, rest) = tlv(0x02, sequence).ok_or_else(none)?;
            let (exponent, []) = tlv(0x02, rest).ok_or_else(none)? else { return Err(none()) };
            let (key, length) = rsa_key(modulus, exponent)?;
            Ok((Algorithm::RS256, key, length))
        }
        P256 if key.len() == 1 + 2 * COORDINATE && key[0] == 4 => {
            on_curve(key)?;
            Ok((Algorithm::ES256, DecodingKey::from_ec_der(key), 64))
        }
        ED25519 if key.len() == COORDINATE => Ok((Algorithm::EdDSA, DecodingKey::from_ed_der(key), 64)),
        _ => Err(none()),
    }
}

/// The algorithm's identifier and the key's bytes.
fn spki_parts(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, []) = tlv(0x30, spki)? else { return None };
    let (algorithm, rest) = tlv(0x30, sequence)?;
    let (bits, []) = tlv(0x03, rest)? else { return None };
    let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    Some((algorithm, key))
}

/// One element of DER with this tag: its content, and what follows.
fn tlv(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = input.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;
    use serde_json::json;

    const PUBLIC: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

    /// The key of RFC 7515 appendix A.3.
    fn ec() -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "kid": "e",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    /// The key of RFC 8037 appendix A.2.
    fn ed() -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "d", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
    }

    fn rsa(bits: usize) -> Value {
        let mut modulus = vec![0xff; bits / 8];
        modulus[0] = 0x80;
        json!({ "kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" })
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn read(keys: &[Value], accepted: &[Algorithm]) -> Result<(KeySet, Vec<String>), String> {
        KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes(), accepted)
    }

    #[test]
    fn a_set_has_the_keys_that_can_be_used_and_says_why_not_the_others() {
        let odd = json!({ "kty": "XX", "kid": "x" });
        let (set, skipped) = read(&[ec(), odd, ed(), rsa(2048), json!(7)], &PUBLIC).unwrap();
        let keys: Vec<_> =
            set.iter().map(|key| (key.id().unwrap(), key.algorithm(), key.signature_bytes())).collect();
        assert_eq!(
            keys,
            [("e", Algorithm::ES256, 64), ("d", Algorithm::EdDSA, 64), ("r", Algorithm::RS256, 256)]
        );
        assert_eq!(skipped.len(), 2, "{skipped:?}");
    }

    #[test]
    fn keys_that_must_not_be_used_are_not() {
        let secret = json!({ "kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode([1; 32]) });
        for (key, why) in [
            (with(ec(), "use", json!("enc")), "use is not sig"),
            (with(ec(), "key_ops", json!(["sign"])), "key_ops"),
            (with(ec(), "key_ops", json!("verify")), "key_ops"),
            (with(ec(), "use", json!(["sig"])), "use is not sig"),
            (with(ec(), "kid", json!(7)), "kid is not a string"),
            (with(ec(), "d", json!("AAAA")), "private key"),
            (with(rsa(2048), "d", json!("AAAA")), "private key"),
            (with(rsa(2048), "e", json!("AQAAAAAB")), "exponent"),
            (with(ec(), "alg", json!("RS256")), "alg"),
            (with(ec(), "alg", json!(7)), "alg"),
            (with(ec(), "crv", json!("P-384")), "not known here"),
            (with(ec(), "x", json!("AAAA")), "32 bytes"),
            (with(ec(), "x", ed()["x"].clone()), "not on P-256"),
            (with(ec(), "x", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU=")), "not base64url"),
            (with(ed(), "x", json!("AAAA")), "32 bytes"),
            (with(ed(), "crv", json!("X25519")), "not known here"),
            (rsa(1024), "2048"),
            (rsa(16384), "2048"),
            (with(rsa(2048), "e", json!("AQ")), "exponent"),
            (with(rsa(2048), "e", json!("Ag")), "exponent"),
            (with(rsa(2048), "e", json!("")), "exponent"),
            (with(rsa(2048), "n", json!(null)), "no n"),
            (with(rsa(2048), "n", json!(URL_SAFE_NO_PAD.encode([0xfe; 256]))), "even"),
            (secret.clone(), "not in algorithms"),
        ] {
            let told = read(std::slice::from_ref(&key), &PUBLIC).expect_err(&key.to_string());
            assert!(told.contains(why), "{key}: {told}");
        }
        let told = read(std::slice::from_ref(&secret), &[Algorithm::HS256, Algorithm::ES256]).unwrap_err();
        assert!(told.contains("among public keys"), "{told}");
        assert!(read(&[secret], &[Algorithm::HS256]).is_ok());
        assert!(read(&[ec()], &[Algorithm::RS256]).unwrap_err().contains("not in algorithms"));
        assert!(read(&[ec(), with(ec(), "x", ec()["y"].clone())], &PUBLIC).unwrap_err().contains("same kid"));
        for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(KeySet::from_jwks(text.as_bytes(), &PUBLIC).is_err(), "{text}");
        }
        assert!(read(&vec![json!({}); KEYS_MAX + 1], &PUBLIC).unwrap_err().contains("at most"));
    }

    #[test]
    fn a_secret_has_at_least_the_bits_of_its_hash() {
        assert!(KeySet::default().add_secret(None, &[0; 31]).unwrap_err().contains("248 bits"));
        assert!(KeySet::default().add_secret(None, &[0; 32]).is_ok());
    }

    #[test]
    fn a_public_key_in_pem_is_of_the_kind_that_it_says() {
        let pem = |pair: rcgen::KeyPair| pair.public_key_pem();
        let ec = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap());
        let ed = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
        let p384 = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        let rsa = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
        for (pem, algorithm) in [(&ec, Algorithm::ES256), (&ed, Algorithm::EdDSA), (&rsa, Algorithm::RS256)] {
            let mut set = KeySet::default();
            set.add_pem(Some("k"), pem.as_bytes(), &PUBLIC).unwrap();
            assert_eq!(set.iter().next().map(Key::algorithm), Some(algorithm));
            let others: Vec<_> = PUBLIC.into_iter().filter(|other| *other != algorithm).collect();
            assert!(
                KeySet::default()
                    .add_pem(None, pem.as_bytes(), &others)
                    .unwrap_err()
                    .contains("not in algorithms")
            );
        }
        let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (pem, why) in [
            (private.as_str(), "private key"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate"),
            (&p384, "not known here"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not known here"),
            ("nothing", "no public key in PEM"),
        ] {
            let told = KeySet::default().add_pem(None, pem.as_bytes(), &PUBLIC).expect_err(pem);
            assert!(told.contains(why), "{pem}: {told}");
        }
    }

    #[test]
    fn a_key_is_found_by_its_id_and_algorithm_and_in_no_other_way() {
        let (set, _) = read(&[ec(), ed()], &PUBLIC).unwrap();
        assert!(matches!(set.find(Some("e"), Algorithm::ES256), Found::Key(_)));
        assert!(matches!(set.find(Some("e"), Algorithm::EdDSA), Found::OtherAlgorithm));
        assert!(matches!(set.find(Some("x"), Algorithm::ES256), Found::None));
        assert!(matches!(set.find(None, Algorithm::EdDSA), Found::Key(_)));
        assert!(matches!(set.find(None, Algorithm::HS256), Found::OtherAlgorithm));
        let mut lone = KeySet::default();
        lone.add_secret(None, &[0; 32]).unwrap();
        assert!(
            matches!(lone.find(Some("any"), Algorithm::HS256), Found::Key(_)),
            "a key without an id is the issuer's only one"
        );
        assert!(matches!(lone.find(Some("any"), Algorithm::ES256), Found::None));
    }

    #[test]
    fn what_is_wrong_with_a_set_is_told_and_nothing_else() {
        let told = read(&[], &PUBLIC).unwrap_err();
        assert!(told.contains("empty"), "{told}");
        let told = read(&[with(ec(), "use", json!("enc"))], &PUBLIC).unwrap_err();
        assert!(told.contains("use") && !told.contains("algorithms"), "{told}");
        let told = read(&[ec(), with(ed(), "use", json!("enc"))], &[Algorithm::RS256, Algorithm::EdDSA])
            .unwrap_err();
        assert!(told.contains("use") && told.contains("algorithms"), "{told}");
    }

    #[test]
    fn a_key_that_is_public_is_no_secret() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let (pem, der) = (pair.public_key_pem(), pair.subject_public_key_info());
        let rsa_der =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().subject_public_key_info();
        let jwk = ec().to_string();
        let set = json!({ "keys": [ec()] }).to_string();
        let ssh = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8Q a@b";
        let blank = format!("\n  {pem}");
        for secret in [pem.as_bytes(), blank.as_bytes(), &der, &rsa_der, jwk.as_bytes(), set.as_bytes(), ssh]
        {
            let told =
                KeySet::default().add_secret(None, secret).expect_err(&String::from_utf8_lossy(secret));
            assert!(told.contains("public_key") || told.contains("jwks"), "{told}");
        }
        for secret in [
            &b"-----a secret with dashes at its start-----"[..],
            b"{\"a\":\"some JSON that is not any key\"}",
        ] {
            assert_eq!(KeySet::default().add_secret(None, secret), Ok(()));
        }
    }

    #[test]
    fn a_modulus_with_a_zero_before_it_is_the_same_modulus() {
        // RFC 7518 section 6.3.1.1 knows of writers that do so.
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let spki = pair.subject_public_key_info();
        let (_, key) = spki_parts(&spki).unwrap();
        let (modulus, _) = tlv(0x02, tlv(0x30, key).unwrap().0).unwrap();
        assert_eq!(modulus[0], 0, "as DER has it");
        let signing = jsonwebtoken::EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        let signature =
            jsonwebtoken::crypto::sign(b"message", &signing, jsonwebtoken::Algorithm::RS256).unwrap();
        for modulus in [modulus, &modulus[1..]] {
            let jwk = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" });
            let (set, _) = read(&[jwk], &PUBLIC).unwrap();
            let key = set.iter().next().unwrap();
            assert_eq!(key.signature_bytes(), 256);
            let verified = |message: &[u8]| {
                jsonwebtoken::crypto::verify(
                    &signature,
                    message,
                    key.decoding_key(),
                    jsonwebtoken::Algorithm::RS256,
                )
            };
            assert_eq!(verified(b"message").ok(), Some(true));
            assert_ne!(verified(b"massage").ok(), Some(true));
        }
    }
}
