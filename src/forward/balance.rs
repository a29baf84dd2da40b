//! Chooses the order in which one request tries the servers of its upstream. Nothing here locks, and nothing allocates
//! while no server is set aside.

use super::counters::UpstreamShard;
use super::members::Members;
use super::upstream::{Server, Upstream};
use crate::authenticate::credential::cookie;
use crate::authenticate::{ClaimId, ClaimValue, Principal};
use http::{HeaderMap, HeaderName};
use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};
use std::time::{Duration, Instant};

/// The way in which a request chooses the server that it tries first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The servers take turns.
    #[default]
    RoundRobin,
    /// The server with the fewest requests of this core.
    LeastRequests,
    /// The server with fewer requests of this core, out of two servers that are chosen at random.
    TwoChoices,
    /// The server that a hash of the request's key selects. The key is the first of these that the request has.
    Hash(Box<[HashBy]>),
}

/// A property of requests. Requests with the same value go to the same server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The address of the client. For IPv6, the network of 64 bits.
    ClientIp,
    /// The issuer and the subject of the token.
    Subject,
    /// The issuer and a claim of the token.
    Claim(ClaimId),
    /// The value of a header field that occurs once.
    Header(HeaderName),
    /// The value of a cookie that occurs once.
    Cookie(Box<str>),
}

/// The facts of a request from which its key is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyFacts<'r> {
    pub(crate) principal: Option<&'r Principal>,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) address: IpAddr,
}

/// The hash of a request's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Balance {
    /// Returns the hash of the request's key; `None` if requests are not balanced by a key, or if the request has none
    /// of the properties.
    #[inline]
    pub(crate) fn key(&self, facts: KeyFacts<'_>) -> Option<Key> {
        match self {
            Self::RoundRobin | Self::LeastRequests | Self::TwoChoices => None,
            Self::Hash(properties) => properties.iter().find_map(|property| property.key(facts)),
        }
    }
}

impl HashBy {
    pub(super) fn key(&self, facts: KeyFacts<'_>) -> Option<Key> {
        let hash = match self {
            Self::ClientIp => match facts.address.to_canonical() {
                IpAddr::V4(v4) => StableHash::new(0).with(&v4.octets()),
                // A client can choose any address of its network.
                IpAddr::V6(v6) => StableHash::new(1).with(v6.octets().first_chunk::<8>()?),
            },
            Self::Subject => {
                let principal = facts.principal?;
                StableHash::new(2).with(principal.issuer.as_bytes()).with(principal.subject.as_bytes())
            }
            Self::Claim(id) => {
                let principal = facts.principal?;
                let hash = StableHash::new(3).with(principal.issuer.as_bytes());
                match principal.claim(*id)? {
                    ClaimValue::Text(text) => hash.with(b"t").with(text.as_bytes()),
                    ClaimValue::Number(number) => hash.with(b"n").with(number.to_string().as_bytes()),
                    ClaimValue::Bool(flag) => hash.with(b"b").with(&[u8::from(*flag)]),
                    ClaimValue::List(_) | ClaimValue::Other => return None,
                }
            }
            Self::Header(name) => {
                let mut values = facts.headers.get_all(name).iter();
                let (Some(value), None) = (values.next(), values.next()) else { return None };
                StableHash::new(4).with(value.as_bytes())
            }
            Self::Cookie(name) => StableHash::new(5).with(cookie(facts.headers, name).ok()??),
        };
        Some(hash.finish())
    }
}

/// FNV-1a over parts. All gateways and all versions compute the same hash, so that they choose the same server.
#[derive(Clone, Copy)]
struct StableHash(u64);

impl StableHash {
    fn new(kind: u8) -> Self {
        Self(0xcbf2_9ce4_8422_2325).with(&[kind])
    }

    /// Adds a part. The length keeps two lists of parts from having the same bytes.
    fn with(self, part: &[u8]) -> Self {
        let length = (part.len() as u64).to_le_bytes();
        let bytes = length.iter().chain(part);
        Self(bytes.fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn finish(self) -> Key {
        Key(scatter(self.0))
    }
}

/// Returns the hash of a server's origin, for [`rank`].
pub(super) fn hash_of_origin(origin: &str) -> u64 {
    StableHash::new(6).with(origin.as_bytes()).finish().0
}

/// Returns the hash of an upstream's name, for [`rank`].
pub(super) fn hash_of_name(name: &str) -> u64 {
    StableHash::new(7).with(name.as_bytes()).finish().0
}

/// Returns the key of a single request.
pub(super) fn key_of_request(id: &[u8; 32]) -> Key {
    StableHash::new(8).with(id).finish()
}

/// Returns a number below 100 that is the same for all uses of a request's id.
pub(super) fn draw(id: &[u8; 32]) -> u64 {
    StableHash::new(9).with(id).finish().0 % 100
}

/// Returns the rank of a server for a key, by weighted rendezvous hashing: the server with the highest rank gets the
/// key. Each server's rank depends on this server alone. A server that is added or removed therefore moves only the
/// keys that it gets or had.
pub(super) fn rank(key: Key, server: u64, weight: u16) -> u64 {
    let hash = scatter(key.0 ^ server);
    // A uniform number above 0 and at most 1. The logarithm makes the chance of the highest rank proportional to
    // the weight.
    let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    let distance = -uniform.ln() / f64::from(weight);
    // The bits of positive numbers have the order of the numbers.
    !distance.abs().to_bits()
}

/// Returns a number that looks random, for each of a sequence of numbers (the finalizer of `SplitMix64`).
fn scatter(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The order in which servers take turns.
#[derive(Debug)]
pub(super) struct Turns {
    count: usize,
    /// The weight of each server, at least 1.
    weights: Box<[u16]>,
    /// One round of turns, with each server as often as its weight. Empty if all weights are equal.
    round: Box<[u16]>,
    /// The number of draws for slow starts. They must not take turns.
    draws: AtomicUsize,
}

impl Turns {
    /// Creates the turns of as many servers as there are weights.
    pub(super) fn new(weights: &[u16]) -> Self {
        let is_equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let round = if is_equal { Box::default() } else { round(weights) };
        Self { count: weights.len(), weights: weights.into(), round, draws: AtomicUsize::new(0) }
    }

    /// Returns the weight of each server.
    #[cfg(test)]
    pub(super) fn weights(&self) -> &[u16] {
        &self.weights
    }

    fn draw(&self) -> u64 {
        scatter(self.draws.fetch_add(1, atomic::Ordering::Relaxed) as u64)
    }

    /// Returns the index of the server whose turn this is.
    #[inline]
    fn at(&self, number: usize) -> usize {
        match self.round.len() {
            0 => number % self.count,
            length => usize::from(self.round[number % length]),
        }
    }

    /// Returns the index of the next server that is not set aside. A server that is set aside loses its turn, so that
    /// all others share its requests. Returns any server if all are set aside.
    #[inline]
    fn next(&self, numbers: Numbers<'_>, aside: &[usize]) -> usize {
        let mut at = self.at(numbers.next());
        if !aside.is_empty() && aside.len() < self.count {
            for _ in 0..self.round.len().max(self.count) {
                if !aside.contains(&at) {
                    break;
                }
                at = self.at(numbers.next());
            }
        }
        at
    }

    /// Returns two different servers, chosen at random by weight. There are at least two.
    fn two(&self, numbers: Numbers<'_>) -> (usize, usize) {
        // The upper bits are lost on 32-bit systems only.
        let random = |number: u64| usize::try_from(scatter(number) >> 8).unwrap_or_default();
        let number = numbers.next() as u64;
        let one = self.at(random(number.wrapping_mul(2)));
        let second = random(number.wrapping_mul(2) | 1);
        let other = match self.round.len() {
            0 => one,
            _ => self.at(second),
        };
        (one, if other == one { (one + 1 + second % (self.count - 1)) % self.count } else { other })
    }
}

/// The numbers of one core's turns. Each core counts for itself, because a common count would move between the cores in
/// each request.
#[derive(Clone, Copy)]
struct Numbers<'c> {
    counts: Option<&'c UpstreamShard>,
    /// The first number. Cores begin at different servers.
    first: usize,
}

impl<'c> Numbers<'c> {
    fn of(upstream: &'c Upstream, core: usize) -> Self {
        Self { counts: upstream.counters.of(core), first: scatter(core as u64) as usize }
    }

    #[inline]
    fn next(self) -> usize {
        let Some(counts) = self.counts else { return self.first };
        let number = counts.turns.get() as usize;
        counts.turns.add(1);
        self.first.wrapping_add(number)
    }
}

/// Returns one round in which the turns of each server are evenly spaced.
fn round(weights: &[u16]) -> Box<[u16]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut turns: Vec<(u64, u64, u16)> = Vec::new();
    for (at, weight) in (0..).zip(weights.iter().map(|weight| u64::from(weight / divisor))) {
        turns.extend((0..weight).map(|turn| (2 * turn + 1, weight, at)));
    }
    // The n-th of `weight` turns comes at the time (2n + 1) / (2 weight) of the round.
    turns.sort_by(|one, other| (one.0 * other.1).cmp(&(other.0 * one.1)).then(one.2.cmp(&other.2)));
    turns.into_iter().map(|(_, _, at)| at).collect()
}

fn gcd(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { gcd(other, one % other) }
}

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

impl<'u> Order<'u> {
    pub(super) fn new(
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
    let numbers = Numbers::of(upstream, core);
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
