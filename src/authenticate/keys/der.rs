//! Parses public keys in DER and PEM (RFC 5280, RFC 7468).

use super::{Algorithm, Key, KeyKind, KeySet};
use crate::pem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::Value;

/// The accepted lengths of an RSA modulus in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A public key before its algorithm is known.
pub(super) enum PublicKey<'k> {
    /// The two numbers of an RSA key, not yet checked.
    Rsa { modulus: &'k [u8], exponent: &'k [u8] },
    /// A key of one of the other kinds, in the form of [`KeyKind::key_bytes`].
    Plain(KeyKind, &'k [u8]),
}

impl PublicKey<'_> {
    /// Returns the kind of the key.
    pub(super) const fn kind(&self) -> KeyKind {
        match self {
            Self::Rsa { .. } => KeyKind::Rsa,
            Self::Plain(kind, _) => *kind,
        }
    }
}

impl KeySet {
    /// Adds a public key in PEM (`BEGIN PUBLIC KEY`). The key's algorithm is the only algorithm in `accepted` that fits
    /// the key.
    ///
    /// # Errors
    /// Returns why the text does not contain such a key.
    pub fn add_pem(&mut self, id: Option<&str>, pem: &[u8], accepted: &[Algorithm]) -> Result<(), String> {
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
            .map_err(|error| format!("no public key in PEM (BEGIN PUBLIC KEY): {}", pem::fault(&error)))?;
        let key = public_key(&spki)?;
        let Some(algorithm) = key.kind().only_algorithm(accepted)? else {
            return Err(format!("a {}, and algorithms has none for it", key.kind().name()));
        };
        self.insert(Key::public(id, algorithm, &key)?)
    }
}

/// Removes a byte order mark, which some editors write. RFC 8259 section 8.1 allows parsers to ignore the mark.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Checks the modulus and the exponent of an RSA key. Returns them without leading zeros.
pub(super) fn rsa_numbers<'k>(modulus: &'k [u8], exponent: &'k [u8]) -> Result<(&'k [u8], &'k [u8]), String> {
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
    Ok((modulus, exponent))
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

/// Returns the public key of a certificate in PEM (RFC 5280 section 4.1). The certificate's dates, names and signature
/// are not checked, because the issuer vouches for every key in its key set.
pub(super) fn certificate_spki(pem: &str) -> Result<Vec<u8>, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| format!("no certificate in PEM: {error}"))?;
    spki_of(&der).map(<[u8]>::to_vec).ok_or_else(|| "not a certificate of X.509".to_owned())
}

/// Returns the SubjectPublicKeyInfo within a certificate, including its tag and length.
fn spki_of(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, []) = tlv(0x30, certificate)? else { return None };
    let (mut rest, _) = tlv(0x30, certificate)?;
    // Skips the version, which a certificate of version 1 omits.
    if let Some((_, after)) = tlv(0xa0, rest) {
        rest = after;
    }
    // Skips the serial number, the signature's algorithm, the issuer, the validity and the subject.
    for tag in [0x02, 0x30, 0x30, 0x30, 0x30] {
        rest = tlv(tag, rest)?.1;
    }
    let after = tlv(0x30, rest)?.1;
    Some(&rest[..rest.len() - after.len()])
}

/// Parses a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7). The object identifier in it determines the kind of the
/// key.
pub(super) fn public_key(spki: &[u8]) -> Result<PublicKey<'_>, String> {
    let none = || {
        "a public key of a kind that is not known here: use RSA, P-256, P-384, P-521, Ed25519 or ML-DSA"
            .to_owned()
    };
    let (header, key) = spki_parts(spki).ok_or_else(none)?;
    /// rsaEncryption (RFC 8017 appendix A.1), NULL.
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    /// id-ecPublicKey (RFC 5480 section 2.1.1); the curve follows.
    const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// secp256r1, secp384r1 and secp521r1 (RFC 5480 section 2.1.1.1).
    const CURVES: [(&[u8], KeyKind); 3] = [
        (&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], KeyKind::P256),
        (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], KeyKind::P384),
        (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], KeyKind::P521),
    ];
    /// id-Ed25519 (RFC 8410 section 3); id-ml-dsa-44, 65 and 87 (RFC 9881 section 2).
    const OTHERS: [(&[u8], KeyKind); 4] = [
        (&[0x06, 0x03, 0x2b, 0x65, 0x70], KeyKind::Ed25519),
        (&[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x11], KeyKind::MlDsa44),
        (&[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x12], KeyKind::MlDsa65),
        (&[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x13], KeyKind::MlDsa87),
    ];
    if header == RSA {
        let (sequence, []) = tlv(0x30, key).ok_or_else(none)? else { return Err(none()) };
        let (modulus, rest) = tlv(0x02, sequence).ok_or_else(none)?;
        let (exponent, []) = tlv(0x02, rest).ok_or_else(none)? else { return Err(none()) };
        return Ok(PublicKey::Rsa { modulus, exponent });
    }
    let (known, name) = match header.strip_prefix(EC) {
        Some(curve) => (&CURVES[..], curve),
        None => (&OTHERS[..], header),
    };
    let kind = known.iter().find(|(id, _)| *id == name).map(|(_, kind)| *kind).ok_or_else(none)?;
    let is_whole = kind.key_bytes() == Some(key.len());
    // A point must be in uncompressed form (RFC 5480 section 2.2), which is also the only form in a JSON key set.
    if is_whole && (header == name || key[0] == 4) { Ok(PublicKey::Plain(kind, key)) } else { Err(none()) }
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
