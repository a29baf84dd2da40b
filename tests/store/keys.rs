//! The signing keys on a server, and a gateway whose clock is not the server's.

use crate::bed::{Bed, on_server};
use portcullis::authenticate::Algorithm;
use portcullis::clock::Now;
use portcullis::keyring::{
    KeyEvent, KeyStorage, Keyring, LEEWAY, MissingKey, RETENTION, RotationStart, Schedule, SealSecrets,
    Watcher,
};
use std::time::Duration;

const LIFE: u64 = 900;

/// Opens the keys, which no schedule rotates.
fn open(url: &str) -> Keyring {
    let storage = KeyStorage::Store(url, SealSecrets::new(&[1; 32], None).unwrap());
    let schedule = Schedule { access_expires: Duration::from_secs(LIFE), rotate_keys: Duration::ZERO };
    Keyring::open(storage, Algorithm::EdDSA, None, MissingKey::Create).unwrap().with_schedule(schedule)
}

fn removed(watcher: &mut Watcher, now: Now) -> Vec<String> {
    let events = watcher.poll(now, |_| {}).into_iter();
    events.filter_map(|event| if let KeyEvent::Removed { id } = event { Some(id) } else { None }).collect()
}

#[test]
fn a_gateway_removes_a_key_once_it_is_dead_by_its_own_clock_and_by_that_of_the_server() {
    on_server(async |bed: Bed| {
        // The server's clock is ahead by the number of seconds in this table.
        bed.sql("CREATE TABLE lead (seconds INT)").await;
        bed.sql("INSERT INTO lead VALUES (0)").await;
        bed.sql(
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
             'SELECT pg_catalog.clock_timestamp() + seconds * INTERVAL ''1 second'' FROM public.lead'",
        )
        .await;
        bed.sql(
            "DO $$ BEGIN EXECUTE
             format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$",
        )
        .await;
        let start = Now::read();
        let after = |seconds: u64| start.later(start.steady + Duration::from_secs(seconds));
        let (gateway, other) = (open(&bed.url), open(&bed.url));
        let first = gateway.signing(start).id().to_owned();
        gateway.rotate(RotationStart::Immediate, start).unwrap();
        let mut watcher = gateway.watcher(start);
        // The gateway's clock is ahead of the server's.
        let dead = LIFE + LEEWAY + RETENTION + 60;
        for seconds in [dead, dead + 61] {
            assert!(removed(&mut watcher, after(seconds)).is_empty(), "{seconds}");
        }
        assert!(open(&bed.url).key_set().unwrap().iter().any(|key| key.id() == Some(&*first)));
        bed.sql(&format!("UPDATE lead SET seconds = {dead}")).await;
        // The gateway's clock is behind the server's.
        assert!(removed(&mut other.watcher(start), start).is_empty());
        assert_eq!(removed(&mut watcher, after(dead + 122)), [first]);
    });
}
