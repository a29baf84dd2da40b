//! Writes the client's address, host, port and scheme into every field that upstreams read: `X-Forwarded-For`,
//! `-Proto`, `-Host`, `-Port` and `Forwarded` (RFC 7239). All these fields state the same facts.
//!
//! The caller has already removed the client's own fields of these names.

use super::fields::FieldSink;
use crate::http1::write_field;
use crate::peer::forwarded::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::peer::{Caller, PeerLines, Relayed, Scheme};
use http::{HeaderName, HeaderValue, header};
use std::cell::RefCell;
use std::net::IpAddr;

/// The facts about a connection that every request states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionHeaders<'c> {
    /// The fields of the last request, kept for a peer that is not a proxy.
    pub(crate) lines: &'c RefCell<PeerLines>,
    /// The peer's own address.
    pub(crate) address: IpAddr,
}

/// Writes the fields, and `Host`. `authority` is the host and port of the request that reached the gateway. `host` is
/// the route's own value of `Host`.
pub(crate) fn write(
    sink: &mut impl FieldSink,
    connection: &ConnectionHeaders<'_>,
    caller: Caller,
    relayed: Option<&Relayed>,
    authority: Option<&HeaderValue>,
    host: Option<&HeaderValue>,
) {
    if let Some(relayed) = relayed {
        let named = host.or(authority);
        return write_relayed(sink, connection.address, caller.scheme, relayed, authority, named);
    }
    if host.is_some() {
        return sink.set_lines(&lines_of_peer(connection.address, authority, host, caller.scheme));
    }
    let host = authority.map(HeaderValue::as_bytes);
    if !connection.lines.borrow().are_of(host) {
        let lines = lines_of_peer(connection.address, authority, authority, caller.scheme);
        connection.lines.replace(PeerLines::new(host, lines));
    }
    sink.set_lines(connection.lines.borrow().lines());
}

/// Renders the fields of a peer that is the client itself.
#[cold]
fn lines_of_peer(
    address: IpAddr,
    authority: Option<&HeaderValue>,
    host: Option<&HeaderValue>,
    scheme: Scheme,
) -> Vec<u8> {
    let mut lines = Vec::new();
    let text = authority.and_then(|host| host.to_str().ok());
    let mut add = |name: &HeaderName, value: &[u8]| write_field(&mut lines, name.as_str(), value);
    if let Some(host) = host {
        add(&header::HOST, host.as_bytes());
    }
    if let Some(authority) = authority {
        add(&X_FORWARDED_HOST, authority.as_bytes());
    }
    add(&X_FORWARDED_PROTO, scheme.as_str().as_bytes());
    add(&X_FORWARDED_FOR, address.to_string().as_bytes());
    add(&header::FORWARDED, forwarded(&[], address, text, scheme).as_bytes());
    lines
}

/// Writes the facts that a trusted proxy states, and appends the proxy's own address to the chain.
#[cold]
fn write_relayed(
    sink: &mut impl FieldSink,
    proxy: IpAddr,
    scheme: Scheme,
    relayed: &Relayed,
    authority: Option<&HeaderValue>,
    named: Option<&HeaderValue>,
) {
    let value =
        |text: String| HeaderValue::try_from(text).expect("addresses and canonical hosts are visible ASCII");
    let host = match (&relayed.host, authority) {
        (Some(host), _) => Some(host.to_string()),
        (None, authority) => authority.and_then(|it| it.to_str().ok()).map(str::to_owned),
    };
    let own_port = host.as_deref().and_then(port_of);
    let port = own_port.or(relayed.port);
    // The scheme's default port is omitted.
    let full = match (&host, own_port, port) {
        (Some(host), None, Some(port)) if port != scheme.default_port() => Some(format!("{host}:{port}")),
        (host, _, _) => host.clone(),
    };
    let mut addresses = String::new();
    for address in &relayed.chain {
        match address {
            Some(address) => addresses.push_str(&format!("{address}, ")),
            None => addresses.push_str("unknown, "),
        }
    }
    addresses.push_str(&proxy.to_string());
    if let Some(named) = named {
        sink.set(&header::HOST, named);
    }
    sink.set(&X_FORWARDED_PROTO, &HeaderValue::from_static(scheme.as_str()));
    sink.set(&X_FORWARDED_FOR, &value(addresses));
    sink.set(&header::FORWARDED, &forwarded(&relayed.chain, proxy, full.as_deref(), scheme));
    if let Some(host) = host {
        sink.set(&X_FORWARDED_HOST, &value(host));
    }
    if let Some(port) = port {
        sink.set(&X_FORWARDED_PORT, &HeaderValue::from(port));
    }
}

/// Returns the port of an authority in canonical spelling; `None` if the authority has no port.
fn port_of(authority: &str) -> Option<u16> {
    let (host, port) = authority.rsplit_once(':')?;
    let is_whole = !host.starts_with('[') || host.ends_with(']');
    port.parse().ok().filter(|_| is_whole)
}

/// Renders `Forwarded` (RFC 7239 section 4), with one element for each address of the chain and one for the peer. The
/// first and the last element state the same host and scheme, because some servers read the first and others the
/// last.
fn forwarded(chain: &[Option<IpAddr>], peer: IpAddr, host: Option<&str>, scheme: Scheme) -> HeaderValue {
    let mut text = String::new();
    let last = chain.len();
    for (at, address) in chain.iter().copied().chain([Some(peer)]).enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        text.push_str(&match address {
            Some(IpAddr::V4(v4)) => format!("for={v4}"),
            Some(IpAddr::V6(v6)) => format!("for=\"[{v6}]\""),
            None => "for=unknown".to_owned(),
        });
        if at == 0 || at == last {
            // A canonical host contains neither a quote nor a backslash. A host with a colon is not a token, so it is
            // quoted.
            match host {
                Some(host) if host.contains([':', '[']) => text.push_str(&format!(";host=\"{host}\"")),
                Some(host) => text.push_str(&format!(";host={host}")),
                None => {}
            }
            text.push_str(";proto=");
            text.push_str(scheme.as_str());
        }
    }
    HeaderValue::try_from(text).expect("addresses and canonical hosts are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    #[test]
    fn forwarded_quotes_what_is_no_token() {
        let element = forwarded(&[], "2001:db8::1".parse().unwrap(), Some("a.example:8443"), Scheme::Https);
        assert_eq!(element, "for=\"[2001:db8::1]\";host=\"a.example:8443\";proto=https");
        let element = forwarded(&[], "192.0.2.1".parse().unwrap(), Some("a.example"), Scheme::Http);
        assert_eq!(element, "for=192.0.2.1;host=a.example;proto=http");
    }

    /// Returns the fields of a request from the proxy 10.0.0.1 with `Host: inner:81`.
    fn written(relayed: &Relayed, scheme: Scheme) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let address = "10.0.0.1".parse().unwrap();
        let connection = ConnectionHeaders { lines: &RefCell::default(), address };
        let caller = Caller { address, scheme, by_trusted_proxy: true };
        let authority = HeaderValue::from_static("inner:81");
        write(&mut headers, &connection, caller, Some(relayed), Some(&authority), None);
        headers
    }

    #[test]
    fn host_and_port_of_a_proxy_are_kept_together() {
        // The proxy may state the host and the port in different fields. RFC 7239 section 5.3 defines `host`.
        let relayed =
            |host: Option<&str>, port| Relayed { host: host.map(Into::into), port, ..Relayed::default() };
        for (relayed, host, port, forwarded) in [
            (relayed(Some("pub.example"), Some(443)), "pub.example", Some("443"), "pub.example"),
            (relayed(Some("pub.example"), None), "pub.example", None, "pub.example"),
            (relayed(Some("pub.example"), Some(8443)), "pub.example", Some("8443"), "\"pub.example:8443\""),
            (
                relayed(Some("pub.example:8443"), None),
                "pub.example:8443",
                Some("8443"),
                "\"pub.example:8443\"",
            ),
            // A port within the host takes precedence over `X-Forwarded-Port`.
            (
                relayed(Some("pub.example:8443"), Some(443)),
                "pub.example:8443",
                Some("8443"),
                "\"pub.example:8443\"",
            ),
            (relayed(Some("[::1]"), Some(443)), "[::1]", Some("443"), "\"[::1]\""),
            (relayed(None, Some(443)), "inner:81", Some("81"), "\"inner:81\""),
            (relayed(None, None), "inner:81", Some("81"), "\"inner:81\""),
        ] {
            let headers = written(&relayed, Scheme::Https);
            let text = |name: &http::HeaderName| headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(text(&X_FORWARDED_HOST), Some(host), "{relayed:?}");
            assert_eq!(text(&X_FORWARDED_PORT), port, "{relayed:?}");
            let element = format!("for=10.0.0.1;host={forwarded};proto=https");
            assert_eq!(text(&header::FORWARDED), Some(&*element), "{relayed:?}");
        }
    }

    proptest! {
        #[test]
        fn both_chains_are_the_same_and_each_end_says_host_and_scheme(
            chain in proptest::collection::vec(proptest::option::of(any::<IpAddr>()), 0..5),
            https in any::<bool>(),
        ) {
            let scheme = if https { Scheme::Https } else { Scheme::Http };
            let relayed = Relayed { chain, host: Some("pub.example".into()), port: None };
            let headers = written(&relayed, scheme);
            let old: Vec<_> = headers[X_FORWARDED_FOR].to_str().unwrap().split(", ").map(str::to_owned).collect();
            let elements: Vec<_> = headers[header::FORWARDED].to_str().unwrap().split(", ").collect();
            let new: Vec<_> = elements
                .iter()
                .map(|element| element.split(';').next().unwrap())
                .map(|node| node.trim_start_matches("for=").trim_matches('"').trim_matches(['[', ']']).to_owned())
                .collect();
            prop_assert_eq!(old, new);
            let end = format!(";host=pub.example;proto={}", scheme.as_str());
            prop_assert!(elements[0].ends_with(&end) && elements[elements.len() - 1].ends_with(&end));
            prop_assert_eq!(headers[X_FORWARDED_PROTO].to_str().unwrap(), scheme.as_str());
        }
    }
}
