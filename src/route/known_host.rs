//! Remembers the last `Host` of a connection. It rarely changes, and comparing it costs a sixth of reading it.

use super::host::Authority;
use crate::denial::Malformed;
use http::HeaderValue;
use std::borrow::Cow;
use std::cell::RefCell;

/// The last `Host` of a connection.
#[derive(Debug, Default)]
pub(crate) struct KnownHost(RefCell<Option<Known>>);

#[derive(Debug)]
struct Known {
    /// The value as the client wrote it.
    text: Box<str>,
    /// The length of the canonical host, which the value begins with.
    host_len: usize,
    port: Option<u16>,
}

impl KnownHost {
    /// Parses a `Host` like [`Authority::parse`].
    pub(super) fn parse<'r>(&self, value: &'r HeaderValue) -> Result<Authority<'r>, Malformed> {
        // `to_str` accepts only visible ASCII.
        let text = value.to_str().map_err(|_| Malformed::Host)?;
        if let Some(known) = &*self.0.borrow()
            && *known.text == *text
        {
            return Ok(Authority { host: Cow::Borrowed(&text[..known.host_len]), port: known.port });
        }
        let authority = Authority::parse(text)?;
        if let Cow::Borrowed(host) = authority.host
            && text.starts_with(host)
        {
            let known = Known { text: text.into(), host_len: host.len(), port: authority.port };
            self.0.replace(Some(known));
        }
        Ok(authority)
    }

    /// Forgets the host, and releases its memory.
    pub(crate) fn release(&self) {
        self.0.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_host_means_the_same_after_any_other(
            values in proptest::collection::vec("[aA1.:\\[\\]-]{0,5}|a\\.b:1|A\\.b|127\\.0\\.0\\.1:80|\\[::1\\]:8|a\\.", 1..8),
        ) {
            let known = KnownHost::default();
            for text in values.iter().flat_map(|text| [text, text]) {
                let value = HeaderValue::from_str(text).unwrap();
                prop_assert_eq!(known.parse(&value), Authority::parse(text), "{}", text);
            }
        }
    }
}
