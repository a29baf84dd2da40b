//! Key sets that gateways pass to each other over a server that they do not trust with keys.
//!
//! A MAC under a common secret authenticates each set together with its source and the time of its fetch. Only gateways
//! that fetch in the same way use each other's sets, and the age of a set counts from its fetch.

use super::{Copy, GoodSet, KeySource, SourceSettings};
use crate::clock::Now;
use crate::hex;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The maximum length of a sealed set. A larger set is fetched by each gateway.
pub const SEALED_MAX: usize = 1 << 20;
/// The length of the MAC with which a sealed set begins.
pub const MAC: usize = 32;
/// Separates these keys from all other uses of the same secret.
const USE: &[u8] = b"portcullis: key sets of issuers, 1";

/// The secrets that authenticate sets: one that seals and opens, and perhaps another that only opens.
pub struct SetSecrets {
    current: hmac::Key,
    other: Option<hmac::Key>,
}

impl fmt::Debug for SetSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetSecrets(not shown)")
    }
}

impl SetSecrets {
    /// Derives the keys from the secrets.
    pub fn new(current: &[u8], other: Option<&[u8]>) -> Self {
        let derived = |secret: &[u8]| {
            let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), USE);
            hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
        };
        Self { current: derived(current), other: other.map(derived) }
    }

    /// Returns the document of a sealed text; `None` if no gateway with these secrets has sealed it under this name.
    fn document<'s>(&self, name: &str, sealed: &'s [u8]) -> Option<&'s [u8]> {
        let (mac, document) = sealed.split_at_checked(MAC)?;
        let signed = [name.as_bytes(), document].concat();
        let is_by = |key: &hmac::Key| hmac::verify(key, &signed, mac).is_ok();
        (is_by(&self.current) || self.other.as_ref().is_some_and(is_by)).then_some(document)
    }
}

/// A set of another gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PassedSet {
    #[serde(flatten)]
    pub(super) copy: Copy,
    /// The time for which the issuer allows the set to be used without another fetch, in seconds.
    fresh: Option<u64>,
}

impl PassedSet {
    /// Returns the text of the set.
    pub fn body(&self) -> &[u8] {
        self.copy.body.as_bytes()
    }

    /// Returns the time of the fetch by the clock of the gateway that fetched the set, in seconds since 1970.
    pub const fn fetched(&self) -> u64 {
        self.copy.fetched
    }

    /// Returns the time since the fetch; `None` if the set is from the future.
    pub(super) fn age(&self, now: Now) -> Option<Duration> {
        now.unix.checked_sub(self.copy.fetched).map(Duration::from_secs)
    }

    pub(super) fn fresh(&self) -> Option<Duration> {
        self.fresh.map(Duration::from_secs)
    }
}

/// The use of a set of another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// The set replaces the fetch that is due: it is newer than the set in use, the issuer's time for it has not passed,
    /// and it has each key for which requests wait.
    Fetch,
    /// The set is newer than the set in use, and used only if the issuer does not answer.
    Spare,
    /// The set is not newer, too old, or from the future.
    Nothing,
}

/// The fate of a set that gateways pass to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// This gateway has fetched it, and passed it on.
    Given,
    /// This gateway uses it, in place of a fetch or after a failed one.
    Taken,
    /// No gateway with the same secret has sealed it.
    Rejected,
}

impl Passed {
    const NAMES: [&'static str; 3] = ["given", "taken", "rejected"];
}

/// The counts of passed sets.
#[derive(Debug, Default)]
pub struct PassedCounts([AtomicU64; Passed::NAMES.len()]);

impl PassedCounts {
    /// Counts a set. Returns whether it is the first one of its kind.
    pub fn add(&self, passed: Passed) -> bool {
        self.0[passed as usize].fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Returns the counts, with their labels in the metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Passed::NAMES.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// A text that another gateway is said to have sealed, and does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl KeySource {
    /// Returns the name under which gateways pass the sets of this source. It covers all that decides which keys a fetch
    /// brings and whether they are trusted.
    pub fn passed_name(&self) -> String {
        let SourceSettings {
            owner,
            location,
            authorities,
            networks,
            allows_http,
            refresh: _,
            max_age: _,
            cooldown: _,
            copy: _,
        } = &self.settings;
        let text = format!("{owner:?}\n{location:?}\n{authorities:?}\n{networks:?}\n{allows_http}");
        hex::text(&digest(&SHA256, text.as_bytes()).as_ref()[..16])
    }

    /// Seals the set that this gateway has just fetched. Returns `None` if the set is too large to be passed on.
    pub fn seal(&self, secrets: &SetSecrets, good: &GoodSet, fresh: Option<Duration>) -> Option<Vec<u8>> {
        let copy = Copy::new(&self.settings, &good.body, good.fetched.unix, good.first_seen.clone())?;
        let set = PassedSet { copy, fresh: fresh.map(|fresh| fresh.as_secs()) };
        let document = serde_json::to_vec(&set).ok()?;
        let mac = hmac::sign(&secrets.current, &[self.passed_name().as_bytes(), &document].concat());
        let sealed = [mac.as_ref(), &document].concat();
        (sealed.len() <= SEALED_MAX).then_some(sealed)
    }

    /// Opens a sealed set.
    ///
    /// # Errors
    /// Returns an error unless a gateway with one of the secrets sealed this set for this source.
    pub fn open(&self, secrets: &SetSecrets, sealed: &[u8]) -> Result<PassedSet, Forged> {
        let document = secrets.document(&self.passed_name(), sealed).ok_or(Forged)?;
        let set: PassedSet = serde_json::from_slice(document).map_err(|_| Forged)?;
        if set.copy.is_of(&self.settings) { Ok(set) } else { Err(Forged) }
    }

    /// Returns the use of a set of another gateway. `ids` are the ids of its keys.
    pub fn worth<'i>(&self, set: &PassedSet, ids: impl Iterator<Item = Option<&'i str>>, now: Now) -> Worth {
        let has_sought = self.has_sought(ids);
        self.state().worth(set, has_sought, &self.settings, now)
    }

    /// Uses a set of another gateway for what it is worth. After a spare set, the next fetch stays due. Returns the set;
    /// `None` if it is no longer worth that.
    pub fn take_over(
        &self,
        set: PassedSet,
        worth: Worth,
        skipped: &[String],
        now: Now,
    ) -> Option<Arc<GoodSet>> {
        self.state().take_over(set, worth, skipped, &self.settings, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fetched, Location, Networks, Origin, Owner, Url};
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use rustls::RootCertStore;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn settings() -> SourceSettings {
        SourceSettings {
            owner: Owner::Issuer(Arc::from("https://id.test")),
            location: Location::KeySet(Url::parse("https://id.test/jwks").unwrap()),
            authorities: [0; 32],
            networks: Networks::default(),
            allows_http: false,
            refresh: Duration::from_secs(900),
            max_age: Duration::from_secs(3600),
            cooldown: Duration::from_secs(5),
            copy: PathBuf::from("/nowhere/copy.json"),
        }
    }

    fn source(settings: SourceSettings) -> Arc<KeySource> {
        KeySource::after(settings, Arc::new(RootCertStore::empty()), None, Now::read()).unwrap()
    }

    /// Returns a source that has just fetched a set, and the set sealed.
    fn sealed(secrets: &SetSecrets, now: Now) -> Vec<u8> {
        let one = source(settings());
        let url = Url::parse("https://id.test/jwks").unwrap();
        let fetched = Fetched::Set { body: Bytes::from_static(b"{}"), url, etag: None, fresh: None };
        let good = one.succeeded(fetched, None, BTreeMap::new(), now).unwrap();
        one.seal(secrets, &good, None).unwrap()
    }

    #[test]
    fn only_a_gateway_with_the_secret_and_the_same_settings_opens_a_set() {
        let (secrets, now) = (SetSecrets::new(&[7; 32], None), Now::read());
        let text = sealed(&secrets, now);
        let opened =
            |settings: SourceSettings, secrets: &SetSecrets| source(settings).open(secrets, &text).is_ok();
        assert!(opened(settings(), &secrets));
        assert!(
            opened(settings(), &SetSecrets::new(&[8; 32], Some(&[7; 32]))),
            "while the secret is changed"
        );
        assert!(opened(SourceSettings { refresh: Duration::from_secs(60), ..settings() }, &secrets));
        assert!(!opened(settings(), &SetSecrets::new(&[8; 32], None)));
        for other in [
            SourceSettings { owner: Owner::Signals(Arc::from("https://id.test")), ..settings() },
            SourceSettings { owner: Owner::Issuer(Arc::from("https://other.test")), ..settings() },
            SourceSettings {
                location: Location::KeySet(Url::parse("https://id.test/other").unwrap()),
                ..settings()
            },
            SourceSettings { authorities: [1; 32], ..settings() },
            SourceSettings { allows_http: true, ..settings() },
            SourceSettings { networks: Networks::new(vec!["10.0.0.0/8".parse().unwrap()]), ..settings() },
        ] {
            assert!(!opened(other.clone(), &secrets), "{other:?}");
        }
    }

    #[test]
    fn the_age_of_a_set_counts_from_its_fetch_and_no_set_replaces_a_newer_one() {
        let secrets = SetSecrets::new(&[7; 32], None);
        let fetched = Now::read();
        let text = sealed(&secrets, fetched);
        let at = |seconds: u64| fetched.later(fetched.steady + Duration::from_secs(seconds));
        let two = source(settings());
        let set = || two.open(&secrets, &text).unwrap();
        let worth = |now: Now| two.worth(&set(), [].into_iter(), now);
        assert_eq!(
            [0, 899, 900, 3599].map(|seconds| worth(at(seconds))),
            [Worth::Fetch, Worth::Fetch, Worth::Spare, Worth::Spare]
        );
        assert_eq!(worth(at(3600)), Worth::Nothing);
        assert_eq!(worth(Now { unix: fetched.unix - 1, ..fetched }), Worth::Nothing, "a set of the future");
        assert!(two.take_over(set(), Worth::Fetch, &[], at(900)).is_none(), "it is a spare set by now");
        assert!(two.take_over(set(), Worth::Spare, &[], at(3600)).is_none(), "it is too old by now");
        assert!(two.good(at(10)).is_none());

        let good = two.take_over(set(), Worth::Fetch, &[], at(10)).unwrap();
        assert_eq!((good.fetched.unix, good.origin), (fetched.unix, Origin::Gateway));
        assert!(two.good(at(3599)).is_some() && two.good(at(3601)).is_none());
        assert_eq!(worth(at(20)), Worth::Nothing, "the gateway has this set");
        for worth in [Worth::Fetch, Worth::Spare, Worth::Nothing] {
            assert!(two.take_over(set(), worth, &[], at(20)).is_none(), "{worth:?}");
        }
        let next = two.status().next;
        assert!((fetched.unix + 800..=fetched.unix + 900).contains(&next), "{next}");
    }

    #[test]
    fn after_a_spare_set_the_next_fetch_stays_due() {
        let secrets = SetSecrets::new(&[7; 32], None);
        let fetched = Now::read();
        let text = sealed(&secrets, fetched);
        let at = |seconds: u64| fetched.later(fetched.steady + Duration::from_secs(seconds));
        let two = source(settings());
        let due = two.status().next;
        let set = two.open(&secrets, &text).unwrap();
        let good = two.take_over(set, Worth::Spare, &[], at(1000)).unwrap();
        assert_eq!((good.fetched.unix, two.status().next), (fetched.unix, due));
    }

    /// The clock of the gateway that fetched a set may be wrong. The error of the clock is all that a set gains.
    #[test]
    fn a_wrong_clock_makes_a_set_appear_older_or_newer_by_its_error_only() {
        let secrets = SetSecrets::new(&[7; 32], None);
        let now = Now::read();
        let sealed_at = |unix: u64| sealed(&secrets, Now { unix, ..now });
        let worth = |text: &[u8], unix: u64| {
            let two = source(settings());
            two.worth(&two.open(&secrets, text).unwrap(), [].into_iter(), Now { unix, ..now })
        };
        let (early, late) = (sealed_at(now.unix - 600), sealed_at(now.unix + 600));
        assert_eq!([299, 300].map(|after| worth(&early, now.unix + after)), [Worth::Fetch, Worth::Spare]);
        assert_eq!([0, 599].map(|after| worth(&late, now.unix + after)), [Worth::Nothing; 2]);
        assert_eq!(
            [600, 1499, 1500].map(|after| worth(&late, now.unix + after)),
            [Worth::Fetch, Worth::Fetch, Worth::Spare]
        );
        assert_eq!(worth(&late, now.unix + 4200), Worth::Nothing);
    }

    proptest! {
        #[test]
        fn a_changed_text_is_never_opened(at: usize, byte: u8, cut: usize) {
            let (secrets, now) = (SetSecrets::new(&[7; 32], None), Now::read());
            let text = sealed(&secrets, now);
            let two = source(settings());
            let mut changed = text.clone();
            let at = at % changed.len();
            changed[at] ^= byte;
            prop_assert_eq!(two.open(&secrets, &changed).is_ok(), byte == 0);
            prop_assert!(two.open(&secrets, &text[..cut % text.len()]).is_err());
        }
    }
}
