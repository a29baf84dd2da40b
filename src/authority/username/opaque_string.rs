//! Prepares passwords by the profile `OpaqueString` (RFC 8265 section 4.2): each kind of space becomes a plain space,
//! and letters are composed. Case, width and everything else are kept.

use super::identifier::{category, is_unassigned};
use icu_properties::props::GeneralCategory as Category;
use std::fmt;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use zeroize::Zeroizing;

/// Maximum length of a password, in bytes. Bounds the input of the hash.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Minimum length of a new password, in characters (NIST SP 800-63B section 5.1.1.2).
pub const PASSWORD_CHARS_MIN: usize = 8;

/// Prepares a password. The result does not depend on the keyboard.
///
/// # Errors
/// The reason why the text is not accepted.
pub fn prepare_password(text: &str) -> Result<Zeroizing<String>, PasswordFault> {
    if text.is_empty() {
        return Err(PasswordFault::Empty);
    }
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordFault::TooLong { bytes: text.len() });
    }
    if let Some(character) = text.chars().find(|c| category(*c) == Category::Control) {
        return Err(PasswordFault::Control { character });
    }
    let space = |c: char| if category(c) == Category::SpaceSeparator { ' ' } else { c };
    // Composition makes a text at most three times as long. If the buffer grew, it would leave a copy of the password
    // in memory.
    let mut prepared = Zeroizing::new(String::with_capacity(text.len() * 3));
    prepared.extend(text.chars().map(space).nfc());
    if prepared.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordFault::TooLong { bytes: prepared.len() });
    }
    debug_assert!(is_nfc(&prepared), "composed");
    Ok(prepared)
}

/// Prepares a new password: applies [`prepare_password`] and checks the minimum length. Rejects unassigned characters,
/// because a later version of Unicode may change their form.
///
/// # Errors
/// The reason why the text is not accepted as a new password.
pub fn prepare_new_password(text: &str) -> Result<Zeroizing<String>, PasswordFault> {
    let password = prepare_password(text)?;
    if let Some(character) = password.chars().find(|c| is_unassigned(*c)) {
        return Err(PasswordFault::Unassigned { character });
    }
    let characters = password.chars().count();
    if characters < PASSWORD_CHARS_MIN {
        return Err(PasswordFault::TooShort { characters });
    }
    Ok(password)
}

/// The reason why a text is not accepted as a password. The fault shows only the length or one character of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFault {
    /// The text is empty.
    Empty,
    /// The password has fewer characters than [`PASSWORD_CHARS_MIN`].
    TooShort {
        /// The length of the password, in characters.
        characters: usize,
    },
    /// The password has more bytes than [`PASSWORD_BYTES_MAX`].
    TooLong {
        /// The length of the password, in bytes.
        bytes: usize,
    },
    /// The password has a control character, which some keyboards cannot type.
    Control {
        /// The character.
        character: char,
    },
    /// The password has an unassigned character. Its prepared form may change when Unicode assigns the character.
    Unassigned {
        /// The character.
        character: char,
    },
}

impl fmt::Display for PasswordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the password is empty"),
            Self::TooShort { characters } => {
                write!(f, "the password has {characters} characters: at least {PASSWORD_CHARS_MIN}")
            }
            Self::TooLong { bytes } => {
                write!(f, "the password has {bytes} bytes: at most {PASSWORD_BYTES_MAX}")
            }
            Self::Control { character } => {
                write!(f, "the password has a control character, U+{:04X}", u32::from(*character))
            }
            Self::Unassigned { character } => write!(
                f,
                "the password has a character that Unicode gives no meaning, U+{:04X}",
                u32::from(*character)
            ),
        }
    }
}

impl std::error::Error for PasswordFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_password_is_the_same_on_every_keyboard() {
        let same = |one: &str, other: &str| assert_eq!(prepare_password(one), prepare_password(other));
        same("gr\u{fc}\u{df}e", "gru\u{308}\u{df}e");
        same("correct\u{a0}horse", "correct horse");
        same("correct\u{3000}horse", "correct horse");
        assert_ne!(prepare_password("Password"), prepare_password("password"));
        assert_ne!(prepare_password("\u{ff41}bcdefgh"), prepare_password("abcdefgh"));
        assert_eq!(prepare_password(" spaced ").unwrap().as_str(), " spaced ");
    }

    #[test]
    fn a_password_is_bounded_and_has_no_controls() {
        assert_eq!(prepare_password(""), Err(PasswordFault::Empty));
        assert!(prepare_password(&"a".repeat(1024)).is_ok());
        assert_eq!(prepare_password(&"a".repeat(1025)), Err(PasswordFault::TooLong { bytes: 1025 }));
        for control in ["\0", "\n", "\r", "\t", "\u{7f}", "\u{85}"] {
            let text = format!("a{control}b");
            assert!(matches!(prepare_password(&text), Err(PasswordFault::Control { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_new_password_has_eight_characters() {
        assert_eq!(prepare_new_password("1234567"), Err(PasswordFault::TooShort { characters: 7 }));
        assert!(prepare_new_password("12345678").is_ok());
        // The minimum counts characters, not bytes.
        assert!(prepare_new_password("\u{e9}\u{e9}\u{e9}\u{e9}").is_err());
        assert!(prepare_new_password("\u{1f600}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}ab").is_ok());
        assert!(matches!(prepare_new_password("abcdefg\u{378}"), Err(PasswordFault::Unassigned { .. })));
        // An imported account with a shorter password can still log in.
        assert!(prepare_password("1234567").is_ok());
    }

    proptest! {
        #[test]
        fn preparing_twice_is_always_preparing_once(text in "\\PC{1,40}") {
            if let Ok(once) = prepare_password(&text) {
                prop_assert_eq!(prepare_password(&once), Ok(once));
            }
        }
    }
}
