//! The task that reports to the fleet for all limits, and takes the answers.
//!
//! It runs on the thread of the shared state, and sends what is due in one batch every few milliseconds. No request waits
//! for it.

use super::Fleet;
use super::script::{self, Call, Reply};
use crate::limit::lease::table::{LeaseTable, Listed};
use crate::limit::lease::{Order, Step, period};
use crate::shared::{Link, Unanswered};
use governor::clock::{Clock, MonotonicClock};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// The maximum number of orders in one batch.
const BATCH: usize = 512;
/// The interval at which a gateway says that it is in the fleet.
const JOINS: Duration = Duration::from_secs(1);
/// The time after which a silent gateway has left the fleet, in milliseconds.
const GONE: u64 = 5_000;
/// The pause after a call that was not answered. It doubles with each further one, up to [`JOINS`].
const PAUSE: Duration = Duration::from_millis(20);

impl Fleet {
    /// Starts the task that reports to the fleet, unless it was started before. The task ends with the link. Returns once
    /// the fleet has answered for the first time, at the latest after the deadline of a call, so that the first requests
    /// find the limits in force.
    pub(crate) fn start(self: &Arc<Self>, link: &Arc<Link>) {
        if self.has_task.swap(true, Ordering::Relaxed) {
            return;
        }
        let (asked, is_asked) = mpsc::channel();
        link.spawn(run(Arc::downgrade(link), self.clone(), asked));
        // The task sends nothing: it drops the sender.
        let _ = is_asked.recv_timeout(link.settings().answer_timeout);
    }
}

/// A key on the list, with the table of its limit.
type Due = (Arc<LeaseTable>, Listed);

async fn run(link: Weak<Link>, fleet: Arc<Fleet>, asked: mpsc::Sender<()>) {
    // Dropped after the first answer.
    let mut asked = Some(asked);
    let random = RandomState::new();
    let gateway = [random.hash_one(0), random.hash_one(1)].map(|part| format!("{part:016x}")).concat();
    let mut listed: Vec<Due> = Vec::new();
    let mut joined: Option<Instant> = None;
    let mut pause = PAUSE;
    loop {
        let Some(link) = link.upgrade() else { return fleet.state().set_up(false) };
        if !link.is_up() {
            fleet.state().set_up(false);
            drop(asked.take());
            // The time-out lets the task end with the link.
            let _ = timeout(JOINS, link.until_up()).await;
            continue;
        }
        if joined.is_none_or(|joined| joined.elapsed() >= JOINS) {
            let key = link.key("limit", "gateways");
            let Ok(gateways) = script::join(&link, &key, &gateway, GONE).await else {
                fleet.state().set_up(false);
                drop(asked.take());
                drop(link);
                sleep(pause).await;
                pause = (pause * 2).min(JOINS);
                continue;
            };
            fleet.state().set_gateways(gateways);
            fleet.state().set_up(true);
            drop(asked.take());
            joined = Some(MonotonicClock.now());
        }
        collect(&fleet, &mut listed);
        if !report(&link, &fleet, &mut listed).await {
            fleet.state().set_up(false);
            joined = None;
            drop(link);
            sleep(pause).await;
            pause = (pause * 2).min(JOINS);
            continue;
        }
        pause = PAUSE;
        drop(link);
        match listed.is_empty() {
            true => rest(&fleet, joined).await,
            // Gateways that report in step would leave the same one without tokens each time.
            false => sleep(period(fleet.state().gateways()).mul_f64(0.75 + 0.5 * fraction(&random))).await,
        }
    }
}

/// Adds the new keys of all limits to the list.
fn collect(fleet: &Fleet, listed: &mut Vec<Due>) {
    let mut keys = Vec::new();
    for table in fleet.tables() {
        table.take_listed(&mut keys);
        listed.extend(keys.drain(..).map(|key| (table.clone(), key)));
    }
}

/// Sends all reports that are due, and removes the keys that need none. Returns whether the reports were answered.
async fn report(link: &Link, fleet: &Fleet, listed: &mut Vec<Due>) -> bool {
    let mut orders: Vec<(Due, Order)> = Vec::new();
    listed.retain(|(table, key)| match table.step(key, table.now()) {
        Step::Wait => true,
        Step::Forget => false,
        Step::Send(order) => {
            orders.push(((table.clone(), *key), order));
            // The debt of an evicted account is reported once.
            key.debt == 0
        }
    });
    let mut is_answered = true;
    let prefix = Call::prefix(link);
    for batch in orders.chunks(BATCH) {
        let calls = batch.iter().map(|((table, key), order)| {
            let ahead_max = table.terms.ahead_max(fleet.state().gateways());
            Call::new(&prefix, table.identity, table.terms, key.key, *order, ahead_max)
        });
        let calls: Vec<Call> = calls.collect();
        // After one failure, the other batches would only wait for the same deadline.
        let answer = match is_answered {
            true => script::send(link, &calls).await,
            false => Err(Unanswered::Down),
        };
        is_answered &= answer.is_ok();
        let mut replies = answer.unwrap_or_default().into_iter();
        for ((table, key), order) in batch {
            let reply = replies.next().and_then(Result::ok);
            count(fleet, reply);
            table.answer(key.key, order, reply.map(|reply| reply.granted), table.now());
        }
    }
    is_answered
}

fn count(fleet: &Fleet, reply: Option<Reply>) {
    let counter = match reply {
        Some(_) => &fleet.state().counts.reports,
        None => &fleet.state().counts.failed,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    if reply.is_some_and(|reply| reply.has_evicted) {
        fleet.state().counts.displaced.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for a request that needs a report, or for the time of the next sign of life.
async fn rest(fleet: &Fleet, joined: Option<Instant>) {
    let is_needed = || fleet.tables().iter().any(|table| table.has_listed());
    let left = joined.map_or(Duration::ZERO, |joined| JOINS.saturating_sub(joined.elapsed()));
    fleet.state().rest(is_needed, left).await;
}

/// Returns a random number from 0 to 1.
fn fraction(random: &RandomState) -> f64 {
    let bits = u32::try_from(random.hash_one(MonotonicClock.now()) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}
