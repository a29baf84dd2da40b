//! The answers of one issuer, bounded in number and in bytes.
//!
//! Answers about active and inactive tokens are kept apart: invented tokens fill only the table of inactive ones, and
//! never evict an answer about a good token.

use super::{Standing, TokenDigest};
use crate::clock::Now;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The maximum size of all answers about active tokens, in bytes. An answer of a common issuer has 500 bytes.
const ACTIVE_BYTES: usize = 32 << 20;
/// The memory of an answer about an active token without its claims, in bytes.
const ENTRY_BYTES: usize = 256;
/// The maximum number of answers about inactive tokens.
const INACTIVE_MAX: usize = 16_384;
/// The time that a token counts as known after its answer became too old.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Active {
    claims: Arc<[u8]>,
    answered: Now,
    until: Instant,
    number: u64,
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    active: HashMap<TokenDigest, Active>,
    /// The tokens of `active`, the oldest answer first. An entry whose number differs from the answer's is outdated.
    order: VecDeque<(TokenDigest, u64)>,
    bytes: usize,
    inactive: HashMap<TokenDigest, Instant>,
    /// The tokens of `inactive` with the ends of their answers, the oldest answer first.
    ends: VecDeque<(TokenDigest, Instant)>,
    last: u64,
}

impl Answers {
    /// Returns the answer about a token, unless it has become too old.
    pub(super) fn find(&self, digest: &TokenDigest, now: Now) -> Option<Standing> {
        if let Some(found) = self.active.get(digest).filter(|found| now.steady < found.until) {
            let age = found.until.saturating_duration_since(found.answered.steady);
            return Some(Standing::Active {
                claims: found.claims.clone(),
                until: found.answered.unix.saturating_add(age.as_secs()),
            });
        }
        self.inactive.get(digest).filter(|until| now.steady < **until).map(|_| Standing::Inactive)
    }

    /// Returns whether the issuer called the token active not long ago. Questions about known tokens have precedence.
    pub(super) fn is_known(&self, digest: &TokenDigest) -> bool {
        self.active.contains_key(digest)
    }

    /// Keeps an answer about an active token.
    pub(super) fn keep_active(&mut self, digest: TokenDigest, claims: &[u8], max_age: Duration, now: Now) {
        self.forget(&digest);
        let bytes = ENTRY_BYTES + claims.len();
        while let Some((oldest, number)) = self.order.front().copied() {
            let known = self.active.get(&oldest).filter(|known| known.number == number);
            let is_outdated = known.is_none_or(|known| now.steady >= known.until + KNOWN_FOR);
            if !is_outdated && self.bytes + bytes <= ACTIVE_BYTES {
                break;
            }
            if known.is_some() {
                self.remove_active(&oldest);
            }
            self.order.pop_front();
        }
        self.bytes += bytes;
        self.last += 1;
        let until = now.steady + max_age;
        self.active.insert(digest, Active { claims: claims.into(), answered: now, until, number: self.last });
        self.order.push_back((digest, self.last));
        // A token whose answer is renewed again and again leaves outdated entries behind the oldest answer.
        if self.order.len() > 2 * self.active.len() + 64 {
            let active = &self.active;
            self.order
                .retain(|(digest, number)| active.get(digest).is_some_and(|known| known.number == *number));
        }
    }

    /// Keeps an answer about an inactive token.
    pub(super) fn keep_inactive(&mut self, digest: TokenDigest, max_age: Duration, now: Now) {
        self.forget(&digest);
        let until = now.steady + max_age;
        while let Some((oldest, end)) = self.ends.front().copied() {
            if now.steady < end && self.ends.len() < INACTIVE_MAX {
                break;
            }
            // A token that was asked about again has a later end.
            if self.inactive.get(&oldest) == Some(&end) {
                self.inactive.remove(&oldest);
            }
            self.ends.pop_front();
        }
        self.inactive.insert(digest, until);
        self.ends.push_back((digest, until));
    }

    fn forget(&mut self, digest: &TokenDigest) {
        self.remove_active(digest);
        self.inactive.remove(digest);
    }

    fn remove_active(&mut self, digest: &TokenDigest) {
        if let Some(gone) = self.active.remove(digest) {
            self.bytes -= ENTRY_BYTES + gone.claims.len();
        }
    }

    /// Returns the numbers of kept answers about active and inactive tokens, and the bytes of the former.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.active.len(), self.inactive.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(token: u32) -> TokenDigest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&token.to_le_bytes());
        digest
    }

    fn is_active(found: Option<Standing>) -> Option<bool> {
        found.map(|found| found != Standing::Inactive)
    }

    #[test]
    fn a_flood_of_inactive_tokens_evicts_no_answer_about_an_active_one() {
        let mut answers = Answers::default();
        let now = Now::at(100);
        let minute = Duration::from_secs(60);
        (0..1000).for_each(|token| answers.keep_active(digest(token), b"{}", minute, now));
        for token in 1000..1000 + 3 * INACTIVE_MAX as u32 {
            answers.keep_inactive(digest(token), minute, now);
        }
        let (active, inactive, _) = answers.sizes();
        assert_eq!((active, inactive, answers.ends.len()), (1000, INACTIVE_MAX, INACTIVE_MAX));
        assert!((0..1000).all(|token| is_active(answers.find(&digest(token), now)) == Some(true)));
    }

    #[test]
    fn answers_about_active_tokens_take_no_more_bytes_than_the_bound() {
        let mut answers = Answers::default();
        let (now, claims) = (Now::at(100), vec![b' '; 60_000]);
        for token in 0..2000 {
            answers.keep_active(digest(token), &claims, Duration::from_secs(60), now);
            assert!(answers.sizes().2 <= ACTIVE_BYTES);
        }
        assert_eq!(is_active(answers.find(&digest(1999), now)), Some(true));
        assert_eq!(is_active(answers.find(&digest(0), now)), None, "the oldest answer was evicted");
    }

    #[test]
    fn a_renewed_answer_leaves_nothing_behind() {
        let mut answers = Answers::default();
        for second in 0..10_000 {
            let now = Now::at(second);
            answers.keep_active(digest(1), b"{}", Duration::from_secs(1), now);
            answers.keep_active(digest(2), b"{}", Duration::from_secs(1), now);
        }
        assert!(answers.order.len() <= 70, "{}", answers.order.len());
        assert_eq!(answers.sizes().0, 2);
    }

    proptest! {
        /// The tables answer like a map of the last answers, and never longer than the answer may be used.
        #[test]
        fn the_last_answer_counts_and_never_longer_than_its_age(
            steps in proptest::collection::vec((0..6_u32, any::<bool>(), 1..20_u64, 0..8_u64), 1..100)
        ) {
            let start = Now::at(1_000);
            let mut answers = Answers::default();
            let mut model: HashMap<u32, (bool, u64)> = HashMap::new();
            let mut time = 0;
            for (token, active, age, pause) in steps {
                time += pause;
                let now = start.later(start.steady + Duration::from_secs(time));
                for (token, (active, until)) in &model {
                    let expected = (time < *until).then_some(*active);
                    prop_assert_eq!(is_active(answers.find(&digest(*token), now)), expected);
                }
                let max_age = Duration::from_secs(age);
                match active {
                    true => answers.keep_active(digest(token), b"{}", max_age, now),
                    false => answers.keep_inactive(digest(token), max_age, now),
                }
                model.insert(token, (active, time + age));
                let (active, inactive, bytes) = answers.sizes();
                prop_assert!(active + inactive <= 6 && bytes == active * (ENTRY_BYTES + 2));
            }
        }
    }
}
