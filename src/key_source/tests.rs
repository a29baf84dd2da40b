//! Tests when a fetch may begin, and its effects on the state.

use super::*;
use bytes::Bytes;
use std::collections::BTreeMap;

fn source(cooldown: Duration) -> Arc<KeySource> {
    let settings = SourceSettings {
        owner: Owner::Issuer(Arc::from("https://id.test")),
        location: Location::KeySet(Url::parse("https://id.test/jwks").unwrap()),
        authorities: [0; 32],
        networks: Networks::default(),
        allows_http: false,
        refresh: Duration::from_secs(900),
        max_age: Duration::from_secs(3600),
        cooldown,
        copy: PathBuf::from("/nowhere/copy.json"),
    };
    KeySource::after(settings, Arc::new(RootCertStore::empty()), None, Now::read()).unwrap()
}

fn set() -> Fetched {
    let url = Url::parse("https://id.test/jwks").unwrap();
    Fetched::Set { body: Bytes::from_static(b"{}"), url, etag: None, fresh: None }
}

fn later(now: Now, seconds: u64) -> Now {
    now.later(now.steady + Duration::from_secs(seconds))
}

#[test]
fn a_failed_fetch_keeps_the_last_set_until_it_is_too_old() {
    let (source, now) = (source(Duration::from_secs(5)), Now::read());
    assert!(source.begin_fetch(now), "the first fetch is due at once");
    source.succeeded(set(), Some(Vec::new()), BTreeMap::new(), now).unwrap();
    source.end_fetch(true, now);
    assert!(!source.begin_fetch(later(now, 60)), "nothing is due, and nobody asks");
    assert!(source.begin_fetch(later(now, 900)));
    assert!(source.failed(FetchError { kind: "status", why: "500".to_owned() }, later(now, 900)));
    assert!(!source.failed(FetchError { kind: "status", why: "500".to_owned() }, later(now, 901)), "no news");
    source.end_fetch(false, later(now, 901));
    assert!(source.good(later(now, 3599)).is_some());
    assert!(!source.expire(later(now, 3599)));
    assert!(source.good(later(now, 3600)).is_none());
    assert!(source.expire(later(now, 3600)) && !source.expire(later(now, 3600)), "it is dropped once");
    assert_eq!(source.status().failed["status"], 2);
}

#[test]
fn a_fetch_that_was_cut_short_is_begun_again() {
    let (source, now) = (source(Duration::from_secs(5)), Now::read());
    assert!(source.begin_fetch(now));
    assert!(source.begin_fetch(now), "its task ended before the fetch did");
    source.succeeded(set(), Some(Vec::new()), BTreeMap::new(), now).unwrap();
    source.end_fetch(true, now);
    assert!(!source.begin_fetch(now));
}
