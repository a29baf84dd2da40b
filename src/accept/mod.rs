//! Bytes become requests: sockets, TLS, connections and their deadlines, a thread for each core.
//!
//! A core has its own listening sockets, connections, upstream connections and token cache; nothing on the path
//! of a request waits for another core. The kernel spreads *connections* over cores, not load: one connection
//! never uses two.

pub mod connection;
pub mod forwarded;
pub mod listener;
pub mod pulse;
mod stream;

pub use connection::Connection;
pub use listener::{Admission, Entry};

use crate::journal::Level;
use crate::plan::Plan;
use crate::worker::{Shared, Worker};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The sockets of one core, with what each does.
pub type Sockets = Vec<(std::net::TcpListener, Entry)>;

/// The running cores.
#[derive(Debug)]
pub struct Gateway {
    drain: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts a thread for each element of `sockets`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(shared: &Arc<Shared>, plan: Plan, sockets: Vec<Sockets>) -> io::Result<Self> {
        let (drain, draining) = watch::channel(false);
        let admission = Arc::new(Admission::new(plan.connections_max));
        let mut threads = Vec::new();
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (shared, admission, draining) = (shared.clone(), admission.clone(), draining.clone());
            let journal = shared.journal.clone();
            let runtime_ready = move || -> io::Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(tokio::runtime::LocalOptions::default())?;
                runtime.block_on(core(index, shared, plan, sockets, admission, draining))
            };
            let thread = std::thread::Builder::new().name(format!("core-{index}")).spawn(move || {
                if let Err(error) = runtime_ready() {
                    // Without its core a share of all connections would hang in a queue that nobody reads.
                    let error = error.to_string();
                    let fields = [("core", index.into()), ("error", (&error).into())];
                    journal.event_with(Level::Error, "a core cannot work", &fields);
                    journal.close();
                    std::process::exit(1);
                }
            })?;
            threads.push(thread);
        }
        Ok(Self { drain, threads })
    }

    /// Stops accepting; what is being answered goes on, within `[server] drain`.
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Whether every core has ended.
    pub fn is_stopped(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// One core's whole life.
async fn core(
    index: usize,
    shared: Arc<Shared>,
    plan: Plan,
    sockets: Sockets,
    admission: Arc<Admission>,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let worker = Rc::new(Worker::new(index, &shared, plan)?);
    for (socket, entry) in sockets {
        let listener = TcpListener::from_std(socket)?;
        tokio::task::spawn_local(listener::run(worker.clone(), listener, entry, admission.clone()));
    }
    tokio::task::spawn_local(worker.clone().sweep());
    // An error means that whoever would ask us to drain is gone: then it is time to drain as well.
    let _ = draining.wait_for(|draining| *draining).await;
    worker.drain().await;
    Ok(())
}
