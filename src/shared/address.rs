//! The address of a Redis server or a Sentinel.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of a server whose address states none.
const PORT: u16 = 6379;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// The name or address of the host. An IPv6 address has no brackets.
        host: Box<str>,
        /// The port.
        port: u16,
        /// Whether the connection uses TLS.
        is_tls: bool,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Returns whether connections to this address use TLS.
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { is_tls: true, .. })
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                // A path that kept two slashes would lose them when its shown form is read again.
                true if path.starts_with("//") => Err("the path of a socket begins with one slash"),
                true if path.contains('\0') => Err("the path of a socket has a NUL"),
                true => Ok(Self::Unix(path.into())),
                false => Err("the path of a socket must be absolute"),
            };
        }
        let (is_tls, rest) = match text.split_once("://") {
            Some(("redis" | "valkey", rest)) => (false, rest),
            Some(("rediss" | "valkeys", rest)) => (true, rest),
            Some(_) | None => return Err("the scheme is not redis://, rediss:// or unix:"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("a URL with a user or a password");
        }
        if rest.contains(['/', '?', '#']) {
            return Err("a path or a query after the port");
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("an address without its closing bracket")?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| "not an IPv6 address")?;
                match port {
                    "" => (host, None),
                    port => (host, Some(port.strip_prefix(':').ok_or("text after the closing bracket")?)),
                }
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err("not the name or address of a host");
        }
        let port = match port {
            None => PORT,
            Some(port) if port.chars().all(|c| c.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port > 0).ok_or("not a port")?
            }
            Some(_) => return Err("not a port"),
        };
        Ok(Self::Tcp { host: host.into(), port, is_tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, is_tls } => {
                let scheme = if *is_tls { "rediss" } else { "redis" };
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}"),
                    false => write!(f, "{scheme}://{host}:{port}"),
                }
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port_or_a_socket() {
        for (text, shown) in [
            ("redis://cache", "redis://cache:6379"),
            ("redis://127.0.0.1:7000/", "redis://127.0.0.1:7000"),
            ("rediss://cache.example.com:6380", "rediss://cache.example.com:6380"),
            ("valkey://cache", "redis://cache:6379"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("unix:/run/redis.sock", "unix:/run/redis.sock"),
            ("unix:///run/redis.sock", "unix:/run/redis.sock"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()).as_deref(), Ok(shown));
        }
        for text in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://:6379",
            "redis://cache:0",
            "redis://cache:65536",
            "redis://cache:+1",
            "redis://ada:secret@cache",
            "redis://cache/1",
            "redis://cache?db=1",
            "redis://[::1",
            "redis://[::1]x",
            "redis://ca che",
            "unix:run/redis.sock",
            "unix:////run/redis.sock",
            "unix:////@",
            "unix:",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_address_is_read_again_as_it_is_shown(text in "(redis|rediss|unix)(:|://)[a-z0-9:./\\[\\]@-]{0,20}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
