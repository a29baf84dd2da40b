//! Hosts, authorities and the host patterns of routes.
//!
//! Hosts are ASCII. This module does not resolve names and does not decode Punycode.

use super::pattern::PatternFault;
use crate::denial::Malformed;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The maximum length of a host, in bytes (RFC 1035 section 2.3.4).
pub(crate) const HOST_BYTES_MAX: usize = 255;

/// The maximum length of a host's label, in bytes (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A host and optional port in canonical spelling. Equal values name the same authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'r> {
    /// The host. See [`canonical_host`].
    pub host: Cow<'r, str>,
    /// The port, if present. The default port of the scheme is not filled in.
    pub port: Option<u16>,
}

impl<'r> Authority<'r> {
    /// Parses `host` or `host:port` (RFC 9110 section 7.2). An empty port counts as absent (RFC 3986 section 3.2.3).
    ///
    /// # Errors
    ///
    /// Returns [`Malformed::Host`] for any other text. User information is rejected, because links such as
    /// `https://bank.example@evil.example/` mislead users.
    pub fn parse(raw: &'r str) -> Result<Self, Malformed> {
        // The colons of an IPv6 address are inside the brackets.
        let name_end = if raw.starts_with('[') { raw.find(']').map_or(0, |at| at + 1) } else { 0 };
        // For a short text, a loop over bytes is faster than `str::find`.
        let (host, port) = match raw.bytes().skip(name_end).position(|byte| byte == b':') {
            Some(colon) => (&raw[..name_end + colon], parse_port(&raw[name_end + colon + 1..])?),
            None => (raw, None),
        };
        Ok(Self { host: canonical_host(host)?, port })
    }
}

/// Parses a port without leading zeros. An empty port is absent.
fn parse_port(text: &str) -> Result<Option<u16>, Malformed> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Host);
    }
    text.parse().map(Some).map_err(|_| Malformed::Host)
}

/// Returns the canonical spelling of a host: lower case, without a trailing dot. An IPv6 address is compressed (RFC
/// 5952) and in brackets. A label contains letters, digits, hyphens and underscores.
///
/// # Errors
///
/// Returns [`Malformed::Host`] for an invalid host. A host whose last label is a number must be an IPv4 address of four
/// decimal parts: some servers read `127.1` and `0x7f000001` as the loopback address, others as names.
pub fn canonical_host(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    if raw.len() > HOST_BYTES_MAX {
        return Err(Malformed::Host);
    }
    if let Some(address) = raw.strip_prefix('[') {
        let address = address.strip_suffix(']').ok_or(Malformed::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| Malformed::Host)?;
        let host = format!("[{address}]");
        return Ok(if host == raw { Cow::Borrowed(raw) } else { Cow::Owned(host) });
    }
    let name = raw.strip_suffix('.').unwrap_or(raw);
    let (mut label_len, mut has_upper) = (0, false);
    for byte in name.bytes() {
        match byte {
            b'.' if label_len == 0 => return Err(Malformed::Host),
            b'.' => label_len = 0,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label_len += 1,
            b'A'..=b'Z' => (label_len, has_upper) = (label_len + 1, true),
            _ => return Err(Malformed::Host),
        }
        if label_len > LABEL_BYTES_MAX {
            return Err(Malformed::Host);
        }
    }
    if label_len == 0 || (ends_in_number(name) && name.parse::<Ipv4Addr>().is_err()) {
        return Err(Malformed::Host);
    }
    Ok(if has_upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// Whether a canonical host is the local machine (RFC 6761 section 6.3, RFC 1122 section 3.2.1.3).
pub(crate) fn is_own_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Whether some parsers read the name as an IPv4 address (WHATWG URL, "ends in a number").
fn ends_in_number(name: &str) -> bool {
    let last = name.as_bytes().rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    match last {
        [b'0', b'x' | b'X', hexadecimal @ ..] => hexadecimal.iter().all(u8::is_ascii_hexdigit),
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

/// The hosts that a route covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host. Also covers HTTP/1.0 requests without a host.
    #[default]
    Any,
    /// The subdomains of this host at any depth. `*.example.com` covers `a.b.example.com` but not `example.com`, and is
    /// stored as `example.com`.
    Below(Box<str>),
    /// Only this host.
    Exact(Box<str>),
}

impl HostPattern {
    /// Parses a host, or `*.` and a host. A route that covers every host has no host pattern.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the pattern and how to fix it.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if text == "*" {
            return Err(PatternFault::new("the host `*`", "leave `host` out to cover every host"));
        }
        if name.contains('*') {
            return Err(PatternFault::new(
                format!("a `*` inside the host `{text}`"),
                "a wildcard is the whole first label, as in `*.example.com`",
            ));
        }
        if let Some((scheme, rest)) = name.split_once("://") {
            let host = rest.split('/').next().unwrap_or(rest);
            return Err(PatternFault::new(
                format!("the scheme `{scheme}` in the host `{text}`"),
                format!("write the host alone: `{host}`"),
            ));
        }
        if let Ok(Authority { host, port: Some(port) }) = Authority::parse(name) {
            let star = if wildcard { "*." } else { "" };
            return Err(PatternFault::new(
                format!("the port {port} in the host `{text}`"),
                format!("hosts are compared without their port: write `{star}{host}`"),
            ));
        }
        match canonical_host(name) {
            Ok(host) if wildcard && (host.starts_with('[') || ends_in_number(&host)) => {
                Err(PatternFault::new(
                    format!("a wildcard before the address `{host}`"),
                    "an address has no hosts below it: write the address alone",
                ))
            }
            Ok(host) if wildcard => Ok(Self::Below(host.into())),
            Ok(host) => Ok(Self::Exact(host.into())),
            Err(_) => Err(PatternFault::new(
                format!("`{text}`, which is not a host"),
                "write a name of letters, digits, `-`, `_` and dots (Punycode for others), an IPv4 address, \
                 or an IPv6 address in brackets",
            )),
        }
    }

    /// Whether the pattern covers a canonical host.
    pub(crate) fn covers(&self, host: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Below(parent) => host
                .and_then(|host| host.strip_suffix(&**parent))
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
            Self::Exact(name) => host == Some(&**name),
        }
    }

    /// Compares two patterns. Exact hosts are first, then wildcards by decreasing length, then [`HostPattern::Any`].
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let key = |pattern: &Self| match pattern {
            Self::Exact(_) => (0, 0),
            Self::Below(parent) => (1, usize::MAX - parent.len()),
            Self::Any => (2, 0),
        };
        key(self).cmp(&key(other)).then_with(|| self.to_string().cmp(&other.to_string()))
    }

    /// Whether this pattern covers every host that `other` covers.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any | Self::Below(_) | Self::Exact(_)) => true,
            (Self::Below(parent), Self::Below(name)) => parent == name || self.covers(Some(name)),
            (Self::Below(_) | Self::Exact(_), Self::Exact(name)) => self.covers(Some(name)),
            (Self::Below(_) | Self::Exact(_), Self::Any) | (Self::Exact(_), Self::Below(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(parent) => write!(f, "*.{parent}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_host_becomes_one() {
        for (raw, host) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com.", "example.com"),
            ("my_host", "my_host"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("0xyz", "0xyz"),
        ] {
            assert_eq!(canonical_host(raw).as_deref(), Ok(host), "{raw}");
        }
    }

    #[test]
    fn invalid_hosts_are_refused() {
        let long_label = "a".repeat(64);
        let long = "a.".repeat(128);
        for raw in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a/b",
            "a@b",
            "a%41",
            "a:b",
            "b\u{fc}cher",
            "a,b",
            "a\tb",
            "*",
            "127.1",
            "127.0.0.01",
            "256.1.1.1",
            "1.2.3.4.5",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "a.0x",
            "::1",
            "[::1",
            "[::1]x",
            "[]",
            "[1.2.3.4]",
            "[fe80::1%25eth0]",
            "[::1].",
            &long_label,
            &long,
        ] {
            assert_eq!(canonical_host(raw), Err(Malformed::Host), "{raw}");
        }
    }

    #[test]
    fn a_port_has_one_spelling() {
        let port = |raw| Authority::parse(raw).map(|authority| authority.port);
        assert_eq!(port("a"), Ok(None));
        assert_eq!(port("a:80"), Ok(Some(80)));
        assert_eq!(port("[::1]:8443"), Ok(Some(8443)));
        assert_eq!(port("[::1]"), Ok(None));
        assert_eq!(port("a:"), Ok(None));
        assert_eq!(port("[::1]:"), Ok(None));
        let bad = [
            ":", "a:0", "a:080", "a:65536", "a:+1", "a:1a", "a:1:2", ":80", "[::1]80", "[::1:80", "u@a:80",
            "u:1@a",
        ];
        for raw in bad {
            assert_eq!(port(raw), Err(Malformed::Host), "{raw}");
        }
    }

    #[test]
    fn a_wildcard_covers_any_depth_below_but_not_the_parent() {
        let pattern = HostPattern::parse("*.Example.com.").unwrap();
        assert_eq!(pattern.to_string(), "*.example.com");
        assert!(pattern.covers(Some("a.example.com")));
        assert!(pattern.covers(Some("a.b.example.com")));
        for host in
            [Some("example.com"), Some("anexample.com"), Some(".example.com"), Some("a.example.org"), None]
        {
            assert!(!pattern.covers(host), "{host:?}");
        }
    }

    #[test]
    fn an_exact_host_covers_itself_alone() {
        let pattern = HostPattern::parse("API.example.com").unwrap();
        assert!(pattern.covers(Some("api.example.com")));
        assert!(!pattern.covers(Some("a.api.example.com")));
        assert!(!pattern.covers(None));
        assert!(HostPattern::Any.covers(None));
    }

    #[test]
    fn a_faulty_pattern_says_what_would_be_right() {
        for (text, remedy) in [
            ("*", "leave `host` out"),
            ("example.com:8443", "write `example.com`"),
            ("*.example.com:1", "write `*.example.com`"),
            ("https://example.com/x", "write the host alone: `example.com`"),
            ("a.*.com", "as in `*.example.com`"),
            ("*example.com", "as in `*.example.com`"),
            ("*.10.0.0.1", "write the address alone"),
            ("*.[::1]", "write the address alone"),
            ("b\u{fc}cher.example", "Punycode"),
            ("", "write a name"),
            ("*.", "write a name"),
        ] {
            let fault = HostPattern::parse(text).expect_err(text).to_string();
            assert!(fault.contains(remedy), "{text}: {fault}");
        }
    }

    #[test]
    fn inclusion_is_what_covering_says() {
        let parse = |text: &str| HostPattern::parse(text).unwrap();
        assert!(parse("*.com").includes(&parse("*.example.com")));
        assert!(parse("*.com").includes(&parse("*.com")));
        assert!(parse("*.com").includes(&parse("example.com")));
        assert!(!parse("*.example.com").includes(&parse("*.com")));
        assert!(!parse("*.example.com").includes(&HostPattern::Any));
        assert!(!parse("example.com").includes(&parse("*.example.com")));
    }

    proptest! {
        #[test]
        fn a_canonical_host_is_always_its_own_spelling(raw in "[a-zA-Z0-9.\\[\\]:_-]{0,24}|[0-9.x]{0,12}|\\[[0-9a-fA-F:]{0,20}\\]|\\PC{0,8}") {
            if let Ok(host) = canonical_host(&raw) {
                prop_assert!(matches!(canonical_host(&host), Ok(Cow::Borrowed(same)) if same == host));
                prop_assert!(host.len() <= HOST_BYTES_MAX && !host.bytes().any(|byte| byte.is_ascii_uppercase()));
            }
        }
    }
}
