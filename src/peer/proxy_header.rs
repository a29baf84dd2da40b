//! Parses the header of the PROXY protocol, by which a load balancer passes on the address of its client.
//!
//! The specification is <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. Versions 1 and 2 are accepted.

use std::net::{IpAddr, Ipv4Addr};

/// The first bytes of version 1.
const SIGNATURE_1: &[u8] = b"PROXY ";
/// Maximum length of version 1 with its line end (section 2.1).
const LINE_MAX: usize = 107;
/// The first bytes of version 2.
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of version 2 before its addresses.
const FIXED: usize = 16;
/// Maximum length of a header. Additional facts (TLVs) of load balancers have a few hundred bytes.
pub const PROXY_HEADER_MAX: usize = 4096;

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The number of bytes of the header. The client's own bytes follow.
    pub length: usize,
    /// The client's address. `None` if the load balancer opened the connection for itself, for example for a health
    /// check, or does not know the address. The address of the socket then counts.
    pub client: Option<IpAddr>,
}

/// The reason why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderFault {
    /// The bytes do not begin like a header.
    Missing,
    /// The header is malformed. The text says how.
    Malformed(&'static str),
}

impl ProxyHeader {
    /// Parses the header at the start of a connection. Returns `None` if more bytes are needed.
    ///
    /// # Errors
    /// Returns why the bytes are not a header. More bytes would not change this.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ProxyHeaderFault> {
        let begins = |signature: &[u8]| {
            let common = bytes.len().min(signature.len());
            bytes[..common] == signature[..common]
        };
        match () {
            () if begins(SIGNATURE_1) => line(bytes),
            () if begins(SIGNATURE_2) => binary(bytes),
            () => Err(ProxyHeaderFault::Missing),
        }
    }
}

fn malformed<T>(why: &'static str) -> Result<T, ProxyHeaderFault> {
    Err(ProxyHeaderFault::Malformed(why))
}

/// Parses version 1, a line of text (section 2.1).
fn line(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderFault> {
    let seen = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() == LINE_MAX { malformed("the line does not end") } else { Ok(None) };
    };
    let header = |client| Ok(Some(ProxyHeader { length: end + 2, client }));
    let Ok(text) = std::str::from_utf8(&seen[SIGNATURE_1.len()..end]) else {
        return malformed("the line is not ASCII");
    };
    let mut parts = text.split(' ');
    let family = parts.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // The rest of the line has no meaning.
        return header(None);
    }
    let parts: Vec<&str> = parts.collect();
    let [source, destination, source_port, destination_port] = parts[..] else {
        return malformed("the line does not have two addresses and two ports");
    };
    if !is_port(source_port) || !is_port(destination_port) {
        return malformed("a port is not a number from 0 to 65535");
    }
    // The destination should be of the same family, but nginx behind another load balancer writes its own address
    // (findings/proxy-header-of-nginx-with-two-families.sh). The destination is not used.
    if destination.parse::<IpAddr>().is_err() {
        return malformed("the destination is not an IP address");
    }
    let client = match family {
        "TCP4" => source.parse().map(IpAddr::V4).map_err(|_| "the client's address is not IPv4"),
        "TCP6" => source.parse().map(IpAddr::V6).map_err(|_| "the client's address is not IPv6"),
        _ => Err("the family is neither TCP4, TCP6 nor UNKNOWN"),
    };
    let client = client.map_err(ProxyHeaderFault::Malformed)?;
    header(Some(client.to_canonical()))
}

fn is_port(text: &str) -> bool {
    let plain = text == "0" || !text.starts_with('0');
    plain && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Parses version 2, which is binary (section 2.2).
fn binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderFault> {
    let Some((fixed, _)) = bytes.split_at_checked(FIXED) else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > PROXY_HEADER_MAX {
        return malformed("the header is longer than 4096 bytes");
    }
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return malformed("neither version 2, nor the command LOCAL or PROXY"),
    };
    let Some(addresses) = bytes.get(FIXED..length) else { return Ok(None) };
    let header = |client| Ok(Some(ProxyHeader { length, client }));
    if is_local {
        return header(None);
    }
    match fixed[13] {
        // Unspecified, or Unix sockets: there is no address of a client.
        0x00 | 0x31 => header(None),
        0x11 => match addresses.first_chunk::<12>() {
            Some([a, b, c, d, ..]) => header(Some(Ipv4Addr::new(*a, *b, *c, *d).into())),
            None => malformed("the IPv4 addresses are too short"),
        },
        0x21 => match (addresses.first_chunk::<16>(), addresses.len() >= 36) {
            (Some(source), true) => header(Some(IpAddr::from(*source).to_canonical())),
            _ => malformed("the IPv6 addresses are too short"),
        },
        _ => malformed("the connection is neither TCP over IPv4 or IPv6, nor a Unix socket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// Returns a header of version 2.
    fn packed(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE_2, &[command, family], &length, rest].concat()
    }

    #[test]
    fn lines_of_version_1_are_read() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 51234 443", client("192.0.2.7")),
            ("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535", client("0.0.0.0")),
            ("PROXY TCP6 2001:db8::7 ::1 51234 443", client("2001:db8::7")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 51234 443", client("192.0.2.7")),
            ("PROXY TCP6 2001:db8::7 10.0.0.1 51234 443", client("2001:db8::7")),
            ("PROXY TCP4 192.0.2.7 ::1 51234 443", client("192.0.2.7")),
            ("PROXY UNKNOWN", None),
            ("PROXY UNKNOWN 192.0.2.7 anything at all", None),
        ] {
            let bytes = format!("{line}\r\nGET / HTTP/1.1\r\n");
            let expected = ProxyHeader { length: line.len() + 2, client: expected };
            assert_eq!(ProxyHeader::read(bytes.as_bytes()), Ok(Some(expected)), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_in_the_form_is_refused() {
        for line in [
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.7 10.0.0.1 51234",
            "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443 1",
            "PROXY TCP4  192.0.2.7 10.0.0.1 51234 443",
            "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443 ",
            "PROXY TCP4 192.0.2.07 10.0.0.1 51234 443",
            "PROXY TCP4 192.0.2 10.0.0.1 51234 443",
            "PROXY TCP4 2001:db8::7 ::1 51234 443",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 443",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +1 443",
            "PROXY TCP4 192.0.2.7 10.0.0.1 01 443",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 ",
            "PROXY TCP6 192.0.2.7 10.0.0.1 51234 443",
            "PROXY TCP6 2001:db8::7 10.0.0.1.1 51234 443",
            "PROXY TCP4 192.0.2.7 unix: 51234 443",
            "PROXY TCP6 fe80::1%eth0 ::1 51234 443",
            "PROXY tcp4 192.0.2.7 10.0.0.1 51234 443",
            "PROXY UDP4 192.0.2.7 10.0.0.1 51234 443",
            "PROXY UNKNOWNS",
            "PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\n",
        ] {
            let read = ProxyHeader::read(format!("{line}\r\n").as_bytes());
            assert!(matches!(read, Err(ProxyHeaderFault::Malformed(_))), "{line:?}: {read:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LINE_MAX));
        assert!(matches!(ProxyHeader::read(long.as_bytes()), Err(ProxyHeaderFault::Malformed(_))));
    }

    #[test]
    fn headers_of_version_2_are_read_and_further_facts_are_skipped() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0xc8, 0x22, 0x01, 0xbb];
        let v6 = ["2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec(), vec![0; 20]].concat();
        let facts = [0x01, 0, 2, b'h', b'2'];
        for (command, family, rest, expected) in [
            (0x21, 0x11, v4.to_vec(), client("192.0.2.7")),
            (0x21, 0x11, [&v4[..], &facts].concat(), client("192.0.2.7")),
            (0x21, 0x21, v6.clone(), client("2001:db8::7")),
            (0x21, 0x21, [&v6[..], &facts].concat(), client("2001:db8::7")),
            (0x20, 0x00, Vec::new(), None),
            (0x20, 0x11, v4.to_vec(), None),
            (0x20, 0xff, vec![1, 2, 3], None),
            (0x21, 0x00, facts.to_vec(), None),
            (0x21, 0x31, vec![b'/'; 216], None),
        ] {
            let mut bytes = packed(command, family, &rest);
            let expected = ProxyHeader { length: bytes.len(), client: expected };
            bytes.extend(b"\x16\x03\x01");
            assert_eq!(ProxyHeader::read(&bytes), Ok(Some(expected)), "{command:#x} {family:#x}");
        }
        for (command, family, length) in [
            (0x11, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x12, 12),
            (0x21, 0x22, 36),
            (0x21, 0x99, 36),
            (0x20, 0x00, PROXY_HEADER_MAX - FIXED + 1),
        ] {
            let read = ProxyHeader::read(&packed(command, family, &vec![0; length]));
            assert!(
                matches!(read, Err(ProxyHeaderFault::Malformed(_))),
                "{command:#x} {family:#x}: {read:?}"
            );
        }
    }

    #[test]
    fn other_bytes_are_no_header() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PROXY\t", b"proxy ", b"\r\n\r\n\0\r\nQUIT\r"]
        {
            assert_eq!(ProxyHeader::read(bytes), Err(ProxyHeaderFault::Missing), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), which in 0_u8..3) {
            let signature: &[u8] = [&b""[..], SIGNATURE_1, SIGNATURE_2][usize::from(which)];
            if let Ok(Some(header)) = ProxyHeader::read(&[signature, &bytes].concat()) {
                prop_assert!(header.length <= PROXY_HEADER_MAX);
            }
        }

        /// A header that arrives in pieces is read like one that arrives at once.
        #[test]
        fn every_beginning_of_a_header_needs_more_bytes(
            address in any::<[u8; 16]>(),
            facts in proptest::collection::vec(any::<u8>(), 0..60),
            port in any::<u16>(),
        ) {
            let [a, b, c, d, ..] = address;
            let v4 = Ipv4Addr::new(a, b, c, d);
            let v6 = Ipv6Addr::from(address);
            let packed_v6 = packed(0x21, 0x21, &[&address[..], &[0; 20], &facts].concat());
            for (bytes, client) in [
                (format!("PROXY TCP4 {v4} 10.0.0.1 {port} 443\r\n").into_bytes(), IpAddr::V4(v4)),
                (format!("PROXY TCP6 {v6} ::1 {port} 443\r\n").into_bytes(), IpAddr::V6(v6).to_canonical()),
                (packed_v6, IpAddr::V6(v6).to_canonical()),
            ] {
                for end in 0..bytes.len() {
                    prop_assert_eq!(ProxyHeader::read(&bytes[..end]), Ok(None));
                }
                let whole = ProxyHeader { length: bytes.len(), client: Some(client) };
                prop_assert_eq!(ProxyHeader::read(&bytes), Ok(Some(whole)));
            }
        }
    }
}
