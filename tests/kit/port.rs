//! Ports for servers that are given their port, such as Redis, PostgreSQL and proxies.
//!
//! A port that was merely found free may be another program's by the time the server listens, or while the server is
//! stopped. A reserved port belongs to this process until it ends: a socket is bound to it and never listens. Linux lets
//! another socket bind the same port and listen if both set `SO_REUSEADDR`, as servers do, but gives the port to nobody
//! who asks for any port (`inet_csk_find_open_port`).

use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;

/// Reserves a port of 127.0.0.1, which refuses connections until a server listens.
///
/// # Panics
/// If this machine has no free port or this process no free descriptor.
pub fn reserve() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is free");
    socket.set_reuse_address(true).expect("an option of each system");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
    // The descriptor stays open until the process ends. A program that this process starts does not inherit it.
    let _ = socket.into_raw_fd();
    address
}
