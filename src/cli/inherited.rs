//! Takes over the listening sockets that a service manager opened (`sd_listen_fds(3)`).
//!
//! The policy needs no key for this: a socket belongs to the listener with its address. Every inherited socket must belong
//! to a listener, because clients of another one would wait for ever.

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// The number of the first inherited file (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;
/// Maximum number of inherited files. A larger number is a mistake.
const FILES_MAX: i32 = 256;

/// Inherited sockets that no listener uses yet.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<(SocketAddr, Socket)>);

impl Inherited {
    /// Takes over the sockets that the environment announces to this process.
    ///
    /// # Errors
    /// Returns a sentence for the operator if a file is not a listening TCP socket.
    pub(super) fn take() -> Result<Self, String> {
        let variable = |name: &str| std::env::var(name).ok();
        let is_for_us = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
        match variable("LISTEN_FDS") {
            Some(files) if is_for_us => Self::of(&files),
            Some(_) | None => Ok(Self::default()),
        }
    }

    fn of(files: &str) -> Result<Self, String> {
        let count = files.parse().ok().filter(|count| (0..=FILES_MAX).contains(count));
        let count: i32 = count
            .ok_or_else(|| format!("LISTEN_FDS={files:?}: not a number of files from 0 to {FILES_MAX}"))?;
        if count == 0 {
            return Ok(Self::default());
        }
        let cannot = |number: i32, why: &dyn std::fmt::Display| {
            format!("cannot use the inherited file {number} (LISTEN_FDS={count}): {why}")
        };
        // A number becomes an owned file only by a copy of the file, unless code is `unsafe`. The original stays open,
        // which is harmless: the service manager holds the socket too.
        let process = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| cannot(FIRST, &error))?;
        let mut sockets: Vec<(SocketAddr, Socket)> = Vec::new();
        for number in FIRST..FIRST + count {
            let file = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())
                .map_err(|error| cannot(number, &error))?;
            let socket = Socket::from(file);
            let address = listening(&socket).map_err(|error| cannot(number, &error))?;
            let Some(address) = address else {
                return Err(cannot(number, &"it is not a listening TCP socket (ListenStream=)"));
            };
            if sockets.iter().any(|(other, _)| *other == address) {
                return Err(cannot(number, &format_args!("another file has the address {address}, too")));
            }
            sockets.push((address, socket));
        }
        Ok(Self(sockets))
    }

    /// Removes the socket with this address, and returns one handle of it for each core. The cores share its queue.
    pub(super) fn remove(
        &mut self,
        address: SocketAddr,
        cores: usize,
    ) -> Option<io::Result<Vec<TcpListener>>> {
        let index = self.0.iter().position(|(other, _)| *other == address)?;
        let (_, socket) = self.0.swap_remove(index);
        let listener = TcpListener::from(socket);
        let handles = || {
            listener.set_nonblocking(true)?;
            (0..cores).map(|_| listener.try_clone()).collect()
        };
        Some(handles())
    }

    /// Checks that a listener uses each socket.
    ///
    /// # Errors
    /// Returns a sentence for the operator about the first socket that is left.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((address, _)) => Err(format!(
                "the service manager passes a socket for {address}, which is no address of [server] https, http or \
                 admin; add \"{address}\" to one of them, or remove its ListenStream="
            )),
        }
    }
}

/// Returns the address of a listening TCP socket, and `None` for another file.
fn listening(socket: &Socket) -> io::Result<Option<SocketAddr>> {
    let address = socket.local_addr()?.as_socket();
    Ok(if socket.r#type()? == Type::STREAM && socket.is_listener()? { address } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_files_that_is_none_is_refused() {
        for files in ["", "-1", "x", "257", "1 "] {
            assert!(Inherited::of(files).is_err(), "{files:?}");
        }
        assert!(Inherited::of("0").unwrap().finish().is_ok());
    }

    #[test]
    fn only_a_listening_tcp_socket_is_taken_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listening(&Socket::from(listener)).unwrap(), Some(address));
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(listening(&Socket::from(datagrams)).unwrap(), None);
        let unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(listening(&Socket::from(std::os::fd::OwnedFd::from(unix))).unwrap(), None);
    }

    #[test]
    fn each_core_gets_a_handle_of_a_socket_and_a_socket_without_a_listener_is_a_fault() {
        let [first, second] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [one, two] = [&first, &second].map(|listener| listener.local_addr().unwrap());
        let mut inherited = Inherited(vec![(one, first.into()), (two, second.into())]);
        let handles = inherited.remove(one, 3).unwrap().unwrap();
        assert!(handles.iter().all(|handle| handle.local_addr().unwrap() == one));
        assert_eq!(handles.len(), 3);
        assert!(inherited.remove(one, 3).is_none());
        assert!(inherited.finish().unwrap_err().contains(&two.to_string()));
    }
}
