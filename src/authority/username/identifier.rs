//! Checks the characters of a name against the IdentifierClass of PRECIS (RFC 8264 section 4.2), which follows RFC
//! 5892.
//!
//! The check is stricter than the RFC in two points. It rejects all joiners, because joiners are invisible. It also
//! rejects a name that begins with a combining mark.

use super::NameFault;
use icu_properties::props::{
    DefaultIgnorableCodePoint, GeneralCategory as Category, NoncharacterCodePoint, Script,
};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_normalization::UnicodeNormalization;

/// Rejects a canonical name that contains a forbidden character.
pub(super) fn check(name: &str) -> Result<(), NameFault> {
    let first = name.chars().next().filter(|first| is_mark(category(*first)));
    if let Some(character) = first {
        return Err(NameFault::Character { character, why: "a mark that has no letter to stand on" });
    }
    for (at, character) in name.char_indices() {
        if let Some(why) = refusal(character).or_else(|| refusal_there(name, at, character)) {
            return Err(NameFault::Character { character, why });
        }
    }
    Ok(())
}

pub(super) fn category(c: char) -> Category {
    CodePointMapData::<Category>::new().get(c)
}

/// Whether the character is unassigned in Unicode. If a later version assigns it, the canonical form of a text may
/// change.
pub(super) fn is_unassigned(c: char) -> bool {
    category(c) == Category::Unassigned || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
}

fn is_mark(category: Category) -> bool {
    matches!(category, Category::NonspacingMark | Category::SpacingMark | Category::EnclosingMark)
}

/// Returns the reason why names must not contain this character, or `None`. The checks have the order of RFC 8264
/// section 8.
fn refusal(c: char) -> Option<&'static str> {
    // The exceptions of RFC 5892 section 2.6. `refusal_there` checks the exceptions that depend on the context.
    match c {
        '\u{df}' | '\u{3c2}' | '\u{6fd}' | '\u{6fe}' | '\u{f0b}' | '\u{3007}' => return None,
        '\u{b7}' | '\u{375}' | '\u{5f3}' | '\u{5f4}' | '\u{30fb}' => return None,
        '\u{640}' | '\u{7fa}' | '\u{302e}' | '\u{302f}' | '\u{3031}'..='\u{3035}' | '\u{303b}' => {
            return Some("a mark of writing that is not a letter of a name");
        }
        '!'..='~' => return None,
        _ => {}
    }
    if is_unassigned(c) {
        return Some("Unicode gives it no meaning");
    }
    match c {
        '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97f}' | '\u{d7b0}'..='\u{d7ff}' => {
            return Some("a part of a Korean syllable that forms no syllable");
        }
        _ => {}
    }
    if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) {
        return Some("cannot be seen");
    }
    if !std::iter::once(c).nfkc().eq(std::iter::once(c)) {
        return Some(match category(c) {
            Category::SpaceSeparator => "a space",
            _ => "another form of other characters: write those",
        });
    }
    match category(c) {
        Category::UppercaseLetter
        | Category::LowercaseLetter
        | Category::OtherLetter
        | Category::ModifierLetter
        | Category::DecimalNumber
        | Category::NonspacingMark
        | Category::SpacingMark => None,
        Category::Control | Category::LineSeparator | Category::ParagraphSeparator => {
            Some("a control character")
        }
        Category::SpaceSeparator => Some("a space"),
        Category::Format => Some("cannot be seen"),
        Category::PrivateUse | Category::Surrogate | Category::Unassigned => {
            Some("Unicode gives it no meaning")
        }
        Category::TitlecaseLetter
        | Category::EnclosingMark
        | Category::LetterNumber
        | Category::OtherNumber
        | Category::DashPunctuation
        | Category::OpenPunctuation
        | Category::ClosePunctuation
        | Category::ConnectorPunctuation
        | Category::InitialPunctuation
        | Category::FinalPunctuation
        | Category::OtherPunctuation
        | Category::MathSymbol
        | Category::CurrencySymbol
        | Category::ModifierSymbol
        | Category::OtherSymbol => Some("no letter, digit or ASCII sign"),
    }
}

/// Returns the reason why a character is not allowed at its position, or `None` (RFC 5892 appendix A).
fn refusal_there(name: &str, at: usize, c: char) -> Option<&'static str> {
    let before = || name[..at].chars().next_back();
    let after = || name[at..].chars().nth(1);
    let is_script =
        |c: Option<char>, script| c.is_some_and(|c| CodePointMapData::<Script>::new().get(c) == script);
    let stands = match c {
        '\u{b7}' => before() == Some('l') && after() == Some('l'),
        '\u{375}' => is_script(after(), Script::Greek),
        '\u{5f3}' | '\u{5f4}' => is_script(before(), Script::Hebrew),
        '\u{30fb}' => [Script::Hiragana, Script::Katakana, Script::Han]
            .into_iter()
            .any(|script| name.chars().any(|c| is_script(Some(c), script))),
        '\u{660}'..='\u{669}' => !name.contains(|c| matches!(c, '\u{6f0}'..='\u{6f9}')),
        '\u{6f0}'..='\u{6f9}' => !name.contains(|c| matches!(c, '\u{660}'..='\u{669}')),
        _ => true,
    };
    (!stands).then_some("not beside these characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_a_context_are_accepted_in_it_and_nowhere_else() {
        for (good, bad) in [
            ("l\u{b7}l", "a\u{b7}l"),
            ("\u{375}\u{3b1}", "\u{375}a"),
            ("\u{5d0}\u{5f3}", "a\u{5f3}"),
            ("\u{30a2}\u{30fb}", "a\u{30fb}"),
            ("\u{661}\u{662}", "\u{661}\u{6f2}"),
            ("\u{6f1}\u{6f2}", "\u{6f1}\u{662}"),
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
            assert!(matches!(check(bad), Err(NameFault::Character { .. })), "{bad}");
        }
    }

    #[test]
    fn all_of_visible_ascii_may_be_in_a_name() {
        for c in '!'..='~' {
            assert_eq!(check(&c.to_string()), Ok(()));
        }
    }
}
