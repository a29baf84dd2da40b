//! The destination of a browser after a login: a path on this host, or `/`. A request can never cause a redirect to
//! another host.

use super::super::fields::Fields;
use crate::route::path::canonical;
use http::HeaderValue;

/// Maximum length of a destination in its canonical form, in bytes. The URL of the login page contains the destination in
/// percent-encoded form, and must stay below the limits of browsers and servers.
pub const NEXT_MAX: usize = 2048;

/// A path on this host with its query, safe in `Location`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next(String);

impl Next {
    /// Parses a requested destination, and converts its path to canonical form. A browser then cannot interpret `//`,
    /// `\`, dots or control characters as another host.
    pub fn parse(asked: &str) -> Option<Self> {
        if asked.len() > NEXT_MAX {
            return None;
        }
        let (path, query) = match asked.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (asked, None),
        };
        let mut next = canonical(path).ok()?.into_owned();
        if let Some(query) = query {
            // Browsers send a query as visible ASCII, without the fragment after `#`.
            if !query.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\')) {
                return None;
            }
            next.push('?');
            next.push_str(query);
        }
        // The canonical form of a character outside ASCII is up to three times as long.
        let is_short = next.len() <= NEXT_MAX;
        (is_short && next.starts_with('/') && !next.starts_with("//")).then_some(Self(next))
    }

    /// Returns the destination in the field `next` of a form or a query.
    pub(super) fn of(fields: &Fields) -> Option<Self> {
        Self::parse(fields.optional("next").ok()??)
    }

    /// Returns the path and query.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the value of `Location`: the destination, or `/` without a destination.
pub(super) fn location(next: Option<&Next>) -> HeaderValue {
    let next = next.map_or("/", Next::as_str);
    HeaderValue::from_str(next).expect("a canonical path and a query of visible ASCII are a field value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_on_this_host_is_kept_in_its_canonical_spelling() {
        for (asked, next) in [
            ("/", "/"),
            ("/orders/7?sort=-date&q=a%20b", "/orders/7?sort=-date&q=a%20b"),
            ("/a/../b", "/b"),
            ("/%61dmin", "/admin"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/a b", "/a%20b"),
            ("/@evil.example", "/@evil.example"),
            ("/:80", "/:80"),
            ("/?https://evil.example//", "/?https://evil.example//"),
            ("/a?b?c", "/a?b?c"),
            ("/a?", "/a?"),
        ] {
            assert_eq!(Next::parse(asked).map(|next| next.0).as_deref(), Some(next), "{asked}");
        }
    }

    #[test]
    fn a_location_of_another_host_is_rejected() {
        for asked in [
            "",
            "orders",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\\/evil.example",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            " /a",
            "\t//evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/%09/evil.example",
            "/a\r\nSet-Cookie: x=y",
            "/a?b\r\nSet-Cookie: x=y",
            "/a?b\\c",
            "/a?b c",
            "/a?\u{e9}",
            "/a#b",
            "/a?b#c",
            "/.//evil.example",
            "/..//evil.example",
            "/%2f%2fevil.example",
            "/%5cevil.example",
            "/%2e%2e/evil",
            "/../a",
            "?a",
            "*",
        ] {
            assert_eq!(Next::parse(asked), None, "{asked:?}");
        }
        assert!(Next::parse(&format!("/{}", "a".repeat(NEXT_MAX - 1))).is_some());
        assert!(Next::parse(&format!("/{}", "a".repeat(NEXT_MAX))).is_none());
    }

    #[test]
    fn a_destination_is_as_short_in_its_canonical_form() {
        // The form of the login page returns the canonical form, which is parsed again.
        let longest = format!("/{}", "\u{e9}".repeat((NEXT_MAX - 1) / "%C3%A9".len()));
        let next = Next::parse(&longest).unwrap();
        assert_eq!(Next::parse(next.as_str()), Some(next));
        assert_eq!(Next::parse(&format!("{longest}\u{e9}")), None);
    }

    /// Returns the address that a browser on `https://shop.example/auth/login` opens for `location`, or `None` if it is
    /// on the same host. Implements the relevant parts of the URL Standard, section 4.4.
    fn another_host(location: &str) -> Option<String> {
        let text: String = location
            .trim_matches(|c: char| c <= ' ')
            .chars()
            .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
            .map(|c| if c == '\\' { '/' } else { c })
            .collect();
        let scheme = text.split(':').next().filter(|scheme| scheme.len() < text.len());
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        };
        (text.starts_with("//") || scheme.is_some_and(is_scheme)).then_some(text)
    }

    fn hostile() -> impl Strategy<Value = String> {
        let pieces = vec![
            "/",
            "//",
            "\\",
            "evil.example",
            "https:",
            "javascript:",
            "@",
            ":",
            "?",
            "#",
            ".",
            "..",
            "%2f",
            "%5c",
            "%09",
            "%0d%0a",
            "\t",
            "\r\n",
            " ",
            "\0",
            "\u{e9}",
            "\u{2028}",
            "\u{ff0f}",
            "a",
            "next=",
            "&",
            ";",
            "%",
            "%00",
            "\u{85}",
        ];
        proptest::collection::vec(proptest::sample::select(pieces), 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_location_is_on_this_host_for_every_target(asked in prop_oneof![hostile(), any::<String>()]) {
            let location = location(Next::parse(&asked).as_ref());
            let text = location.to_str().unwrap();
            prop_assert!(text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(another_host(text), None);
            prop_assert_eq!(Next::parse(text).map(|next| next.0), Some(text.to_owned()), "it means itself");
        }
    }
}
