//! The order in which servers take turns, by weight.

use super::balance::scatter;
use super::counters::{UpstreamCounters, UpstreamShard};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The order in which servers take turns.
#[derive(Debug)]
pub(in crate::forward) struct Turns {
    count: usize,
    /// The weight of each server, at least 1.
    pub(in crate::forward) weights: Box<[u16]>,
    /// One round of turns, with each server as often as its weight. Empty if all weights are equal.
    round: Box<[u16]>,
    /// The number of draws for slow starts. They must not take turns.
    draws: AtomicUsize,
}

impl Turns {
    /// Creates the turns of as many servers as there are weights.
    pub(in crate::forward) fn new(weights: &[u16]) -> Self {
        let is_equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let round = if is_equal { Box::default() } else { round(weights) };
        Self { count: weights.len(), weights: weights.into(), round, draws: AtomicUsize::new(0) }
    }

    pub(in crate::forward) fn draw(&self) -> u64 {
        scatter(self.draws.fetch_add(1, Ordering::Relaxed) as u64)
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
    pub(in crate::forward) fn next(&self, numbers: Numbers<'_>, aside: &[usize]) -> usize {
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
    pub(in crate::forward) fn two(&self, numbers: Numbers<'_>) -> (usize, usize) {
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
pub(in crate::forward) struct Numbers<'c> {
    counts: Option<&'c UpstreamShard>,
    /// The first number. Cores begin at different servers.
    first: usize,
}

impl<'c> Numbers<'c> {
    pub(in crate::forward) fn of(counters: &'c UpstreamCounters, core: usize) -> Self {
        Self { counts: counters.of(core), first: scatter(core as u64) as usize }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_by_weight_are_spaced_evenly() {
        assert_eq!(*round(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(*round(&[30, 10]), [0, 0, 1, 0], "only the proportion counts");
        assert_eq!(*round(&[1, 2, 4]), [2, 1, 2, 0, 2, 1, 2]);
        assert!(Turns::new(&[7, 7]).round.is_empty(), "equal weights need no memory");
    }
}
