//! A rate limit: its key, its quota, and the buckets of all keys.
//!
//! The quota holds for a key while the key has an entry in the table; see `store` for evictions. The memory is bounded.

use super::LimitKey;
use super::store::BucketStore;
use super::tiers::Tiers;
use crate::authenticate::{ClaimId, ClaimValue, Principal};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
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

/// The key by which a limit groups requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The client's address. IPv6 addresses are grouped by /64, the usual allocation of one subscriber.
    ClientIp,
    /// The caller, identified by issuer and subject.
    Subject,
    /// The route: all its requests share one bucket.
    Route,
    /// The value of a header field. Requests without the field, or with a repeated field, share one bucket.
    ///
    /// Clients choose the value. This key is useful only if another component verifies the value.
    Header(HeaderName),
    /// The value of a claim, separately for each issuer. A caller without the claim is identified by issuer and
    /// subject.
    Claim(ClaimId),
}

impl By {
    /// Returns whether the key depends on the caller. Such a limit is charged after authentication, because anyone can
    /// write any subject into an unverified token.
    pub const fn needs_caller(&self) -> bool {
        match self {
            Self::Subject | Self::Claim(_) => true,
            Self::ClientIp | Self::Route | Self::Header(_) => false,
        }
    }

    /// Returns the limit's rank. Lower ranks are charged first: limits per client before shared limits.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::ClientIp | Self::Subject => 0,
            Self::Header(_) | Self::Claim(_) => 1,
            Self::Route => 2,
        }
    }
}

/// A limit and its buckets, shared by all cores. Tests replace the clock `C`.
pub struct Limit<C: Clock = MonotonicClock> {
    name: Arc<str>,
    by: By,
    quota: Quota,
    counts: Arc<Counts<C>>,
    /// The value of `RateLimit-Policy`.
    policy: HeaderValue,
    /// The fixed beginning of `RateLimit`: `"name";r=`.
    prefix: Box<[u8]>,
    /// Other limits for some values of a claim.
    tiers: Option<Box<Tiers<C>>>,
}

/// The counts of a limit. They survive a reload of the policy if the limit stays the same.
struct Counts<C: Clock> {
    buckets: RateLimiter<u64, BucketStore, C, StateInformationMiddleware>,
    fingerprints: RandomState,
    refused: AtomicU64,
    displaced: Arc<AtomicU64>,
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

/// The result of charging one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// The request is admitted. A client may send `remaining` further requests at once, and one more after at most
    /// `next`.
    Admitted { remaining: u32, next: Duration },
    /// The request is refused. Exactly one request is admitted after `wait`.
    Refused { wait: Duration },
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
                buckets: RateLimiter::new(quota, store, clock),
                fingerprints: RandomState::new(),
                refused: AtomicU64::new(0),
                displaced,
            }),
            quota,
            policy: HeaderValue::from_maybe_shared(policy).expect("the name was reduced to visible ASCII"),
            prefix: format!("\"{shown}\";r=").into_bytes().into_boxed_slice(),
            tiers: None,
        }
    }

    /// Adds limits for some values of a claim. This limit then applies to all other callers.
    #[must_use]
    pub fn with_tiers(self, tiers: Tiers<C>) -> Self {
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
        if same_keys && self.name == before.name && self.quota == before.quota {
            self.counts = before.counts.clone();
        }
        if let (Some(tiers), Some(before), true) = (&mut self.tiers, &before.tiers, same_keys) {
            for (value, limit) in &mut tiers.tiers {
                if let Some(before) = before.named(value).filter(|before| before.quota == limit.quota) {
                    limit.counts = before.counts.clone();
                }
            }
        }
        self
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

    pub(super) fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Charges one request.
    pub(super) fn charge(&self, key: &LimitKey<'_>) -> Charge {
        match self.counts.buckets.check_key(&self.fingerprint(key)) {
            Ok(state) => {
                // The bucket may contain a fraction of a request, so the actual wait may be shorter than this interval.
                let next = self.quota.replenish_interval();
                Charge::Admitted { remaining: state.remaining_burst_capacity(), next }
            }
            Err(until) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                let wait = until.wait_time_from(self.counts.buckets.clock().now());
                Charge::Refused { wait }
            }
        }
    }

    /// Returns the fingerprint of the request's key. The first hashed byte is the kind of key, so a claim and an
    /// address never have the same hash input. The hash of a caller is computed once, with another secret.
    ///
    /// Two keys with the same fingerprint share a bucket. The chance is 1 in 2^64 per pair. A collision can only cause
    /// additional refusals.
    fn fingerprint(&self, key: &LimitKey<'_>) -> u64 {
        let mut hasher = self.counts.fingerprints.build_hasher();
        match (&self.by, key.principal) {
            (By::ClientIp, _) | (By::Subject | By::Claim(_), None) => hash_address(key.address, &mut hasher),
            (By::Subject, Some(principal)) => return principal.caller_hash(),
            (By::Route, _) => (2_u8, key.route).hash(&mut hasher),
            (By::Header(name), _) => {
                let mut values = key.headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    (Some(value), None) => (3_u8, value.as_bytes()).hash(&mut hasher),
                    // Otherwise a client could repeat the field and vary one value to change its bucket.
                    (None, _) | (Some(_), Some(_)) => hasher.write_u8(4),
                }
            }
            (By::Claim(id), Some(principal)) => match principal.claim(*id) {
                Some(value) => {
                    (5_u8, &principal.issuer).hash(&mut hasher);
                    hash_claim(value, &mut hasher);
                }
                // If callers without the claim shared a bucket, they could lock each other out.
                None => return principal.caller_hash(),
            },
        }
        hasher.finish()
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

/// Rounds up to whole seconds. A client must not receive a wait that is too short.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn hash_address(address: IpAddr, hasher: &mut impl Hasher) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (0_u8, 4_u8, v4.to_bits()).hash(hasher),
        IpAddr::V6(v6) => (0_u8, 6_u8, v6.to_bits() >> 64).hash(hasher),
    }
}

fn hash_claim(value: &ClaimValue, hasher: &mut impl Hasher) {
    match value {
        ClaimValue::Text(text) => (0_u8, text).hash(hasher),
        ClaimValue::Number(number) => (1_u8, number).hash(hasher),
        ClaimValue::Bool(bool) => (2_u8, bool).hash(hasher),
        ClaimValue::List(values) => {
            (3_u8, values.len()).hash(hasher);
            for value in values {
                hash_claim(value, hasher);
            }
        }
        ClaimValue::Other => hasher.write_u8(4),
    }
}

#[cfg(test)]
mod tests;
