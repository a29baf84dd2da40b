//! Accepts connections and reads requests from them: sockets, TLS, HTTP and deadlines. There is one thread per core.
//!
//! Each core has separate listening sockets, connections, upstream connections and token cache, so a request never
//! waits for another core. A connection stays on one core. The kernel balances connections over the cores, but not
//! their load.

mod connection;
mod core;
mod eager;
mod failure_log;
mod frames;
mod handshake;
mod http1;
mod linger;
pub(crate) mod listener;
mod observed_stream;
mod proxied;
mod stream_executor;
mod unread;

pub(crate) use listener::{ConnectionSlots, Entry, ListenerKind};

use self::core::Core;
use crate::journal::Level;
use crate::worker::{Shared, Worker};
use crate::worker_settings::WorkerSettings;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The listening sockets of one core.
pub(crate) type Sockets = Vec<(std::net::TcpListener, Entry)>;

/// The phase of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The gateway serves requests normally.
    Serving,
    /// The gateway serves requests, but each HTTP/1.1 response closes its connection.
    Closing,
    /// The gateway finishes the current requests, but accepts no new connections.
    Draining,
}

/// The threads of all cores.
#[derive(Debug)]
pub(crate) struct Gateway {
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts one core thread for each element of `sockets`.
    ///
    /// # Errors
    /// Returns an error if a thread cannot be spawned.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        settings: WorkerSettings,
        sockets: Vec<Sockets>,
    ) -> io::Result<Self> {
        let (phase, phase_receiver) = watch::channel(Phase::Serving);
        let slots = Arc::new(ConnectionSlots::new(settings.connections_max));
        let mut threads = Vec::new();
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (shared, slots, phase_receiver) = (shared.clone(), slots.clone(), phase_receiver.clone());
            let journal = shared.journal.clone();
            let run_core = move || -> io::Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(tokio::runtime::LocalOptions::default())?;
                let ended = runtime.block_on(run(index, shared, settings, sockets, slots, phase_receiver));
                // Dropping the runtime would wait for threads that read from a file system without an answer.
                runtime.shutdown_background();
                ended
            };
            let thread = std::thread::Builder::new().name(format!("core-{index}")).spawn(move || {
                if let Err(error) = run_core() {
                    // The process exits. Otherwise the kernel would assign connections to this core's sockets, and they
                    // would never be accepted.
                    let error = error.to_string();
                    let fields = [("core", index.into()), ("error", (&error).into())];
                    journal.event_with(Level::Error, "worker failed to start", &fields);
                    journal.close();
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a core's thread cannot return a code from `main`, and the journal is closed"
                    )]
                    std::process::exit(1);
                }
            })?;
            threads.push(thread);
        }
        Ok(Self { phase, threads })
    }

    /// Makes each HTTP/1.1 connection close after its next response. The gateway still accepts connections, because
    /// load balancers need time to notice that it is not ready.
    pub(crate) fn begin_closing(&self) {
        self.phase.send_replace(Phase::Closing);
    }

    /// Stops accepting connections. Current requests may finish within `[server] drain`.
    pub(crate) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// Runs one core until it has drained.
async fn run(
    index: usize,
    shared: Arc<Shared>,
    settings: WorkerSettings,
    sockets: Sockets,
    slots: Arc<ConnectionSlots>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let core = Rc::new(Core::new(Worker::new(index, &shared, settings)?));
    let mut listeners = Vec::new();
    for (socket, entry) in sockets {
        let listener = TcpListener::from_std(socket)?;
        let accepting = listener::run(core.clone(), listener, entry, slots.clone());
        listeners.push(tokio::task::spawn_local(accepting));
    }
    tokio::task::spawn_local(core.clone().sweep());
    for turns in [core.worker.turns(), core.handshakes()] {
        tokio::task::spawn_local(turns.clone().keep());
    }
    // `wait_for` fails if the sender was dropped. No drain can be requested any more, so the core drains now.
    let _ = phase.wait_for(|phase| *phase >= Phase::Closing).await;
    core.begin_closing();
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    core.drain(listeners).await;
    Ok(())
}
