//! The local authority's signing key: made at first use, kept in the state folder, readable by nobody else.

use crate::authenticate::{Algorithm, KeySet};
use crate::state::place_once;
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
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The key's file in the state folder.
const FILE: &str = "signing-key.pem";
/// As much of it as is read: an RSA key of 8192 bits has 6.5 KiB.
const FILE_MAX: u64 = 64 * 1024;

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
        // One handle, so that the file whose mode is looked at is the file that is read.
        let file = File::open(&path).map_err(fault)?;
        let mode = file.metadata().map_err(fault)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{}: others than its owner may read it (mode {:o}): chmod 600 it, and make a new key if others had the chance",
                path.display(),
                mode & 0o777
            ));
        }
        let mut pem = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut pem).map_err(fault)?;
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

    place_once(state, path, pem.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, DirBuilder, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("portcullis-keyring-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A private key as it would lie in the state folder.
    fn place(folder: &Folder, pem: &str) {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder.0).unwrap();
        let path = folder.0.join(FILE);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(pem.as_bytes()).unwrap();
    }

    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        // RFC 8037 appendices A.1 and A.3: a private key, and the thumbprint of its public half.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let pkcs8 =
            [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
        let keyring = Keyring::from_pkcs8(Algorithm::EdDSA, &pkcs8).unwrap();
        assert_eq!(keyring.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let keys = keyring.key_set().unwrap();
        let listed: Vec<_> = keys.iter().map(|key| (key.id(), key.algorithm())).collect();
        assert_eq!(listed, [(Some(keyring.id()), Algorithm::EdDSA)]);
    }

    #[test]
    fn looking_at_a_policy_leaves_nothing_behind() {
        let folder = Folder::new("pretend");
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
            assert!(Keyring::open(&folder.0, algorithm, None, Absent::Pretend).is_ok());
        }
        assert!(!folder.0.exists());
    }

    #[test]
    fn a_secret_is_given_and_long_enough_and_touches_no_file() {
        let folder = Folder::new("secret");
        let open = |secret| Keyring::open(&folder.0, Algorithm::HS256, secret, Absent::Make);
        assert_eq!(open(Some(&[7; 32])).unwrap().id(), "hs256");
        assert!(open(Some(&[7; 31])).unwrap_err().contains("248 bits"));
        assert!(open(None).unwrap_err().contains("needs a secret"));
        assert!(!folder.0.exists());
    }

    #[test]
    fn a_file_that_is_no_key_is_neither_taken_nor_replaced() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        let public = rcgen::KeyPair::generate().unwrap().public_key_pem();
        let large = "A".repeat(1 << 20);
        for (at, pem) in ["", "nothing", &p384, &public, &large].into_iter().enumerate() {
            let folder = Folder::new(&format!("garbage-{at}"));
            place(&folder, pem);
            for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
                for absent in [Absent::Make, Absent::Pretend] {
                    let told = Keyring::open(&folder.0, algorithm, None, absent).unwrap_err();
                    assert!(told.contains(FILE), "{told}");
                }
            }
            assert_eq!(fs::read_to_string(folder.0.join(FILE)).unwrap(), pem);
        }
    }

    #[test]
    fn a_key_that_was_brought_along_is_used() {
        let folder = Folder::new("brought");
        place(&folder, &rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem());
        let keyring = Keyring::open(&folder.0, Algorithm::RS256, None, Absent::Make).unwrap();
        assert_eq!(keyring.key_set().unwrap().iter().count(), 1);
        assert!(Keyring::open(&folder.0, Algorithm::ES256, None, Absent::Make).is_err());
    }
}
