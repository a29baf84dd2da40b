//! `portcullis healthcheck`: for containers, which then need no shell and no curl.

use super::{Format, REFUSED, complain, say};
use crate::config;
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// For each step: connecting, sending, each read.
const TIMEOUT: Duration = Duration::from_secs(2);
/// More than the answer's head ever is.
const HEAD_MAX: u64 = 1024;

pub(super) fn run(path: &Path, format: Format) -> ExitCode {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(faults) => {
            for fault in faults {
                complain(&fault.to_string());
            }
            return ExitCode::from(REFUSED);
        }
    };
    let verdict = match loaded.file.server.admin.addresses().first() {
        None => Err("the policy turns the admin listener off ([server] admin)".to_owned()),
        Some(address) if address.port() == 0 => {
            Err("the policy gives the admin listener no fixed port ([server] admin)".to_owned())
        }
        Some(address) => {
            ask(reachable(*address)).map_err(|error| format!("the admin listener at {address}: {error}"))
        }
    };
    match format {
        Format::Json => {
            say(&json!({ "ready": verdict.is_ok(), "detail": verdict.as_ref().err() }).to_string());
        }
        Format::Text => match &verdict {
            Ok(()) => say("ready"),
            Err(why) => complain(why),
        },
    }
    if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}

/// The address to reach a listener at that is bound to all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(HEAD_MAX).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("not ready: {}", String::from_utf8_lossy(line).escape_debug())))
}
