//! The form of a mark in the stream: a small JSON object.
//!
//! An entry can only add a mark. The ids in it are those of tokens, sessions and accounts, or digests; none is a token.

use crate::authenticate::{Mark, MarkDigest, SignalMark};
use crate::hex;
use serde::{Deserialize, Serialize};

/// The maximum length of an entry in bytes.
const ENTRY_MAX: usize = 4096;
/// The maximum length of an id in bytes. The longest ids are those of accounts.
const ID_MAX: usize = 256;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The subject of the mark.
    kind: Kind,
    /// The digest of the issuer of a local mark. Another authority may have an account with the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// The id, or the digest of a signal's mark in hexadecimal digits.
    id: String,
    /// The first valid generation of an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    /// The last second whose tokens a signal's mark revokes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<u32>,
    /// The time until which the mark is kept (exclusive), in seconds since 1970.
    until: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Token,
    Session,
    Account,
    Signal,
}

/// Writes a mark. `issuer` is the digest of the local authority's name; without an authority there are no marks of its
/// tokens, and the result is `None` for one.
pub fn write(mark: &Mark, until: u64, issuer: Option<&MarkDigest>) -> Option<String> {
    let entry = match mark {
        Mark::Signal(mark) => Entry {
            kind: Kind::Signal,
            issuer: None,
            id: hex::text(&mark.digest),
            generation: None,
            before: Some(mark.before),
            until,
        },
        Mark::Token(id) | Mark::Session(id) | Mark::Account { id, .. } => Entry {
            kind: match mark {
                Mark::Token(_) => Kind::Token,
                Mark::Session(_) => Kind::Session,
                Mark::Account { .. } | Mark::Signal(_) => Kind::Account,
            },
            issuer: Some(hex::text(issuer?)),
            id: id.clone(),
            generation: match mark {
                Mark::Account { generation, .. } => Some(*generation),
                Mark::Token(_) | Mark::Session(_) | Mark::Signal(_) => None,
            },
            before: None,
            until,
        },
    };
    serde_json::to_string(&entry).ok()
}

/// The content of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A mark, and the time until which it is kept.
    Mark(Mark, u64),
    /// A mark of another authority's tokens.
    Foreign,
    /// Not a mark.
    Unreadable,
}

/// Reads an entry that anybody may have written.
pub fn read(text: &str, issuer: Option<&MarkDigest>) -> Found {
    if text.len() > ENTRY_MAX {
        return Found::Unreadable;
    }
    let Ok(entry) = serde_json::from_str::<Entry>(text) else { return Found::Unreadable };
    if entry.id.len() > ID_MAX {
        return Found::Unreadable;
    }
    let mark = match (entry.kind, entry.generation, entry.before) {
        (Kind::Signal, None, Some(before)) if entry.issuer.is_none() => {
            let (Some(digest), Ok(until)) = (hex::read(&entry.id), u32::try_from(entry.until)) else {
                return Found::Unreadable;
            };
            return Found::Mark(Mark::Signal(SignalMark { digest, before, until }), entry.until);
        }
        (Kind::Token, None, None) => Mark::Token(entry.id),
        (Kind::Session, None, None) => Mark::Session(entry.id),
        (Kind::Account, Some(generation), None) => Mark::Account { id: entry.id, generation },
        (Kind::Signal | Kind::Token | Kind::Session | Kind::Account, _, _) => return Found::Unreadable,
    };
    match entry.issuer.as_deref().and_then(hex::read::<16>) {
        None => Found::Unreadable,
        Some(of) if Some(&of) == issuer => Found::Mark(mark, entry.until),
        Some(_) => Found::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks() -> impl Strategy<Value = (Mark, u64)> {
        let id = ".{0,40}";
        prop_oneof![
            (id, any::<u64>()).prop_map(|(id, until)| (Mark::Token(id), until)),
            (id, any::<u64>()).prop_map(|(id, until)| (Mark::Session(id), until)),
            (id, any::<i64>(), any::<u64>())
                .prop_map(|(id, generation, until)| (Mark::Account { id, generation }, until)),
            (any::<[u8; 16]>(), any::<u32>(), any::<u32>()).prop_map(|(digest, before, until)| (
                Mark::Signal(SignalMark { digest, before, until }),
                u64::from(until)
            )),
        ]
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written_by_its_own_authority((mark, until) in marks()) {
            let (ours, other) = ([7; 16], [8; 16]);
            let text = write(&mark, until, Some(&ours)).unwrap();
            prop_assert_eq!(read(&text, Some(&ours)), Found::Mark(mark.clone(), until));
            let elsewhere = match &mark {
                Mark::Signal(_) => Found::Mark(mark.clone(), until),
                Mark::Token(_) | Mark::Session(_) | Mark::Account { .. } => Found::Foreign,
            };
            prop_assert_eq!(&read(&text, Some(&other)), &elsewhere);
            prop_assert_eq!(&read(&text, None), &elsewhere);
        }

        #[test]
        fn no_text_of_others_ends_the_reader(text in "[{}\":,a-z0-9 ]{0,80}") {
            let _ = read(&text, Some(&[7; 16]));
        }
    }

    #[test]
    fn an_entry_with_a_member_too_many_or_too_few_is_no_mark() {
        let issuer = "07".repeat(16);
        let good = format!(r#"{{"kind":"token","issuer":"{issuer}","id":"t","until":9}}"#);
        assert_eq!(read(&good, Some(&[7; 16])), Found::Mark(Mark::Token("t".into()), 9));
        let long =
            format!(r#"{{"kind":"token","issuer":"{issuer}","id":"{}","until":9}}"#, "t".repeat(ENTRY_MAX));
        for bad in [
            String::new(),
            "{}".to_owned(),
            good.replace("token", "tokens"),
            good.replace("token", "account"),
            good.replace(&issuer, "07"),
            good.replace("\"until\":9", "\"until\":-9"),
            good.replace("\"until\":9", "\"until\":9,\"generation\":1"),
            good.replace("\"until\":9", "\"until\":9,\"more\":1"),
            format!(r#"{{"kind":"signal","id":"{issuer}","until":9}}"#),
            format!(r#"{{"kind":"signal","id":"{issuer}","before":1,"until":4294967296}}"#),
            r#"{"kind":"signal","id":"zz","before":1,"until":9}"#.to_owned(),
            long,
        ] {
            assert_eq!(read(&bad, Some(&[7; 16])), Found::Unreadable, "{bad}");
        }
    }
}
