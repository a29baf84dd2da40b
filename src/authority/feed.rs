//! Keeps what was revoked in memory in step with the store, where other processes write too: another gateway, the
//! command line. A revocation of this gateway's own endpoints does not wait for this; it is marked before it is answered.

use super::{Authority, millis};
use crate::authenticate::Revoked;
use crate::clock::Now;
use crate::journal::Level;
use crate::store::{Store, StoreError};
use std::sync::Weak;
use std::time::{Duration, Instant};

/// How often the store is asked for new marks: what another process revokes is refused here within a second.
const EVERY: Duration = Duration::from_millis(500);
/// For how long the store may fail to answer before tokens that could have been revoked meanwhile are refused.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// How often what no longer matters is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Reads the marks behind a number, and returns the last one's.
pub(super) async fn learn(store: &Store, revoked: &Revoked, after: i64, now: i64) -> Result<i64, StoreError> {
    let mut last = after;
    for marked in store.marks(after, now).await? {
        last = last.max(marked.seq);
        revoked.mark(&marked.mark, u64::try_from(marked.until / 1000 + 1).unwrap_or(0));
    }
    Ok(last)
}

/// Runs for as long as anybody holds the authority. `last`: the number of the last mark that is known.
pub(super) async fn run(authority: Weak<Authority>, mut last: i64) {
    let mut interval = tokio::time::interval(EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut heard, mut swept) = (Instant::now(), Instant::now());
    let mut failing = false;
    loop {
        interval.tick().await;
        let Some(authority) = authority.upgrade() else { return };
        let terms = authority.terms.load_full();
        let now = Now::read();
        match learn(&authority.store, &terms.revoked, last, millis(now)).await {
            Ok(seq) => {
                last = seq;
                heard = Instant::now();
                if failing {
                    authority.journal.event(Level::Info, "the store answers again", &[]);
                }
                failing = false;
                terms.revoked.set_blind(false);
            }
            Err(error) => {
                if !failing {
                    let error = error.to_string();
                    authority.journal.event(
                        Level::Error,
                        "the store cannot be asked what is revoked",
                        &[("error", &error)],
                    );
                }
                failing = true;
                terms.revoked.set_blind(heard.elapsed() >= BLIND_AFTER);
            }
        }
        // The store learns that the process outlived the grace of the last refresh: see `Authority::spent`.
        if authority.take_outlived(millis(now), terms.refresh_grace)
            && let Err(error) = authority.store.touch_alive(millis(now)).await
        {
            authority.unavailable(&error);
        }
        if swept.elapsed() >= SWEEP_EVERY {
            swept = Instant::now();
            terms.revoked.forget(now.unix);
            if let Err(error) = authority.store.forget(millis(now)).await {
                authority.unavailable(&error);
            }
        }
    }
}
