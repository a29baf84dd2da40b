//! The identity headers that upstreams receive, built once for each verified token.
//!
//! Commas, percent signs, control and non-ASCII characters, and spaces at the ends of a value are percent-encoded. A
//! role named `a,admin` therefore arrives as `a%2Cadmin` and can never be read as `admin`.

use super::claims::{ClaimId, ClaimValue};
use super::identity_fields::IdentityFields;
use super::principal::Principal;
use crate::hex;
use http::{HeaderName, HeaderValue};

/// The maximum length of an identity header in bytes. A token with a longer identity header is refused, since upstreams
/// would reject or truncate the field.
const VALUE_MAX: usize = 8 * 1024;

/// All names with this prefix are reserved for the gateway, whatever names the policy configures.
const RESERVED_PREFIX: &str = "x-auth-";

/// The names of the identity headers; `None` for a fact that is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    subject: Option<HeaderName>,
    roles: Option<HeaderName>,
    scopes: Option<HeaderName>,
    issuer: Option<HeaderName>,
    claims: Box<[(HeaderName, ClaimId)]>,
    /// The reserved names that do not begin with `x-auth-`; names with that prefix are always reserved.
    others: Box<[HeaderName]>,
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        Self::new(
            Some(HeaderName::from_static("x-auth-subject")),
            Some(HeaderName::from_static("x-auth-roles")),
            Some(HeaderName::from_static("x-auth-scopes")),
            Some(HeaderName::from_static("x-auth-issuer")),
            Vec::new(),
        )
    }
}

impl IdentityHeaders {
    /// Creates the headers with these names.
    pub fn new(
        subject: Option<HeaderName>,
        roles: Option<HeaderName>,
        scopes: Option<HeaderName>,
        issuer: Option<HeaderName>,
        claims: Vec<(HeaderName, ClaimId)>,
    ) -> Self {
        let facts = [&subject, &roles, &scopes, &issuer];
        let names = facts.into_iter().flatten().chain(claims.iter().map(|(name, _)| name));
        let others = names.filter(|name| !name.as_str().starts_with(RESERVED_PREFIX)).cloned().collect();
        Self { subject, roles, scopes, issuer, claims: claims.into(), others }
    }

    /// Returns the headers for the subject, the roles, the scopes and the issuer, in this order.
    pub fn facts(&self) -> [Option<&HeaderName>; 4] {
        [&self.subject, &self.roles, &self.scopes, &self.issuer].map(Option::as_ref)
    }

    /// Returns the headers for other claims.
    pub fn claims(&self) -> &[(HeaderName, ClaimId)] {
        &self.claims
    }

    /// Reserves another header name, so that clients may not send it.
    #[must_use]
    pub fn reserving(mut self, name: &HeaderName) -> Self {
        if !name.as_str().starts_with(RESERVED_PREFIX) {
            self.others = self.others.iter().chain([name]).cloned().collect();
        }
        self
    }

    /// Returns whether an application could mistake a client's header of this name for an identity header: the name is
    /// one of the reserved names or begins with `x-auth-`. The comparison ignores case and treats all characters except
    /// letters and digits as equal.
    #[inline]
    pub fn reserved(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        // This function runs for every field of every request. The first letter excludes nearly all names.
        let Some(first) = name.bytes().next() else { return false };
        let begins = first == b'x'
            && name.get(..RESERVED_PREFIX.len()).is_some_and(|start| fold_eq(start, RESERVED_PREFIX));
        begins || self.others.iter().any(|ours| fold_eq(name, ours.as_str()))
    }

    /// Builds the identity headers of a principal. Returns `None` if a header would be too long. An absent or empty
    /// fact gets no header, since an application could accept an empty subject as a known user.
    pub(crate) fn render(&self, principal: &Principal) -> Option<IdentityFields> {
        let mut headers = Vec::with_capacity(self.facts().len() + self.claims.len());
        let mut text = String::with_capacity(128);
        let mut add = |name: &HeaderName, write: &dyn Fn(&mut String)| {
            text.clear();
            write(&mut text);
            if !text.is_empty() {
                let value =
                    HeaderValue::from_str(&text).expect("encoded values are visible ASCII and spaces");
                headers.push((name.clone(), value));
            }
            text.len() <= VALUE_MAX
        };
        let mut fits = true;
        if let Some(name) = &self.subject {
            fits &= add(name, &|out| push_encoded(out, &principal.subject));
        }
        if let Some(name) = &self.roles {
            fits &= add(name, &|out| push_list(out, &principal.roles, |out, role| push_encoded(out, role)));
        }
        if let Some(name) = &self.scopes {
            fits &=
                add(name, &|out| push_list(out, &principal.scopes, |out, scope| push_encoded(out, scope)));
        }
        if let Some(name) = &self.issuer {
            fits &= add(name, &|out| push_encoded(out, &principal.issuer));
        }
        for (name, id) in &self.claims {
            if let Some(value) = principal.claim(*id) {
                fits &= add(name, &|out| push_claim(out, value));
            }
        }
        fits.then(|| IdentityFields::new(headers))
    }
}

/// Appends the values that are not empty, separated by commas.
fn push_list<T>(out: &mut String, values: &[T], push: impl Fn(&mut String, &T)) {
    let start = out.len();
    for value in values {
        let before = out.len();
        if before > start {
            out.push(',');
        }
        let begin = out.len();
        push(out, value);
        if out.len() == begin {
            out.truncate(before);
        }
    }
}

fn push_claim(out: &mut String, value: &ClaimValue) {
    match value {
        ClaimValue::Text(text) => push_encoded(out, text),
        ClaimValue::Number(number) => out.push_str(&number.to_string()),
        ClaimValue::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        // A list within a list is left out.
        ClaimValue::List(values) => push_list(out, values, |out, value| match value {
            ClaimValue::List(_) => {}
            ClaimValue::Text(_) | ClaimValue::Number(_) | ClaimValue::Bool(_) | ClaimValue::Other => {
                push_claim(out, value);
            }
        }),
        ClaimValue::Other => {}
    }
}

fn push_encoded(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b',' && byte != b'%';
    if text.bytes().all(is_plain) {
        out.push_str(text);
        return;
    }
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        if is_plain(byte) || (byte == b' ' && at != 0 && at != last) {
            out.push(char::from(byte));
        } else {
            hex::push_percent_code(out, byte);
        }
    }
}

/// Returns whether two header names are equal to an application that ignores case and does not distinguish separators.
pub fn fold_eq(one: &str, other: &str) -> bool {
    let fold = |b: u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| fold(a) == fold(b))
}

#[cfg(test)]
mod tests;
