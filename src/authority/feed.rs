//! Reads the revocations that other gateways and the command line write to the store. This gateway's own revocations
//! are in memory before its endpoint responds.
//!
//! The reader has its own connection and task, so that a flood of requests or a slow sweep cannot delay it. [`upkeep`]
//! maintains the store.

use super::runtime::{Authority, WORK_MAX, millis};
use super::sweeps::Sweeps;
use crate::authenticate::Revoked;
use crate::clock::Now;
use crate::journal::Level;
use crate::store::{Feed, MARKS_MAX, StoreError};
use std::pin::pin;
use std::sync::Weak;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// The interval at which new marks are read. A revocation by another process takes effect within a second.
const EVERY: Duration = Duration::from_millis(500);
/// The time that the store may be unreachable. After that time, the gateway refuses the authority's tokens, because some may
/// have been revoked.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// The interval at which a lost store is retried, and at which the process records that it is alive.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// The interval at which expired marks and rows are deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The time limit for deleting expired rows. The deletion is split into many small transactions.
const SWEEP_MAX: Duration = Duration::from_secs(120);

/// Applies the recorded token lives, and all marks with a number above `after`. Returns the number of the last mark.
///
/// Reads all marks if the mark `after` is missing. A sweep may have deleted it. A standby may also have replaced the
/// server without its last commits; the standby assigns the numbers of the lost marks again.
///
/// # Errors
/// If the store cannot be used.
pub async fn apply_marks(feed: &mut Feed, revoked: &Revoked, after: i64) -> Result<i64, StoreError> {
    let seconds = |millis: i64| u64::try_from(millis.saturating_add(999) / 1000).unwrap_or(0);
    let lives = feed.lives().await?;
    // If the longest token life has changed, marks are kept for a different time, so read all marks again.
    let longest = seconds(lives.longest);
    let mut last = if longest == revoked.longest() { after } else { 0 };
    let mut page = feed.marks(last.saturating_sub(1)).await?;
    if last > 0 && page.first().is_none_or(|first| first.seq != last) {
        last = 0;
        page = feed.marks(last).await?;
    }
    loop {
        let may_be_more = page.len() >= MARKS_MAX;
        for marked in page {
            last = marked.seq;
            revoked.mark(&marked.mark, seconds(marked.kept));
        }
        if !may_be_more {
            break;
        }
        page = feed.marks(last).await?;
    }
    // Set the lives after the marks. Marks must be kept for longer before tokens with a longer life are accepted.
    revoked.set_lives(longest, lives.subjects.into_iter().map(|(subject, until)| (subject, seconds(until))));
    Ok(last)
}

/// Reads marks until the authority is dropped. `last` is the number of the last known mark.
pub(super) async fn run(authority: Weak<Authority>, mut feed: Feed, mut last: i64) {
    let mut ticks = ticks(EVERY);
    let (mut heard, mut is_blind) = (Instant::now(), false);
    let _blind = BlindAtEnd(authority.clone());
    loop {
        ticks.tick().await;
        let Some(authority) = authority.upgrade() else { return };
        if authority.is_retired() {
            continue;
        }
        let settings = authority.settings.load_full();
        let mut learning = pin!(apply_marks(&mut feed, &settings.revoked, last));
        let learned = match timeout(BLIND_AFTER.saturating_sub(heard.elapsed()), &mut learning).await {
            Ok(learned) => learned,
            Err(_) => {
                // Do not cancel the read: a slow store with many marks may only need more time.
                go_blind(&authority, &mut is_blind);
                learning.await
            }
        };
        match learned {
            // The policy changed during the read.
            _ if authority.is_retired() => {}
            Ok(seq) => {
                (last, heard, is_blind) = (seq, Instant::now(), false);
                authority.set_feed_fails(false);
                authority.heard_store(millis(Now::read()));
                settings.revoked.set_blind(false);
            }
            Err(error) => {
                // The store may have lost the last marks and reused their numbers, so read all marks again.
                last = 0;
                authority.set_feed_fails(true);
                authority.feed_failed(&error);
                if heard.elapsed() >= BLIND_AFTER {
                    go_blind(&authority, &mut is_blind);
                }
            }
        }
    }
}

/// Refuses the authority's tokens until marks are read again, and logs this once.
fn go_blind(authority: &Authority, is_blind: &mut bool) {
    if authority.is_retired() {
        return;
    }
    authority.settings.load().revoked.set_blind(true);
    if !std::mem::replace(is_blind, true) {
        authority.journal.event(
            Level::Error,
            "cannot read revocations: refusing the authority's tokens until the store answers",
            &[("store", authority.store.place())],
        );
    }
}

/// Refuses the authority's tokens if the reader of marks panics, because the process then no longer reads revocations.
struct BlindAtEnd(Weak<Authority>);

impl Drop for BlindAtEnd {
    fn drop(&mut self) {
        if let Some(authority) = self.0.upgrade().filter(|authority| !authority.is_retired()) {
            authority.settings.load().revoked.set_blind(true);
            authority.journal.event(
                Level::Error,
                "the reader of revocations has stopped: refusing the authority's tokens until a restart",
                &[("store", authority.store.place())],
            );
        }
    }
}

/// Maintains the store until the authority is dropped: records that the process is alive, deletes expired rows, and
/// retries a lost store.
pub(super) async fn upkeep(authority: Weak<Authority>) {
    let mut ticks = ticks(TRY_EVERY);
    let mut swept = Instant::now();
    let mut sweeps = Sweeps::from(Now::read());
    loop {
        ticks.tick().await;
        let Some(authority) = authority.upgrade() else { return };
        if authority.is_retired() {
            continue;
        }
        let settings = authority.settings.load_full();
        let clock = Now::read();
        let now = millis(clock);
        if !authority.health.is_up() {
            authority.try_store(now).await;
        }
        // Record a new token life before the first login needs it.
        authority.keep_up(WORK_MAX, authority.keep_record(&settings)).await;
        // See `Authority::spent`.
        if authority.take_outlived(now, settings.refresh_grace) {
            authority.keep_up(WORK_MAX, authority.store.touch_alive(now)).await;
        }
        if swept.elapsed() >= SWEEP_EVERY {
            swept = Instant::now();
            let time = millis(sweeps.time(clock));
            let sweeping = async {
                let time = authority.store.sweep_time(time).await?;
                settings.revoked.forget(u64::try_from(time / 1000).unwrap_or(0));
                authority.store.forget(time).await
            };
            authority.keep_up(SWEEP_MAX, sweeping).await;
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
