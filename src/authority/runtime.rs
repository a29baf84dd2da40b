//! The running authority: the state that its endpoints share, and the thread that they run on.

use super::counters::{Counters, RevocationCause};
use super::password::Hashers;
use super::queue::Queue;
use super::request::EndpointRequest;
use super::settings::IssuerSettings;
use super::throttle::Throttle;
use crate::authenticate::Mark;
use crate::authenticate::dpop::{CheckedProof, Thumbprint};
use crate::clock::Now;
use crate::denial::Denial;
use crate::health::Health;
use crate::journal::Journal;
use crate::shared::Link;
use crate::store::{Store, StoreError};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

/// The running authority.
pub struct Authority {
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) store: Store,
    pub(super) health: Health,
    /// Whether the last attempt to read marks failed.
    pub(super) feed_fails: AtomicBool,
    /// Whether the policy in force does not use the authority any more.
    pub(super) is_retired: AtomicBool,
    pub(super) queue: Queue,
    pub(super) hashers: Hashers,
    pub(super) throttle: Throttle,
    pub(super) counters: Counters,
    pub(super) journal: Journal,
    /// The settings of the policy in force.
    pub(super) settings: ArcSwap<IssuerSettings>,
    /// The connection to the shared state, if the policy in force has one.
    pub(super) link: ArcSwapOption<Link>,
    /// The last time in which clients could not repeat a refresh.
    pub(super) outage: Mutex<Outage>,
    /// When the store last answered the reader of marks, in milliseconds since 1970.
    pub(super) heard: AtomicI64,
    /// When a refresh token was last spent, in milliseconds since 1970. 0 after the grace period of that token.
    pub(super) last_spent: AtomicI64,
    /// The longest access token lifetime that this process has recorded in the store, in seconds.
    pub(super) recorded: AtomicU64,
    /// The schemes of the accounts' password hashes, and when they were read from the store.
    pub(super) schemes: Mutex<Option<(Instant, Arc<[String]>)>>,
}

/// A time in which clients could not repeat a refresh, because the process did not run or the store did not answer. The
/// times are in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    /// When the last process, or the store, was last known to be alive.
    pub(super) alive_before: i64,
    /// When the outage was over.
    pub(super) over: i64,
}

impl Outage {
    /// Returns the last outage at `now`, if the store answered at `before` and not since.
    fn after(self, before: i64, now: i64) -> Self {
        if now.saturating_sub(before) <= OUTAGE_MIN {
            return self;
        }
        // A store that answers only for a moment is still in the same outage.
        let is_same = before.saturating_sub(self.over) < OUTAGE_APART;
        Self { alive_before: if is_same { self.alive_before } else { before }, over: now }
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Authority {
    /// Applies the settings of a new policy that uses the same store.
    pub fn follow(&self, settings: Arc<IssuerSettings>) {
        self.settings.store(settings);
    }

    /// Stops reading and maintaining the store, because the policy in force does not use it. Requests that began before still
    /// use it. The revocations in memory are also those of the authority that follows: what this one cannot read, or can,
    /// must not decide whether they are complete.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Uses the shared state of a policy, or none.
    pub fn share(&self, link: Option<Arc<Link>>) {
        self.link.store(link);
    }

    /// Makes the last check of a request's proof: neither this gateway nor another one has accepted it. Returns the
    /// proof's key.
    pub(super) async fn accept_proof(&self, proof: &CheckedProof) -> Result<Thumbprint, Denial> {
        let key = proof.accept()?;
        if let (Some(used), Some(link)) = (proof.used(), self.link.load_full()) {
            link.claim(used).await.map_err(|(denial, _)| denial)?;
        }
        Ok(key)
    }

    /// Returns the key whose possession a request proves, for new tokens, or `None` without a proof. The proof cannot be
    /// used again.
    pub(super) async fn proven_key(&self, request: &EndpointRequest) -> Result<Option<Thumbprint>, Denial> {
        match &request.proof {
            Some(proof) => self.accept_proof(proof).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns whether the store answers, and the count of its failures.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Returns a line for operators: the store, and whether it answers.
    pub(crate) fn store_line(&self) -> String {
        self.health.line(self.store.place())
    }

    /// Returns the number of store connections that were closed because a transaction did not end cleanly.
    pub fn connections_replaced(&self) -> u64 {
        self.store.replaced()
    }

    /// Returns the queue of requests for the authority's thread.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Returns the authority's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) async fn on_own_thread<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Denial>> + Send + 'static,
    ) -> Result<T, Denial> {
        // Spawn a task, so that a panic fails only this request.
        let store = self.store.clone();
        let in_time = async move {
            let mut work = pin!(tokio::time::timeout(WORK_MAX, work));
            // After a failover, work on a connection to the old server may hang until its time limit. The client's
            // repetition then comes too late for the grace period.
            let mut moved = pin!(store.moved());
            poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(done.map_err(|_| StoreError::late(WORK_MAX))),
                Poll::Pending => moved.as_mut().poll(cx).map(|()| Err(StoreError::moved())),
            })
            .await
        };
        match self.runtime.spawn(in_time).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(self.unavailable(&error)),
            Err(_) => Err(Denial::StoreUnavailable),
        }
    }

    /// Ensures that the store has recorded the access token lifetime of these settings.
    ///
    /// Call this function before you read the token's content from the store. A concurrent revocation then either sees
    /// the record, or takes effect before the content is read.
    pub(super) async fn record_life(&self, settings: &IssuerSettings) -> Result<(), Denial> {
        self.keep_record(settings).await.map_err(|error| self.unavailable(&error))
    }

    pub(super) async fn keep_record(&self, settings: &IssuerSettings) -> Result<(), StoreError> {
        let life = settings.access_expires.as_secs();
        if self.recorded.load(Ordering::Acquire) < life {
            self.store.record_life(millis_of(Duration::from_secs(life))).await?;
            self.recorded.fetch_max(life, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Applies marks to this process that are already in the store, and counts them under `cause`.
    pub(super) fn mark(&self, settings: &IssuerSettings, marks: &[Mark], now: Now, cause: RevocationCause) {
        for mark in marks {
            settings.revoked.mark(mark, settings.revoked.kept_until(now.unix));
            self.counters.revocations.add(cause);
        }
    }

    /// Notes that a refresh token was spent. After its grace period, the upkeep task records in the store that this
    /// process is still alive. Without the record, clients get another grace period after a restart.
    pub(super) fn spent(&self) {
        self.last_spent.store(millis(Now::read()), Ordering::Relaxed);
    }

    /// Whether the grace period of the last refresh is over. Returns true only once for each refresh.
    pub(super) fn take_outlived(&self, now: i64, grace: Duration) -> bool {
        let spent = self.last_spent.load(Ordering::Relaxed);
        let outlived = spent != 0 && now > spent.saturating_add(millis_of(grace));
        outlived && self.last_spent.compare_exchange(spent, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Returns the schemes of the accounts' password hashes, from a cache that is at most 10 seconds old.
    pub(super) async fn schemes(&self) -> Result<Arc<[String]>, StoreError> {
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

    /// Discards the cached schemes. Called when an account's hash has changed.
    pub(super) fn forget_schemes(&self) {
        *self.schemes.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts a store error, logs it unless it is already in the log, and returns the refusal for the client.
    pub(super) fn unavailable(&self, error: &StoreError) -> Denial {
        self.store_failed(error);
        Denial::StoreUnavailable
    }

    /// Records that the store answered the reader of marks at `now`. A pause in these answers is an outage.
    pub(super) fn heard_store(&self, now: i64) {
        self.store.follow();
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        *outage = outage.after(self.heard.swap(now, Ordering::Relaxed), now);
    }

    /// Returns the last outage. An outage of which the reader of marks has not yet seen the end lasts until `now`.
    pub(super) fn last_outage(&self, now: i64) -> Outage {
        let outage = *self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.after(self.heard.load(Ordering::Relaxed), now)
    }

    pub(super) fn set_feed_fails(&self, fails: bool) {
        self.feed_fails.store(fails, Ordering::Relaxed);
    }

    /// Runs background work on the store, and reports its errors. Returns whether the work succeeded. The gateway
    /// enforces the time limit, because an unreachable server cannot report a timeout.
    pub(super) async fn keep_up(
        &self,
        within: Duration,
        work: impl Future<Output = Result<(), StoreError>>,
    ) -> bool {
        let done = match tokio::time::timeout(within, work).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::late(within)),
        };
        if let Err(error) = &done {
            self.unavailable(error);
        }
        done.is_ok()
    }

    /// Tries a write and a read. Records that the store is up if both succeed and the last read of marks succeeded.
    pub(super) async fn try_store(&self, now: i64) {
        let tried = async {
            self.store.touch_alive(now).await?;
            self.store.alive_at().await.map(drop)
        };
        if self.keep_up(WORK_MAX, tried).await && !self.feed_fails.load(Ordering::Relaxed) {
            self.health.answered(self.store.place(), &self.journal);
        }
    }
}

/// The time limit for the work of one request. Each wait within the work has a shorter limit.
pub(super) const WORK_MAX: Duration = Duration::from_secs(20);

/// The shortest pause in the answers of the store that counts as an outage, in milliseconds: two reads of marks.
const OUTAGE_MIN: i64 = 1000;
/// Outages with less than this time between them count as one, in milliseconds.
const OUTAGE_APART: i64 = 10_000;

/// The time that the schemes of password hashes are cached.
const SCHEMES_KEPT: Duration = Duration::from_secs(10);

/// Converts a time to the store's unit: milliseconds since 1970.
pub(super) fn millis(now: Now) -> i64 {
    let millis = now.unix.saturating_mul(1000).saturating_add(u64::from(now.subsec_nanos / 1_000_000));
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// Converts a duration to milliseconds.
pub(super) fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_in_the_answers_is_an_outage_and_two_close_pauses_are_one() {
        let old = Outage { alive_before: -900_000, over: -800_000 };
        let of = |outage: Outage| (outage.alive_before, outage.over);
        assert_eq!(of(old.after(1000, 1000 + OUTAGE_MIN)), of(old));
        let first = old.after(1000, 5000);
        assert_eq!(of(first), (1000, 5000));
        // The store answered for three seconds.
        assert_eq!(of(first.after(8000, 12_000)), (1000, 12_000));
        assert_eq!(of(first.after(5000 + OUTAGE_APART, 20_000)), (15_000, 20_000));
        // The clock was set back.
        assert_eq!(of(first.after(9000, 2000)), of(first));
    }
}
