//! Reads the PROXY header at the start of a connection from a load balancer.

use super::core::Core;
use crate::config::network::Cidr;
use crate::journal::Level;
use crate::metrics::proxy_failure::ProxyFailure;
use crate::peer::activity::Command;
use crate::peer::{Connection, ProxyHeader, ProxyHeaderFault};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The number of bytes that one step looks at. Most headers are shorter.
const STEP: usize = 256;

/// Returns whether a peer may send a PROXY header. If not, counts and logs the connection.
pub(super) fn is_trusted(core: &Core, from: &[Cidr], peer: IpAddr) -> bool {
    let is_trusted = from.iter().any(|network| network.contains(peer));
    if !is_trusted {
        let detail = "the peer is not in server.proxy_protocol.from";
        record_failure(core, peer, ProxyFailure::Untrusted, detail);
    }
    is_trusted
}

/// Reads the header within `header_timeout`, and returns the address of the client. Returns `None` if the connection
/// must be closed: its reason is then counted and logged, unless the core closes all connections.
pub(super) async fn client(core: &Core, connection: &Connection, stream: &mut TcpStream) -> Option<IpAddr> {
    let peer = connection.peer.address;
    let mut header = pin!(tokio::time::timeout(core.worker.settings().header_timeout, read(stream)));
    let read = poll_fn(|cx| match (header.as_mut().poll(cx), connection.activity.command(cx)) {
        (Poll::Ready(read), _) => Poll::Ready(Some(read)),
        (Poll::Pending, Some(Command::Close(timeout))) => {
            core.count_timeout(timeout);
            Poll::Ready(None)
        }
        (Poll::Pending, Some(Command::Drain | Command::Park) | None) => Poll::Pending,
    });
    let (failure, detail) = match read.await? {
        Ok(Ok(header)) => return Some(header.client.unwrap_or(peer)),
        Ok(Err(Fault::Header(ProxyHeaderFault::Missing))) => {
            (ProxyFailure::Missing, "the connection does not begin with a PROXY header".to_owned())
        }
        Ok(Err(Fault::Header(ProxyHeaderFault::Malformed(why)))) => (ProxyFailure::Malformed, why.to_owned()),
        Ok(Err(Fault::Io(error))) => (ProxyFailure::Closed, error.to_string()),
        Err(_elapsed) => (ProxyFailure::Timeout, "the header took longer than header_timeout".to_owned()),
    };
    record_failure(core, peer, failure, &detail);
    None
}

enum Fault {
    Header(ProxyHeaderFault),
    Io(io::Error),
}

/// Reads exactly the header. The bytes after it stay in the socket, because TLS or HTTP reads them.
async fn read(stream: &mut TcpStream) -> Result<ProxyHeader, Fault> {
    let mut bytes = Vec::with_capacity(STEP);
    loop {
        let known = bytes.len();
        bytes.resize(known + STEP, 0);
        let more = stream.peek(&mut bytes[known..]).await.map_err(Fault::Io)?;
        if more == 0 {
            return Err(Fault::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        bytes.truncate(known + more);
        let header = ProxyHeader::read(&bytes).map_err(Fault::Header)?;
        // Without an end of the header, all bytes so far belong to it.
        let end = header.map_or(bytes.len(), |header| header.length);
        stream.read_exact(&mut bytes[known..end]).await.map_err(Fault::Io)?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

/// Counts a connection. Logs it unless the core has recently logged one with the same reason.
fn record_failure(core: &Core, peer: IpAddr, failure: ProxyFailure, detail: &str) {
    core.worker.counters().proxy_failures.of(failure).add(1);
    if let Some(unlogged) = core.proxy_log().record(failure as usize, core.coarse_now()) {
        let peer = peer.to_string();
        core.worker.journal().event_with(
            Level::Warn,
            "connection without an accepted PROXY header closed",
            &[
                ("peer", (&peer).into()),
                ("reason", failure.as_str().into()),
                ("detail", detail.into()),
                ("unlogged", unlogged.into()),
            ],
        );
    }
}
