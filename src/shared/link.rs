//! The connection to Redis that the whole process uses. It outlives reloads of the policy.

use super::breaker::Breaker;
use super::connect::{CALLS_MAX, Connection, Opened};
use super::marks::{self, Followed, MarkCounts, MarkExchange};
use super::refusals::{self, Command, CommandError, Refusals};
use super::replay::ProofCounts;
use super::settings::SharedSettings;
use crate::health::{Health, Words};
use crate::journal::{Journal, Level};
use arc_swap::{ArcSwap, ArcSwapOption};
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

/// The words for the shared state. `refused` counts commands, and leaves the connection in use.
static WORDS: Words = Words {
    name: "shared",
    fails: "the shared state cannot be used",
    answers: "the shared state answers again",
    reasons: &["connect", "tls", "login", "late", "lost", "refused", "busy", "down"],
};

/// The connection to the shared Redis.
pub struct Link {
    pub(super) settings: ArcSwap<SharedSettings>,
    pub(super) health: Health,
    pub(super) refusals: Refusals,
    pub(super) journal: Journal,
    pub(super) marks: MarkExchange,
    pub(super) proofs: ProofCounts,
    /// Wakes the keeper: the connection was lost, or the settings have changed.
    pub(super) changed: Notify,
    /// Wakes everybody who waits for a connection.
    pub(super) restored: Notify,
    runtime: tokio::runtime::Handle,
    /// The tasks that exchange marks.
    pub(super) exchange: OnceLock<[AbortHandle; 2]>,
    /// Ends the thread of the connection.
    pub(super) ended: Arc<Notify>,
    /// The connection; `None` while the breaker is open.
    opened: ArcSwapOption<Opened>,
    /// The number of connections that were opened.
    connections: AtomicU64,
    breaker: Breaker,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("health", &self.health).finish_non_exhaustive()
    }
}

/// The reason why a call has no answer.
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
    /// Creates the link. Its tasks run on `runtime`.
    pub(super) fn new(
        settings: Arc<SharedSettings>,
        followed: Followed,
        journal: Journal,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::new(settings),
            health: Health::new(&WORDS),
            refusals: Refusals::default(),
            journal,
            marks: MarkExchange::new(followed),
            proofs: ProofCounts::default(),
            changed: Notify::new(),
            restored: Notify::new(),
            runtime,
            exchange: OnceLock::new(),
            ended: Arc::default(),
            opened: ArcSwapOption::empty(),
            connections: AtomicU64::new(0),
            breaker: Breaker::default(),
        })
    }

    /// Applies the settings and the marks of a new policy. Opens a new connection if the servers or the login have
    /// changed.
    pub fn follow(&self, settings: Arc<SharedSettings>, followed: Followed) {
        self.marks.set_followed(followed, &settings);
        self.settings.store(settings);
        self.changed.notify_one();
    }

    /// Ends all work, because the policy in force has another shared state or none. A request that began under an earlier
    /// policy can still make calls for a second.
    pub fn end(&self) {
        self.marks.stop_collecting();
        self.exchange.get().into_iter().flatten().for_each(AbortHandle::abort);
        self.ended.notify_one();
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

    /// Returns the number of connections that were opened.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
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
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Returns the commands that Redis has refused.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Counts a command that Redis has refused. Does nothing for an error of another kind.
    pub fn note_refusal(&self, command: Command, error: &RedisError) {
        if self.refusals.note(command, error, &self.journal) {
            self.health.count("refused");
        }
    }

    /// Returns lines for operators: the servers, whether they answer, and the commands that they have refused.
    pub fn lines(&self) -> String {
        self.health.line(&self.settings.load().servers.to_string()) + &self.refusals.lines()
    }

    /// Waits until the revocations of the fleet are known, if the policy requires it. Must not be called on a thread that
    /// serves requests.
    pub fn wait_for_marks(&self) {
        let settings = self.settings();
        if !self.marks.denies(&settings) {
            return;
        }
        let (servers, stream) = (settings.servers.to_string(), self.key(marks::KIND, marks::NAME));
        let announce = |longest: Duration| {
            let longest = format!("{} ms", longest.as_millis());
            let fields = [
                ("shared", &*servers),
                ("stream", &stream),
                ("key", "shared.on_error.revocation"),
                ("at_most", &longest),
            ];
            let event = "the start waits for the revocations of other gateways";
            self.journal.event(Level::Info, event, &fields);
        };
        if !self.marks.wait(settings.connect_timeout, || self.is_up(), announce) {
            let why = self.marks.fault().unwrap_or_else(|| "not read in time".to_owned());
            let fields = [("shared", &*servers), ("stream", &stream), ("error", &why)];
            self.journal.event(Level::Error, marks::UNKNOWN, &fields);
        }
    }

    /// Returns why the gateway is not ready, as a sentence for operators: it must know the revocations of the fleet, and
    /// has never known them.
    pub fn unready(&self) -> Option<String> {
        let settings = self.settings.load();
        let is_unready = self.marks.is_unready(&settings);
        is_unready.then(|| {
            let stream = self.key(marks::KIND, marks::NAME);
            let why = self.marks.fault().map_or_else(String::new, |why| format!(": {why}"));
            format!(
                "the revocations of other gateways are not known yet ([shared.on_error] revocation = \"deny\"): \
                 {} at {}{why}",
                stream, settings.servers
            )
        })
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
        F: Future<Output = Result<T, CommandError>>,
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
            Ok(Err(CommandError { command, error })) => {
                let why = refusals::text(&error);
                self.note_refusal(command, &error);
                if is_of_connection(&error) {
                    self.health.count("lost");
                    self.lose(&opened, "lost", &why);
                } else {
                    self.breaker.answered();
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
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.health.answered(&self.settings.load().servers.to_string(), &self.journal);
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
