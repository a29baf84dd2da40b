//! The local issuer: it turns proven credentials into signed tokens, keeps sessions, and revokes.
//!
//! What it issues is verified like any other issuer's; the gate knows nothing of it but its keys and what it revoked.
//! Its slow work (the store, and the signatures of an endpoint) runs on a thread of its own, passwords are hashed on
//! threads of the lowest priority: a core only waits for an answer, and goes on with other requests meanwhile.
//!
//! A request of an endpoint meets the files in this order: `endpoint` (which, and what it asks), `ask` (the request,
//! read), `login`, `refresh`, `session`, `service` (what is done), `page` (for whom a browser speaks), `grant` and
//! `cookie` (what is given).

mod ask;
mod cookie;
mod counters;
mod endpoint;
mod feed;
mod fields;
mod grant;
mod health;
mod login;
mod minted;
mod page;
mod password;
mod queue;
mod refresh;
mod service;
mod session;
mod sweeps;
mod terms;
mod throttle;
mod token;
mod username;

pub use ask::{Ask, Examined, Holder};
pub use cookie::{take_back, take_back_access};
pub use counters::{ByOutcome, Counters};
pub use endpoint::{Endpoint, Facts};
pub use feed::learn;
pub use fields::{BODY_MAX, BodyKind, Fields};
pub use health::StoreHealth;
pub use minted::put_on_record;
pub use page::{NEXT_MAX, PROMPT, PROMPT_LOGIN, Refused, encoded};
pub use password::{Busy, HashFault, Hashers, Verdict, check_stored, hash_password, scheme};
pub use queue::Queue;
pub use service::document;
pub use terms::{Client, ClientSecret, Compat, Cookies, StoreLocation, Terms};
pub use throttle::Throttle;
pub use token::{AccessClaims, RESERVED_CLAIMS, mint, sign};
pub use username::{
    NAME_BYTES_MAX, NameFault, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordFault, UserName,
    prepare_new_password, prepare_password,
};

use crate::authenticate::Mark;
use crate::clock::Now;
use crate::denial::Denial;
use crate::journal::Journal;
use crate::store::{Feed, Store, StoreError};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// The authority at work: what its endpoints share.
pub struct Authority {
    runtime: tokio::runtime::Handle,
    store: Store,
    health: StoreHealth,
    /// Whether the last attempt to read marks failed.
    feed_fails: AtomicBool,
    queue: Queue,
    hashers: Hashers,
    throttle: Throttle,
    counters: Counters,
    journal: Journal,
    /// The terms in force: those of the policy that was published last.
    terms: ArcSwap<Terms>,
    /// The moment from which this process answers, and the last at which the one before it is known to have lived:
    /// milliseconds since 1970. Between them nobody could repeat a refresh.
    boot: i64,
    alive_before_boot: i64,
    /// When a refresh token was last spent, milliseconds since 1970; 0 once the store knows that we outlived its grace.
    last_spent: AtomicI64,
    /// The longest life of access tokens that this process has seen on record in the store, in seconds.
    recorded: AtomicU64,
    /// The schemes of the accounts' password hashes, as they were read last.
    schemes: Mutex<Option<(Instant, Arc<[String]>)>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the store, learns what was revoked, and begins to keep both in step.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn start(terms: &Arc<Terms>, cores: usize, journal: Journal) -> Result<Arc<Self>, String> {
        let (send, started) = mpsc::channel();
        let terms = terms.clone();
        let run = move || {
            // Behind the cores, which it shares them with, and so are the threads of SQLite, which come from this one: a flood
            // of logins must not be felt by requests. On Linux a thread has a priority of its own. Where it cannot be set,
            // the work is done all the same.
            let _ = rustix::process::setpriority_process(None, NICE);
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(send.send(Err(format!("cannot start: {error}")))),
            };
            runtime.block_on(async {
                match Self::open(&terms, cores, journal).await {
                    Ok((authority, feed, last)) => {
                        let weak = Arc::downgrade(&authority);
                        // Whoever started this waits for it.
                        let _ = send.send(Ok(authority));
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

    /// Follows the terms of another policy, whose store is the same.
    pub fn follow(&self, terms: Arc<Terms>) {
        self.terms.store(terms);
    }

    /// With the reader of marks, and the number of the last mark that it read.
    async fn open(
        terms: &Arc<Terms>,
        cores: usize,
        journal: Journal,
    ) -> Result<(Arc<Self>, Feed, i64), String> {
        let fault = |error: StoreError| format!("[authority] store: {error}");
        let store = Store::open(&terms.store.0, Path::new("")).await.map_err(fault)?;
        let alive_before_boot = store.alive_at().await.map_err(fault)?;
        let boot = millis(Now::read());
        let life = terms.access_expires.as_secs();
        store.record_life(millis_of(Duration::from_secs(life))).await.map_err(fault)?;
        let mut feed = store.feed();
        let last = feed::learn(&mut feed, &terms.revoked, 0).await.map_err(fault)?;
        let authority = Arc::new(Self {
            runtime: tokio::runtime::Handle::current(),
            health: StoreHealth::new(store.place()),
            feed_fails: AtomicBool::new(false),
            queue: Queue::new(),
            store,
            // Half of the cores at most hash, whatever is asked of them; what waits is bounded and told to come back.
            hashers: Hashers::start((cores / 2).max(1), HASHES_WAITING),
            throttle: Throttle::new(),
            counters: Counters::default(),
            journal,
            terms: ArcSwap::new(terms.clone()),
            boot,
            alive_before_boot,
            last_spent: AtomicI64::new(0),
            recorded: AtomicU64::new(life),
            schemes: Mutex::new(None),
        });
        Ok((authority, feed, last))
    }

    /// Does the work of an endpoint on the authority's own thread. What services are refused has a form of its own, and
    /// says why by its [`Refused`].
    ///
    /// # Errors
    /// Why the request is refused.
    pub async fn answer(self: &Arc<Self>, ask: Ask) -> Result<Response<Bytes>, Denial> {
        let endpoint = ask.endpoint;
        // A request from another site's page gets an answer, but takes no place in the queue and spends no login
        // attempt of the user.
        if endpoint == Endpoint::Login && !ask.own_site {
            self.counters.logins.add("invalid");
            return page::login_answer(&ask, Err(Denial::CsrfMismatch));
        }
        let Some(place) = self.queue.enter(endpoint.facts().access) else {
            return refused(endpoint, Denial::Overloaded);
        };
        let authority = self.clone();
        let answered = self.on_own_thread(async move {
            // Held until the work is done, even if the client disconnects earlier.
            let _place = place;
            match ask.endpoint {
                Endpoint::LoginPage => page::show(&authority, ask).await,
                Endpoint::Login => page::login_answer(&ask, login::login(&authority, &ask).await),
                Endpoint::Refresh => refresh::refresh(&authority, ask).await,
                Endpoint::Logout => session::logout(&authority, ask).await,
                Endpoint::LogoutAll => session::logout_all(&authority, ask).await,
                Endpoint::Sessions => session::list(&authority, ask).await,
                Endpoint::EndSession => session::end(&authority, ask).await,
                Endpoint::Me => session::me(&ask),
                Endpoint::Token => service::token(&authority, &ask).await,
                Endpoint::Introspect => service::introspect(&authority, &ask).await,
                Endpoint::Revoke => service::revoke(&authority, &ask).await,
                // Both are answered, and a verdict is given, on the core that was asked.
                Endpoint::Jwks | Endpoint::Metadata | Endpoint::Verify => Err(Denial::NotFound),
            }
        });
        answered.await.or_else(|denial| refused(endpoint, denial))
    }

    /// Whether its store answers.
    pub fn health(&self) -> &StoreHealth {
        &self.health
    }

    /// The number of store connections closed because their transaction did not end cleanly.
    pub fn connections_replaced(&self) -> u64 {
        self.store.replaced()
    }

    /// The requests that wait for the authority's thread.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What it counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    async fn on_own_thread<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Denial>> + Send + 'static,
    ) -> Result<T, Denial> {
        // A task that panicked is a fault of ours: it ends one request, not the authority.
        let in_time = async { tokio::time::timeout(WORK_MAX, work).await };
        match self.runtime.spawn(in_time).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(self.unavailable(&StoreError::late(WORK_MAX))),
            Err(_) => Err(Denial::StoreUnavailable),
        }
    }

    /// Ensures that the store knows how long access tokens under these terms live. Call this before reading anything
    /// that the token will contain: a revocation then either sees the record, or has already happened.
    async fn record_life(&self, terms: &Terms) -> Result<(), Denial> {
        self.keep_record(terms).await.map_err(|error| self.unavailable(&error))
    }

    async fn keep_record(&self, terms: &Terms) -> Result<(), StoreError> {
        let life = terms.access_expires.as_secs();
        if self.recorded.load(Ordering::Acquire) < life {
            self.store.record_life(millis_of(Duration::from_secs(life))).await?;
            self.recorded.fetch_max(life, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Puts marks, which the store has already, in force.
    fn mark(&self, terms: &Terms, marks: &[Mark], now: Now, why: &'static str) {
        for mark in marks {
            terms.revoked.mark(mark, terms.revoked.kept_until(now.unix));
            self.counters.revocations.add(why);
        }
    }

    /// A refresh token was spent. If the process ends before the grace of that is over, the client whose answer was lost
    /// has it again after the restart; so the store must learn whether the process lived that long.
    fn spent(&self) {
        self.last_spent.store(millis(Now::read()), Ordering::Relaxed);
    }

    /// Whether the process has just outlived the grace of the last refresh.
    fn take_outlived(&self, now: i64, grace: Duration) -> bool {
        let spent = self.last_spent.load(Ordering::Relaxed);
        let outlived = spent != 0 && now > spent.saturating_add(millis_of(grace));
        outlived && self.last_spent.compare_exchange(spent, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The schemes of the accounts' password hashes, at most a few seconds old.
    async fn schemes(&self) -> Result<Arc<[String]>, StoreError> {
        let known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read, schemes)) = known
            && read.elapsed() < SCHEMES_KEPT
        {
            return Ok(schemes);
        }
        let schemes: Arc<[String]> = self.store.schemes().await?.into();
        *self.schemes.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), schemes.clone()));
        Ok(schemes)
    }

    /// They may have changed.
    fn forget_schemes(&self) {
        *self.schemes.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts a fault of the store, logs it if it is the first, and returns the refusal for the client.
    fn unavailable(&self, error: &StoreError) -> Denial {
        self.health.failed(error, &self.journal);
        Denial::StoreUnavailable
    }

    fn set_feed_fails(&self, fails: bool) {
        self.feed_fails.store(fails, Ordering::Relaxed);
    }

    /// Runs store work that no request waits for, and reports its faults. The time limit applies on this side too,
    /// because an unreachable server cannot report a timeout.
    async fn keep_up(&self, within: Duration, work: impl Future<Output = Result<(), StoreError>>) -> bool {
        let done = match tokio::time::timeout(within, work).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::late(within)),
        };
        if let Err(error) = &done {
            self.unavailable(error);
        }
        done.is_ok()
    }

    /// Writes and reads, and records that the store answers if both succeed and the reader of marks succeeded too.
    async fn try_store(&self, now: i64) {
        let tried = async {
            self.store.touch_alive(now).await?;
            self.store.alive_at().await.map(drop)
        };
        if self.keep_up(WORK_MAX, tried).await && !self.feed_fails.load(Ordering::Relaxed) {
            self.health.answered(&self.journal);
        }
    }
}

/// A refusal of an endpoint: in a form of its own where that is asked by services.
///
/// # Errors
/// The same refusal, where it is not.
pub fn refused(endpoint: Endpoint, denial: Denial) -> Result<Response<Bytes>, Denial> {
    if endpoint.facts().for_services { Ok(service::refusal(denial)) } else { Err(denial) }
}

/// The time limit for the work of one request. Each of its waits has a shorter bound, but there are several.
const WORK_MAX: Duration = Duration::from_secs(20);

/// How far behind the cores the authority's thread stands.
const NICE: i32 = 10;

/// For how long the schemes of hashes are not read again.
const SCHEMES_KEPT: Duration = Duration::from_secs(10);

/// Passwords that may wait to be hashed: some seconds' work for one thread.
const HASHES_WAITING: usize = 64;

/// A moment as the store keeps it: milliseconds since 1970.
fn millis(now: Now) -> i64 {
    let millis = now.unix.saturating_mul(1000).saturating_add(u64::from(now.subsec_nanos / 1_000_000));
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// A span of time as the store counts it.
fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
