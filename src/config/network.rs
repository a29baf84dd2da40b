//! Types for networks and for addresses to listen on.

use super::reading::{ListVisitor, ValueError, from_text};
use http::Uri;
use serde::Deserialize;
use serde::de::Deserializer;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

from_text!(Cidr, Address);

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Returns whether the network contains the address. An IPv4-mapped IPv6 address is treated as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let host_bits = 32 - u32::from(self.prefix);
                (network.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let host_bits = 128 - u32::from(self.prefix);
                (network.to_bits() ^ address.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Returns whether the network contains every IPv4 address or every IPv6 address.
    pub const fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |what: &str| {
            let expected = "a network such as 10.0.0.0/8 or 2001:db8::/32, or a single address";
            ValueError::new(format!("{text:?}: {what}"), expected)
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error("not an address"))?;
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix
                .parse::<u8>()
                .ok()
                .filter(|n| *n <= bits && prefix.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| error(&format!("the prefix length must be 0 to {bits}")))?,
        };
        let network = mask(address, prefix);
        if network != address {
            return Err(ValueError::new(
                format!("{text:?}: the address has bits set after its prefix"),
                format!("\"{network}/{prefix}\" for the network, or \"{address}\" for the single address"),
            ));
        }
        Ok(Self { address, prefix })
    }
}

/// Returns whether the URL of a server leads to this listener of the same machine. Names other than `localhost` are not
/// resolved.
pub(crate) fn leads_to(server: &str, listener: SocketAddr) -> bool {
    let Ok(url) = server.parse::<Uri>() else { return false };
    let usual = match url.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        Some(_) | None => return false,
    };
    let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(usual));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let reaches = |ip: IpAddr| {
        let (ip, own) = (ip.to_canonical(), listener.ip().to_canonical());
        // `[::]` also accepts connections to IPv4 addresses.
        ip == own || own.is_unspecified() && ip.is_loopback() && (own.is_ipv6() || ip.is_ipv4())
    };
    let is_there = match bare.parse::<IpAddr>() {
        Ok(ip) => reaches(ip),
        Err(_) if bare.eq_ignore_ascii_case("localhost") => {
            listener.ip().is_loopback() || listener.ip().is_unspecified()
        }
        Err(_) => false,
    };
    is_there && port == listener.port()
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Reads a list of networks, or one network.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    deserializer.deserialize_any(ListVisitor("a network or a list of networks", PhantomData))
}

/// The addresses of a listener, written as one address, a list, or `""` for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen(Vec<SocketAddr>);

impl Listen {
    /// Returns the addresses; an empty slice disables the listener.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }

    pub(super) fn on(address: &str) -> Self {
        Self(address.parse().into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let addresses = deserializer.deserialize_any(ListVisitor(
            "an address with a port, or a list of such addresses",
            PhantomData,
        ))?;
        Ok(Self(addresses.into_iter().filter_map(|Address(address)| address).collect()))
    }
}

/// An address to listen on, or the empty text.
#[derive(Debug)]
struct Address(Option<SocketAddr>);

impl FromStr for Address {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        text.parse().map(|address| Self(Some(address))).map_err(|_| {
            let (what, expected) = match text.rsplit_once(':') {
                None if is_port(text) => {
                    ("a port without an address", format!("\"127.0.0.1:{text}\" or \"0.0.0.0:{text}\""))
                }
                Some(("" | "*", port)) if is_port(port) => (
                    "a port without an address",
                    format!("\"0.0.0.0:{port}\" or \"[::]:{port}\" for all addresses"),
                ),
                Some(("localhost", port)) if is_port(port) => {
                    ("a name, not an address", format!("\"127.0.0.1:{port}\""))
                }
                _ => (
                    "not an address with a port",
                    "\"127.0.0.1:8443\", \"[::1]:8443\", or \"\" to listen on no address".to_owned(),
                ),
            };
            ValueError::new(format!("{text:?}: {what}"), expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::assert_rejected;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_server_that_is_a_listener_is_recognized() {
        for (server, listener, expected) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("http://127.0.0.1:8080/", "0.0.0.0:8080", true),
            ("http://127.0.0.1:8080", "[::]:8080", true),
            ("http://[::1]:8080", "[::]:8080", true),
            ("http://localhost:8080", "127.0.0.1:8080", true),
            ("http://LOCALHOST:8080", "[::]:8080", true),
            ("https://localhost", "127.0.0.1:443", true),
            ("http://localhost", "127.0.0.1:80", true),
            ("http://[::1]", "[::1]:80", true),
            ("http://10.0.0.7:8080", "10.0.0.7:8080", true),
            ("http://127.0.0.1:8081", "127.0.0.1:8080", false),
            ("http://127.0.0.2:8080", "127.0.0.1:8080", false),
            ("http://10.0.0.7:8080", "0.0.0.0:8080", false),
            ("http://[::1]:8080", "0.0.0.0:8080", false),
            ("http://localhost:8080", "10.0.0.7:8080", false),
            ("http://orders:8080", "127.0.0.1:8080", false),
            ("http://localhost:99999", "127.0.0.1:8080", false),
            ("unix:/run/a.sock", "127.0.0.1:80", false),
            ("", "127.0.0.1:80", false),
        ] {
            assert_eq!(leads_to(server, listener.parse().unwrap()), expected, "{server} {listener}");
        }
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            network.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.255.255"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("192.0.2.1", "192.0.2.1"));
        assert!(!holds("192.0.2.1", "192.0.2.2"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert_rejected::<Cidr>(&[
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "host",
            "10.0.0.1/8",
            "10.0.0/8",
        ]);
        assert!("10.1.2.3/8".parse::<Cidr>().unwrap_err().expected.contains("10.0.0.0/8"));
    }

    proptest! {
        #[test]
        fn a_network_holds_exactly_what_agrees_with_its_prefix(bits in any::<u32>(), other in any::<u32>(), prefix in 0..=32_u8) {
            let network = Cidr { address: mask(IpAddr::V4(bits.into()), prefix), prefix };
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            let agrees = (0..u32::from(prefix)).all(|i| (bits ^ other) >> (31 - i) & 1 == 0);
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), agrees);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = (text.parse::<Cidr>(), text.parse::<Address>().is_ok());
        }
    }
}
