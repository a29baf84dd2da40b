//! Starts the authority: its thread, its store, and the tasks that read revocations and maintain the store.

use super::counters::Counters;
use super::feed;
use super::health;
use super::password::Hashers;
use super::queue::Queue;
use super::runtime::{Authority, Outage, millis, millis_of};
use super::settings::IssuerSettings;
use super::throttle::Throttle;
use crate::clock::Now;
use crate::health::Health;
use crate::journal::Journal;
use crate::store::{Feed, Store, StoreError};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

impl Authority {
    /// Opens the store, reads all revocations, and starts the background tasks.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn start(
        settings: &Arc<IssuerSettings>,
        cores: usize,
        journal: Journal,
    ) -> Result<Arc<Self>, String> {
        let (send, started) = mpsc::channel();
        let settings = settings.clone();
        let run = move || {
            // Lower the priority of this thread and of the threads that SQLite starts from it, so that a flood of
            // logins does not slow down proxied requests. On Linux, each thread has its own priority. An error is
            // ignored: the authority works anyway.
            let _ = rustix::process::setpriority_process(None, NICE);
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(send.send(Err(format!("cannot start: {error}")))),
            };
            runtime.block_on(async {
                match Self::open(&settings, cores, journal).await {
                    Ok((authority, feed, last)) => {
                        let weak = Arc::downgrade(&authority);
                        // The caller of `start` waits for this message.
                        let _ = send.send(Ok(authority));
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "the authority's own runtime, on which nothing is bound to a thread"
                        )]
                        let upkeep = tokio::spawn(feed::upkeep(weak.clone()));
                        feed::run(weak, feed, last).await;
                        upkeep.abort();
                    }
                    Err(why) => drop(send.send(Err(why))),
                }
            });
        };
        std::thread::Builder::new()
            .name("authority".to_owned())
            .spawn(run)
            .map_err(|error| format!("cannot start: {error}"))?;
        started.recv().map_err(|_| "the authority ended while it started".to_owned())?
    }

    /// Opens the store and reads all marks. Returns the authority, the reader of marks, and the last mark's number.
    async fn open(
        settings: &Arc<IssuerSettings>,
        cores: usize,
        journal: Journal,
    ) -> Result<(Arc<Self>, Feed, i64), String> {
        let fault = |error: StoreError| format!("[authority] store: {error}");
        let store = Store::open(&settings.store.0, Path::new("")).await.map_err(fault)?;
        let alive_before_boot = store.alive_at().await.map_err(fault)?;
        let boot = millis(Now::read());
        let life = settings.access_expires.as_secs();
        store.record_life(millis_of(Duration::from_secs(life))).await.map_err(fault)?;
        let mut feed = store.feed();
        let last = feed::apply_marks(&mut feed, &settings.revoked, 0).await.map_err(fault)?;
        let authority = Arc::new(Self {
            runtime: tokio::runtime::Handle::current(),
            health: Health::new(&health::WORDS),
            feed_fails: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            queue: Queue::new(),
            store,
            // Hash on at most half of the cores. If the queue is full, the client gets a refusal with `Retry-After`.
            hashers: Hashers::start((cores / 2).max(1), HASHES_WAITING),
            throttle: Throttle::new(),
            counters: Counters::default(),
            journal,
            settings: ArcSwap::new(settings.clone()),
            link: ArcSwapOption::empty(),
            outage: Mutex::new(Outage { alive_before: alive_before_boot, over: boot }),
            heard: AtomicI64::new(millis(Now::read())),
            last_spent: AtomicI64::new(0),
            recorded: AtomicU64::new(life),
            schemes: Mutex::new(None),
        });
        Ok((authority, feed, last))
    }
}

/// The nice value of the authority's thread, below the priority of the cores.
const NICE: i32 = 10;

/// The maximum number of passwords that wait for hashing: a few seconds of work for one thread.
const HASHES_WAITING: usize = 64;
