//! Fields of an untrusted peer name no client. Behind trusted proxies, a client cannot change its own address: text to
//! the left of the address that the proxies wrote changes nothing. Beside any `X-Forwarded-*`, `Forwarded` changes nothing.
//!
//! Each line is a field. Its first byte selects the name.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portcullis::peer::{Peer, Scheme, read_forwarded};
use portcullis::route::host::Authority;
use std::net::{IpAddr, Ipv4Addr};

const NAMES: [&str; 5] =
    ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"];
const PEER: Peer = Peer { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), scheme: Scheme::Http };

fn is_trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[0] >> 8 == 0xfd,
    }
}

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(8) {
        if let Some((name, value)) = line.split_first()
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(NAMES[usize::from(*name) % NAMES.len()], value);
        }
    }
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
    let stranger = Peer { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), ..PEER };
    for (peer, trusted) in [(stranger, &trusted[..]), (PEER, &[])] {
        let (caller, relayed) = read_forwarded(&peer, trusted, &headers);
        assert!(caller.address == peer.address && caller.scheme == peer.scheme);
        assert!(!caller.by_trusted_proxy && relayed.is_none());
    }
    let (caller, relayed) = read_forwarded(&PEER, &trusted, &headers);
    let relayed = relayed.expect("the peer is trusted");
    assert!(caller.by_trusted_proxy && relayed.chain.len() <= 32);
    assert_eq!(caller.address, caller.address.to_canonical());
    // The client is the first address from the right that no trusted proxy has.
    let mut expected = PEER.address;
    for address in relayed.chain.iter().rev() {
        let Some(address) = *address else { break };
        expected = address;
        if !is_trusted(address) {
            break;
        }
    }
    assert_eq!(caller.address, expected);
    if let Some(host) = &relayed.host {
        let authority = Authority::parse(host).expect("a host is written as it is read");
        let again =
            authority.port.map_or(authority.host.to_string(), |port| format!("{}:{port}", authority.host));
        assert_eq!(**host, *again);
    }
    assert!(relayed.port != Some(0));
    if NAMES.iter().any(|name| *name != "forwarded" && headers.contains_key(*name)) {
        let mut other = headers.clone();
        other.insert("forwarded", HeaderValue::from_static("for=203.0.113.66;host=evil.example;proto=https"));
        let (again, again_relayed) = read_forwarded(&PEER, &trusted, &other);
        let again_relayed = again_relayed.expect("the peer is trusted");
        assert_eq!((again.address, again.scheme), (caller.address, caller.scheme));
        assert_eq!((&again_relayed.host, again_relayed.port), (&relayed.host, relayed.port));
        assert_eq!(again_relayed.chain, relayed.chain);
    }
    if !is_trusted(caller.address) {
        for text in ["203.0.113.66, ", "10.9.9.9,", "\",", "for=\"x, ", "proto=https;for=203.0.113.66, "] {
            let mut longer = headers.clone();
            for name in &NAMES[..2] {
                if let Some(first) = longer.get_mut(*name).filter(|value| !value.is_empty()) {
                    let written = [text.as_bytes(), first.as_bytes()].concat();
                    *first = HeaderValue::from_bytes(&written).expect("text before a value");
                }
            }
            let (again, _) = read_forwarded(&PEER, &trusted, &longer);
            assert_eq!((again.address, again.scheme), (caller.address, caller.scheme), "{text}");
        }
    }
});
