//! Sends requests to the admin listener of the running gateway. The policy contains the listener's address.

use crate::config;
use crate::config::file::ServerSection;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Timeout of each step: connect, write, and each read. A healthy listener responds immediately.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a response with its head, in bytes. Even a response with all recent decisions is smaller.
const ANSWER_MAX: u64 = 256 * 1024 * 1024;

/// Sends a GET to the admin listener of the policy `config`. Returns the status and the body.
///
/// # Errors
/// Returns a sentence for the operator if there is no complete response.
pub(super) fn get(config: &Path, path: &str) -> Result<(u16, String), String> {
    get_at(address_in(config)?, path)
}

/// Sends a GET to an admin listener. Returns the status and the body.
///
/// # Errors
/// Returns a sentence for the operator if there is no complete response.
pub(super) fn get_at(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// Sends a POST with a JSON body to the admin listener of the policy `config`. Returns the status and the body.
///
/// # Errors
/// Returns a sentence for the operator if there is no complete response.
pub(super) fn post(config: &Path, path: &str, body: &str) -> Result<(u16, String), String> {
    let address = address_in(config)?;
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    exchange(
        address,
        &format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
}

fn address_in(config: &Path) -> Result<SocketAddr, String> {
    let loaded = config::load(config).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        faults.join("\n")
    })?;
    address(&loaded.file.server)
}

/// Returns the address at which a policy's admin listener can be reached.
///
/// # Errors
/// Returns a sentence for the operator if the policy has no admin listener, or if its port is not fixed.
pub(super) fn address(server: &ServerSection) -> Result<SocketAddr, String> {
    match server.admin.addresses().first() {
        None => Err("the policy disables the admin listener ([server] admin)".to_owned()),
        Some(address) if address.port() == 0 => {
            Err("the policy gives the admin listener no fixed port ([server] admin)".to_owned())
        }
        Some(address) => Ok(reachable(*address)),
    }
}

/// Replaces an unspecified address with the loopback address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn exchange(address: SocketAddr, request: &str) -> Result<(u16, String), String> {
    let answer = ask(address, request).map_err(|error| failed(address, &error))?;
    read(&answer).ok_or_else(|| format!("the admin listener at {address}: incomplete HTTP/1.1 response"))
}

/// Describes a request that failed, for the operator.
fn failed(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "; nothing listens there: the gateway does not run, or runs with another address in [server] admin"
        }
        _ => "",
    };
    format!("the admin listener at {address}: {error}{hint}")
}

fn ask(address: SocketAddr, request: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Parses a complete response. The admin listener always sends `Content-Length`.
fn read(answer: &[u8]) -> Option<(u16, String)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())?;
    let body = answer.get(end + 4..)?;
    (body.len() == length).then(|| (status, String::from_utf8_lossy(body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx: y\r\n\r\n";
        assert_eq!(read(format!("{head}abc").as_bytes()), Some((200, "abc".to_owned())));
        for broken in [
            &format!("{head}ab"),
            &format!("{head}abcd"),
            "HTTP/1.1 200 OK\r\n\r\nabc",
            "SSH-2.0\r\n\r\n",
            "",
        ] {
            assert_eq!(read(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_this_machine() {
        for (bound, asked) in
            [("0.0.0.0:9900", "127.0.0.1:9900"), ("[::]:9900", "[::1]:9900"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reachable(bound.parse().unwrap()), asked.parse().unwrap(), "{bound}");
        }
    }
}
