//! Applies the Bidi Rule (RFC 5893 section 2) to names that are written from right to left. Such a name is then
//! displayed in only one order, even within a log line.

use super::NameFault;
use icu_properties::CodePointMapData;
use icu_properties::props::BidiClass;

fn class(c: char) -> BidiClass {
    CodePointMapData::<BidiClass>::new().get(c)
}

fn is_from_the_right(class: BidiClass) -> bool {
    matches!(class, BidiClass::RightToLeft | BidiClass::ArabicLetter | BidiClass::ArabicNumber)
}

/// Rejects a name whose display order is ambiguous. Accepts every name without right-to-left characters.
pub(super) fn check(name: &str) -> Result<(), NameFault> {
    let Some(from_the_right) = name.chars().find(|c| is_from_the_right(class(*c))) else { return Ok(()) };
    let fault = |character| Err(NameFault::Direction { character });
    let first = name.chars().next().unwrap_or(from_the_right);
    // Rule 1: the first character determines the direction. Rule 5: a left-to-right name must not contain right-to-left
    // characters.
    match class(first) {
        BidiClass::RightToLeft | BidiClass::ArabicLetter => {}
        BidiClass::LeftToRight => return fault(from_the_right),
        _ => return fault(first),
    }
    // Rule 2: the classes that a right-to-left name may contain.
    let stranger = name.chars().find(|c| {
        !matches!(
            class(*c),
            BidiClass::RightToLeft
                | BidiClass::ArabicLetter
                | BidiClass::ArabicNumber
                | BidiClass::EuropeanNumber
                | BidiClass::EuropeanSeparator
                | BidiClass::CommonSeparator
                | BidiClass::EuropeanTerminator
                | BidiClass::OtherNeutral
                | BidiClass::BoundaryNeutral
                | BidiClass::NonspacingMark
        )
    });
    if let Some(stranger) = stranger {
        return fault(stranger);
    }
    // Rule 3: the classes that the last character may have. Nonspacing marks at the end are ignored.
    let last = name.chars().rev().find(|c| class(*c) != BidiClass::NonspacingMark).unwrap_or(first);
    if !matches!(
        class(last),
        BidiClass::RightToLeft
            | BidiClass::ArabicLetter
            | BidiClass::EuropeanNumber
            | BidiClass::ArabicNumber
    ) {
        return fault(last);
    }
    // Rule 4: a name must not contain both European and Arabic digits.
    let european = name.chars().any(|c| class(c) == BidiClass::EuropeanNumber);
    match name.chars().find(|c| class(*c) == BidiClass::ArabicNumber) {
        Some(arabic) if european => fault(arabic),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_a_name_that_follows_it_and_one_that_does_not() {
        for good in
            ["alice", "1", "\u{5d0}", "\u{5d0}1", "\u{5d0}-\u{5d1}", "\u{627}\u{661}", "\u{5d0}\u{5b0}"]
        {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for (bad, at) in [
            ("1\u{5d0}", '1'),
            ("a\u{5d0}", '\u{5d0}'),
            ("\u{5d0}a\u{5d1}", 'a'),
            ("\u{5d0}-", '-'),
            ("\u{627}1\u{661}", '\u{661}'),
        ] {
            assert_eq!(check(bad), Err(NameFault::Direction { character: at }), "{bad:?}");
        }
    }
}
