//! Nonces of the gateway (RFC 9449 sections 8 and 9), which prove when a proof was created, whatever the client's clock
//! says.
//!
//! A nonce consists of the time at which it was issued and a MAC of this time, so the gateway stores none of them.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use std::fmt;

/// The text that separates this use of a secret from all others.
const USE: &[u8] = b"portcullis dpop nonce 1";
/// The length of the MAC in a nonce, in bytes.
const MAC: usize = 16;

/// The key that authenticates nonces.
pub struct NonceKey(Key);

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(not shown)")
    }
}

impl NonceKey {
    /// Derives the key from a secret.
    pub fn of(secret: &[u8]) -> Self {
        let derived = sign(&Key::new(HMAC_SHA256, secret), USE);
        Self(Key::new(HMAC_SHA256, derived.as_ref()))
    }

    /// Returns the nonce of this second.
    pub(super) fn issue(&self, now: u64) -> HeaderValue {
        let time = now.to_be_bytes();
        let text = URL_SAFE_NO_PAD.encode([&time[..], &self.mac(time)].concat());
        HeaderValue::try_from(text).expect("base64url is visible ASCII")
    }

    /// Returns when a nonce was issued; `None` if this key did not issue it.
    pub(super) fn issued(&self, nonce: &str) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (time, mac) = bytes.split_first_chunk()?;
        verify_slices_are_equal(mac, &self.mac(*time)).ok()?;
        Some(u64::from_be_bytes(*time))
    }

    fn mac(&self, time: [u8; 8]) -> [u8; MAC] {
        let mut mac = [0; MAC];
        mac.copy_from_slice(&sign(&self.0, &time).as_ref()[..MAC]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_says_when_its_key_issued_it_and_no_other_text_does() {
        let key = NonceKey::of(&[7; 32]);
        let nonce = key.issue(1_700_000_000);
        let nonce = nonce.to_str().unwrap();
        assert_eq!(key.issued(nonce), Some(1_700_000_000));
        assert_eq!(
            NonceKey::of(&[7; 32]).issued(nonce),
            Some(1_700_000_000),
            "another gateway with the secret"
        );
        assert_eq!(NonceKey::of(&[8; 32]).issued(nonce), None);
        assert_ne!(key.issue(1_700_000_001), nonce);
        for at in 0..nonce.len() {
            let mut bytes = nonce.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.issued(std::str::from_utf8(&bytes).unwrap()), None, "changed at {at}");
        }
        for text in ["", "A", &nonce[1..], &format!("{nonce}A"), &format!("{nonce}="), "AAAAAAAAAAA"] {
            assert_eq!(key.issued(text), None, "{text}");
        }
    }
}
