//! A rate limit: its key, its quota, and the buckets of all keys.
//!
//! The quota holds for a key while the key has an entry in the table; see `store` for evictions. The memory is bounded.

use super::charge::{Charge, whole_seconds};
use super::fleet::exact;
use super::key::{By, LimitKey};
use super::lease::table::LeaseTable;
use super::sharing::Sharing;
use super::store::BucketStore;
use super::tiers::Tiers;
use crate::authenticate::{ClaimId, Principal};
use crate::counter::CoreValue;
use crate::shared::Link;
use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};
use http::HeaderValue;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The number of entries in a limit's table. A table takes 1 MiB of address space, but only its used pages take memory.
pub(crate) const CAPACITY: usize = 65_536;

/// The maximum time for a bucket to fill, in nanoseconds: 100 years. A longer time could overflow the 64-bit arrival
/// times.
const FILL_MAX: u128 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// The maximum length of a limit's name in a header field, in characters. A longer name is truncated.
const NAME_MAX: usize = 64;

/// A limit and its buckets, shared by all cores. Tests replace the clock `C`.
pub struct Limit<C: Clock = MonotonicClock> {
    name: Arc<str>,
    by: By,
    quota: Quota,
    counts: Arc<Counts<C>>,
    /// The value of `RateLimit-Policy`.
    policy: CoreValue,
    /// The fixed beginning of `RateLimit`: `"name";r=`.
    prefix: Box<[u8]>,
    /// Other limits for some values of a claim.
    tiers: Option<Box<Tiers<Self>>>,
    /// The fleet's share of the limit; `None` if each gateway counts for itself.
    sharing: Option<Sharing>,
}

/// The counts of a limit. They survive a reload of the policy if the limit stays the same.
struct Counts<C: Clock> {
    buckets: Buckets<C>,
    fingerprints: RandomState,
    refused: AtomicU64,
    displaced: Arc<AtomicU64>,
}

/// The buckets of a limit.
enum Buckets<C: Clock> {
    /// Of a limit that each gateway counts for itself.
    Own(RateLimiter<u64, BucketStore, C, StateInformationMiddleware>),
    /// Of a limit that the fleet shares. The table's time began at `start`.
    Leased { table: Arc<LeaseTable>, clock: C, start: C::Instant },
}

impl<C: Clock> fmt::Debug for Limit<C> {
    /// Omits the table and the hash keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("name", &self.name)
            .field("by", &self.by)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

impl Limit {
    /// Creates a limit of `count` requests per `per`, with up to `burst` requests at once.
    ///
    /// The name appears in header fields as a string (RFC 8941). Characters outside `[A-Za-z0-9_.-]` are replaced by
    /// `_`.
    ///
    /// The rate is capped at one request per nanosecond. The time for the bucket to fill is capped at 100 years.
    pub fn new(name: Arc<str>, by: By, count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Self {
        Self::with_clock(name, by, count, per, burst, CAPACITY, MonotonicClock)
    }

    /// Makes the limit one that the fleet shares. `tier`: the claim's value that selects the limit, if any.
    #[must_use]
    pub fn shared(self, sharing: &Sharing, tier: Option<&str>) -> Self {
        let clock = MonotonicClock;
        let (terms, identity) = sharing.terms(&self.name, tier, self.quota);
        let table = LeaseTable::new(terms, identity, CAPACITY, sharing.fleet.state().clone());
        sharing.fleet.register(&table);
        let displaced = table.displaced().clone();
        let buckets = Buckets::Leased { table, start: clock.now(), clock };
        let counts =
            Counts { buckets, fingerprints: RandomState::new(), refused: AtomicU64::new(0), displaced };
        Self { counts: Arc::new(counts), sharing: Some(sharing.clone()), ..self }
    }
}

impl<C: Clock> Limit<C> {
    /// Creates a limit with a table of `capacity` entries (16 bytes each) and this clock. The other arguments are the
    /// same as for [`Limit::new`].
    pub fn with_clock(
        name: Arc<str>,
        by: By,
        count: NonZeroU32,
        per: Duration,
        burst: NonZeroU32,
        capacity: usize,
        clock: C,
    ) -> Self {
        let quota = quota(count, per, burst);
        let store = BucketStore::new(capacity, quota.replenish_interval());
        let displaced = store.displaced();

        let shown: String = name
            .chars()
            .take(NAME_MAX)
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' })
            .collect();
        let window = whole_seconds(fill(&quota)).max(1);
        let policy = format!("\"{shown}\";q={};w={window}", quota.burst_size());

        Self {
            name,
            by,
            counts: Arc::new(Counts {
                buckets: Buckets::Own(RateLimiter::new(quota, store, clock)),
                fingerprints: RandomState::new(),
                refused: AtomicU64::new(0),
                displaced,
            }),
            quota,
            policy: CoreValue::new(
                HeaderValue::from_maybe_shared(policy).expect("the name was reduced to visible ASCII"),
            ),
            prefix: format!("\"{shown}\";r=").into_bytes().into_boxed_slice(),
            tiers: None,
            sharing: None,
        }
    }

    /// Adds limits for some values of a claim. This limit then applies to all other callers.
    #[must_use]
    pub fn with_tiers(self, tiers: Tiers<Self>) -> Self {
        Self { tiers: Some(Box::new(tiers)), ..self }
    }

    /// Returns the limit that applies to a caller.
    #[inline]
    pub(super) fn of(&self, principal: Option<&Principal>) -> &Self {
        match &self.tiers {
            None => self,
            Some(tiers) => tiers.of(principal).map_or(self, |(_, limit)| limit),
        }
    }

    /// Returns the claim that selects the rate; `None` if all callers have the same rate.
    pub fn rate_claim(&self) -> Option<ClaimId> {
        self.tiers.as_ref().map(|tiers| tiers.claim)
    }

    /// Returns the limit that applies to a caller, and the claim value that selected it. The value is `None` if the
    /// default limit applies.
    pub fn rate_of(&self, principal: Option<&Principal>) -> (Option<&str>, &Self) {
        match self.tiers.as_ref().and_then(|tiers| tiers.of(principal)) {
            Some((value, limit)) => (Some(value), limit),
            None => (None, self),
        }
    }

    /// Returns the limit's name in the policy.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the key by which requests are grouped.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// Returns the quota: rate and burst. Equivalent rates such as `60/m` and `1/s` have equal quotas.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Describes the quota in words.
    pub fn describe(&self) -> String {
        describe(self.quota)
    }

    /// Takes over the counts of the previous policy's limit if its name, quota and key are the same. Otherwise a reload
    /// would refill an attacker's bucket.
    ///
    /// `same_keys` states whether the keys are the same. The caller determines this, because a [`ClaimId`] is valid
    /// only within one policy.
    #[must_use]
    pub fn carry_over(mut self, before: &Self, same_keys: bool) -> Self {
        if same_keys && self.name == before.name && self.quota == before.quota && self.counts_as(before) {
            self.counts = before.counts.clone();
        }
        if let (Some(tiers), Some(before), true) = (&mut self.tiers, &before.tiers, same_keys) {
            for (value, limit) in &mut tiers.tiers {
                let is_same = |before: &&Self| before.quota == limit.quota && limit.counts_as(before);
                if let Some(before) = before.named(value).filter(is_same) {
                    limit.counts = before.counts.clone();
                }
            }
        }
        self
    }

    /// Whether both limits have the same kind of buckets, with the same fingerprints.
    fn counts_as(&self, other: &Self) -> bool {
        match (&self.sharing, &other.sharing) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.counts_as(theirs),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Returns how the fleet shares the limit; `None` if each gateway counts for itself.
    pub fn sharing(&self) -> Option<&Sharing> {
        self.sharing.as_ref()
    }

    /// Whether each request asks the shared state.
    pub fn is_exact(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.is_exact)
    }

    /// Returns the number of refused requests.
    pub fn refused(&self) -> u64 {
        self.own_and_tiers().map(|limit| limit.counts.refused.load(Ordering::Relaxed)).sum()
    }

    /// Returns how often the table evicted an active key because the key's set of entries was full.
    pub fn displaced(&self) -> u64 {
        self.own_and_tiers().map(|limit| limit.counts.displaced.load(Ordering::Relaxed)).sum()
    }

    fn own_and_tiers(&self) -> impl Iterator<Item = &Self> {
        let tiers = self.tiers.iter().flat_map(|tiers| tiers.tiers.iter());
        std::iter::once(self).chain(tiers.map(|(_, limit)| limit))
    }

    pub(super) fn policy(&self) -> &CoreValue {
        &self.policy
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Charges one request. Of a limit that the fleet shares, it takes a leased token.
    pub(super) fn charge(&self, key: &LimitKey<'_>) -> Charge {
        let charge = match &self.counts.buckets {
            Buckets::Own(buckets) => match buckets.check_key(&self.fingerprint(key)) {
                Ok(state) => {
                    // The bucket may contain a fraction of a request, so the actual wait may be shorter.
                    let next = self.quota.replenish_interval();
                    Charge::Admitted { remaining: state.remaining_burst_capacity(), next }
                }
                Err(until) => Charge::Refused { wait: until.wait_time_from(buckets.clock().now()) },
            },
            Buckets::Leased { table, clock, start } => {
                let now = clock.now().duration_since(*start).as_u64();
                table.charge(self.fingerprint(key), self.applies_alone(), now)
            }
        };
        self.count(charge)
    }

    /// Charges one request to the fleet's bucket, and waits for the answer. Without an answer, this gateway applies the
    /// limit alone or refuses the request.
    pub(super) async fn charge_exactly(&self, key: &LimitKey<'_>, link: Option<&Link>) -> Charge {
        let Buckets::Leased { table, .. } = &self.counts.buckets else { return self.charge(key) };
        let key = self.fingerprint(key);
        let charge = match exact::ask(link, table, key).await {
            Ok(charge) => charge,
            Err(_) => table.charge_alone(key, self.applies_alone(), table.now()),
        };
        self.count(charge)
    }

    /// Whether this gateway applies a shared limit alone if the fleet cannot be asked.
    fn applies_alone(&self) -> bool {
        self.sharing.as_ref().is_none_or(|sharing| sharing.applies_alone)
    }

    fn count(&self, charge: Charge) -> Charge {
        match charge {
            Charge::Admitted { .. } => {}
            Charge::Refused { .. } | Charge::Unavailable => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        charge
    }

    /// Returns the fingerprint of the request's key. The hash of a caller is computed once, with another secret.
    ///
    /// Two keys with the same fingerprint share a bucket. The chance is 1 in 2^64 per pair. A collision can only cause
    /// additional refusals.
    fn fingerprint(&self, key: &LimitKey<'_>) -> u64 {
        match &self.sharing {
            None => {
                let hasher = self.counts.fingerprints.build_hasher();
                self.by.hash(key, hasher, |principal, _| principal.caller_hash())
            }
            // All gateways have the same fingerprints, so the process's secret cannot be part of them.
            Some(sharing) => self.by.hash(key, sharing.hasher(), |principal, mut hasher| {
                (6_u8, &principal.issuer, &principal.subject).hash(&mut hasher);
                hasher.finish()
            }),
        }
    }
}

/// Describes a quota in words.
pub(super) fn describe(quota: Quota) -> String {
    format!("{} at once, then one each {:?}", quota.burst_size(), quota.replenish_interval())
}

/// Converts a rate to a quota. The interval is rounded up to whole nanoseconds, so the quota never exceeds the rate.
fn quota(count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Quota {
    let interval = per.as_nanos().div_ceil(u128::from(count.get())).clamp(1, FILL_MAX);
    let burst_max = u32::try_from(FILL_MAX / interval).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst.get().min(burst_max)).unwrap_or(NonZeroU32::MIN);
    let interval = u64::try_from(interval).unwrap_or(u64::MAX);
    Quota::with_period(Duration::from_nanos(interval))
        .expect("the interval is at least one nanosecond")
        .allow_burst(burst)
}

/// Returns the time that an empty bucket takes to fill.
fn fill(quota: &Quota) -> Duration {
    quota.replenish_interval().saturating_mul(quota.burst_size().get())
}

#[cfg(test)]
mod tests;
