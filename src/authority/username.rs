//! Converts user names and passwords to a canonical form, by the profiles `UsernameCaseMapped` and `OpaqueString` of
//! RFC 8265. All spellings of a name then identify the same account. A comment marks each point where the code is
//! stricter than the RFC.

mod direction;
mod identifier;
mod opaque_string;

pub use opaque_string::{
    PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordFault, prepare_new_password, prepare_password,
};

use std::fmt;
use unicode_normalization::UnicodeNormalization;

/// Maximum length of a name in its canonical form, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A user name in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(String);

impl UserName {
    /// Parses a name into its canonical form (RFC 8265 section 3.3.2): plain instead of fullwidth or halfwidth
    /// characters, lower case, and composed characters. Rejects characters that cannot be seen, read or typed. A
    /// canonical name is returned unchanged.
    ///
    /// # Errors
    /// The first fault of the name, with the code point of the character.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        // Reject a text that is far too long before mapping it. The mapping makes at most three characters from one.
        if text.len() > NAME_BYTES_MAX * 8 {
            return Err(NameFault::TooLong { bytes: text.len() });
        }
        let name: String = text.chars().flat_map(narrow).flat_map(lower).nfc().collect();
        if name.is_empty() {
            return Err(NameFault::Empty);
        }
        identifier::check(&name)?;
        direction::check(&name)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(NameFault::TooLong { bytes: name.len() });
        }
        Ok(Self(name))
    }

    /// Returns the canonical name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Maps a halfwidth or fullwidth character to its plain form (RFC 8265 section 3.3.2, rule 1).
fn narrow(c: char) -> impl Iterator<Item = char> {
    let has_width = matches!(c, '\u{ff00}'..='\u{ffef}');
    let plain = has_width.then(|| std::iter::once(c).nfkc());
    let same = (!has_width).then_some(c);
    plain.into_iter().flatten().chain(same)
}

/// Maps a character to lower case, independently of its neighbors. The final sigma becomes the other lower-case sigma,
/// because both have the same upper case.
fn lower(c: char) -> impl Iterator<Item = char> {
    let c = if c == '\u{3c2}' { '\u{3c3}' } else { c };
    c.to_lowercase()
}

/// The reason why a text is not accepted as a user name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// The text is empty.
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`] bytes.
    TooLong {
        /// The length of the name, in bytes.
        bytes: usize,
    },
    /// A character is not allowed in names, or not allowed at its position.
    Character {
        /// The character.
        character: char,
        /// The reason why the character is not allowed.
        why: &'static str,
    },
    /// The name mixes writing directions, so a person may misread it (RFC 5893 section 2).
    Direction {
        /// The character that violates the rule.
        character: char,
    },
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name has at least one character"),
            Self::TooLong { bytes } => write!(f, "{bytes} bytes: a name has at most {NAME_BYTES_MAX}"),
            Self::Character { character, why } => write!(f, "U+{:04X}: {why}", u32::from(*character)),
            Self::Direction { character } => write!(
                f,
                "U+{:04X}: mixes directions of writing, so that the name could be read as another one",
                u32::from(*character)
            ),
        }
    }
}

impl std::error::Error for NameFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> String {
        UserName::parse(text).unwrap_or_else(|fault| panic!("{text:?}: {fault}")).0
    }

    fn fault(text: &str) -> String {
        UserName::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn usual_names_are_what_they_were() {
        for usual in ["alice", "alice@example.com", "o'neil", "a", "0", "ops-2_b.c+d", "domain\\user", "über"]
        {
            assert_eq!(name(usual), usual);
        }
    }

    #[test]
    fn two_spellings_of_one_name_are_one_name() {
        for (one, other) in [
            ("Alice", "aLICE"),
            ("J\u{fc}rgen", "JU\u{308}RGEN"),
            ("\u{ff21}lice", "alice"),
            ("\u{212b}ngstr\u{f6}m", "\u{e5}ngstr\u{f6}m"),
            ("\u{ff76}\u{ff9e}", "\u{30ac}"),
            ("\u{39f}\u{394}\u{39f}\u{3a3}", "\u{3bf}\u{3b4}\u{3bf}\u{3c2}"),
            ("\u{1e9e}", "\u{df}"),
            ("\u{212a}", "k"),
        ] {
            assert_eq!(name(one), name(other));
        }
        assert_ne!(name("alice"), name("alic\u{e9}"));
        // RFC 8265 section 3.3.2 requires lower case, not case folding.
        assert_ne!(name("stra\u{df}e"), name("strasse"));
    }

    #[test]
    fn invisible_and_control_characters_are_refused_by_code_point() {
        for (text, point) in [
            ("al ice", "U+0020"),
            (" alice", "U+0020"),
            ("alice\n", "U+000A"),
            ("a\0", "U+0000"),
            ("a\u{7f}", "U+007F"),
            ("a\u{85}", "U+0085"),
            ("a\u{a0}b", "U+00A0"),
            ("a\u{3000}b", "U+3000"),
            ("a\u{ad}b", "U+00AD"),
            ("a\u{200b}b", "U+200B"),
            ("a\u{200d}b", "U+200D"),
            ("a\u{202e}b", "U+202E"),
            ("a\u{2066}b", "U+2066"),
            ("a\u{feff}", "U+FEFF"),
            ("a\u{fe0f}", "U+FE0F"),
            ("a\u{115f}", "U+115F"),
            ("a\u{3164}", "U+3164"),
            ("\u{ffa0}", "U+1160"),
            ("a\u{e0041}", "U+E0041"),
            ("a\u{fdd0}", "U+FDD0"),
            ("a\u{378}", "U+0378"),
            ("a\u{e000}", "U+E000"),
            ("\u{fb01}", "U+FB01"),
            ("a\u{b2}", "U+00B2"),
            ("\u{1f600}", "U+1F600"),
            ("\u{2160}", "U+2170"),
            ("a\u{2028}b", "U+2028"),
            ("\u{301}a", "U+0301"),
        ] {
            assert!(fault(text).starts_with(&format!("{point}:")), "{text:?}: {}", fault(text));
        }
        assert_eq!(UserName::parse(""), Err(NameFault::Empty));
    }

    #[test]
    fn a_name_is_bounded_in_its_canonical_form() {
        assert_eq!(name(&"a".repeat(NAME_BYTES_MAX)).len(), NAME_BYTES_MAX);
        assert_eq!(UserName::parse(&"a".repeat(129)), Err(NameFault::TooLong { bytes: 129 }));
        // Each character has three bytes in the input and one byte in the canonical form.
        assert_eq!(name(&"\u{ff41}".repeat(NAME_BYTES_MAX)).len(), NAME_BYTES_MAX);
        assert!(UserName::parse(&"\u{e9}".repeat(65)).is_err());
        assert!(UserName::parse(&"a".repeat(1_000_000)).is_err());
    }

    #[test]
    fn directions_of_writing_are_not_mixed() {
        assert_eq!(name("\u{5d3}\u{5e0}\u{5d9}1"), "\u{5d3}\u{5e0}\u{5d9}1");
        assert!(fault("\u{5d3}\u{5e0}a").starts_with("U+0061:"));
        assert!(fault("a\u{5d3}").starts_with("U+05D3:"));
        assert!(fault("1\u{5d3}").starts_with("U+0031:"));
    }

    #[test]
    fn every_character_by_itself_has_one_canonical_form_or_none() {
        for c in char::MIN..=char::MAX {
            if let Ok(name) = UserName::parse(&c.to_string()) {
                assert_eq!(UserName::parse(name.as_str()).as_ref(), Ok(&name), "U+{:04X}", u32::from(c));
            }
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_always_its_own_canonical_form(text in "\\PC{1,24}") {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert_eq!(UserName::parse(name.as_str()), Ok(name));
            }
        }

        #[test]
        fn letters_and_marks_that_are_accepted_are_always_their_own_canonical_form(
            text in "[a-zA-Z\\p{Greek}\\p{Latin}\\p{Hangul}\\p{Mn}\\p{Cyrillic}]{1,12}",
        ) {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert_eq!(UserName::parse(name.as_str()), Ok(name));
            }
        }

        #[test]
        fn decomposed_and_upper_case_spellings_are_always_the_same_name(text in "[\\p{Latin}0-9._-]{1,12}") {
            if let Ok(name) = UserName::parse(&text) {
                let decomposed: String = text.nfd().collect();
                prop_assert_eq!(UserName::parse(&decomposed), Ok(name.clone()));
                // The upper case of some letters is several letters, or belongs to another letter. Such a text is
                // another name, so skip it.
                let upper = decomposed.to_uppercase();
                if upper.to_lowercase() == decomposed.to_lowercase() {
                    prop_assert_eq!(UserName::parse(&upper), Ok(name));
                }
            }
        }

        #[test]
        fn a_control_character_is_never_part_of_a_name(before in "[a-z]{0,5}", c in "\\p{Cc}", after in "[a-z]{0,5}") {
            let text = format!("{before}{c}{after}");
            prop_assert!(UserName::parse(&text).is_err());
        }
    }
}
