//! Decides which addresses the gateway may connect to when an issuer's name or metadata determines the address.

use crate::config::network::Cidr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Public addresses at which a platform serves credentials to every program on a machine. The only entry is Azure's
/// WireServer.
const METADATA: [Ipv4Addr; 1] = [Ipv4Addr::new(168, 63, 129, 16)];

/// The networks that the gateway's own client may connect to, in addition to the public Internet.
///
/// A name that resolves to a loopback, private, shared, link-local or other special address is refused, unless this
/// list contains the address. Otherwise, anyone who controls the name or the issuer's metadata could make the gateway
/// send requests to services that trust the gateway's network (OWASP API7:2023).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[Cidr]>);

impl Networks {
    /// Allows these networks besides the public Internet.
    pub fn new(networks: impl Into<Box<[Cidr]>>) -> Self {
        Self(networks.into())
    }

    /// Whether a connection to the address is allowed.
    pub fn allow(&self, address: IpAddr) -> bool {
        is_public(address) || self.0.iter().any(|network| network.contains(address))
    }
}

/// Whether an address is globally reachable according to the registries of special-purpose addresses (RFC 6890), and is
/// not known to serve a platform's metadata. For an IPv6 address that embeds an IPv4 address, the IPv4 address is
/// examined.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // "This network" (RFC 791), private addresses and loopback.
        [0 | 10 | 127, ..] => true,
        // Addresses that carriers share between subscribers (RFC 6598). Alibaba Cloud serves metadata in this range.
        [100, 64..=127, ..] => true,
        // Link-local addresses. Most platforms serve metadata in this range.
        [169, 254, ..] => true,
        [172, 16..=31, ..] | [192, 168, ..] => true,
        // Addresses for IETF protocols (Oracle Cloud serves metadata in this range), documentation, 6to4 relays and
        // benchmarks.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            true
        }
        // Multicast, reserved and broadcast addresses.
        [224..=255, ..] => true,
        _ => false,
    };
    !special && !METADATA.contains(&address)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Addresses for IETF protocols (including Teredo and ORCHID), two ranges for documentation, and 6to4. A 6to4
        // address embeds an IPv4 address to which a relay may forward packets.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2002, ..] => false,
        // Global unicast (RFC 4291 section 2.4). Everything else is loopback, link-local, unique-local, multicast,
        // discard-only, or not assigned.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

/// Returns the IPv4 address that is embedded in an IPv4-mapped address (RFC 4291 section 2.5.5.2) or in an address with
/// NAT64's well-known prefix (RFC 6052 section 2.1). The host or a translator in its network connects to this IPv4
/// address.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allowed(text: &str, networks: &[&str]) -> bool {
        let networks: Vec<Cidr> = networks.iter().map(|text| text.parse().unwrap()).collect();
        Networks::new(networks).allow(text.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_allowed_by_default() {
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(allowed(public, &[]), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.7",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!allowed(special, &[]), "{special}");
        }
    }

    #[test]
    fn a_network_that_is_allowed_allows_its_own_addresses_only() {
        let networks = ["10.96.0.0/12", "fd12::/16", "127.0.0.1"];
        for inside in ["10.96.0.1", "10.111.255.255", "fd12::1", "127.0.0.1", "::ffff:10.96.0.1"] {
            assert!(allowed(inside, &networks), "{inside}");
        }
        for outside in ["10.112.0.1", "10.95.0.1", "fd13::1", "127.0.0.2", "169.254.169.254", "::1"] {
            assert!(!allowed(outside, &networks), "{outside}");
        }
    }

    proptest! {
        /// Compares the result with the predicates of the standard library, which interpret the registries
        /// independently.
        #[test]
        fn no_address_that_the_standard_library_calls_special_is_public(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                || address.is_unspecified();
            prop_assert!(!(special && is_public(address.into())));
            prop_assert_eq!(is_public(address.into()), is_public(address.to_ipv6_mapped().into()));
        }

        #[test]
        fn no_special_ipv6_address_is_public(high in 0u16.., rest: [u16; 7]) {
            let [b, c, d, e, f, g, h] = rest;
            let address = Ipv6Addr::new(high, b, c, d, e, f, g, h);
            let special = address.is_loopback() || address.is_multicast() || address.is_unique_local()
                || address.is_unicast_link_local() || address.is_unspecified();
            prop_assert!(!(special && is_public(address.into())));
        }
    }
}
