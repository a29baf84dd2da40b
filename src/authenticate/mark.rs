//! Marks that revoke tokens, and the facts of a token that the marks of signals name.

use aws_lc_rs::digest::{Context, SHA256};
use std::cell::Cell;

/// The length of a digest in bytes. An attacker who chooses subjects needs about 2^64 attempts for two subjects with
/// one digest. The collision would only let a signal for one subject revoke tokens of the other.
pub const MARK_DIGEST_BYTES: usize = 16;

/// The digest that identifies marked tokens: the truncated SHA-256 of issuer, kind and value.
pub type MarkDigest = [u8; MARK_DIGEST_BYTES];

/// The tokens that a mark revokes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The access token with this `jti`.
    Token(String),
    /// All access tokens of the session with this `sid`.
    Session(String),
    /// All access tokens of an account from generations before `generation`.
    Account {
        /// The account's id, which is the token's `sub`.
        id: String,
        /// The first generation whose tokens are still valid.
        generation: i64,
    },
    /// Tokens of a foreign issuer that a signal names. `until` is not part of the mark in the store.
    Signal(SignalMark),
}

/// The claim that a mark refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkedClaim {
    /// The subject, `sub`.
    Subject,
    /// The session, `sid`.
    Session,
    /// The token's own id, `jti`.
    Token,
}

impl MarkedClaim {
    /// Returns the digest of a value of this claim in tokens of an issuer.
    pub fn digest(self, issuer: &str, value: &str) -> MarkDigest {
        let kind: u8 = match self {
            Self::Subject => 1,
            Self::Session => 2,
            Self::Token => 3,
        };
        let mut context = Context::new(&SHA256);
        context.update(&[kind]);
        // The length separates the issuer from the value.
        context.update(&(issuer.len() as u64).to_le_bytes());
        context.update(issuer.as_bytes());
        context.update(value.as_bytes());
        context.finish().as_ref().first_chunk().copied().expect("SHA-256 has 32 bytes")
    }
}

/// A mark from a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalMark {
    /// The name of the tokens.
    pub digest: MarkDigest,
    /// The mark revokes tokens that were issued in this second or earlier, in seconds since 1970. [`u32::MAX`] revokes
    /// all tokens.
    pub before: u32,
    /// The time until which the mark is kept (exclusive), in seconds since 1970. All tokens that the mark revokes have
    /// then expired.
    pub until: u32,
}

/// The facts by which signals revoke a token.
#[derive(Debug, Default)]
pub struct Signalled {
    pub(super) digests: [Option<MarkDigest>; 3],
    /// The token's `iat` in seconds since 1970, rounded down.
    pub(super) issued: u32,
    /// The epoch of the marks at which the token was last found valid.
    pub(super) unmarked_at: Cell<Option<u64>>,
}

impl Signalled {
    /// Creates the facts of a token that has not yet been checked.
    pub fn new(
        issuer: &str,
        subject: Option<&str>,
        session: Option<&str>,
        token: Option<&str>,
        issued: u64,
    ) -> Self {
        let digest = |kind: MarkedClaim, value: Option<&str>| value.map(|value| kind.digest(issuer, value));
        Self {
            digests: [
                digest(MarkedClaim::Subject, subject),
                digest(MarkedClaim::Session, session),
                digest(MarkedClaim::Token, token),
            ],
            issued: mark_seconds(issued),
            unmarked_at: Cell::new(None),
        }
    }
}

/// Converts seconds since 1970 to the integer type of a mark, which suffices until the year 2106.
pub(crate) fn mark_seconds(time: u64) -> u32 {
    u32::try_from(time).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_and_value_are_not_confused() {
        let digest = |issuer, value| MarkedClaim::Subject.digest(issuer, value);
        assert_ne!(digest("ab", "c"), digest("a", "bc"));
    }
}
