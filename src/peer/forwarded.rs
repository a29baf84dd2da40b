//! Determines the client behind trusted proxies.
//!
//! The gateway reads `X-Forwarded-*` and `Forwarded` only if `[server] trusted_proxies` contains the peer's address.

use super::{Caller, Peer, Relayed, Scheme};
use crate::config::network::Cidr;
use crate::route::host::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::net::{IpAddr, SocketAddr};

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// Maximum number of addresses of a chain that the gateway reads, from the right. Real chains have only a few
/// addresses.
const CHAIN_MAX: usize = 32;

/// Determines the client of a request, and reads the facts that a trusted proxy states about the request.
///
/// Each proxy appends an address on the right, so the addresses are read from right to left. The first address that is
/// not a trusted proxy is the client's. The addresses to its left are ignored, because the client may have invented
/// them.
///
/// If an element is not an address, reading stops there. The address to its right is then the client's.
pub fn read(peer: &Peer, trusted: &[Cidr], headers: &HeaderMap) -> (Caller, Option<Box<Relayed>>) {
    let mut caller = Caller { address: peer.address, scheme: peer.scheme, by_trusted_proxy: false };
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if trusted.is_empty() || !is_trusted(peer.address) {
        return (caller, None);
    }
    caller.by_trusted_proxy = true;
    let source = Source::of(headers);
    let relayed = read_relayed(headers, source);
    for address in relayed.chain.iter().rev() {
        let Some(address) = *address else { break };
        caller.address = address;
        if !is_trusted(address) {
            break;
        }
    }
    if let Some(scheme) = source.nearest(headers, &X_FORWARDED_PROTO, "proto").and_then(parse_scheme) {
        caller.scheme = scheme;
    }
    (caller, Some(Box::new(relayed)))
}

/// The fields of a request that its proxy has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// `X-Forwarded-*`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Source {
    /// Returns `Forwarded` only for a request without any `X-Forwarded-*`. Most proxies write `X-Forwarded-*` and pass a
    /// client's `Forwarded` on unchanged. If it completed what such a proxy leaves open, the client would choose the
    /// scheme and the host.
    fn of(headers: &HeaderMap) -> Self {
        let names = [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT];
        match names.iter().any(|name| headers.contains_key(name)) {
            true => Self::XForwarded,
            false => Self::Forwarded,
        }
    }

    /// Returns the value that the nearest proxy wrote: the last element of the field `name`, or the parameter in the last
    /// element of `Forwarded`.
    fn nearest<'h>(self, headers: &'h HeaderMap, name: &HeaderName, parameter_name: &str) -> Option<&'h str> {
        match self {
            Self::XForwarded => elements_from_the_right(headers, name).next(),
            Self::Forwarded => {
                let element = elements_from_the_right(headers, &header::FORWARDED).next()?;
                parameter(element, parameter_name)
            }
        }
    }
}

/// Reads the facts that a trusted proxy states about a request, except the scheme.
fn read_relayed(headers: &HeaderMap, source: Source) -> Relayed {
    let mut chain: Vec<Option<IpAddr>> = match source {
        Source::XForwarded => {
            elements_from_the_right(headers, &X_FORWARDED_FOR).take(CHAIN_MAX).map(parse_address).collect()
        }
        Source::Forwarded => elements_from_the_right(headers, &header::FORWARDED)
            .take(CHAIN_MAX)
            .map(|element| parameter(element, "for").and_then(parse_address))
            .collect(),
    };
    chain.reverse();
    let host = source.nearest(headers, &X_FORWARDED_HOST, "host");
    let host = host.and_then(|host| Authority::parse(host).ok());
    let host = host.map(|authority| match authority.port {
        Some(port) => format!("{}:{port}", authority.host).into(),
        None => authority.host.into(),
    });
    let port = elements_from_the_right(headers, &X_FORWARDED_PORT).next();
    let port = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    Relayed { chain, host, port }
}

/// Parses a scheme. Traefik sends `ws` or `wss` for WebSockets (RFC 6455 section 3).
pub(crate) fn parse_scheme(text: &str) -> Option<Scheme> {
    let matches = |name: &str| text.eq_ignore_ascii_case(name);
    if matches("https") || matches("wss") {
        Some(Scheme::Https)
    } else if matches("http") || matches("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// Returns the comma-separated elements of all fields with this name, from last to first. A field that is not ASCII
/// counts as one empty element.
fn elements_from_the_right<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let fields: Vec<&HeaderValue> = headers.get_all(name).iter().filter(|value| !value.is_empty()).collect();
    fields
        .into_iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or_default().rsplit(','))
        .map(|element| element.trim_matches([' ', '\t']))
}

/// Returns a parameter of one `Forwarded` element, without its quotes (RFC 7239 section 4). The valid values of the
/// parameters that are read here contain no comma.
fn parameter<'e>(element: &'e str, name: &str) -> Option<&'e str> {
    element.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// Parses an address and optional port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let parsed: Option<IpAddr> =
        bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn read(peer: &str, fields: &[(&'static str, &str)]) -> Caller {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "fd00::/8"].iter().map(|c| c.parse().unwrap()).collect();
        let peer = Peer { address: peer.parse().unwrap(), scheme: Scheme::Http };
        super::read(&peer, &trusted, &headers(fields)).0
    }

    #[test]
    fn fields_of_an_untrusted_peer_are_ignored() {
        let caller = read("192.0.2.9", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        assert_eq!(caller.address.to_string(), "192.0.2.9");
        assert_eq!(caller.scheme, Scheme::Http);
        assert!(!caller.by_trusted_proxy);
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_trusted_proxy() {
        for (fields, client) in [
            (vec![("x-forwarded-for", "1.1.1.1, 192.0.2.1, 10.0.0.7")], "192.0.2.1"),
            (vec![("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.1")], "192.0.2.1"),
            (vec![("x-forwarded-for", "10.0.0.3, 10.0.0.7")], "10.0.0.3"),
            (vec![("x-forwarded-for", "192.0.2.1:4711")], "192.0.2.1"),
            (vec![("x-forwarded-for", "::ffff:192.0.2.1")], "192.0.2.1"),
            (vec![("x-forwarded-for", "1.1.1.1, nonsense")], "10.0.0.1"),
            (vec![("x-forwarded-for", "1.1.1.1, nonsense, 10.0.0.7")], "10.0.0.7"),
            (vec![("x-forwarded-for", "")], "10.0.0.1"),
            (vec![("forwarded", "for=1.1.1.1, for=\"[2001:db8::1]:80\";proto=https")], "2001:db8::1"),
            (vec![("forwarded", "proto=https;For=192.0.2.1, for=10.0.0.9")], "192.0.2.1"),
            (vec![("forwarded", "for=_hidden")], "10.0.0.1"),
            (vec![], "10.0.0.1"),
        ] {
            assert_eq!(read("10.0.0.1", &fields).address.to_string(), client, "{fields:?}");
        }
    }

    #[test]
    fn the_scheme_is_the_one_that_the_nearest_proxy_names_if_it_is_valid() {
        for (value, scheme) in [
            ("https", Scheme::Https),
            ("http, https", Scheme::Https),
            ("https, http", Scheme::Http),
            ("wss", Scheme::Https),
            ("ws", Scheme::Http),
            ("gopher", Scheme::Http),
        ] {
            assert_eq!(read("10.0.0.1", &[("x-forwarded-proto", value)]).scheme, scheme, "{value}");
        }
        assert_eq!(read("fd00::1", &[("forwarded", "for=1.1.1.1;proto=https")]).scheme, Scheme::Https);
    }

    #[test]
    fn forwarded_completes_no_other_field() {
        // A client sends `Forwarded` to a proxy that writes some of `X-Forwarded-*` and passes on what it does not know.
        let forwarded = ("forwarded", "for=1.1.1.1;proto=https;host=evil.example");
        for written in [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "pub.example"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-for", ""),
        ] {
            let caller = read("10.0.0.1", &[written, forwarded]);
            assert_eq!(caller.scheme, Scheme::Http, "{written:?}");
            let address = if written == ("x-forwarded-for", "192.0.2.1") { "192.0.2.1" } else { "10.0.0.1" };
            assert_eq!(caller.address.to_string(), address, "{written:?}");
        }
    }

    fn relayed_of(fields: &[(&'static str, &str)]) -> Relayed {
        let headers = headers(fields);
        read_relayed(&headers, Source::of(&headers))
    }

    #[test]
    fn both_fields_yield_the_same_chain() {
        // RFC 7239 section 7.4 maps `X-Forwarded-For` to `Forwarded`.
        let one = relayed_of(&[("x-forwarded-for", "203.0.113.9, bogus, 2001:db8::1")]);
        let other = relayed_of(&[(
            "forwarded",
            "for=203.0.113.9, for=_hidden;proto=https, for=\"[2001:db8::1]:4711\"",
        )]);
        assert_eq!(one.chain, other.chain);
        assert_eq!(
            one.chain,
            [Some("203.0.113.9".parse().unwrap()), None, Some("2001:db8::1".parse().unwrap())]
        );
        let long = "1.1.1.1, ".repeat(1000) + "192.0.2.7";
        let chain = relayed_of(&[("x-forwarded-for", &long)]).chain;
        assert_eq!(
            (chain.len(), chain.last().copied()),
            (CHAIN_MAX, Some(Some("192.0.2.7".parse().unwrap())))
        );
    }

    #[test]
    fn host_and_port_come_from_the_nearest_proxy_and_are_parsed_like_any_host() {
        for (fields, host, port) in [
            (&[("x-forwarded-host", "Pub.Example")][..], Some("pub.example"), None),
            (&[("x-forwarded-host", "evil.example, pub.example:8443")], Some("pub.example:8443"), None),
            (
                &[("x-forwarded-host", "evil.example"), ("x-forwarded-host", "pub.example")],
                Some("pub.example"),
                None,
            ),
            (&[("x-forwarded-host", "pub.example/evil"), ("x-forwarded-port", "443")], None, Some(443)),
            (&[("x-forwarded-port", "0")], None, None),
            (&[("x-forwarded-port", "65536")], None, None),
            (
                &[("forwarded", "host=evil.example, for=1.1.1.1;host=\"pub.example:81\"")],
                Some("pub.example:81"),
                None,
            ),
            (&[("x-forwarded-host", "a.example"), ("forwarded", "host=b.example")], Some("a.example"), None),
            // The proxy writes `X-Forwarded-For` alone, and `Forwarded` is the client's.
            (&[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1;host=b.example")], None, None),
            (&[("x-forwarded-port", "443"), ("forwarded", "host=b.example")], None, Some(443)),
            (&[("x-forwarded-proto", ""), ("forwarded", "host=b.example")], None, None),
        ] {
            let relayed = relayed_of(fields);
            assert_eq!((relayed.host.as_deref(), relayed.port), (host, port), "{fields:?}");
        }
    }
}
