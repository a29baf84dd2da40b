//! The tasks that no client request triggers: signals, the admin listener and the signing keys. They run on the main
//! thread's own runtime, so they do not delay the requests on a core.

mod admin;
mod api_keys;
mod certificates;
mod file_watch;
mod guard;
mod issuer_keys;
pub(crate) mod key_report;
mod keys;
mod metrics_page;
mod queries;
mod reload;
mod signals;

pub(crate) use admin::Admin;
pub(crate) use reload::{ReloadRequest, ReloadStatus, Reloader, log_finding};
pub(crate) use signals::file as signal_file;

use crate::accept::Gateway;
use crate::journal::Level;
use crate::worker::Shared;
use crate::worker_settings::WorkerSettings;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

/// How much longer than the drain itself the cores may take to stop.
const GRACE: Duration = Duration::from_secs(2);
/// The maximum number of waiting reload requests.
const RELOADS_WAITING: usize = 8;
/// The exit code after a second signal: 128 plus the number of SIGTERM, by the convention of shells.
const TERMINATED: i32 = 143;

/// Runs until the gateway has stopped. `ready` is called once signals are handled and the admin listener answers. If a
/// supervisor waits for `ready` before it sends a signal, the signal therefore starts a drain and does not kill the
/// process.
///
/// # Errors
/// When the runtime or the signal handlers cannot be made.
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
        // Requests that arrive during a reload wait, and each gets the result of its own reload.
        let (requests, received) = mpsc::channel(RELOADS_WAITING);
        tokio::task::spawn_local(forward_hangups(signal(SignalKind::hangup())?, requests.clone()));
        if let Some(certificates) = &shared.certificates {
            tokio::task::spawn_local(certificates::watch(certificates.clone(), shared.journal.clone()));
        }
        tokio::task::spawn_local(reload::watch(reloader.watching(), requests.clone()));
        tokio::task::spawn_local(reloader.run(received));
        let state = admin.serve(shared.clone(), requests)?;
        ready();
        let name = stop.signal().await;
        state.begin_draining();
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
    // Does not wait for blocking tasks: a poll of key files may hang in a network folder.
    runtime.shutdown_background();
    ended
}

/// Requests a reload at each SIGHUP. Several SIGHUPs that arrive during a reload cause only one further reload.
async fn forward_hangups(mut hangups: Signal, requests: mpsc::Sender<Option<ReloadRequest>>) {
    while hangups.recv().await.is_some() {
        if requests.send(None).await.is_err() {
            return;
        }
    }
}

/// Returns the interval at which files in use are polled for replacements. A replacement takes effect within about a
/// second. Polls that a slow folder delays are skipped.
fn poll_interval() -> Interval {
    let mut interval = tokio::time::interval(Duration::from_millis(500));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn until_stopped(gateway: &Gateway, deadline: Instant) {
    // Cores send no notification when they stop, so the state of their threads is polled.
    while !gateway.is_stopped() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The signals that stop the gateway.
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
