//! Parses public keys in DER and PEM (RFC 5280, RFC 7468).

use super::{Algorithm, Key, KeySet};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use jsonwebtoken::DecodingKey;
use serde_json::Value;

/// The accepted lengths of an RSA modulus in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// The length of a coordinate of a P-256 point, in bytes. An Ed25519 key has the same length.
pub(super) const COORDINATE: usize = 32;

impl KeySet {
    /// Adds a public key in PEM (`BEGIN PUBLIC KEY`) whose algorithm is in `accepted`.
    ///
    /// # Errors
    /// Returns why the text does not contain such a key.
    pub fn add_pem(&mut self, id: Option<&str>, pem: &[u8], accepted: &[Algorithm]) -> Result<(), String> {
        use rustls::pki_types::SubjectPublicKeyInfoDer;
        use rustls::pki_types::pem::PemObject;
        let pem = without_mark(pem);
        let text = String::from_utf8_lossy(pem);
        if text.contains("PRIVATE KEY") {
            return Err("a private key: only its public half belongs here (openssl pkey -pubout)".to_owned());
        }
        if text.contains("BEGIN CERTIFICATE") {
            return Err(
                "a certificate: take the public key out of it (openssl x509 -pubkey -noout)".to_owned()
            );
        }
        if text.contains("BEGIN RSA PUBLIC KEY") {
            return Err("a key in PKCS#1 format (BEGIN RSA PUBLIC KEY): turn it into BEGIN PUBLIC KEY \
                        (openssl rsa -RSAPublicKey_in -pubout)"
                .to_owned());
        }
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|error| format!("no public key in PEM (BEGIN PUBLIC KEY): {error}"))?;
        let (algorithm, key, length) = public_key(&spki)?;
        if !accepted.contains(&algorithm) {
            return Err(format!("a key for {algorithm}, which is not in algorithms"));
        }
        self.insert(Key::new(id, algorithm, key, length))
    }
}

/// Removes a byte order mark, which some editors write. RFC 8259 section 8.1 allows parsers to ignore the mark.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Builds an RSA key. Returns the key and the length of its signatures in bytes.
pub(super) fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Result<(DecodingKey, usize), String> {
    // DER requires a zero byte before a number whose first bit is set. Some JSON writers also write this zero (RFC 7518
    // section 6.3.1.1). With the zero, the library would reject every signature.
    let (modulus, exponent) = (strip_zeros(modulus), strip_zeros(exponent));
    if !RSA_BYTES.contains(&modulus.len()) || modulus.len() == *RSA_BYTES.start() && modulus[0] < 0x80 {
        return Err("an RSA key of fewer than 2048 or more than 8192 bits".to_owned());
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !odd(modulus) {
        return Err("an invalid RSA modulus: it is even".to_owned());
    }
    // The library supports exponents of up to 33 bits. With a longer exponent, it would reject every signature.
    let short = exponent.len() < 5 || exponent.len() == 5 && exponent[0] == 1;
    if !odd(exponent) || exponent == [1] || !short {
        return Err(
            "an invalid RSA exponent: it must be odd, at least 3, and at most 33 bits long".to_owned()
        );
    }
    Ok((DecodingKey::from_rsa_raw_components(modulus, exponent), modulus.len()))
}

/// Returns a description of the text if it is a published key and not a secret (CVE-2022-29217); `None` if it can be a
/// secret.
pub(super) fn no_secret(secret: &[u8]) -> Option<&'static str> {
    let text = secret.trim_ascii_start();
    if text.starts_with(b"-----BEGIN ") {
        return Some("a PEM file, not a secret: a public key belongs in public_key");
    }
    if text.starts_with(b"ssh-") || text.starts_with(b"ecdsa-sha2-") {
        return Some("an SSH public key, not a secret: it belongs in public_key, in PEM");
    }
    if public_key(secret).is_ok() {
        return Some("a public key in DER, not a secret: it belongs in public_key, in PEM");
    }
    let json = if text.starts_with(b"{") { serde_json::from_slice::<Value>(text).ok() } else { None };
    if json.is_some_and(|json| json.get("kty").is_some() || json.get("keys").is_some()) {
        return Some("a JSON Web Key, not a secret: a key set belongs in jwks");
    }
    None
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Checks that the point is on the curve. The library would find an invalid point only at the first signature, but the
/// operator should learn of it when the policy loads.
pub(super) fn on_curve(point: &[u8]) -> Result<(), String> {
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .map(|_| ())
        .map_err(|_| "a point that is not on P-256".to_owned())
}

/// Parses a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7). Its object identifier determines the type of the key. Also
/// returns the length of the key's signatures in bytes.
fn public_key(spki: &[u8]) -> Result<(Algorithm, DecodingKey, usize), String> {
    let none = || "a public key of a kind that is not known here: use RSA, P-256 or Ed25519".to_owned();
    let (header, key) = spki_parts(spki).ok_or_else(none)?;
    /// The object identifier rsaEncryption (RFC 8017 appendix A.1), followed by NULL.
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    /// The object identifiers id-ecPublicKey and prime256v1 (RFC 5480 section 2.1.1).
    const P256: &[u8] = &[
        0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
        0x01, 0x07,
    ];
    /// The object identifier id-Ed25519 (RFC 8410 section 3).
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

/// Splits a SubjectPublicKeyInfo into the algorithm's identifier and the key's bytes.
pub(super) fn spki_parts(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, []) = tlv(0x30, spki)? else { return None };
    let (algorithm, rest) = tlv(0x30, sequence)?;
    let (bits, []) = tlv(0x03, rest)? else { return None };
    let (0, key) = bits.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    Some((algorithm, key))
}

/// Splits off one DER element with this tag. Returns its content and the remaining input.
pub(super) fn tlv(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
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
