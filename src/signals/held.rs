//! The polled signals whose key is not known yet. Each is left to the transmitter until its key has been looked for, but
//! not for ever: one that no key verifies must not take the place of others.

use crate::authenticate::Pending;
use crate::clock::Now;
use crate::key_source::Asked;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The longest time for which a signal is held while its key cannot be looked up.
const TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// The maximum number of signals that are held.
const COUNT_MAX: usize = 1024;

/// The held signals, by `jti`.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<String, Since>);

/// When a signal was first held, and how many fetches had succeeded by then.
#[derive(Debug)]
struct Since {
    time: Instant,
    /// The number of successful fetches.
    fetches: u64,
}

impl Held {
    /// Asks for the key of a signal. Returns whether the signal is held, because its key may still come.
    pub(super) fn hold(&mut self, id: &str, pending: &Pending, now: Now) -> bool {
        let Asked::Sought(fetches) = pending.ask(now) else { return false };
        if let Some(since) = self.0.get(id) {
            // The first fetch may have begun before the signal was seen. The second one has not.
            let is_absent = fetches >= since.fetches.saturating_add(2);
            return !is_absent && now.steady.saturating_duration_since(since.time) < TIME_MAX;
        }
        // A signal that the transmitter withdraws is never released.
        self.0.retain(|_, since| now.steady.saturating_duration_since(since.time) < 2 * TIME_MAX);
        if self.0.len() >= COUNT_MAX {
            return false;
        }
        self.0.insert(id.to_owned(), Since { time: now.steady, fetches });
        true
    }

    /// Forgets a signal that is settled.
    pub(super) fn release(&mut self, id: &str) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_source::{Fetched, KeySource, Location, Owner, SourceSettings};
    use crate::outbound::{Networks, Url};
    use bytes::Bytes;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn source() -> Arc<KeySource> {
        let settings = SourceSettings {
            owner: Owner::Signals(Arc::from("idp")),
            location: Location::KeySet(Url::parse("https://ssf.test/jwks").unwrap()),
            authorities: [0; 32],
            networks: Networks::default(),
            allows_http: false,
            refresh: Duration::from_secs(900),
            max_age: Duration::from_secs(86_400),
            cooldown: Duration::from_millis(100),
            copy: "/nowhere".into(),
        };
        KeySource::after(settings, Arc::new(rustls::RootCertStore::empty()), None, Now::at(1000)).unwrap()
    }

    fn fetch(source: &Arc<KeySource>, now: Now) {
        let (body, url) = (Bytes::from_static(b"{}"), Url::parse("https://ssf.test/jwks").unwrap());
        assert!(source.begin_fetch(now));
        source
            .succeeded(Fetched::Set { body, url, etag: None, fresh: None }, None, BTreeMap::new(), now)
            .unwrap();
        source.end_fetch(true, now);
    }

    #[test]
    fn a_signal_is_held_until_its_key_was_looked_for_and_a_time_at_most() {
        let (source, mut held, start) = (source(), Held::default(), Now::at(1000));
        let later = |seconds| start.later(start.steady + Duration::from_secs(seconds));
        let wanted = |kid| Pending::Keys(source.wanted(Some(kid)));
        for seconds in [0, 1, 599] {
            assert!(held.hold("a", &wanted("x"), later(seconds)), "{seconds}");
        }
        assert!(!held.hold("a", &wanted("x"), later(600)), "nobody holds it for ever");
        held.release("a");
        assert!(held.hold("b", &wanted("y"), later(600)));
        fetch(&source, later(601));
        assert!(!held.hold("b", &wanted("y"), later(601)), "the fetch after the question did not bring it");
        // A key that the issuer does not have is forgotten after a few cooldowns. The fetches stay counted.
        assert!(held.hold("b", &wanted("y"), later(620)));
        fetch(&source, later(621));
        assert!(!held.hold("b", &wanted("y"), later(640)));
    }

    #[test]
    fn only_so_many_signals_are_held() {
        let (source, mut held, now) = (source(), Held::default(), Now::at(1000));
        let wanted = Pending::Keys(source.wanted(Some("x")));
        let count = (0..2 * COUNT_MAX).filter(|id| held.hold(&id.to_string(), &wanted, now)).count();
        assert_eq!(count, COUNT_MAX);
        let later = now.later(now.steady + 2 * TIME_MAX);
        assert!(held.hold("new", &wanted, later), "old ones make room");
    }
}
