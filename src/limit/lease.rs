//! The account of one key at one gateway, for a limit that a fleet of gateways shares.
//!
//! The fleet has one bucket for each key, outside of the gateways. A gateway leases tokens from this bucket ahead of
//! demand, and a request takes one of them without any wait. A gateway without tokens may owe a bounded number, which
//! the next report charges to the bucket. Therefore no request is free: in the long run, the fleet admits the rate of
//! the limit exactly.
//!
//! With *n* gateways, rate *r* and burst *b*, the fleet admits at most *b* + *r* · *t* + *n* · (*C* + *S*) requests in
//! each period *t*. *C* = max(*b* / *n*, min(*b*, 16)) is what a gateway owes at most, and *S* is [`Terms::lease_max`].

pub(super) mod table;

use super::charge::Charge;
use std::time::Duration;

/// Number of requests that a gateway may admit before it has asked the fleet about an idle key. A browser that opens a
/// page sends about as many at once.
const CREDIT: u32 = 16;
/// The time after which the last answer says little about the fleet's bucket, in milliseconds.
const FRESH: u32 = 50;
/// The time after which the fleet is asked again about a key that is refused by the last answer alone, in milliseconds.
/// The answer may have been wrong: whoever answered for Redis must not close a bucket for longer.
const STALE: u32 = 10_000;
/// The time after which a gateway gives tokens back that it does not use, in milliseconds.
const IDLE: u32 = 100;
/// The time after which a key without tokens and debts leaves the list of keys to report, in milliseconds.
const QUIET: u32 = 20;
/// The numbers of requests of a report's period for which a gateway leases tokens ahead of demand.
const AHEAD: u32 = 4;

/// The time between two reports of a gateway. In a larger fleet, each gateway reports less often.
pub(super) fn period(gateways: u32) -> Duration {
    Duration::from_micros(u64::from(gateways).saturating_mul(200))
        .clamp(Duration::from_millis(2), Duration::from_millis(20))
}

/// The rate and the burst of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// The time in which the bucket regains one token, in nanoseconds.
    pub(super) interval: u64,
    /// The size of the bucket.
    pub(super) burst: u32,
}

impl Terms {
    /// The time in which an empty bucket becomes full, in nanoseconds.
    pub(super) fn window(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst))
    }

    /// Returns the number of tokens in a bucket with this arrival time.
    pub(super) fn free(&self, arrival: u64, now: u64) -> u32 {
        let room = self.window().saturating_sub(arrival.saturating_sub(now));
        u32::try_from(room / self.interval).unwrap_or(u32::MAX)
    }

    /// The maximum number of tokens that a gateway leases.
    pub(super) fn lease_max(&self, gateways: u32) -> u32 {
        let share = self.burst.div_ceil(gateways.saturating_mul(8).max(1));
        let demand = nanos(period(gateways)).saturating_mul(2).div_ceil(self.interval);
        let demand = u32::try_from(demand).unwrap_or(u32::MAX);
        share.max(demand).clamp(1, self.burst)
    }

    /// The maximum distance of the bucket's arrival time from now, in nanoseconds: the bucket is empty, and all gateways
    /// have paid what they can owe.
    pub(super) fn ahead_max(&self, gateways: u32) -> u64 {
        let owed = u64::from(gateways).saturating_mul(u64::from(self.credit_max(gateways)));
        self.window().saturating_add(owed.saturating_mul(self.interval))
    }

    /// The maximum number of tokens that a gateway owes.
    fn credit_max(&self, gateways: u32) -> u32 {
        self.burst.div_ceil(gateways.max(1)).max(self.burst.min(CREDIT))
    }

    /// Returns the number of tokens that a gateway may owe if the fleet's bucket has `free`.
    fn credit(&self, free: u32, gateways: u32, is_fresh: bool) -> u32 {
        // While the bucket is nearly empty, all gateways see the same few tokens, so each takes only what it has leased.
        if is_fresh && free <= self.burst / 8 {
            return free / gateways.max(1);
        }
        free.div_ceil(gateways.max(1)).max(free.min(CREDIT))
    }
}

/// The state of the fleet, as one gateway sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// The number of gateways in the fleet.
    pub(super) gateways: u32,
    /// Whether reports are answered.
    pub(super) is_up: bool,
    /// Whether the gateway applies the limit alone if reports are not answered. Otherwise it refuses requests.
    pub(super) alone: bool,
}

/// The account of a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// The arrival time of the fleet's bucket according to the last answer. Leased tokens are charged in it, and tokens
    /// that the gateway owes are not.
    arrival: u64,
    /// The number of leased tokens; if negative, the number of tokens that the gateway owes.
    balance: i32,
    /// The number of owed tokens that a report in flight pays.
    pending: u32,
    /// The number of requests since the last report, including refused ones.
    asked: u32,
    /// The time of the last answer in milliseconds. It wraps around.
    answered_at: u32,
    /// The time of the last request in milliseconds. It wraps around.
    used_at: u32,
    /// Whether a report about the key was ever answered.
    is_known: bool,
    /// Whether the last report about the key failed.
    is_lost: bool,
    /// Whether the key is on the list of keys to report.
    is_listed: bool,
}

/// A gateway's report about a key, and its demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The number of tokens that the gateway owes; if negative, the number of tokens that it gives back.
    pub(super) debt: i64,
    /// The number of tokens that the gateway would like to lease.
    pub(super) want: u32,
    /// The distance of the arrival time from now, in nanoseconds, for a bucket that the fleet has lost.
    pub(super) ahead: u64,
}

/// The fleet's answer to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// The number of leased tokens.
    pub(super) tokens: u32,
    /// The distance of the bucket's arrival time from now, in nanoseconds.
    pub(super) ahead: u64,
}

/// The next step for a key on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send a report.
    Send(Order),
    /// Look again later.
    Wait,
    /// Remove the key from the list.
    Forget,
}

impl Account {
    /// Charges one request.
    pub(super) fn charge(&mut self, terms: &Terms, view: &View, now: u64) -> Charge {
        self.asked = self.asked.saturating_add(1);
        self.used_at = millis(now);
        if self.balance > 0 {
            self.balance -= 1;
            return self.admitted(terms, now);
        }
        if self.is_apart(view) {
            return if view.alone { self.charge_alone(terms, now) } else { Charge::Unavailable };
        }
        let owed = self.owed();
        let free = terms.free(self.arrival, now);
        let is_fresh = self.is_known && millis(now).wrapping_sub(self.answered_at) < FRESH;
        if owed < terms.credit(free, view.gateways, is_fresh).min(free) {
            self.balance -= 1;
            return self.admitted(terms, now);
        }
        Charge::Refused { wait: self.wait(terms, now) }
    }

    /// Charges one request to the local copy of the bucket. The fleet never hears of it.
    pub(super) fn charge_alone(&mut self, terms: &Terms, now: u64) -> Charge {
        if terms.free(self.arrival, now) <= self.owed() {
            return Charge::Refused { wait: self.wait(terms, now) };
        }
        self.arrival = self.arrival.max(now).saturating_add(terms.interval);
        self.admitted(terms, now)
    }

    fn admitted(&self, terms: &Terms, now: u64) -> Charge {
        let free = terms.free(self.arrival, now).saturating_sub(self.owed());
        let remaining = free.saturating_add(u32::try_from(self.balance).unwrap_or(0)).min(terms.burst);
        Charge::Admitted { remaining, next: Duration::from_nanos(terms.interval) }
    }

    /// The number of tokens that the gateway owes, including those of a report in flight.
    fn owed(&self) -> u32 {
        self.pending.saturating_add(u32::try_from(self.balance.saturating_neg()).unwrap_or(0))
    }

    /// The time until the fleet's bucket has a token for one more request.
    fn wait(&self, terms: &Terms, now: u64) -> Duration {
        let tokens = u64::from(self.owed()).saturating_add(1).saturating_mul(terms.interval);
        let due = self.arrival.saturating_sub(now).saturating_add(tokens);
        Duration::from_nanos(due.saturating_sub(terms.window()).max(1))
    }

    /// Returns the next step for a key on the list. An order must be followed by [`Account::answer`].
    pub(super) fn step(&mut self, terms: &Terms, gateways: u32, now: u64) -> Step {
        if self.pending > 0 {
            return Step::Wait;
        }
        let held = u32::try_from(self.balance).unwrap_or(0);
        let owed = self.owed();
        let asked = std::mem::take(&mut self.asked);
        let idle = millis(now).wrapping_sub(self.used_at);
        let ahead = self.ahead(now);
        let age = match self.is_known {
            true => millis(now).wrapping_sub(self.answered_at),
            false => u32::MAX,
        };
        // A report would gain nothing before the bucket regains a token.
        let soon = now.saturating_add(nanos(period(gateways)));
        let is_empty = age < FRESH && terms.free(self.arrival, soon) == 0;
        // A single request of an idle key says nothing about the demand.
        let target = match asked {
            0 => 0,
            _ if age >= STALE && self.is_known && terms.free(self.arrival, now) == 0 => 1,
            1 if age >= IDLE => 0,
            _ if is_empty => 0,
            _ => asked.saturating_mul(AHEAD).min(terms.lease_max(gateways)),
        };
        if owed > 0 || (asked > 0 && (self.is_lost || held < asked.min(target))) {
            // The tokens that the gateway owes are on their way.
            self.balance = self.balance.max(0);
            self.pending = owed;
            return Step::Send(Order { debt: i64::from(owed), want: target.saturating_sub(held), ahead });
        }
        if held == 0 && idle >= QUIET {
            self.is_listed = false;
            return Step::Forget;
        }
        if held > 0 && idle >= IDLE {
            self.balance = 0;
            return Step::Send(Order { debt: -i64::from(held), want: 0, ahead });
        }
        Step::Wait
    }

    /// Takes the answer to an order; `None` if there was none.
    pub(super) fn answer(&mut self, order: &Order, granted: Option<Granted>, now: u64) {
        let debt = u32::try_from(order.debt).unwrap_or(0);
        self.pending = self.pending.saturating_sub(debt);
        self.is_lost = granted.is_none() && order.debt >= 0;
        match granted {
            Some(granted) => {
                self.balance = self.balance.saturating_add(i32::try_from(granted.tokens).unwrap_or(i32::MAX));
                self.learn(granted.ahead, now);
            }
            // The fleet may have charged the debt. To charge it twice is safer than never.
            None => self.balance = self.balance.saturating_sub(i32::try_from(debt).unwrap_or(i32::MAX)),
        }
    }

    /// Returns the distance of the bucket's arrival time from now, in nanoseconds.
    pub(super) fn ahead(&self, now: u64) -> u64 {
        self.arrival.saturating_sub(now)
    }

    /// Whether requests are charged without the fleet.
    pub(super) fn is_apart(&self, view: &View) -> bool {
        self.balance <= 0 && (!view.is_up || self.is_lost)
    }

    /// Takes over the arrival time of the fleet's bucket. The answer took some time, so the bucket has at least as many
    /// tokens as the account says.
    pub(super) fn learn(&mut self, ahead: u64, now: u64) {
        self.arrival = now.saturating_add(ahead);
        self.answered_at = millis(now);
        self.is_known = true;
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(nanos: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the milliseconds wrap around")]
    let millis = (nanos / 1_000_000) as u32;
    millis
}

#[cfg(test)]
mod tests;
