//! The identity headers that upstreams receive, built once for each verified token.
//!
//! Commas, percent signs, control and non-ASCII characters, and spaces at the ends of a value are percent-encoded. A
//! role named `a,admin` therefore arrives as `a%2Cadmin` and can never be read as `admin`.

use super::claims::{ClaimId, ClaimValue};
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
    pub(super) fn render(&self, principal: &Principal) -> Option<Box<[(HeaderName, HeaderValue)]>> {
        let mut headers = Vec::new();
        let mut add = |name: &HeaderName, text: String| {
            if !text.is_empty() {
                let value = HeaderValue::try_from(text).expect("encoded values are visible ASCII and spaces");
                headers.push((name.clone(), value));
            }
            headers.last().is_none_or(|(_, value)| value.len() <= VALUE_MAX)
        };
        let mut fits = true;
        if let Some(name) = &self.subject {
            fits &= add(name, encoded(&principal.subject));
        }
        if let Some(name) = &self.roles {
            fits &= add(name, listed(principal.roles.iter().map(|role| encoded(role))));
        }
        if let Some(name) = &self.scopes {
            fits &= add(name, listed(principal.scopes.iter().map(|scope| encoded(scope))));
        }
        if let Some(name) = &self.issuer {
            fits &= add(name, encoded(&principal.issuer));
        }
        for (name, id) in &self.claims {
            if let Some(value) = principal.claim(*id) {
                fits &= add(name, claim(value));
            }
        }
        fits.then(|| headers.into())
    }
}

fn listed(values: impl Iterator<Item = String>) -> String {
    values.filter(|value| !value.is_empty()).collect::<Vec<_>>().join(",")
}

fn claim(value: &ClaimValue) -> String {
    match value {
        ClaimValue::Text(text) => encoded(text),
        ClaimValue::Number(number) => number.to_string(),
        ClaimValue::Bool(flag) => flag.to_string(),
        ClaimValue::List(values) => {
            listed(values.iter().filter(|value| !matches!(value, ClaimValue::List(_))).map(claim))
        }
        ClaimValue::Other => String::new(),
    }
}

fn encoded(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let plain = (byte.is_ascii_graphic() && byte != b',' && byte != b'%')
            || (byte == b' ' && at != 0 && at != last);
        if plain {
            out.push(char::from(byte));
        } else {
            hex::push_percent_code(&mut out, byte);
        }
    }
    out
}

/// Returns whether two header names are equal to an application that ignores case and does not distinguish separators.
pub fn fold_eq(one: &str, other: &str) -> bool {
    let fold = |b: u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| fold(a) == fold(b))
}

#[cfg(test)]
mod tests;
