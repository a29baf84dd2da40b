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

/// Returns the digest of facts that identify a caller without a token, for the cache of tokens.
///
/// The cache looks up whatever bytes a request has in the place of a token. The hashed text therefore contains a NUL, as no
/// header field and no query can (RFC 9110 section 5.5, RFC 3986 section 2). Otherwise a client that knows the facts, such
/// as a reader of the file of API keys, could send them as a token and be that caller.
pub(super) fn digest_of_facts(kind: &str, facts: &[u8]) -> Digest {
    digest_of(text_of_facts(kind, facts))
}

fn text_of_facts(kind: &str, facts: &[u8]) -> Vec<u8> {
    [b"\0", kind.as_bytes(), b"\0", facts].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Uri};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_request_can_carry_facts_as_a_credential(kind in "[a-z ]{0,8}", facts: Vec<u8>) {
            let text = text_of_facts(&kind, &facts);
            prop_assert!(HeaderValue::from_bytes(&text).is_err());
            let target = [b"/?access_token=", &text[..]].concat();
            prop_assert!(Uri::try_from(target).is_err());
            prop_assert_ne!(digest_of_facts(&kind, &facts), digest_of(&facts));
        }
    }
}
