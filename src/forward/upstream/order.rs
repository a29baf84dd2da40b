//! The order in which one request tries the servers of its upstream. Nothing here locks, and nothing allocates while no
//! server is set aside.

use super::Upstream;
use super::balance::{Balance, Key, rank, scatter};
use super::members::Members;
use super::server::Server;
use super::turns::Numbers;
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The servers in the order in which one request tries them. Each server occurs once, even if it fails in the meantime.
#[derive(Debug)]
pub(crate) struct Order<'u> {
    members: &'u Members,
    first: First,
    given: usize,
    /// The servers that were set aside when the request arrived. They come last.
    aside: Vec<usize>,
}

#[derive(Debug)]
enum First {
    /// The servers follow one another from this index.
    From(usize),
    /// The servers follow one another by descending rank. The second value is the last server given: whether it was set
    /// aside, its rank, and its index.
    Ranked(Key, Option<(bool, u64, usize)>),
}

impl Upstream {
    /// Returns the servers in the order in which one request of a core should try them. The order starts with the server that
    /// `balance` chooses by the request's key or the servers' `load`, and servers that are set aside come last. These
    /// servers are still tried, because otherwise the request would certainly be answered with a 503.
    pub(crate) fn in_turn<'u>(
        &'u self,
        core: usize,
        members: &'u Members,
        now: Instant,
        key: Option<Key>,
        load: impl Fn(&Server) -> usize,
    ) -> Order<'u> {
        Order::new(self, core, members, now, key, load)
    }
}

impl<'u> Order<'u> {
    fn new(
        upstream: &Upstream,
        core: usize,
        members: &'u Members,
        now: Instant,
        key: Option<Key>,
        load: impl Fn(&Server) -> usize,
    ) -> Self {
        let count = members.servers.len();
        if count == 1 {
            return Self { members, first: First::From(0), given: 0, aside: Vec::new() };
        }
        // This list is nearly always empty, and an empty list does not allocate.
        let mut aside: Vec<usize> = (0..count).filter(|at| members.servers[*at].is_set_aside(now)).collect();
        if !aside.is_empty() && upstream.is_panic(members, aside.len()) {
            aside.clear();
        }
        if !upstream.slow_start.is_zero() {
            spare(members, upstream.slow_start, &mut aside, now, key);
        }
        let first = match key {
            Some(key) => First::Ranked(key, None),
            None => First::From(first(upstream, core, members, &aside, load)),
        };
        Self { members, first, given: 0, aside }
    }

    /// Returns the next server by rank: the highest of those below the last server given.
    fn next_ranked(&self, key: Key, last: Option<(bool, u64, usize)>) -> Option<(bool, u64, usize)> {
        let place = |(at, server): (usize, &Arc<Server>)| {
            (!self.aside.contains(&at), rank(key, server.hash, self.members.turns.weights[at]), at)
        };
        let places = self.members.servers.iter().enumerate().map(place);
        places.filter(|place| last.is_none_or(|last| *place < last)).max()
    }
}

impl<'u> Iterator for Order<'u> {
    type Item = &'u Arc<Server>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = self.members.servers.len();
        match self.first {
            First::Ranked(key, last) => {
                let next = self.next_ranked(key, last)?;
                self.first = First::Ranked(key, Some(next));
                Some(&self.members.servers[next.2])
            }
            First::From(start) => {
                // The second pass gives the servers that are set aside.
                let end = if self.aside.is_empty() { count } else { 2 * count };
                while self.given < end {
                    let (at, is_late) = ((start + self.given) % count, self.given >= count);
                    self.given += 1;
                    if self.aside.contains(&at) == is_late {
                        return Some(&self.members.servers[at]);
                    }
                }
                None
            }
        }
    }
}

/// Sets servers aside for this request that came back recently, as often as their slow start demands.
fn spare(members: &Members, slow_start: Duration, aside: &mut Vec<usize>, now: Instant, key: Option<Key>) {
    let failed = aside.len();
    let mut random = key.map(|key| key.0);
    for (at, server) in members.servers.iter().enumerate() {
        if aside[..failed].contains(&at) {
            continue;
        }
        let Some(share) = server.health.share(now, slow_start) else { continue };
        // A key stays with the server once the server's share is large enough for it.
        let random = *random.get_or_insert_with(|| members.turns.draw());
        if scatter(random ^ !server.hash) >> 48 >= u64::from(share) {
            aside.push(at);
        }
    }
    if aside.len() == members.servers.len() {
        aside.truncate(failed);
    }
}

/// Returns the index of the server that a request without a key tries first. There are at least two servers.
fn first(
    upstream: &Upstream,
    core: usize,
    members: &Members,
    aside: &[usize],
    load: impl Fn(&Server) -> usize,
) -> usize {
    let (turns, count) = (&members.turns, members.servers.len());
    let numbers = Numbers::of(&upstream.counters, core);
    // Orders servers by their load in proportion to their weight.
    let compare = |one: &usize, other: &usize| -> Ordering {
        let share = |at: usize, by: usize| load(&members.servers[at]) as u64 * u64::from(turns.weights[by]);
        let is_aside = |at: &usize| aside.contains(at);
        is_aside(one).cmp(&is_aside(other)).then_with(|| share(*one, *other).cmp(&share(*other, *one)))
    };
    match upstream.balance {
        Balance::RoundRobin | Balance::Hash(_) => turns.next(numbers, aside),
        // Of several servers with equal load, `min_by` returns the first. The turns let them alternate.
        Balance::LeastRequests => {
            let start = turns.next(numbers, aside);
            (0..count).map(|at| (start + at) % count).min_by(compare).unwrap_or_default()
        }
        Balance::TwoChoices => {
            let (one, other) = turns.two(numbers);
            if compare(&other, &one).is_lt() { other } else { one }
        }
    }
}

#[cfg(test)]
mod tests;
