//! Checks whether a server works, by a request or a connection of its own.

mod failure;
mod http1;
mod http2;

use super::connect::connect;
use super::server::{Protocol, Server};
use failure::Failure;
use http::HeaderValue;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum length of an error in the log and in `/readyz?verbose`.
const ERROR_MAX: usize = 200;
/// The way in which the servers of an upstream are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckSettings {
    pub(crate) probe: Probe,
    /// The time between two checks of a server.
    pub(crate) interval: Duration,
    /// The maximum time of one check.
    pub(crate) timeout: Duration,
    /// The number of failed checks in a row after which a server gets no requests.
    pub(crate) unhealthy_after: u32,
    /// The number of passed checks in a row after which a server gets requests again.
    pub(crate) healthy_after: u32,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Opens a connection, with TLS for an https server.
    Connect,
    /// Sends a GET.
    Http {
        protocol: Protocol,
        /// The path and query.
        path: Box<str>,
        /// The `Host`; `None` for the server's own.
        host: Option<HeaderValue>,
        /// The statuses that pass.
        statuses: Box<[RangeInclusive<u16>]>,
    },
    /// Asks the health service of gRPC.
    Grpc {
        /// The name of the service; empty for the whole server.
        service: Box<str>,
        /// The `:authority`; `None` for the server's own.
        host: Option<HeaderValue>,
    },
}

/// The checks of one server.
#[derive(Debug)]
pub(crate) struct Check {
    /// The name of the upstream.
    pub(crate) upstream: Arc<str>,
    pub(crate) server: Arc<Server>,
    pub(crate) settings: Arc<CheckSettings>,
    passed: AtomicU64,
    failed: AtomicU64,
    progress: Mutex<Progress>,
}

/// The results of the last checks.
#[derive(Debug, Default)]
struct Progress {
    /// The number of results in a row that equal the last one.
    in_a_row: u32,
    /// Whether the last check passed; `None` before the first check.
    passed: Option<bool>,
    /// Whether the server was down at the last check.
    was_down: bool,
    /// The error of the last failed check.
    error: Option<Box<str>>,
}

impl Check {
    pub(crate) fn new(upstream: Arc<str>, server: Arc<Server>, settings: Arc<CheckSettings>) -> Self {
        let (passed, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { upstream, server, settings, passed, failed, progress: Mutex::default() }
    }

    /// Checks the server once. Returns `Some` if the server is now up (true) or down (false), and was not before.
    pub(crate) async fn run(&self) -> Option<bool> {
        let Self { settings, server, .. } = self;
        let result = match tokio::time::timeout(settings.timeout, self.probe()).await {
            Ok(Err(Failure::Own)) => return None,
            Ok(Err(Failure::Server(error))) => Err(error),
            Ok(Ok(())) => Ok(()),
            Err(_elapsed) => Err(format!("no result within {:?}", settings.timeout)),
        };
        self.record(result, server, Instant::now())
    }

    async fn probe(&self) -> Result<(), Failure> {
        let Self { settings, server, .. } = self;
        let stream =
            connect(server, settings.timeout).await.map_err(|error| match error.blames_server() {
                true => Failure::of(error),
                false => Failure::Own,
            })?;
        let own = |host: &Option<HeaderValue>| {
            let host = host.clone().or_else(|| server.authority());
            host.ok_or_else(|| Failure::of("the server has no valid name"))
        };
        match &settings.probe {
            Probe::Connect => Ok(()),
            Probe::Http { protocol, path, host, statuses } => {
                let status = match protocol {
                    Protocol::Http1 => http1::get(stream, &own(host)?, path).await?,
                    Protocol::Http2 => http2::get(stream, &own(host)?, path).await?,
                };
                match statuses.iter().any(|range| range.contains(&status)) {
                    true => Ok(()),
                    false => Err(Failure::of(format_args!("status {status}"))),
                }
            }
            Probe::Grpc { service, host } => {
                http2::grpc(stream, &own(host)?, service, settings.timeout).await
            }
        }
    }

    fn record(&self, result: Result<(), String>, server: &Server, now: Instant) -> Option<bool> {
        let passes = result.is_ok();
        let counter = if passes { &self.passed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = progress.passed.is_none();
        let is_down = server.health.is_down();
        // Checks that passed before the server failed a request do not count.
        let is_same = progress.passed == Some(passes) && !(passes && is_down && !progress.was_down);
        progress.in_a_row = if is_same { progress.in_a_row.saturating_add(1) } else { 1 };
        (progress.passed, progress.was_down) = (Some(passes), is_down);
        progress.error = result.err().map(|error| error.chars().take(ERROR_MAX).collect());
        let needed = if passes { self.settings.healthy_after } else { self.settings.unhealthy_after };
        // A server of which nothing is known yet is judged by its first check.
        if progress.in_a_row < needed && !is_first {
            return None;
        }
        server.health.set_checked(passes, now).then_some(passes)
    }

    /// Returns the error of the last check, if it failed.
    pub(crate) fn error(&self) -> Option<Box<str>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    /// Returns the number of passed and of failed checks.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("passed", count(&self.passed)), ("failed", count(&self.failed))]
    }

    /// Whether the other check has the same server and the same settings.
    pub(crate) fn is_same(&self, server: &Arc<Server>, settings: &CheckSettings) -> bool {
        Arc::ptr_eq(&self.server, server) && *self.settings == *settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_results_in_a_row_and_the_first_check_decides_at_once() {
        let server = Arc::new(Server::new(Arc::from("http://s:80"), "s".into(), 80, None));
        let settings = Arc::new(CheckSettings {
            probe: Probe::Connect,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        });
        let check = Check::new(Arc::from("u"), server.clone(), settings);
        let now = Instant::now();
        let record =
            |passes: bool| check.record(if passes { Ok(()) } else { Err("x".repeat(1_000)) }, &server, now);
        assert_eq!(record(false), Some(false), "nothing else is known about the server");
        assert_eq!(check.error().map(|error| error.len()), Some(ERROR_MAX));
        assert_eq!([record(true), record(false), record(true), record(true)], [None, None, None, Some(true)]);
        assert_eq!(check.error(), None);
        assert_eq!([record(false), record(false), record(true)], [None; 3]);
        assert_eq!([record(false), record(false), record(false)], [None, None, Some(false)]);
        assert!(server.is_set_aside(now));
        assert_eq!([record(true), record(true)], [None, Some(true)]);
        server.record_failure(now);
        assert_eq!([record(true), record(true)], [None, Some(true)], "checks after the failure count");
        assert_eq!(check.counts(), [("passed", 8), ("failed", 7)]);
    }
}
