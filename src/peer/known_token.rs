//! Remembers the last verified token of a connection with its digest. A client that repeats its token then costs no
//! digest. Nor does a new token that has to wait for its turn: it is remembered when its wait begins.
//!
//! Only the same bytes get the remembered digest, so the token cache still identifies tokens by SHA-256 alone. The
//! comparison takes the same time wherever the bytes differ, because clients behind a proxy share connections, and none
//! may find out the token of another. A token stays in memory only while its connection is in use: an HTTP/1.1 connection
//! keeps it as long as the HTTP library's read buffer, which contains it too, and an HTTP/2 connection until the next
//! sweep.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::cell::RefCell;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// The maximum size of a remembered token, in bytes.
const BYTES_MAX: usize = 4096;

/// The last token of a connection that was verified or began to wait for its turn.
#[derive(Default)]
pub(crate) struct KnownToken(RefCell<Known>);

#[derive(Default)]
struct Known {
    /// Empty if no token is remembered.
    token: Zeroizing<Vec<u8>>,
    digest: [u8; 32],
}

impl fmt::Debug for KnownToken {
    /// Omits the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownToken").finish_non_exhaustive()
    }
}

impl KnownToken {
    /// Returns the digest of a token, if the token is the remembered one.
    pub(crate) fn digest(&self, token: &[u8]) -> Option<[u8; 32]> {
        let known = self.0.borrow();
        let is_same = !token.is_empty() && verify_slices_are_equal(&known.token, token).is_ok();
        is_same.then_some(known.digest)
    }

    /// Remembers a token.
    pub(crate) fn remember(&self, token: &[u8], digest: [u8; 32]) {
        if token.len() <= BYTES_MAX {
            let mut known = self.0.borrow_mut();
            let kept = known.token.len().min(token.len());
            // The bytes after a shorter token are overwritten as well.
            known.token[kept..].zeroize();
            known.token.truncate(kept);
            known.token.copy_from_slice(&token[..kept]);
            if token.len() > known.token.capacity() {
                // A vector that grows would leave a copy behind.
                known.token = Zeroizing::new(Vec::with_capacity(token.len()));
                known.token.extend_from_slice(token);
            } else {
                known.token.extend_from_slice(&token[kept..]);
            }
            known.digest = digest;
        }
    }

    /// Forgets the token, and releases its memory.
    pub(crate) fn release(&self) {
        self.0.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_the_last_token_is_known(tokens in proptest::collection::vec("[ab]{0,6}", 1..20)) {
            let known = KnownToken::default();
            let mut last = String::new();
            for (number, token) in tokens.iter().enumerate() {
                let is_last = !token.is_empty() && *token == last;
                prop_assert_eq!(known.digest(token.as_bytes()).is_some(), is_last);
                let digest = [u8::try_from(number).unwrap(); 32];
                known.remember(token.as_bytes(), digest);
                last.clone_from(token);
                prop_assert_eq!(known.digest(token.as_bytes()), (!token.is_empty()).then_some(digest));
            }
            known.release();
            prop_assert_eq!(known.digest(last.as_bytes()), None);
        }
    }

    #[test]
    fn a_long_token_is_not_kept_and_no_token_is_shown() {
        let known = KnownToken::default();
        known.remember(b"SECRET", [1; 32]);
        assert!(!format!("{known:?}").contains("SECRET"));
        known.remember(&[b'a'; BYTES_MAX + 1], [2; 32]);
        assert_eq!(known.digest(&[b'a'; BYTES_MAX + 1]), None);
    }
}
