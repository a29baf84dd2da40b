//! Compares the `htu` of a proof with the target of a request (RFC 9449 section 4.3, check 9).
//!
//! Both are normalized first (RFC 3986 section 6.2): case of scheme and host, default port, percent codes, dot
//! segments. The query and the fragment are ignored. Behind a trusted proxy, the target is the URL that the proxy's
//! client requested.

use crate::authenticate::Credentials;
use crate::peer::Scheme;
use crate::route::host::Authority;
use crate::route::path::{Slashes, canonical_with};
use std::borrow::Cow;

/// A URI in normal form, without its query and fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'t> {
    scheme: Scheme,
    host: Cow<'t, str>,
    port: u16,
    path: Cow<'t, str>,
}

impl<'t> Target<'t> {
    /// Parses an absolute `http` or `https` URI. Returns `None` for any other text, and for an ambiguous path or host.
    pub(super) fn parse(uri: &'t str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        let schemes = [Scheme::Http, Scheme::Https];
        let scheme = schemes.into_iter().find(|known| scheme.eq_ignore_ascii_case(known.as_str()))?;
        let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let Authority { host, port } = Authority::parse(authority).ok()?;
        // The same function normalized the path of the request. Merging slashes is harmless: unless the policy merges
        // them too, no path of a request has an empty segment.
        let path =
            if path.is_empty() { Cow::Borrowed("/") } else { canonical_with(path, Slashes::Merge).ok()? };
        Some(Self { scheme, host, port: port.unwrap_or(scheme.default_port()), path })
    }

    /// Whether this is the target of the request.
    ///
    /// If the host of the request has no port, accepts the default port and the port in `X-Forwarded-Port`. A proxy
    /// often removes the port from the host, and an inner proxy may report its own port.
    pub(super) fn is_of(&self, credentials: &Credentials<'_>) -> bool {
        let (head, relayed) = (credentials.head, credentials.relayed);
        let default = credentials.scheme.default_port();
        let is_port = |named: Option<u16>| match named {
            Some(port) => port == self.port,
            None => self.port == default || relayed.is_some_and(|relayed| relayed.port == Some(self.port)),
        };
        let is_authority = match relayed.and_then(|relayed| relayed.host.as_deref()) {
            Some(host) => Authority::parse(host).is_ok_and(|it| it.host == self.host && is_port(it.port)),
            None => head.host.as_deref() == Some(&*self.host) && is_port(head.port),
        };
        self.scheme == credentials.scheme && is_authority && self.path == head.path
    }
}

/// Returns the `htu` that the request requires, for the operator.
pub(super) fn wanted(credentials: &Credentials<'_>) -> String {
    let relayed = credentials.relayed.and_then(|relayed| relayed.host.as_deref());
    let own = credentials.head.authority();
    let authority = relayed.or(own.as_deref()).unwrap_or("(no host)");
    format!("{}://{authority}{}", credentials.scheme.as_str(), credentials.head.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Relayed;
    use crate::route::Head;
    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    fn is_of(htu: &str, scheme: Scheme, authority: &str, path: &str, relayed: Option<&Relayed>) -> bool {
        let headers = HeaderMap::new();
        let Authority { host, port } = Authority::parse(authority).unwrap();
        let head = Head {
            method: &Method::GET,
            host: Some(host),
            port,
            path: canonical_with(path, Slashes::Strict).unwrap(),
            query: Some("a=b"),
            headers: &headers,
        };
        let credentials = Credentials { relayed, ..Credentials::new(&head, scheme) };
        Target::parse(htu).is_some_and(|target| target.is_of(&credentials))
    }

    #[test]
    fn equivalent_spellings_of_the_target_are_accepted_and_no_others() {
        for (htu, accepted) in [
            ("https://api.example/a/b%20c", true),
            ("HTTPS://API.Example:443/a/b%20c", true),
            ("https://api.example./a/./x/../b%20c", true),
            ("https://api.example:/%61/%62%20c?other=query#fragment", true),
            ("http://api.example/a/b%20c", false),
            ("wss://api.example/a/b%20c", false),
            ("https://api.example:444/a/b%20c", false),
            ("https://api.example/a/b%20C", false),
            ("https://api.example/A/b%20c", false),
            ("https://api.example/a/b%20c/", false),
            ("https://api.example/a", false),
            ("https://api.example", false),
            ("https://api.example.evil/a/b%20c", false),
            ("https://api.example@evil/a/b%20c", false),
            ("https://user@api.example/a/b%20c", false),
            ("https://api.example/a%2fb%20c", false),
            ("https://api.example\\a/b%20c", false),
            (" https://api.example/a/b%20c", false),
            ("//api.example/a/b%20c", false),
            ("/a/b%20c", false),
            ("", false),
        ] {
            assert_eq!(is_of(htu, Scheme::Https, "api.example", "/a/b%20c", None), accepted, "{htu}");
        }
        assert!(is_of("https://api.example", Scheme::Https, "api.example", "/", None));
        assert!(is_of("https://api.example?a", Scheme::Https, "api.example:443", "/", None));
        assert!(is_of("http://[2001:DB8::0:1]:8080/", Scheme::Http, "[2001:db8::1]:8080", "/", None));
    }

    #[test]
    fn behind_a_trusted_proxy_the_target_is_the_one_that_its_client_used() {
        let relayed =
            |host: Option<&str>, port| Relayed { host: host.map(Into::into), port, ..Relayed::default() };
        for (htu, relayed, accepted) in [
            ("https://pub.example/a", relayed(Some("pub.example"), None), true),
            ("https://inner/a", relayed(Some("pub.example"), None), false),
            ("https://pub.example:8443/a", relayed(Some("pub.example:8443"), None), true),
            ("https://pub.example/a", relayed(Some("pub.example:8443"), None), false),
            ("https://pub.example:8443/a", relayed(Some("pub.example"), Some(8443)), true),
            ("https://pub.example/a", relayed(Some("pub.example"), Some(8443)), true),
            ("https://pub.example:8444/a", relayed(Some("pub.example"), Some(8443)), false),
            ("https://inner:8443/a", relayed(None, Some(8443)), true),
            ("https://inner/a", relayed(None, None), true),
            ("http://pub.example/a", relayed(Some("pub.example"), None), false),
        ] {
            assert_eq!(
                is_of(htu, Scheme::Https, "inner", "/a", Some(&relayed)),
                accepted,
                "{htu} {relayed:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn normalization_changes_the_spelling_and_never_the_target(
            labels in proptest::collection::vec("[a-z]([a-z0-9-]{0,6}[a-z0-9])?", 1..4),
            port in proptest::option::of(1_u16..),
            segments in proptest::collection::vec("[a-zA-Z0-9._~-]{0,3}[a-zA-Z0-9_~-]", 0..4),
            upper in any::<bool>(),
            encoded in any::<bool>(),
            tail in "([?#][ -~]{0,12})?",
        ) {
            let host = labels.join(".");
            let authority = port.map_or(host.clone(), |port| format!("{host}:{port}"));
            let path = format!("/{}", segments.join("/"));
            let written: String = if encoded { path.bytes().map(|b| match b {
                b'/' => "/".to_owned(), b => format!("%{b:02x}") }).collect() } else { path.clone() };
            let authority_written = if upper { authority.to_ascii_uppercase() } else { authority.clone() };
            let htu = format!("https://{authority_written}{written}{tail}");
            prop_assert!(is_of(&htu, Scheme::Https, &authority, &path, None), "{}", htu);
            prop_assert!(!is_of(&htu, Scheme::Http, &authority, &path, None));
            let longer = format!("{path}x");
            prop_assert!(!is_of(&htu, Scheme::Https, &authority, &longer, None));
            let below = format!("x.{authority}");
            prop_assert!(!is_of(&htu, Scheme::Https, &below, &path, None));
        }

        #[test]
        fn a_text_has_at_most_one_normal_form(htu in "(https?|HTTP|ws)?(://)?\\PC{0,40}") {
            if let Some(target) = Target::parse(&htu) {
                let again = format!("{}://{}:{}{}", target.scheme.as_str(), target.host, target.port, target.path);
                prop_assert_eq!(Target::parse(&again), Some(target));
            }
        }
    }
}
