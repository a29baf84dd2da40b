//! One limit: what it counts by, how fast, and the buckets of everybody it has seen.
//!
//! Promises never to admit more than the burst and the rate allow for a key that keeps its place (see `store`),
//! in constant memory. Which limits a request meets, and in which order, is `mod`'s business.

use super::LimitKey;
use super::store::BucketStore;
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

/// Entries of a limit's table: 1 MiB of memory a limit, of which only the pages in use are real.
pub const CAPACITY: usize = 65_536;

/// The longest that a bucket may take to fill: 100 years. Keeps arrival times far from the end of 64 bits.
const FILL_MAX: u128 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// The longest name that appears in a header field; the rest is cut.
const NAME_MAX: usize = 64;

/// Whose requests a limit counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The client's address; an IPv6 client is its /64, since that is what one subscriber is given.
    ClientIp,
    /// The caller: issuer and subject.
    Subject,
    /// All requests of a route.
    Route,
    /// The value of a header field. Requests without the field, or with several, share one bucket. Whoever
    /// writes the field chooses his bucket: of use only for a value that something else vouches for.
    Header(HeaderName),
    /// The value of a claim, within its issuer. A caller without the claim is counted by subject.
    Claim(ClaimId),
}

impl By {
    /// Whether the caller must be known first. Such a limit is charged after authentication: before it, a
    /// subject is only something that the client says.
    pub const fn needs_caller(&self) -> bool {
        match self {
            Self::Subject | Self::Claim(_) => true,
            Self::ClientIp | Self::Route | Self::Header(_) => false,
        }
    }

    /// Where the limit stands among others that are charged at the same point. Those that single somebody
    /// out come first, so that a client who is refused anyway does not spend what everybody shares.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::ClientIp | Self::Subject => 0,
            Self::Header(_) | Self::Claim(_) => 1,
            Self::Route => 2,
        }
    }
}

/// A limit and its buckets, shared by all cores. `C` is the clock, for tests.
pub struct Limit<C: Clock = MonotonicClock> {
    name: Arc<str>,
    by: By,
    quota: Quota,
    counts: Arc<Counts<C>>,
    /// `RateLimit-Policy`, ready-made.
    policy: HeaderValue,
    /// `"name";r=`, the fixed beginning of `RateLimit`.
    prefix: Box<[u8]>,
}

/// What a limit has counted: it outlives the policy that it began under, as long as the limit stays the same.
struct Counts<C: Clock> {
    buckets: RateLimiter<u64, BucketStore, C, StateInformationMiddleware>,
    fingerprints: RandomState,
    refused: AtomicU64,
    displaced: Arc<AtomicU64>,
}

impl<C: Clock> fmt::Debug for Limit<C> {
    /// What the policy says of it; not the table, nor the keys of its fingerprints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("name", &self.name)
            .field("by", &self.by)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

/// What came of charging one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// It may pass: the number of further requests that may pass at once, and the maximum time until one more becomes
    /// available.
    Admitted { remaining: u32, next: Duration },
    /// It may not pass for this long, after which exactly one request may.
    Refused { wait: Duration },
}

impl Limit {
    /// A limit of `count` requests each `per`, `burst` of them at once.
    ///
    /// The name appears in header fields as a string of RFC 8941: the compiler of the policy allows only
    /// `[A-Za-z0-9_.-]` in it, and whatever else reached this point would be written as `_`. A rate beyond
    /// one request a nanosecond, or a bucket that fills in more than 100 years, is brought back to that.
    pub fn new(name: Arc<str>, by: By, count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Self {
        Self::with_clock(name, by, count, per, burst, CAPACITY, MonotonicClock)
    }
}

impl<C: Clock> Limit<C> {
    /// [`Limit::new`] with a table of `capacity` entries (16 bytes each) and a clock of the caller's choice.
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
            policy: HeaderValue::from_maybe_shared(policy).expect("letters, digits and punctuation of ours"),
            prefix: format!("\"{shown}\";r=").into_bytes().into_boxed_slice(),
        }
    }

    /// The name, as the policy has it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whose requests it counts together.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// How fast, and how many at once. Rates that mean the same (`60/m`, `1/s`) are equal.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// How fast, in words.
    pub fn describe(&self) -> String {
        describe(self.quota)
    }

    /// Goes on with what another limit has counted, if that is of the same name and as fast: else each reload of a policy
    /// would refill every attacker's bucket. `same_keys`: whether both count by the same, which the caller knows, since a
    /// [`ClaimId`] means something within one policy only.
    #[must_use]
    pub fn carry_over(mut self, before: &Self, same_keys: bool) -> Self {
        if same_keys && self.name == before.name && self.quota == before.quota {
            self.counts = before.counts.clone();
        }
        self
    }

    /// Requests refused so far.
    pub fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::Relaxed)
    }

    /// How often an active key lost its place because more were active than the table holds.
    pub fn displaced(&self) -> u64 {
        self.counts.displaced.load(Ordering::Relaxed)
    }

    pub(super) fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Counts one request.
    pub(super) fn charge(&self, key: &LimitKey<'_>) -> Charge {
        match self.counts.buckets.check_key(&self.fingerprint(key)) {
            Ok(state) => {
                // The bucket's level lies between two whole requests; taken for the lower one, the time is
                // never too short.
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

    /// The key of a request in this limit's table. Kinds of keys are told apart by their first byte, so that
    /// no subject can be made to look like an address. Two keys with one fingerprint (one chance in 2^64 a
    /// pair) would share a bucket, which refuses more, never less.
    fn fingerprint(&self, key: &LimitKey<'_>) -> u64 {
        let mut hasher = self.counts.fingerprints.build_hasher();
        match (&self.by, key.principal) {
            (By::ClientIp, _) | (By::Subject | By::Claim(_), None) => hash_address(key.address, &mut hasher),
            (By::Subject, Some(principal)) => hash_subject(principal, &mut hasher),
            (By::Route, _) => (2_u8, key.route).hash(&mut hasher),
            (By::Header(name), _) => {
                let mut values = key.headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    (Some(value), None) => (3_u8, value.as_bytes()).hash(&mut hasher),
                    // With several, a client could keep the one that counts and change the other.
                    (None, _) | (Some(_), Some(_)) => hasher.write_u8(4),
                }
            }
            (By::Claim(id), Some(principal)) => match principal.claim(*id) {
                Some(value) => {
                    (5_u8, &principal.issuer).hash(&mut hasher);
                    hash_claim(value, &mut hasher);
                }
                // Not one bucket for all that lack it: strangers could then lock each other out.
                None => hash_subject(principal, &mut hasher),
            },
        }
        hasher.finish()
    }
}

/// Describes a quota in words.
pub(super) fn describe(quota: Quota) -> String {
    format!("{} at once, then one each {:?}", quota.burst_size(), quota.replenish_interval())
}

/// Rounds the time between two requests up to whole nanoseconds: never faster than was asked.
fn quota(count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Quota {
    let interval = per.as_nanos().div_ceil(u128::from(count.get())).clamp(1, FILL_MAX);
    let burst_max = u32::try_from(FILL_MAX / interval).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst.get().min(burst_max)).unwrap_or(NonZeroU32::MIN);
    let interval = u64::try_from(interval).unwrap_or(u64::MAX);
    Quota::with_period(Duration::from_nanos(interval))
        .expect("the interval is at least one nanosecond")
        .allow_burst(burst)
}

/// How long an empty bucket takes to fill.
fn fill(quota: &Quota) -> Duration {
    quota.replenish_interval().saturating_mul(quota.burst_size().get())
}

/// Whole seconds, rounded up: what is told to clients must not be too short.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn hash_address(address: IpAddr, hasher: &mut impl Hasher) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (0_u8, 4_u8, v4.to_bits()).hash(hasher),
        IpAddr::V6(v6) => (0_u8, 6_u8, v6.to_bits() >> 64).hash(hasher),
    }
}

fn hash_subject(principal: &Principal, hasher: &mut impl Hasher) {
    (1_u8, &principal.issuer, &principal.subject).hash(hasher);
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
