//! The local authority's signing key: made at first use, kept in the state folder, readable by nobody else.

use crate::authenticate::{Algorithm, KeySet};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::{self, SystemRandom};
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
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The key's file in the state folder.
const FILE: &str = "signing-key.pem";

/// The key that the local authority signs with.
pub struct Keyring {
    algorithm: Algorithm,
    id: String,
    signing: EncodingKey,
    verification: Verification,
}

enum Verification {
    /// The public half as a JSON Web Key Set.
    Jwks(String),
    /// The secret itself.
    Secret(Vec<u8>),
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("algorithm", &self.algorithm)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What to do where there is no key yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Make one and keep it.
    Make,
    /// Make one for the moment and keep nothing: for looking at a policy.
    Pretend,
}

impl Keyring {
    /// Opens the key under a state folder. With HS256 the key is the secret, and no file is touched.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn open(
        state: &Path,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        absent: Absent,
    ) -> Result<Self, String> {
        if algorithm == Algorithm::HS256 {
            return Self::from_secret(secret.ok_or("HS256 needs a secret")?);
        }
        let path = state.join(FILE);
        let fault = |error: io::Error| format!("{}: {error}", path.display());
        if !path.exists() {
            match absent {
                Absent::Make => make(state, &path, algorithm)?,
                Absent::Pretend => {
                    let key = generate(algorithm)?;
                    return Self::from_pkcs8(algorithm, &key)
                        .ok_or_else(|| "a key of ours is none".to_owned());
                }
            }
        }
        let mode = fs::metadata(&path).map_err(fault)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{}: others than its owner may read it (mode {:o}): chmod 600 it, and make a new key if others had the chance",
                path.display(),
                mode & 0o777
            ));
        }
        let pem = fs::read(&path).map_err(fault)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem)
            .map_err(|error| format!("{}: no private key in PKCS#8 PEM: {error}", path.display()))?;
        Self::from_pkcs8(algorithm, der.secret_pkcs8_der()).ok_or_else(|| {
            format!(
                "{}: not a key for {algorithm}: say [authority] algorithm as it was when the key was made, or move the file away so that a new key is made",
                path.display()
            )
        })
    }

    fn from_secret(secret: &[u8]) -> Result<Self, String> {
        // The set knows how long a secret has to be.
        KeySet::default().add_secret(None, secret)?;
        Ok(Self {
            algorithm: Algorithm::HS256,
            id: "hs256".to_owned(),
            signing: EncodingKey::from_secret(secret),
            verification: Verification::Secret(secret.to_vec()),
        })
    }

    fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Option<Self> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // The members of the thumbprint are in lexical order, without blanks (RFC 7638 section 3).
        let (required, signing) = match algorithm {
            Algorithm::HS256 => return None,
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
                let (x, y) = pair.public_key().as_ref().get(1..65)?.split_at(32);
                let required =
                    format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y));
                (required, EncodingKey::from_ec_der(pkcs8))
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
                let x = encode(pair.public_key().as_ref());
                (format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#), EncodingKey::from_ed_der(pkcs8))
            }
            Algorithm::RS256 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).ok()?;
                let n = encode(pair.public_key().modulus().big_endian_without_leading_zero());
                let e = encode(pair.public_key().exponent().big_endian_without_leading_zero());
                // The library reads an RSA key as PKCS#1, which is what PKCS#8 wraps.
                let pkcs1 = pkcs1_within(pkcs8)?;
                (format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#), EncodingKey::from_rsa_der(pkcs1))
            }
        };
        let id = encode(digest(&SHA256, required.as_bytes()).as_ref());
        let members = required.trim_start_matches('{').trim_end_matches('}');
        let jwks = format!(r#"{{"keys":[{{{members},"alg":"{algorithm}","kid":"{id}","use":"sig"}}]}}"#);
        Some(Self { algorithm, id, signing, verification: Verification::Jwks(jwks) })
    }

    /// What it signs with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key's id: its thumbprint (RFC 7638).
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) const fn signing_key(&self) -> &EncodingKey {
        &self.signing
    }

    /// The keys to verify its signatures with, read as any other issuer's are.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn key_set(&self) -> Result<KeySet, String> {
        match &self.verification {
            Verification::Jwks(jwks) => {
                KeySet::from_jwks(jwks.as_bytes(), &[self.algorithm]).map(|(set, _)| set)
            }
            Verification::Secret(secret) => {
                let mut set = KeySet::default();
                set.add_secret(Some(&self.id), secret)?;
                Ok(set)
            }
        }
    }
}

/// The RSAPrivateKey (RFC 8017 appendix A.1.2) within a PrivateKeyInfo (RFC 5208 section 5): the content of its only
/// OCTET STRING, behind the version and the algorithm, all with lengths of two bytes for keys of these sizes.
fn pkcs1_within(pkcs8: &[u8]) -> Option<&[u8]> {
    let start = pkcs8.windows(2).skip(4).position(|pair| pair == [0x04, 0x82])? + 4;
    let length = u16::from_be_bytes([*pkcs8.get(start + 2)?, *pkcs8.get(start + 3)?]);
    pkcs8.get(start + 4..start + 4 + usize::from(length))
}

fn generate(algorithm: Algorithm) -> Result<Vec<u8>, String> {
    let failed = |_| "the system's random numbers failed".to_owned();
    let random = SystemRandom::new();
    match algorithm {
        Algorithm::HS256 => Err("a secret is not made here".to_owned()),
        Algorithm::ES256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map(|document| document.as_ref().to_vec())
            .map_err(failed),
        Algorithm::EdDSA => {
            Ed25519KeyPair::generate_pkcs8(&random).map(|document| document.as_ref().to_vec()).map_err(failed)
        }
        Algorithm::RS256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
            Ok(der.as_ref().to_vec())
        }
    }
}

/// Makes a key and puts it in place whole. Of two processes that do this at once, one places its key and both use it.
fn make(state: &Path, path: &Path, algorithm: Algorithm) -> Result<(), String> {
    let encoded = STANDARD.encode(generate(algorithm)?);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");

    let fault = |path: &Path, error: io::Error| format!("{}: cannot be made: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(|error| fault(state, error))?;
    let mut nonce = [0; 8];
    rand::fill(&mut nonce).map_err(|_| "the system's random numbers failed".to_owned())?;
    let partial = state.join(format!("{FILE}.{:016x}", u64::from_le_bytes(nonce)));
    let place = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        // A link is made only where nothing is yet; renaming would replace another process's key.
        match fs::hard_link(&partial, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    };
    let placed = place();
    // Half of a key, or a second name of it, is of use to nobody.
    let _ = fs::remove_file(&partial);
    placed.map_err(|error| fault(path, error))
}
