//! The state of the keys of an issuer: the last good set, the outcome of the last fetches, and when the next fetch is
//! due.

use super::copy::Copy;
use super::schedule::{backoff, next_refresh, wanted_refresh};
use super::{FetchError, Fetched, Owner, PassedSet, SourceSettings, Worth};
use crate::clock::Now;
use crate::outbound::Url;
use bytes::Bytes;
use http::HeaderValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The last fetched set that had a usable key.
#[derive(Clone, Debug)]
pub struct GoodSet {
    /// Its text.
    pub body: Bytes,
    /// When it was fetched, or confirmed.
    pub fetched: Now,
    /// The place from which this gateway has the set.
    pub origin: Origin,
    /// The time at which each key was first seen, in seconds since 1970, by [`super::Copy::key_name`].
    pub first_seen: BTreeMap<String, u64>,
    validator: Option<(Url, HeaderValue)>,
}

impl GoodSet {
    /// Returns the set of a copy, unless it is too old.
    fn of_copy(copy: Copy, origin: Origin, max_age: Duration, now: Now) -> Option<Self> {
        let age = Duration::from_secs(now.unix.saturating_sub(copy.fetched));
        // The age counts from the fetch. If it counted from the start of the process, a restart would make an old
        // set appear new.
        let steady = now.steady.checked_sub(age)?;
        let fetched = Now { unix: copy.fetched, subsec_nanos: 0, steady };
        let body = Bytes::from(copy.body);
        let set = Self { body, fetched, origin, first_seen: copy.first_seen, validator: None };
        (age < max_age).then_some(set)
    }

    fn age(&self, now: Now) -> Duration {
        now.steady.saturating_duration_since(self.fetched.steady)
    }
}

/// The place from which a gateway has a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The issuer: this gateway has fetched or confirmed the set.
    Issuer,
    /// The copy on disk. The set has not been confirmed since.
    Disk,
    /// Another gateway, which has fetched or confirmed the set.
    Gateway,
}

impl Origin {
    /// Returns words for operators, to follow the time of the fetch.
    pub const fn note(self) -> &'static str {
        match self {
            Self::Issuer => "",
            Self::Disk => ", from the copy on disk",
            Self::Gateway => ", by another gateway",
        }
    }
}

/// The state of one source.
#[derive(Debug)]
pub(super) struct State {
    good: Option<Arc<GoodSet>>,
    /// The URL of the key set from the issuer's metadata, and the time at which the metadata were read.
    pub(super) metadata: Option<(Url, Instant)>,
    /// When the last fetch started.
    started: Option<Instant>,
    /// The time of the next scheduled fetch.
    next: Now,
    /// The number of consecutive failed fetches.
    failures: u32,
    error: Option<(u64, FetchError)>,
    /// The reasons why keys of the last set are not used.
    skipped: Vec<String>,
    skipped_count: usize,
    fetches: u64,
    failed: BTreeMap<&'static str, u64>,
}

/// The maximum number of stored reasons for skipped keys. Their text is bounded too, because the issuer writes part of
/// it.
const SKIPPED_MAX: usize = 5;
const REASON_MAX: usize = 200;

/// The state for operators. Times are in seconds since 1970.
#[derive(Clone, Debug)]
pub struct Status {
    /// The owner of the keys.
    pub owner: Owner,
    /// The URL of its keys or its metadata.
    pub location: String,
    /// The time at which the set in use was fetched or confirmed.
    pub fetched: Option<u64>,
    /// Until when it is used.
    pub expires: Option<u64>,
    /// The place from which the gateway has the set in use.
    pub origin: Option<Origin>,
    /// When the next fetch is due.
    pub next: u64,
    /// The time and the reason of the last fetch, if it failed.
    pub error: Option<(u64, FetchError)>,
    /// The first reasons why keys of the set are not used.
    pub skipped: Vec<String>,
    /// The number of keys of the set that are not used.
    pub skipped_count: usize,
    /// The number of fetches that returned or confirmed a set.
    pub fetches: u64,
    /// The number of failed fetches, by kind.
    pub failed: BTreeMap<&'static str, u64>,
}

impl State {
    /// Creates the state, with the copy on disk if there is one. The first fetch is due at once.
    pub(super) fn begin(copy: Option<Copy>, max_age: Duration, now: Now) -> Self {
        let good = copy.and_then(|copy| GoodSet::of_copy(copy, Origin::Disk, max_age, now)).map(Arc::new);
        Self {
            good,
            metadata: None,
            started: None,
            next: now,
            failures: 0,
            error: None,
            skipped: Vec::new(),
            skipped_count: 0,
            fetches: 0,
            failed: BTreeMap::new(),
        }
    }

    pub(super) fn good(&self, max_age: Duration, now: Now) -> Option<Arc<GoodSet>> {
        self.good.clone().filter(|good| good.age(now) < max_age)
    }

    /// Drops the set if it is too old. Returns whether this call dropped it.
    pub(super) fn expire(&mut self, max_age: Duration, now: Now) -> bool {
        let is_old = self.good.as_ref().is_some_and(|good| good.age(now) >= max_age);
        if is_old {
            self.good = None;
        }
        is_old
    }

    /// Returns the `ETag` of the last set at this URL.
    pub(super) fn validator(&self, url: &Url) -> Option<HeaderValue> {
        let (known, etag) = self.good.as_ref()?.validator.as_ref()?;
        (known == url).then(|| etag.clone())
    }

    /// Returns when a fetch on demand may start: after the cooldown, and after the pause that follows a failure.
    pub(super) fn allowed(&self, cooldown: Duration) -> Option<Instant> {
        self.started.map(|started| started + cooldown.max(backoff(self.failures)))
    }

    /// Returns the time of the next scheduled fetch.
    pub(super) const fn next(&self) -> Instant {
        self.next.steady
    }

    /// Returns when the set becomes too old.
    pub(super) fn expires(&self, max_age: Duration) -> Option<Instant> {
        self.good.as_ref().map(|good| good.fetched.steady + max_age)
    }

    pub(super) fn begin_fetch(&mut self, now: Now) {
        self.started = Some(now.steady);
    }

    /// Records a set that is now in use, or the confirmation of the last set. `first_seen` applies to the keys of that
    /// set.
    pub(super) fn succeeded(
        &mut self,
        fetched: Fetched,
        skipped: Option<Vec<String>>,
        first_seen: BTreeMap<String, u64>,
        settings: &SourceSettings,
        now: Now,
    ) {
        let fresh = match fetched {
            Fetched::Set { body, url, etag, fresh } => {
                let validator = etag.map(|etag| (url, etag));
                let good = GoodSet { body, fetched: now, origin: Origin::Issuer, first_seen, validator };
                self.good = Some(Arc::new(good));
                fresh
            }
            Fetched::NotModified { fresh } => {
                if let Some(good) = &self.good {
                    let (good, origin) = (GoodSet::clone(good), Origin::Issuer);
                    self.good = Some(Arc::new(GoodSet { fetched: now, origin, first_seen, ..good }));
                }
                fresh
            }
        };
        if let Some(skipped) = skipped {
            self.set_skipped(&skipped);
        }
        self.failures = 0;
        self.error = None;
        self.fetches += 1;
        self.next = after(now, next_refresh(fresh, settings.refresh));
    }

    fn set_skipped(&mut self, skipped: &[String]) {
        self.skipped_count = skipped.len();
        let short = |why: &String| why.chars().take(REASON_MAX).flat_map(char::escape_debug).collect();
        self.skipped = skipped.iter().take(SKIPPED_MAX).map(short).collect();
    }

    /// Returns the use of a set of another gateway. `has_sought`: whether it has each key for which requests wait.
    pub(super) fn worth(
        &self,
        set: &PassedSet,
        has_sought: bool,
        settings: &SourceSettings,
        now: Now,
    ) -> Worth {
        let Some(age) = set.age(now).filter(|age| *age < settings.max_age) else { return Worth::Nothing };
        let good = self.good(settings.max_age, now);
        let is_newer = good.as_ref().is_none_or(|good| good.fetched.unix < set.fetched());
        // The copy on disk that nobody has confirmed since the start may be this set.
        let is_copy =
            good.is_some_and(|good| good.origin == Origin::Disk && good.fetched.unix == set.fetched());
        let is_fresh = age < wanted_refresh(set.fresh(), settings.refresh);
        match is_newer {
            _ if (is_newer || is_copy) && is_fresh && has_sought => Worth::Fetch,
            true => Worth::Spare,
            false => Worth::Nothing,
        }
    }

    /// Uses a set of another gateway, unless the set in use is newer. If the set replaces a fetch, the next fetch is due
    /// when the set has to be fetched again.
    pub(super) fn take_over(
        &mut self,
        set: PassedSet,
        worth: Worth,
        skipped: &[String],
        settings: &SourceSettings,
        now: Now,
    ) -> Option<Arc<GoodSet>> {
        if worth == Worth::Nothing || self.worth(&set, worth == Worth::Fetch, settings, now) != worth {
            return None;
        }
        let fresh = set.fresh();
        let good = Arc::new(GoodSet::of_copy(set.copy, Origin::Gateway, settings.max_age, now)?);
        if worth == Worth::Fetch {
            self.failures = 0;
            self.error = None;
            let left = next_refresh(fresh, settings.refresh).saturating_sub(good.age(now));
            self.next = after(now, left);
        }
        self.set_skipped(skipped);
        self.good = Some(good.clone());
        Some(good)
    }

    /// Records a failed fetch. The last good set stays.
    pub(super) fn failed(&mut self, error: FetchError, settings: &SourceSettings, now: Now) {
        self.failures = self.failures.saturating_add(1);
        *self.failed.entry(error.kind).or_default() += 1;
        self.error = Some((now.unix, error));
        self.next = after(now, backoff(self.failures).min(settings.refresh));
    }

    pub(super) fn is_untried(&self) -> bool {
        self.fetches == 0 && self.failed.is_empty()
    }

    pub(super) const fn fetches(&self) -> u64 {
        self.fetches
    }

    pub(super) fn last_error(&self) -> Option<&FetchError> {
        self.error.as_ref().map(|(_, error)| error)
    }

    pub(super) fn status(&self, settings: &SourceSettings) -> Status {
        let fetched = self.good.as_ref().map(|good| good.fetched.unix);
        Status {
            owner: settings.owner.clone(),
            location: settings.location.to_string(),
            fetched,
            expires: fetched.map(|fetched| fetched.saturating_add(settings.max_age.as_secs())),
            origin: self.good.as_ref().map(|good| good.origin),
            next: self.next.unix,
            error: self.error.clone(),
            skipped: self.skipped.clone(),
            skipped_count: self.skipped_count,
            fetches: self.fetches,
            failed: self.failed.clone(),
        }
    }
}

fn after(now: Now, pause: Duration) -> Now {
    now.later(now.steady + pause)
}
