//! Runs all tasks that no client triggers: signals, reloads, the admin listener, and the watches of keys and
//! certificates. They run on the main thread, so they do not delay the requests on a core.

mod acme;
mod admin;
mod api_keys;
mod certificates;
mod file_watch;
mod guard;
pub(crate) mod introspection;
mod issuer_keys;
mod key_news;
pub(crate) mod key_report;
mod keys;
mod metrics_page;
mod passed_keys;
mod queries;
mod reload;
mod service_manager;
mod shared;
mod signals;
mod tasks;
mod timed_writes;
mod upstream_checks;
mod upstream_names;

pub(crate) use admin::Admin;
pub(crate) use reload::{ReloadRequest, ReloadStatus, Reloader, log_finding};
pub(crate) use shared::{lend as lend_shared, link as shared_link};
pub(crate) use signals::file as signal_file;

use self::service_manager::ServiceManager;
use crate::accept::Gateway;
use crate::journal::Level;
use crate::worker::Shared;
use crate::worker_settings::WorkerSettings;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

/// Extra time after the drain for the cores to stop.
const GRACE: Duration = Duration::from_secs(2);
/// Maximum number of waiting reload requests.
const RELOADS_WAITING: usize = 8;
/// The exit code after a second signal. By the shells' convention, it is 128 plus the number of SIGTERM.
const TERMINATED: i32 = 143;

/// Runs until the gateway has stopped. Calls `ready` once signals are handled and the admin listener responds. A signal
/// that a supervisor sends after `ready` starts a drain instead of killing the process.
///
/// # Errors
/// Returns an error if the runtime or the signal handlers cannot be created.
pub(crate) fn run(
    shared: &Arc<Shared>,
    gateway: &Gateway,
    admin: Admin,
    reloader: Reloader,
    settings: &WorkerSettings,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let ended = runtime.block_on(async {
        let mut stop = Stop::install()?;
        // Reload requests wait during a reload. Each gets the result of a separate reload.
        let (requests, received) = mpsc::channel(RELOADS_WAITING);
        tokio::task::spawn_local(forward_hangups(signal(SignalKind::hangup())?, requests.clone()));
        if let Some(certificates) = &shared.certificates {
            tokio::task::spawn_local(certificates::watch(certificates.clone(), shared.journal.clone()));
            tokio::task::spawn_local(acme::run(shared.clone(), certificates.clone()));
        }
        tokio::task::spawn_local(reload::watch(reloader.watching(), requests.clone()));
        tokio::task::spawn_local(reloader.run(received));
        let state = admin.serve(shared.clone(), requests)?;
        ready();
        let manager = Rc::new(ServiceManager::from_environment());
        manager.notify("READY=1");
        tokio::task::spawn_local({
            let (manager, state, shared) = (manager.clone(), state.clone(), shared.clone());
            async move { manager.send_signs_of_life(&shared.counters, || state.is_draining()).await }
        });
        let name = stop.signal().await;
        state.begin_draining();
        manager.notify("STOPPING=1");
        let (delay, drain) = (settings.drain_delay, settings.drain);
        shared.journal.event_with(
            Level::Info,
            "draining; a second signal stops the gateway immediately",
            &[
                ("signal", name.into()),
                ("delay", delay.as_secs().into()),
                ("seconds", drain.as_secs().into()),
            ],
        );
        let mut stopped = pin!(async {
            if !delay.is_zero() {
                gateway.begin_closing();
                tokio::time::sleep(delay).await;
            }
            gateway.drain();
            until_stopped(gateway, Instant::now() + drain + GRACE).await;
        });
        let mut again = pin!(stop.signal());
        let is_second = poll_fn(|cx| {
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            again.as_mut().poll(cx).map(|_| true)
        })
        .await;
        if is_second {
            shared.journal.event(Level::Warn, "second signal received: stopping immediately", &[]);
            shared.journal.clone().close();
            #[expect(
                clippy::disallowed_methods,
                reason = "the second signal asks for just this, and the journal is closed"
            )]
            std::process::exit(TERMINATED);
        }
        Ok(())
    });
    // Blocking tasks are not awaited: a poll of key files may hang on a network folder.
    runtime.shutdown_background();
    ended
}

/// Requests a reload for each SIGHUP. Several SIGHUPs during a reload cause only one more reload.
async fn forward_hangups(mut hangups: Signal, requests: mpsc::Sender<ReloadRequest>) {
    while hangups.recv().await.is_some() {
        if requests.send(ReloadRequest::Asked(None)).await.is_err() {
            return;
        }
    }
}

/// Returns the interval for polling files. A replacement takes effect within about a second. If a slow folder delays a
/// poll, the missed polls are skipped.
fn poll_interval() -> Interval {
    let mut interval = tokio::time::interval(Duration::from_millis(500));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn until_stopped(gateway: &Gateway, deadline: Instant) {
    // Cores do not report when they stop, so their threads are polled.
    while !gateway.is_stopped() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn signal(&mut self) -> &'static str {
        poll_fn(|cx| {
            if self.terminate.poll_recv(cx).is_ready() {
                return Poll::Ready("SIGTERM");
            }
            self.interrupt.poll_recv(cx).map(|_| "SIGINT")
        })
        .await
    }
}
