//! Finds the tokens that a subject identifier names (RFC 9493, Shared Signals Framework section 3).
//!
//! If the gateway does not understand a subject, it revokes nothing and returns an error to the transmitter.
//!
//! For a subject with a user and a session, the gateway revokes only the session. It revokes all tokens of the user if
//! it does not understand the session, or if the issuer's tokens may lack `sid`.

use crate::authenticate::MarkedClaim;
use serde_json::{Map, Value};

/// The maximum number of identifiers in one subject.
const IDENTIFIERS_MAX: usize = 16;
/// The maximum length of an identifier in bytes.
const IDENTIFIER_BYTES_MAX: usize = 1024;

/// The meaning of an `opaque` identifier from the transmitter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opaque {
    /// It is not understood.
    #[default]
    Unknown,
    /// The subject, `sub`.
    Subject,
    /// The session, `sid`.
    Session,
}

/// The interpretation of the subject identifiers of a transmitter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'r> {
    /// The issuer of the tokens. Subjects and token ids of other issuers are ignored.
    pub issuer: &'r str,
    pub opaque: Opaque,
    /// Whether every access token of the issuer has `sid`.
    pub has_sid: bool,
}

/// Tokens by the value of a claim.
pub(super) type Target<'v> = (MarkedClaim, &'v str);

/// Returns the tokens that a subject names, or the reason why the gateway does not understand the subject.
pub(super) fn targets<'v>(subject: &'v Value, reading: Reading<'_>) -> Result<Vec<Target<'v>>, &'static str> {
    let Value::Object(subject) = subject else { return Err("the subject is not an object") };
    let mut found = Vec::new();
    match format(subject) {
        Some("complex") => complex(subject, reading, &mut found)?,
        // The drafts before SSF 1.0 have no name for the format.
        None if !subject.contains_key("sub") && is_complex(subject) => complex(subject, reading, &mut found)?,
        Some("aliases") => {
            let Some(Value::Array(identifiers)) = subject.get("identifiers") else {
                return Err("aliases without identifiers");
            };
            if identifiers.len() > IDENTIFIERS_MAX {
                return Err("too many identifiers");
            }
            for identifier in identifiers {
                // All aliases name the same subject, so one alias that the gateway understands is enough.
                if let Some(target) = identifier.as_object().and_then(|alias| simple(alias, reading, None)) {
                    found.push(target);
                }
            }
        }
        Some(_) | None => found.extend(simple(subject, reading, None)),
    }
    if found.is_empty() { Err("the subject's format or issuer is not understood") } else { Ok(found) }
}

/// Returns the format of a subject. Its member is `format` in RFC 9493, and `subject_type` in the drafts of RISC that
/// Google still uses.
fn format(subject: &Map<String, Value>) -> Option<&str> {
    subject.get("format").or_else(|| subject.get("subject_type")).and_then(Value::as_str)
}

fn is_complex(subject: &Map<String, Value>) -> bool {
    subject.get("user").is_some_and(Value::is_object) || subject.get("session").is_some_and(Value::is_object)
}

fn complex<'v>(
    subject: &'v Map<String, Value>,
    reading: Reading<'_>,
    found: &mut Vec<Target<'v>>,
) -> Result<(), &'static str> {
    let member = |name: &str, usual: MarkedClaim| {
        subject.get(name).and_then(Value::as_object).and_then(|member| simple(member, reading, Some(usual)))
    };
    let session = member("session", MarkedClaim::Session);
    let user = member("user", MarkedClaim::Subject);
    if session.is_none() && user.is_none() {
        return Err("neither the user nor the session is understood");
    }
    found.extend(session);
    // If the tokens state their session, only that session is revoked. Otherwise all tokens of the user are revoked.
    if session.is_none() || !reading.has_sid {
        found.extend(user);
    }
    Ok(())
}

/// Returns the tokens that a simple identifier names. `role` is the meaning of an opaque identifier in this member. At
/// the top of a subject, the policy determines the meaning.
fn simple<'v>(
    identifier: &'v Map<String, Value>,
    reading: Reading<'_>,
    role: Option<MarkedClaim>,
) -> Option<Target<'v>> {
    let text = |name: &str| {
        let text = identifier.get(name)?.as_str()?;
        (!text.is_empty() && text.len() <= IDENTIFIER_BYTES_MAX).then_some(text)
    };
    let is_ours = || text("iss") == Some(reading.issuer);
    match format(identifier)? {
        "iss_sub" | "iss-sub" if is_ours() => Some((MarkedClaim::Subject, text("sub")?)),
        "jwt_id" | "jwt-id" if is_ours() => Some((MarkedClaim::Token, text("jti")?)),
        "opaque" => {
            let kind = match (role, reading.opaque) {
                // In a complex subject, the member `session` is a session, regardless of the policy.
                (Some(MarkedClaim::Session), _) => MarkedClaim::Session,
                (Some(MarkedClaim::Subject) | None, Opaque::Subject) => MarkedClaim::Subject,
                (None, Opaque::Session) => MarkedClaim::Session,
                (Some(_) | None, Opaque::Unknown | Opaque::Session | Opaque::Subject) => return None,
            };
            Some((kind, text("id")?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const READING: Reading<'_> = Reading { issuer: "https://i", opaque: Opaque::Unknown, has_sid: false };

    fn names(subject: &Value, reading: Reading<'_>) -> Vec<(MarkedClaim, String)> {
        let found = targets(subject, reading).unwrap_or_default();
        found.into_iter().map(|(kind, value)| (kind, value.to_owned())).collect()
    }

    #[test]
    fn a_subject_names_what_it_says_and_nothing_of_another_issuer() {
        use MarkedClaim::{Session, Subject, Token};
        let user = json!({"format": "iss_sub", "iss": "https://i", "sub": "ada"});
        let session = json!({"format": "opaque", "id": "s1"});
        let with_sid = Reading { has_sid: true, ..READING };
        let subjects = Reading { opaque: Opaque::Subject, ..READING };
        let sessions = Reading { opaque: Opaque::Session, ..READING };
        for (subject, reading, expected) in [
            (user.clone(), READING, vec![(Subject, "ada")]),
            (
                json!({"subject_type": "iss-sub", "iss": "https://i", "sub": "ada"}),
                READING,
                vec![(Subject, "ada")],
            ),
            (json!({"format": "iss_sub", "iss": "https://i/", "sub": "ada"}), READING, vec![]),
            (json!({"format": "iss_sub", "iss": "https://i", "sub": ""}), READING, vec![]),
            (json!({"format": "iss_sub", "iss": "https://i", "sub": 7}), READING, vec![]),
            (json!({"format": "iss_sub", "sub": "ada"}), READING, vec![]),
            (json!({"format": "jwt_id", "iss": "https://i", "jti": "t"}), READING, vec![(Token, "t")]),
            (json!({"format": "jwt_id", "iss": "https://o", "jti": "t"}), READING, vec![]),
            (json!({"format": "opaque", "id": "x"}), READING, vec![]),
            (json!({"format": "opaque", "id": "x"}), subjects, vec![(Subject, "x")]),
            (json!({"format": "opaque", "id": "x"}), sessions, vec![(Session, "x")]),
            (json!({"format": "email", "email": "a@b.test"}), subjects, vec![]),
            (json!({"format": "complex", "user": user, "session": session}), with_sid, vec![(Session, "s1")]),
            (
                json!({"format": "complex", "user": user, "session": session}),
                READING,
                vec![(Session, "s1"), (Subject, "ada")],
            ),
            (json!({"user": user, "session": session}), with_sid, vec![(Session, "s1")]),
            (json!({"format": "complex", "user": user}), with_sid, vec![(Subject, "ada")]),
            (json!({"format": "complex", "device": session}), with_sid, vec![]),
            (json!({"format": "complex", "user": session}), sessions, vec![]),
            (json!({"format": "complex", "user": session}), subjects, vec![(Subject, "s1")]),
            (
                json!({"format": "aliases", "identifiers": [{"format": "email", "email": "a@b.test"}, user]}),
                READING,
                vec![(Subject, "ada")],
            ),
            (json!({"format": "aliases", "identifiers": vec![user.clone(); 17]}), READING, vec![]),
            (json!({"format": "aliases"}), READING, vec![]),
            (json!("ada"), READING, vec![]),
            (json!({}), READING, vec![]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(kind, value)| (kind, value.to_owned())).collect();
            assert_eq!(names(&subject, reading), expected, "{subject}");
        }
    }
}
