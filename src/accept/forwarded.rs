//! The true client behind trusted proxies.
//!
//! What `X-Forwarded-*` and `Forwarded` say is believed when the connection's other end is in
//! `[server] trusted_proxies`, and from nobody else.

use crate::config::units::Cidr;
use crate::forward::outgoing::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::peer::{Caller, Peer, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::net::{IpAddr, SocketAddr};

/// Who sends this request.
///
/// From a trusted proxy the addresses are read from the right, the end that the nearest proxy wrote; the first
/// that is not a trusted proxy's is the client. What stands to the left of it was written by the client itself. An
/// element that is no address ends the search at the last one that was.
pub fn caller(peer: &Peer, trusted: &[Cidr], headers: &HeaderMap) -> Caller {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if trusted.is_empty() || !is_trusted(peer.address) {
        return Caller { address: peer.address, scheme: peer.scheme, by_trusted_proxy: false };
    }
    let mut caller = Caller { address: peer.address, scheme: peer.scheme, by_trusted_proxy: true };
    let mut take = |address: Option<IpAddr>| match address {
        Some(address) => {
            caller.address = address;
            is_trusted(address)
        }
        None => false,
    };
    if headers.contains_key(X_FORWARDED_FOR) {
        elements_from_the_right(headers, &X_FORWARDED_FOR).all(|element| take(address(element)));
    } else {
        elements_from_the_right(headers, &header::FORWARDED)
            .all(|element| take(parameter(element, "for").and_then(address)));
    }
    let scheme = if headers.contains_key(X_FORWARDED_PROTO) {
        elements_from_the_right(headers, &X_FORWARDED_PROTO).next()
    } else {
        elements_from_the_right(headers, &header::FORWARDED).next().and_then(|e| parameter(e, "proto"))
    };
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => caller.scheme = Scheme::Https,
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => caller.scheme = Scheme::Http,
        Some(_) | None => {}
    }
    caller
}

/// The comma-separated elements of all fields of this name, last first. A field that is not ASCII has none.
fn elements_from_the_right<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let fields: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    fields
        .into_iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or_default().rsplit(','))
        .map(|element| element.trim_matches([' ', '\t']))
}

/// The value of a parameter of one `Forwarded` element, quotes taken off (RFC 7239 section 4). A comma within
/// quotes does not occur in the two that are read here.
fn parameter<'e>(element: &'e str, name: &str) -> Option<&'e str> {
    element.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
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
        caller(&peer, &trusted, &headers(fields))
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let caller = read("192.0.2.9", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        assert_eq!(caller.address.to_string(), "192.0.2.9");
        assert_eq!(caller.scheme, Scheme::Http);
        assert!(!caller.by_trusted_proxy);
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_trusted_proxy() {
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
    fn the_scheme_is_what_the_nearest_proxy_says_if_it_is_one() {
        for (value, scheme) in [
            ("https", Scheme::Https),
            ("http, https", Scheme::Https),
            ("https, http", Scheme::Http),
            ("gopher", Scheme::Http),
        ] {
            assert_eq!(read("10.0.0.1", &[("x-forwarded-proto", value)]).scheme, scheme, "{value}");
        }
        assert_eq!(read("fd00::1", &[("forwarded", "for=1.1.1.1;proto=https")]).scheme, Scheme::Https);
    }
}
