//! The signature algorithms, and the kind of key that each of them needs.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    ED25519 as ED25519_VERIFICATION, ML_DSA_44, ML_DSA_65, ML_DSA_87, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use aws_lc_rs::{hmac, hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512};
use std::fmt;
use std::str::FromStr;

/// A JWS signature algorithm that the gateway verifies. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// Ed25519, under its names `EdDSA` (RFC 8037) and `Ed25519` (RFC 9864).
    EdDSA,
    /// ML-DSA-44 (FIPS 204, RFC 9964).
    MlDsa44,
    /// ML-DSA-65.
    MlDsa65,
    /// ML-DSA-87.
    MlDsa87,
}

/// The name that RFC 9864 section 2.2 gives to `EdDSA` with Ed25519.
pub const ED25519: &str = "Ed25519";

/// The kind of a key. Only RSA keys and secrets fit more than one algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Secret,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
    MlDsa44,
    MlDsa65,
    MlDsa87,
}

impl KeyKind {
    /// Returns the name of the kind for messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Rsa => "RSA key",
            Self::P256 => "P-256 key",
            Self::P384 => "P-384 key",
            Self::P521 => "P-521 key",
            Self::Ed25519 => "Ed25519 key",
            Self::MlDsa44 => "ML-DSA-44 key",
            Self::MlDsa65 => "ML-DSA-65 key",
            Self::MlDsa87 => "ML-DSA-87 key",
        }
    }

    /// Returns the length in bytes of a public key of this kind, as the signature library expects it: an uncompressed
    /// point, or the key's only number. `None` for RSA keys and secrets, whose length varies.
    pub(super) const fn key_bytes(self) -> Option<usize> {
        match self {
            Self::Secret | Self::Rsa => None,
            Self::P256 => Some(1 + 2 * 32),
            Self::P384 => Some(1 + 2 * 48),
            Self::P521 => Some(1 + 2 * 66),
            Self::Ed25519 => Some(32),
            Self::MlDsa44 => Some(1312),
            Self::MlDsa65 => Some(1952),
            Self::MlDsa87 => Some(2592),
        }
    }

    /// Returns the algorithm of a key that does not name its algorithm: the only accepted algorithm that fits this kind
    /// of key. A key has exactly one algorithm (RFC 8725 section 3.1). `None` if no accepted algorithm fits.
    ///
    /// # Errors
    /// Returns an error if several accepted algorithms fit.
    pub(super) fn only_algorithm(self, accepted: &[Algorithm]) -> Result<Option<Algorithm>, String> {
        let fitting: Vec<Algorithm> =
            Algorithm::ALL.into_iter().filter(|it| it.kind() == self && accepted.contains(it)).collect();
        match &fitting[..] {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            several => Err(format!(
                "the {} does not say its algorithm, and {} of the accepted ones fit it ({}): a key has one algorithm",
                self.name(),
                several.len(),
                several.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

/// The library's verification of the signatures of an algorithm.
pub(super) enum Verification {
    Secret(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    Public(&'static dyn VerificationAlgorithm),
}

impl Algorithm {
    /// All algorithms, in the order of the documentation.
    pub const ALL: [Self; 16] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
        Self::MlDsa44,
        Self::MlDsa65,
        Self::MlDsa87,
    ];

    /// Returns the name (RFC 7518 section 3.1, RFC 8037, RFC 9964).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }

    /// Returns whether the key is a secret that the issuer and the gateway share.
    pub const fn has_secret(self) -> bool {
        matches!(self.kind(), KeyKind::Secret)
    }

    /// Returns the kind of key that the algorithm needs.
    pub(super) const fn kind(self) -> KeyKind {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => KeyKind::Secret,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => KeyKind::Rsa,
            Self::ES256 => KeyKind::P256,
            Self::ES384 => KeyKind::P384,
            Self::ES512 => KeyKind::P521,
            Self::EdDSA => KeyKind::Ed25519,
            Self::MlDsa44 => KeyKind::MlDsa44,
            Self::MlDsa65 => KeyKind::MlDsa65,
            Self::MlDsa87 => KeyKind::MlDsa87,
        }
    }

    /// Returns how the signature library verifies signatures of this algorithm.
    pub(super) fn verification(self) -> Verification {
        match self {
            Self::HS256 => Verification::Secret(HMAC_SHA256),
            Self::HS384 => Verification::Secret(HMAC_SHA384),
            Self::HS512 => Verification::Secret(HMAC_SHA512),
            Self::RS256 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Verification::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Verification::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Verification::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::ES256 => Verification::Public(&ECDSA_P256_SHA256_FIXED),
            Self::ES384 => Verification::Public(&ECDSA_P384_SHA384_FIXED),
            Self::ES512 => Verification::Public(&ECDSA_P521_SHA512_FIXED),
            Self::EdDSA => Verification::Public(&ED25519_VERIFICATION),
            Self::MlDsa44 => Verification::Public(&ML_DSA_44),
            Self::MlDsa65 => Verification::Public(&ML_DSA_65),
            Self::MlDsa87 => Verification::Public(&ML_DSA_87),
        }
    }

    /// Returns the length of a signature in bytes. `None` for RSA, whose signatures are as long as the key's modulus.
    /// The length of an HMAC is also the minimum length of its secret (RFC 7518 section 3.2).
    pub(super) const fn signature_bytes(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => None,
            // Two numbers, each as long as the order of the curve (RFC 7518 section 3.4).
            Self::ES256 => Some(2 * 32),
            Self::ES384 => Some(2 * 48),
            Self::ES512 => Some(2 * 66),
            Self::EdDSA => Some(64),
            Self::MlDsa44 => Some(2420),
            Self::MlDsa65 => Some(3309),
            Self::MlDsa87 => Some(4627),
        }
    }

    /// Returns this algorithm as a value of `jsonwebtoken`, the library that signs the local authority's tokens. `None`
    /// if that library does not support the algorithm; the authority cannot sign with such an algorithm.
    pub(crate) const fn as_library(self) -> Option<jsonwebtoken::Algorithm> {
        use jsonwebtoken::Algorithm as Library;
        match self {
            Self::HS256 => Some(Library::HS256),
            Self::HS384 => Some(Library::HS384),
            Self::HS512 => Some(Library::HS512),
            Self::RS256 => Some(Library::RS256),
            Self::RS384 => Some(Library::RS384),
            Self::RS512 => Some(Library::RS512),
            Self::PS256 => Some(Library::PS256),
            Self::PS384 => Some(Library::PS384),
            Self::PS512 => Some(Library::PS512),
            Self::ES256 => Some(Library::ES256),
            Self::ES384 => Some(Library::ES384),
            Self::EdDSA => Some(Library::EdDSA),
            Self::ES512 | Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => None,
        }
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // RFC 9864 section 4.1 deprecates `EdDSA`, because it does not determine the curve. Here the curve is always
        // Ed25519, so both names mean the same.
        if text == ED25519 {
            return Ok(Self::EdDSA);
        }
        Self::ALL.into_iter().find(|a| a.as_str() == text).ok_or(())
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
pub(super) mod tests;
