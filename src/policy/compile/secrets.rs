//! Reads secrets, and recognizes those that are long enough but easy to guess.
//!
//! An attacker with a signed token can search for the secret offline, and cracking tools try the secrets of tutorials
//! first. This module recognizes only known bad patterns.

use super::{Faults, private};
use crate::config::secret::Secret;

/// The reason why a secret is weak. Contains no part of the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The secret is publicly known or trivial.
    Known(&'static str),
    /// The secret has far less entropy than its length suggests.
    Guessable(String),
}

/// The minimum length of an examined secret, in bytes. Shorter secrets are rejected elsewhere.
const LENGTH_MIN: usize = 32;
/// The maximum number of examined bytes. The search for repetitions takes quadratic time.
const LOOKED_AT: usize = 1024;
/// The minimum number of distinct bytes. Of a billion strings of 32 random hexadecimal digits, one has fewer distinct
/// bytes.
const DIFFERENT_MIN: usize = 8;
/// A secret with a period of at most this many bytes has at most 64 bits of entropy.
const PERIOD_MIN: usize = 8;

/// Placeholders in examples, such as `your-256-bit-secret`. They contain only lower-case letters and digits.
const PHRASES: [&str; 21] = [
    "astringsecretatleast256bitslong",
    "changeit",
    "changeme",
    "changethis",
    "donttellanyone",
    "insertyour",
    "keyboardcat",
    "letmein",
    "mysecret",
    "notsosecret",
    "passw0rd",
    "password",
    "placeholder",
    "qwerty",
    "replaceme",
    "secretkey",
    "supersecret",
    "topsecret",
    "verysecret",
    "your256bitsecret",
    "yoursecret",
];

/// The key of the first example in RFC 7515 (appendix A.1).
const PUBLISHED: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

/// Returns the bytes of a secret. Reports a fault and returns `None` if it cannot be read or is publicly known.
pub(super) fn resolve(key: &str, secret: &Secret, faults: &mut Faults<'_>) -> Option<Vec<u8>> {
    let is_secret = key.ends_with("secret") || key.ends_with("password");
    if secret.is_literal() && is_secret {
        faults.warn(
            "secret_in_plain_text",
            key,
            "the secret is written in the policy file (not shown)",
            "use \"env:NAME\" or \"file:PATH\"; literals are for development",
        );
    }
    if let Secret::File(path) = secret
        && is_secret
    {
        private::check_mode(key, &faults.unwatched_path(path), faults);
    }
    match faults.secret(secret) {
        Ok(bytes) => {
            let is_white = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
            if is_secret && (is_white(bytes.first()) || is_white(bytes.last())) {
                faults.warn(
                    "white_space",
                    key,
                    "the secret begins or ends with white space, which is part of it (except a newline at the end of a file)",
                    "remove the white space, unless the other users of the secret include it",
                );
            }
            let flaw = flaw(&bytes).filter(|_| is_secret);
            let hint = "use at least 256 random bits: openssl rand -hex 32";
            match flaw {
                Some(Flaw::Known(what)) => {
                    faults.fault("weak_secret", key, what, hint);
                    return None;
                }
                Some(Flaw::Guessable(what)) => faults.warn("guessable_secret", key, what, hint),
                None => {}
            }
            Some(bytes.to_vec())
        }
        Err(why) => {
            faults.fault(
                "no_secret",
                key,
                why,
                "\"env:NAME\" for a variable that is set, or \"file:PATH\" for a readable file",
            );
            None
        }
    }
}

/// Returns the reason why a secret is weak, if any.
pub(super) fn flaw(secret: &[u8]) -> Option<Flaw> {
    if secret.len() < LENGTH_MIN {
        return None;
    }
    let secret = &secret[..secret.len().min(LOOKED_AT)];
    if secret == PUBLISHED.as_bytes() || is_phrase(secret) {
        return Some(Flaw::Known("a phrase from examples and tutorials, which attackers try first"));
    }
    let mut seen = [false; 256];
    secret.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    if seen.iter().filter(|seen| **seen).count() < DIFFERENT_MIN {
        return Some(Flaw::Known("made of only a few different characters"));
    }
    match (1..=secret.len() / 2).find(|period| secret[*period..] == secret[..secret.len() - period]) {
        Some(..=PERIOD_MIN) => return Some(Flaw::Known("a few characters repeated")),
        Some(period) => return Some(Flaw::Guessable(format!("repeats itself after {period} bytes"))),
        None => {}
    }
    let follows = |pair: &&[u8]| pair[1].abs_diff(pair[0]) <= 1;
    let in_a_row = secret.windows(2).filter(follows).count();
    (in_a_row * 4 >= secret.len() * 3)
        .then(|| Flaw::Guessable("characters in alphabetical or numerical sequence".to_owned()))
}

/// Whether a secret is too short without its placeholders.
fn is_phrase(secret: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(secret) else { return false };
    let mut plain = text.to_ascii_lowercase();
    plain.retain(|letter| letter.is_ascii_alphanumeric());
    let left = PHRASES.iter().fold(plain.clone(), |left, phrase| left.replace(phrase, ""));
    left.len() < plain.len() && left.len() < LENGTH_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    #[test]
    fn a_guessable_secret_is_refused_at_any_length() {
        for known in [
            "changeme-changeme-changeme-changeme-changeme",
            "Change_Me_In_Production_Please_Do_It_Now",
            "a-string-secret-at-least-256-bits-long",
            "your-256-bit-secret-your-256-bit-secret",
            "my-super-secret-key-for-signing-tokens",
            "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
            "00000000000000000000000000000000",
            "abcabcaabbccabcabcabacbcabcbabca",
            "k7Qz!k7Qz!k7Qz!k7Qz!k7Qz!k7Qz!k7Qz!",
            "Zx81-_=/Zx81-_=/Zx81-_=/Zx81-_=/",
        ] {
            assert!(
                matches!(flaw(known.as_bytes()), Some(Flaw::Known(_))),
                "{known}: {:?}",
                flaw(known.as_bytes())
            );
        }
        assert!(matches!(flaw(&[0; 64]), Some(Flaw::Known(_))));
    }

    #[test]
    fn a_secret_that_repeats_or_counts_has_less_entropy_than_its_length() {
        for (guessable, what) in [
            ("0123456789abcdef0123456789abcdef", "repeats itself after 16 bytes"),
            ("d3Jq8ZpLmX2vd3Jq8ZpLmX2vd3Jq8ZpLmX2v", "repeats itself after 12 bytes"),
            ("abcdefghijklmnopqrstuvwxyz0123456789", "characters in alphabetical"),
        ] {
            let Some(Flaw::Guessable(found)) = flaw(guessable.as_bytes()) else { panic!("{guessable}") };
            assert!(found.starts_with(what), "{guessable}: {found}");
        }
        let counted: Vec<u8> = (0..=255).collect();
        assert!(matches!(flaw(&counted), Some(Flaw::Guessable(_))));
    }

    #[test]
    fn a_phrase_in_a_long_random_secret_and_a_secret_that_is_too_short_anyway_are_not_reported() {
        assert_eq!(flaw(b"mysecret-8f14e45fceea167a5a36dedd4bea2543"), None);
        assert!(flaw(b"mysecret-8f14e45fceea167a5a36dedd4be").is_some());
        assert_eq!(flaw(b"changeme"), None);
    }

    proptest! {
        // The output of `openssl rand` is never reported, in any encoding.
        #[test]
        fn a_random_secret_has_no_flaw(bytes in any::<[u8; 32]>()) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            for secret in [hex, BASE64_STANDARD.encode(bytes), BASE64_URL_SAFE_NO_PAD.encode(bytes)] {
                prop_assert_eq!(flaw(secret.as_bytes()), None);
            }
        }
    }
}
