//! Reports the state of the process to the service manager (`sd_notify(3)`).

use crate::metrics::WorkerCounters;
use crate::peer::activity::SWEEP;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The service manager kills the process if no sign of life arrives for this time.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. A fault in them disables the reports.
    pub(super) fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name).ok()?,
                None => SocketAddr::from_pathname(&name).ok()?,
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| is_for_us && *time > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Sends a state such as `READY=1`. The service manager notices a lost one by its own deadlines.
    pub(super) fn notify(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }

    /// Sends signs of life for as long as each core runs its sweep. `is_stopping` excuses cores that have ended.
    pub(super) async fn send_signs_of_life(
        &self,
        cores: &[Arc<WorkerCounters>],
        is_stopping: impl Fn() -> bool,
    ) {
        let Some(deadline) = self.watchdog else { return };
        // Between two signs, each core must have had time for a sweep.
        let interval = (deadline / 2).max(2 * SWEEP);
        let mut seen: Vec<u64> = Vec::new();
        loop {
            let sweeps: Vec<_> = cores.iter().map(|core| core.sweeps.get()).collect();
            if is_stopping() || all_moved(&seen, &sweeps) {
                self.notify("WATCHDOG=1");
            }
            seen = sweeps;
            tokio::time::sleep(interval).await;
        }
    }
}

/// Returns whether each number differs from the earlier one.
fn all_moved(before: &[u64], now: &[u64]) -> bool {
    before.iter().zip(now).all(|(before, now)| before != now)
}

#[cfg(test)]
mod tests {
    use super::all_moved;

    #[test]
    fn one_core_that_stands_still_ends_the_signs_of_life() {
        assert!(all_moved(&[], &[0, 0]), "the first sign has nothing to compare with");
        assert!(all_moved(&[1, 5], &[2, 9]));
        assert!(!all_moved(&[1, 5], &[2, 5]));
    }
}
