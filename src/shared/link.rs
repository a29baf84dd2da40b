//! The connection to Redis that the whole process uses. It outlives reloads of the policy.

use super::breaker::Breaker;
use super::connect::{Connection, Opened};
use super::health::LinkHealth;
use super::keeper;
use super::marks::{self, Followed, MarkCounts, MarkExchange};
use super::replay::ProofCounts;
use super::settings::SharedSettings;
use crate::journal::{Journal, Level};
use arc_swap::{ArcSwap, ArcSwapOption};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The maximum number of calls in flight.
pub(super) const CALLS_MAX: usize = 1024;

/// The connection to the shared Redis.
pub struct Link {
    pub(super) settings: ArcSwap<SharedSettings>,
    pub(super) health: LinkHealth,
    pub(super) journal: Journal,
    pub(super) marks: MarkExchange,
    pub(super) proofs: ProofCounts,
    /// Wakes the keeper: the connection was lost, or the settings have changed.
    pub(super) changed: Notify,
    /// Wakes everybody who waits for a connection.
    pub(super) restored: Notify,
    runtime: tokio::runtime::Handle,
    /// The connection; `None` while the breaker is open.
    opened: ArcSwapOption<Opened>,
    generation: AtomicU64,
    breaker: Breaker,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("health", &self.health).finish_non_exhaustive()
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The breaker is open.
    Down,
    /// Too many calls are in flight.
    Busy,
    /// The answer is late. Redis may still execute the call.
    Late,
    /// Redis refused the call, or the connection was lost during the call.
    Failed(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("the shared state cannot be used"),
            Self::Busy => f.write_str("too many calls to the shared state at once"),
            Self::Late => f.write_str("the shared state did not answer in time"),
            Self::Failed(why) => write!(f, "the shared state: {why}"),
        }
    }
}

impl Link {
    /// Starts the thread that keeps a connection. Returns before the connection is open.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn start(
        settings: Arc<SharedSettings>,
        followed: Followed,
        journal: Journal,
    ) -> Result<Arc<Self>, String> {
        let (send, started) = mpsc::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(send.send(Err(format!("[shared] cannot start: {error}")))),
            };
            let link = Arc::new(Self {
                settings: ArcSwap::new(settings),
                health: LinkHealth::default(),
                journal,
                marks: MarkExchange::new(followed),
                proofs: ProofCounts::default(),
                changed: Notify::new(),
                restored: Notify::new(),
                runtime: runtime.handle().clone(),
                opened: ArcSwapOption::empty(),
                generation: AtomicU64::new(0),
                breaker: Breaker::default(),
            });
            let weak = Arc::downgrade(&link);
            // The caller of `start` waits for this message.
            let _ = send.send(Ok(link));
            runtime.block_on(async {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the runtime of the shared state, on which nothing is bound to a thread"
                )]
                let spawn = |task| drop(tokio::spawn(task));
                let tasks: [Pin<Box<dyn Future<Output = ()> + Send>>; 2] =
                    [Box::pin(marks::follow(weak.clone())), Box::pin(marks::publish(weak.clone()))];
                tasks.into_iter().for_each(spawn);
                keeper::keep(weak).await;
            });
        };
        std::thread::Builder::new()
            .name("shared".to_owned())
            .spawn(run)
            .map_err(|error| format!("[shared] cannot start: {error}"))?;
        started.recv().map_err(|_| "[shared] the thread ended while it started".to_owned())?
    }

    /// Applies the settings and the marks of a new policy. Opens a new connection if the servers or the login have
    /// changed.
    pub fn follow(&self, settings: Arc<SharedSettings>, followed: Followed) {
        self.marks.set_followed(followed, &settings);
        self.settings.store(settings);
        self.changed.notify_one();
    }

    /// Returns the settings of the policy in force.
    pub fn settings(&self) -> Arc<SharedSettings> {
        self.settings.load_full()
    }

    /// Returns the key of a value in Redis. `kind` separates the uses of the shared state.
    pub fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.settings.load().prefix)
    }

    /// Returns whether calls are sent to Redis.
    pub fn is_up(&self) -> bool {
        self.opened.load().is_some()
    }

    /// Returns a number that is larger for each new connection. A Redis that was away may have lost its memory.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits until calls are sent to Redis.
    pub async fn until_up(&self) {
        loop {
            let mut restored = std::pin::pin!(self.restored.notified());
            // Register for the next wake-up before the check, so that none is missed in between.
            restored.as_mut().enable();
            if self.is_up() {
                return;
            }
            restored.await;
        }
    }

    /// Runs a task on the thread of the connection. The task must not keep the link alive.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(task)
    }

    /// Returns whether Redis answers, and the counts of its failures.
    pub fn health(&self) -> &LinkHealth {
        &self.health
    }

    /// Returns a line for operators: the servers, and whether they answer.
    pub fn line(&self) -> String {
        self.health.line(&self.settings.load().servers.to_string())
    }

    /// Waits until the revocations of the fleet are known, if the policy requires it. Must not be called on a thread that
    /// serves requests.
    pub fn wait_for_marks(&self) {
        let settings = self.settings();
        if self.marks.denies(&settings) && !self.marks.wait(settings.connect_timeout, || self.is_up()) {
            self.journal.event(Level::Error, marks::UNKNOWN, &[]);
        }
    }

    /// Returns whether the gateway must know the revocations of the fleet, and has never known them.
    pub fn is_unready(&self) -> bool {
        self.marks.is_unready(&self.settings.load())
    }

    /// Returns whether the revocations of the fleet were known within the last seconds.
    pub fn knows_marks(&self) -> bool {
        self.marks.is_complete()
    }

    /// Returns the counts of marks.
    pub fn mark_counts(&self) -> &MarkCounts {
        self.marks.counts()
    }

    /// Returns the number of marks that wait to be sent.
    pub fn marks_waiting(&self) -> usize {
        self.marks.waiting()
    }

    /// Makes calls to Redis, from any thread, and waits for their answers until the deadline of the settings.
    ///
    /// # Errors
    /// Fails at once while Redis does not answer. After an error, Redis may or may not have executed the calls.
    pub async fn call<T, F>(&self, work: impl FnOnce(Connection) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(opened) = self.opened.load_full() else {
            self.health.count("down");
            return Err(Unanswered::Down);
        };
        let Some(_call) = self.breaker.enter(CALLS_MAX) else {
            self.health.count("busy");
            return Err(Unanswered::Busy);
        };
        let patience = self.settings.load().answer_timeout;
        match timeout(patience, work(opened.connection.clone())).await {
            Ok(Ok(value)) => {
                self.breaker.answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                let why = error.to_string();
                if is_of_connection(&error) {
                    self.health.count("lost");
                    self.lose(&opened, "lost", &why);
                } else {
                    self.breaker.answered();
                    self.health.count("refused");
                }
                Err(Unanswered::Failed(why))
            }
            Err(_) => {
                self.health.count("late");
                if self.breaker.is_opened_by_late() {
                    self.lose(&opened, "late", &format!("no answer within {} ms", patience.as_millis()));
                }
                Err(Unanswered::Late)
            }
        }
    }

    /// Takes a new connection into use.
    pub(super) fn restore(&self, opened: Opened) {
        self.breaker.close();
        self.opened.store(Some(Arc::new(opened)));
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.health.opened(&self.settings.load().servers.to_string(), &self.journal);
        self.restored.notify_waiters();
    }

    /// Closes the connection in use.
    pub(super) fn close(&self) {
        self.opened.store(None);
    }

    /// Opens the breaker, unless a newer connection has already replaced this one.
    fn lose(&self, lost: &Arc<Opened>, reason: &'static str, why: &str) {
        let before = self.opened.compare_and_swap(lost, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, lost)) {
            self.health.lose(&self.settings.load().servers.to_string(), reason, why, &self.journal);
            self.changed.notify_one();
        }
    }
}

/// Returns whether another call on the same connection would fail too.
fn is_of_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::ClusterDown
            ) | ErrorKind::ClusterConnectionNotFound
        )
}
