//! The digest by which the gateway recognises tokens and other secrets.

use aws_lc_rs::digest::{SHA256, digest};

/// The SHA-256 of a token or another secret.
pub type Digest = [u8; 32];

/// Returns the SHA-256 of a token or of another secret. The secret must be too random to guess.
pub fn digest_of(secret: impl AsRef<[u8]>) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, secret.as_ref()).as_ref());
    out
}
