//! Changes header fields of requests and answers as the policy states.

use super::fields::FieldSink;
use crate::authenticate::fold_eq;
use crate::config::{is_secret_field, shown_value};
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;

/// The changes to the fields of one direction. The compiler refuses the names that the gateway decides about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits {
    /// The fields to remove: those of `remove` and `set`.
    pub(crate) removed: Box<[HeaderName]>,
    /// The fields that replace those of this name.
    pub(crate) set: Box<[(HeaderName, HeaderValue)]>,
    /// The fields to add beside those of this name.
    pub(crate) added: Box<[(HeaderName, HeaderValue)]>,
}

impl Edits {
    /// Removes a client's fields. A CGI-style backend reads `X_Env` as `X-Env`, so every spelling is removed.
    #[cold]
    pub(in crate::forward) fn prepare(&self, headers: &mut HeaderMap) {
        super::strip::remove_where(headers, |name| {
            self.removed.iter().any(|removed| fold_eq(removed.as_str(), name.as_str()))
        });
    }

    /// Writes the fields for an upstream.
    #[cold]
    pub(in crate::forward) fn write(&self, sink: &mut impl FieldSink) {
        self.set.iter().for_each(|(name, value)| sink.set(name, value));
        self.added.iter().for_each(|(name, value)| sink.add(name, value));
    }

    /// Returns the fields whose values are not shown to operators, because they may be credentials.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let fields = self.set.iter().chain(&self.added).map(|(name, value)| (name, value));
        fields.filter(|(name, value)| {
            is_secret_field(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))
        })
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.removed {
            headers.remove(name);
        }
        for (name, value) in self.set.iter().chain(&self.added) {
            headers.append(name, value.clone());
        }
    }
}

/// The changes to the answers of an upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerFields {
    pub(crate) edits: Edits,
    pub(crate) protection: Protection,
}

impl fmt::Display for Edits {
    /// Formats the changes for operators: `sets cache-control: private; removes server`. Masks credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |fields: &[(HeaderName, HeaderValue)]| {
            let field = |(name, value): &(HeaderName, HeaderValue)| {
                format!("{name}: {}", shown_value(name.as_str(), &String::from_utf8_lossy(value.as_bytes())))
            };
            fields.iter().map(field).collect::<Vec<_>>().join(", ")
        };
        let is_only_removed = |name: &&HeaderName| !self.set.iter().any(|(known, _)| known == *name);
        let removed: Vec<&str> =
            self.removed.iter().filter(is_only_removed).map(HeaderName::as_str).collect();
        let parts = [("sets", list(&self.set)), ("adds", list(&self.added)), ("removes", removed.join(", "))];
        let parts = parts.iter().filter(|(_, fields)| !fields.is_empty());
        f.write_str(&parts.map(|(verb, fields)| format!("{verb} {fields}")).collect::<Vec<_>>().join("; "))
    }
}

impl fmt::Display for AnswerFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edits = self.edits.to_string();
        let separator = if edits.is_empty() { "" } else { "; " };
        match self.protection {
            Protection::Off => f.write_str(&edits),
            Protection::Missing => write!(f, "{edits}{separator}adds security headers that are missing"),
            Protection::Forced => write!(f, "{edits}{separator}sets security headers"),
        }
    }
}

/// When the gateway adds fields that protect pages in a browser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Never.
    #[default]
    Off,
    /// Only the fields that the upstream does not state.
    Missing,
    /// Always, in place of the upstream's.
    Forced,
}

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const REFERRER: HeaderValue = HeaderValue::from_static("strict-origin-when-cross-origin");
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("SAMEORIGIN");
const FRAME_SELF: HeaderValue = HeaderValue::from_static("frame-ancestors 'self'");
const DENY: HeaderValue = HeaderValue::from_static("DENY");
const FRAME_NONE: HeaderValue = HeaderValue::from_static("frame-ancestors 'none'");

impl AnswerFields {
    /// Changes the fields of an answer.
    #[cold]
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        self.edits.apply(headers);
        let is_forced = match self.protection {
            Protection::Off => return,
            Protection::Missing => false,
            Protection::Forced => true,
        };
        for (name, value) in [(X_CONTENT_TYPE_OPTIONS, NOSNIFF), (REFERRER_POLICY, REFERRER)] {
            if is_forced || !headers.contains_key(&name) {
                headers.insert(name, value);
            }
        }
        // A browser ignores X-Frame-Options beside `frame-ancestors` (CSP level 3, section 6.4.2.2), so adding one field
        // could undo the other.
        let is_decided = headers.contains_key(X_FRAME_OPTIONS) || has_frame_ancestors(headers);
        if is_forced || !is_decided {
            let is_denied = headers
                .get_all(X_FRAME_OPTIONS)
                .iter()
                .any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(DENY.as_bytes()));
            let (options, policy) = if is_denied { (DENY, FRAME_NONE) } else { (SAME_ORIGIN, FRAME_SELF) };
            headers.insert(X_FRAME_OPTIONS, options);
            // A browser enforces every policy of an answer, so the upstream's own policies stay in force.
            headers.append(CONTENT_SECURITY_POLICY, policy);
        }
    }
}

fn has_frame_ancestors(headers: &HeaderMap) -> bool {
    let mut policies = headers.get_all(CONTENT_SECURITY_POLICY).iter().map(HeaderValue::as_bytes);
    policies.any(|policy| {
        let mut directives = policy.split(|byte| matches!(byte, b';' | b',')).map(<[u8]>::trim_ascii_start);
        directives.any(|directive| {
            let name = directive.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            name.eq_ignore_ascii_case(b"frame-ancestors")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected(protection: Protection, fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        AnswerFields { protection, ..AnswerFields::default() }.apply(&mut headers);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut fields: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        fields.sort();
        fields
    }

    fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_upstreams_own_protection_stays_unless_ours_is_forced() {
        let all = owned(&[
            ("content-security-policy", "frame-ancestors 'self'"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "SAMEORIGIN"),
        ]);
        let loose = [("referrer-policy", "unsafe-url"), ("x-frame-options", "ALLOWALL")];
        assert_eq!(protected(Protection::Off, &loose), owned(&loose));
        assert_eq!(protected(Protection::Missing, &[]), all);
        assert_eq!(protected(Protection::Forced, &loose), all);
        let kept = [loose[0], ("x-content-type-options", "nosniff"), loose[1]];
        assert_eq!(protected(Protection::Missing, &loose), owned(&kept));
    }

    #[test]
    fn framing_is_decided_by_one_side_and_never_loosened() {
        let framing = |protection, fields: &[(&'static str, &'static str)]| {
            let mut fields = protected(protection, fields);
            fields.retain(|(name, _)| name.starts_with("content-security") || name.starts_with("x-frame"));
            fields
        };
        for own in [
            ("content-security-policy", "default-src 'self'; Frame-Ancestors https://a.example"),
            ("content-security-policy", "default-src 'self',frame-ancestors\t'none'"),
            ("x-frame-options", "deny"),
        ] {
            assert_eq!(framing(Protection::Missing, &[own]), owned(&[own]));
        }
        let other = ("content-security-policy", "default-src 'self'; report-uri /frame-ancestors");
        assert_eq!(
            framing(Protection::Missing, &[other]),
            owned(&[
                other,
                ("content-security-policy", "frame-ancestors 'self'"),
                ("x-frame-options", "SAMEORIGIN")
            ])
        );
        assert_eq!(
            framing(Protection::Forced, &[("x-frame-options", "deny")]),
            owned(&[("content-security-policy", "frame-ancestors 'none'"), ("x-frame-options", "DENY")])
        );
    }
}
