//! Statistics of an issuer's verified tokens by algorithm, age and size. They show the operator which issuers still use
//! an old algorithm, and which issuers' tokens live too long or approach the size limits of servers.

use super::keys::Algorithm;
use std::sync::atomic::{AtomicU64, Ordering};

/// The upper bounds of the age histogram, in seconds.
pub(crate) const AGES: [u64; 6] = [10, 60, 300, 900, 3600, 86_400];
/// The upper bounds of the size histogram, in bytes.
pub(crate) const SIZES: [u64; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// The algorithms, in the order of their counters.
const ALGORITHMS: [Algorithm; Algorithm::ALL.len()] = Algorithm::ALL;

/// The statistics of one issuer's tokens. All cores share these counters, because a verification costs a thousand times
/// as much as an increment.
#[derive(Debug, Default)]
pub struct TokenStats {
    algorithms: [AtomicU64; ALGORITHMS.len()],
    ages: Spread<{ AGES.len() + 1 }>,
    sizes: Spread<{ SIZES.len() + 1 }>,
}

/// A histogram: one count for each bound, one count for the values beyond the last bound, and the sum of all values.
#[derive(Debug)]
struct Spread<const N: usize> {
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Spread<N> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Spread<N> {
    fn record(&self, bounds: &[u64], value: u64) {
        let place = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn read(&self) -> (Vec<u64>, u64) {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        (counts, self.sum.load(Ordering::Relaxed))
    }
}

impl TokenStats {
    /// Counts a valid token. A token that only the issuer could judge has no algorithm.
    pub(super) fn record(&self, algorithm: Option<Algorithm>, age: Option<u64>, bytes: usize) {
        if let Some(place) =
            algorithm.and_then(|algorithm| ALGORITHMS.iter().position(|known| *known == algorithm))
        {
            self.algorithms[place].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(age) = age {
            self.ages.record(&AGES, age);
        }
        self.sizes.record(&SIZES, bytes as u64);
    }

    /// Returns the number of tokens per algorithm.
    pub fn algorithms(&self) -> impl Iterator<Item = (Algorithm, u64)> {
        ALGORITHMS.iter().zip(&self.algorithms).map(|(known, count)| (*known, count.load(Ordering::Relaxed)))
    }

    /// Returns the ages of tokens at their verification: a count for each bound in [`AGES`], a count for greater ages,
    /// and the sum in seconds. Tokens without `iat` are not included.
    pub fn ages(&self) -> (Vec<u64>, u64) {
        self.ages.read()
    }

    /// Returns the sizes of tokens: a count for each bound in [`SIZES`], a count for greater sizes, and the sum in
    /// bytes.
    pub fn sizes(&self) -> (Vec<u64>, u64) {
        self.sizes.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_counted_where_it_belongs() {
        let seen = TokenStats::default();
        seen.record(Some(Algorithm::ES256), Some(60), 256);
        seen.record(Some(Algorithm::ES256), Some(61), 257);
        seen.record(Some(Algorithm::HS256), None, 9000);
        let algorithms: Vec<_> = seen.algorithms().filter(|(_, count)| *count > 0).collect();
        assert_eq!(algorithms, [(Algorithm::HS256, 1), (Algorithm::ES256, 2)]);
        assert_eq!(seen.ages(), (vec![0, 1, 1, 0, 0, 0, 0], 121));
        assert_eq!(seen.sizes(), (vec![1, 1, 0, 0, 0, 0, 1], 9513));
    }
}
