//! A signing key: generation, PEM encoding, parsing, and identification by thumbprint.

use super::fault::{FileFault, KeyringFault};
use crate::authenticate::{Algorithm, KeySet};
use crate::pem;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use zeroize::Zeroizing;

/// The algorithms that the authority can sign with. RS256 is the only RSA algorithm, because a key file does not state
/// for which RSA algorithm its key was generated. The secrets of the HMAC algorithms are read from the configuration.
pub const SIGNING: [Algorithm; 6] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::ES256,
    Algorithm::EdDSA,
];

/// The kinds of key pairs that the authority generates and reads from files.
#[derive(Clone, Copy)]
enum PairKind {
    P256,
    Ed25519,
    Rsa,
}

impl PairKind {
    /// Returns the kind of the key pairs for an algorithm; `None` if the authority does not sign with key pairs for it.
    const fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::ES256 => Some(Self::P256),
            Algorithm::EdDSA => Some(Self::Ed25519),
            Algorithm::RS256 => Some(Self::Rsa),
            Algorithm::HS256
            | Algorithm::HS384
            | Algorithm::HS512
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512
            | Algorithm::ES384
            | Algorithm::ES512
            | Algorithm::MlDsa44
            | Algorithm::MlDsa65
            | Algorithm::MlDsa87 => None,
        }
    }
}

/// A key that signs tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    id: String,
    encoding: EncodingKey,
    /// The public half as a JSON Web Key; `None` for a shared secret.
    jwk: Option<String>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Creates a key from a shared secret.
    pub(super) fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyringFault> {
        // `KeySet` checks that the secret is long enough.
        let checked = KeySet::default().add_secret(None, algorithm, secret);
        checked.map_err(|why| KeyringFault::Secret(why.to_string()))?;
        Ok(Self {
            algorithm,
            id: algorithm.as_str().to_lowercase(),
            encoding: EncodingKey::from_secret(secret),
            jwk: None,
        })
    }

    /// Generates a key. Returns it with its PKCS#8 form, by which it can be stored.
    pub(super) fn generate(algorithm: Algorithm) -> Result<(Self, Zeroizing<Vec<u8>>), KeyringFault> {
        let pkcs8 = pkcs8(algorithm)?;
        let key = Self::from_pkcs8(algorithm, &pkcs8);
        let key = key.ok_or_else(|| KeyringFault::Internal("the generated key is invalid".to_owned()))?;
        Ok((key, pkcs8))
    }

    /// Parses a private key in PEM.
    pub(super) fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, FileFault> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| FileFault::NotPem(pem::fault(&error)))?;
        Self::from_pkcs8(algorithm, der.secret_pkcs8_der()).ok_or(FileFault::WrongAlgorithm(algorithm))
    }

    pub(super) fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Option<Self> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // A thumbprint is the hash of the required members in lexical order, without whitespace (RFC 7638 section 3).
        let (required, encoding) = match PairKind::of(algorithm)? {
            PairKind::P256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
                let (x, y) = pair.public_key().as_ref().get(1..65)?.split_at(32);
                let required =
                    format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y));
                (required, EncodingKey::from_ec_der(pkcs8))
            }
            PairKind::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
                let x = encode(pair.public_key().as_ref());
                (format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#), EncodingKey::from_ed_der(pkcs8))
            }
            PairKind::Rsa => {
                // The library rejects moduli under 2048 bits.
                let pair = RsaKeyPair::from_pkcs8(pkcs8).ok()?;
                let n = encode(pair.public_key().modulus().big_endian_without_leading_zero());
                let e = encode(pair.public_key().exponent().big_endian_without_leading_zero());
                // `jsonwebtoken` expects an RSA key in PKCS#1, which is the inner part of PKCS#8.
                let pkcs1 = pkcs1_within(pkcs8)?;
                (format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#), EncodingKey::from_rsa_der(pkcs1))
            }
        };
        let id = encode(digest(&SHA256, required.as_bytes()).as_ref());
        let members = required.trim_start_matches('{').trim_end_matches('}');
        let jwk = format!(r#"{{{members},"alg":"{algorithm}","kid":"{id}","use":"sig"}}"#);
        Some(Self { algorithm, id, encoding, jwk: Some(jwk) })
    }

    /// Returns the algorithm with which the key signs.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the key's id, which is its thumbprint (RFC 7638). Tokens that the key signs contain the id as their
    /// `kid`. The id of a shared secret is the name of its algorithm in lower case.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the key in the form that `jsonwebtoken` uses.
    pub(crate) const fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }

    /// Returns the public half of the key as a JSON Web Key (RFC 7517 section 4); `None` for a shared secret, which is
    /// never published.
    pub(super) fn jwk(&self) -> Option<&str> {
        self.jwk.as_deref()
    }
}

/// Returns the RSAPrivateKey (RFC 8017 appendix A.1.2) within a PrivateKeyInfo (RFC 5208 section 5). It is the content
/// of the only OCTET STRING, which follows the version and the algorithm. For keys of these sizes, DER lengths have two
/// bytes.
fn pkcs1_within(pkcs8: &[u8]) -> Option<&[u8]> {
    let start = pkcs8.windows(2).skip(4).position(|pair| pair == [0x04, 0x82])? + 4;
    let length = u16::from_be_bytes([*pkcs8.get(start + 2)?, *pkcs8.get(start + 3)?]);
    pkcs8.get(start + 4..start + 4 + usize::from(length))
}

/// Generates a private key in PKCS#8.
fn pkcs8(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, KeyringFault> {
    let failed = |_| KeyringFault::Random;
    let random = SystemRandom::new();
    let kind = PairKind::of(algorithm).ok_or_else(|| match algorithm.has_secret() {
        true => KeyringFault::SecretInPolicy,
        false => KeyringFault::Internal(format!("the authority does not sign with {algorithm}")),
    })?;
    let pkcs8 = match kind {
        PairKind::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(failed)?
            .as_ref()
            .to_vec(),
        // OpenSSL does not parse version 2 of PKCS#8 (findings/ed25519-key-that-openssl-cannot-parse.sh).
        PairKind::Ed25519 => Ed25519KeyPair::generate_pkcs8v1(&random).map_err(failed)?.as_ref().to_vec(),
        PairKind::Rsa => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
            der.as_ref().to_vec()
        }
    };
    Ok(Zeroizing::new(pkcs8))
}

/// Returns a private key in PKCS#8 as PEM (RFC 7468 section 10).
pub(super) fn pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(pkcs8));
    // The whole text is allocated at once: a reallocation would leave parts of the key in memory.
    let mut pem = Zeroizing::new(String::with_capacity(encoded.len() * 66 / 64 + 128));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An RSA key of 1024 bits, generated with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024`.
    const WEAK: &str = "-----BEGIN PRIVATE KEY-----
MIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBAMzV9gPpLcrvqLcr
b9cEE3JfOXS8WuPDjfvKA6ikyIStaVbtpRG5mN1x1OFnC3qBx8m5ZrWPAAeCjCVe
d7mM3fYDLOvJYPDGjKeh+5NxJi6PPARn16G4YOWYeAdMwt640ieSdOEHCc/fwaO0
2xBceRF3XnFrsAlRzCwuDWYLxKoJAgMBAAECgYBoOQ3eW40DTwIngSB85QQIE8+m
SBhu/5eE3/sQmhe0+o84vd5ZsHfJZRwOPGIoyVQgngdWphY7u/8XHIQKk1Rz6HAJ
l3016PLHyKQzJqi4aTrNJud13PMkqz5EhFz+IK3MjDBRsYSOfhU9F/IfOZJyv3BJ
EgZDPM4Znwg7MKfxoQJBAPyDI+9b5pMSSntMfEaKyU4xyv1bBMpJMcvbWhe2m5vc
ItGFQ/frAQggUiRT7Bl0EPTl1StYj/INE9NHXp0paxUCQQDPqj22vrjuJgxsYGrX
DPZKNmFDJQrU/wQJg8oRdfDsv97QSJOSSf/JVmWH/zuiGFSXBb3vnVdbONmzbfyN
83AlAkEA9K7a1mkWD7NsqvedgPmhQX0sdr6I8L9mWmSuc0YGmUwCDUb2ari04jv3
fK45nRyEBdrj6kHCEkmryVJiEyZ8VQJBAKnna5685KlUUA3LxR416LxHScSZ5gbm
rvLp9MXcbUYGpdJbzwF9sd2U5nUiijPRHESD2ibV4Mct+FApyNyLNFECQQDjkHXu
hKyWFIEjFfpFD3ScAwqN+egPCzLjDFTkpSQv8XRU78EMqn6ODp6+UyuoG2QPgfVp
kUGBxPJYzKBhac6y
-----END PRIVATE KEY-----
";

    #[test]
    fn a_key_id_is_its_thumbprint() {
        // RFC 8037 appendix A.1 contains the private key; appendix A.3 contains the thumbprint of its public half.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let pkcs8 =
            [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
        let key = SigningKey::from_pkcs8(Algorithm::EdDSA, &pkcs8).unwrap();
        assert_eq!(key.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_generated_ed25519_key_has_the_version_of_pkcs8_that_openssl_parses() {
        let (_, pkcs8) = SigningKey::generate(Algorithm::EdDSA).unwrap();
        // RFC 8410 section 10.3: the first example has version 1, without the public key.
        let beginning = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        assert!(pkcs8.starts_with(&beginning) && pkcs8.len() == beginning.len() + 32);
    }

    #[test]
    fn a_generated_key_is_parsed_again_and_published_without_its_private_half() {
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
            let pem = pem(&SigningKey::generate(algorithm).unwrap().1);
            assert!(pem.lines().all(|line| line.len() <= 64) && pem.capacity() < 4096, "{algorithm}");
            let key = SigningKey::from_pem(algorithm, pem.as_bytes()).unwrap();
            let jwk: serde_json::Value = serde_json::from_str(key.jwk().unwrap()).unwrap();
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(jwk.get(private).is_none(), "{algorithm} {private}");
            }
            assert_eq!(jwk["kid"], key.id());
            for other in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
                assert_eq!(SigningKey::from_pem(other, pem.as_bytes()).is_ok(), other == algorithm);
            }
        }
        assert!(SigningKey::generate(Algorithm::HS256).is_err());
    }

    #[test]
    fn an_rsa_key_under_2048_bits_is_rejected() {
        assert!(SigningKey::from_pem(Algorithm::RS256, WEAK.as_bytes()).is_err());
    }
}
