//! The revocation marks for foreign issuers' tokens, which come from security events (RFC 8417) and logout tokens.
//!
//! A mark contains a digest of the claim that names the tokens, so all marks have the same size. The check usually
//! reads only one number, the epoch. The digests of a token are computed when the token is verified. A check after a
//! new mark therefore takes at most three look-ups.
//!
//! The table has many small parts, each with its own lock. A growing part delays only the requests that need this part,
//! and only for microseconds.

use super::mark::{Mark, MarkDigest, SignalMark, Signalled, mark_seconds};
use super::revocation_news::RevocationNews;
use crate::denial::Denial;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The maximum number of marks that signals may add. A table with this many marks takes 100 MB.
pub const SIGNAL_MARKS_MAX: usize = 2_000_000;
/// The number of parts of the table.
const PARTS: usize = 64;

type Part = HashMap<MarkDigest, (u32, u32)>;

/// The marks of all foreign issuers, shared by all cores.
#[derive(Debug)]
pub struct SignalMarks {
    /// A number that changes whenever a mark is added.
    epoch: AtomicU64,
    count: AtomicUsize,
    parts: [RwLock<Part>; PARTS],
    /// New marks for other gateways, and those of the local authority's tokens.
    news: RevocationNews,
}

impl Default for SignalMarks {
    fn default() -> Self {
        Self {
            epoch: AtomicU64::default(),
            count: AtomicUsize::default(),
            parts: std::array::from_fn(|_| RwLock::default()),
            news: RevocationNews::default(),
        }
    }
}

impl SignalMarks {
    /// Adds a mark. When the function returns, no core accepts a token that the mark revokes. An existing mark is only
    /// extended.
    pub fn mark(&self, mark: &SignalMark) {
        if self.learn(mark) {
            self.news.push(u64::from(mark.until), || Mark::Signal(*mark));
        }
    }

    /// Adds a mark that another gateway has sent, like [`Self::mark`], and does not send it on. Returns whether it
    /// revokes more than the known mark, or for longer.
    pub fn learn(&self, mark: &SignalMark) -> bool {
        let mut part = self.write(&mark.digest);
        match part.entry(mark.digest) {
            Entry::Occupied(mut known) => {
                let (before, until) = known.get_mut();
                let is_longer = *until < mark.until;
                *until = (*until).max(mark.until);
                if *before >= mark.before {
                    return is_longer;
                }
                *before = mark.before;
            }
            Entry::Vacant(place) => {
                place.insert((mark.before, mark.until));
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
        // The epoch changes while the part is locked. A core that reads the new epoch waits for the lock. A core that
        // reads the old epoch checks its principal again at the next request at the latest.
        self.epoch.fetch_add(1, Ordering::Release);
        true
    }

    /// Returns the new marks that wait to be sent to other gateways.
    pub fn news(&self) -> &RevocationNews {
        &self.news
    }

    /// Returns whether existing marks already revoke the same tokens for the same time.
    pub fn covers(&self, mark: &SignalMark) -> bool {
        self.read(&mark.digest)
            .get(&mark.digest)
            .is_some_and(|(before, until)| *before >= mark.before && *until >= mark.until)
    }

    /// Returns whether the table has room for this number of new marks.
    pub fn has_room(&self, more: usize) -> bool {
        self.len().saturating_add(more) <= SIGNAL_MARKS_MAX
    }

    /// Deletes the marks that are kept only until `now` (seconds since 1970) or a time before it.
    pub fn forget(&self, now: u64) {
        let now = mark_seconds(now);
        for part in &self.parts {
            let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
            let before = part.len();
            part.retain(|_, (_, until)| *until > now);
            self.count.fetch_sub(before - part.len(), Ordering::Relaxed);
            // Otherwise a table that was once full would keep its memory.
            if part.capacity() > 4 * part.len() + 1024 {
                part.shrink_to_fit();
            }
        }
    }

    /// Calls `visit` with every mark.
    pub fn for_each(&self, mut visit: impl FnMut(SignalMark)) {
        for part in &self.parts {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            for (digest, (before, until)) in part.iter() {
                visit(SignalMark { digest: *digest, before: *before, until: *until });
            }
        }
    }

    /// Returns the number of marks.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns whether there are no marks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that no signal has revoked a token.
    ///
    /// # Errors
    /// [`Denial::RevokedToken`] if a mark revokes the token.
    #[inline]
    pub fn admit(&self, token: &Signalled) -> Result<(), Denial> {
        // The epoch is read before the marks. A mark that is added in between is found now or at the next request.
        let epoch = self.epoch.load(Ordering::Acquire);
        if token.unmarked_at.get() == Some(epoch) {
            return Ok(());
        }
        self.look_up(token, epoch)
    }

    #[inline(never)]
    fn look_up(&self, token: &Signalled, epoch: u64) -> Result<(), Denial> {
        for digest in token.digests.iter().flatten() {
            if self.read(digest).get(digest).is_some_and(|(before, _)| token.issued <= *before) {
                return Err(Denial::RevokedToken);
            }
        }
        token.unmarked_at.set(Some(epoch));
        Ok(())
    }

    fn part(&self, digest: &MarkDigest) -> &RwLock<Part> {
        &self.parts[usize::from(digest[0]) % PARTS]
    }

    fn read(&self, digest: &MarkDigest) -> RwLockReadGuard<'_, Part> {
        // A writer that panicked left only complete entries: each insertion is one step.
        self.part(digest).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, digest: &MarkDigest) -> RwLockWriteGuard<'_, Part> {
        self.part(digest).write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mark::MarkedClaim;
    use super::*;
    use proptest::prelude::*;

    const ISSUER: &str = "https://id.example.com";

    fn token(subject: &str, session: &str, id: &str, issued: u64) -> Signalled {
        Signalled::new(ISSUER, Some(subject), Some(session), Some(id), issued)
    }

    fn mark(kind: MarkedClaim, value: &str, before: u32, until: u32) -> SignalMark {
        SignalMark { digest: kind.digest(ISSUER, value), before, until }
    }

    #[test]
    fn each_mark_revokes_what_it_names_at_once_and_nothing_else() {
        use MarkedClaim::{Session, Subject, Token};
        for (kind, value, before, revokes) in [
            (Subject, "ada", 100, true),
            (Subject, "ada", 99, false),
            (Subject, "s", u32::MAX, false),
            (Session, "s", u32::MAX, true),
            (Session, "ada", u32::MAX, false),
            (Token, "t", u32::MAX, true),
            (Token, "s", u32::MAX, false),
        ] {
            let marks = SignalMarks::default();
            let caller = token("ada", "s", "t", 100);
            assert_eq!(marks.admit(&caller), Ok(()));
            marks.mark(&mark(kind, value, before, 1000));
            let expected = if revokes { Err(Denial::RevokedToken) } else { Ok(()) };
            assert_eq!(marks.admit(&caller), expected, "{kind:?} {value} {before}");
            assert_eq!(marks.admit(&caller), expected, "{kind:?} {value} {before}, asked again");
            let other = Signalled::new("https://id.example.com/", Some("ada"), Some("s"), Some("t"), 100);
            assert_eq!(marks.admit(&other), Ok(()), "another issuer");
        }
    }

    #[test]
    fn a_table_that_is_emptied_gives_its_memory_back() {
        let marks = SignalMarks::default();
        for n in 0..100_000_u32 {
            marks.mark(&mark(MarkedClaim::Subject, &n.to_string(), 1, 10));
        }
        marks.forget(10);
        assert!(marks.is_empty());
        let capacity: usize = marks.parts.iter().map(|part| part.read().unwrap().capacity()).sum();
        assert!(capacity <= 1024 * PARTS, "{capacity}");
    }

    /// A step of the model test.
    #[derive(Clone, Debug)]
    enum Step {
        Mark { kind: u8, value: u8, before: u32, until: u32 },
        Forget(u32),
        Ask { subject: u8, session: Option<u8>, token: Option<u8>, issued: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let small = 0..4_u8;
        prop_oneof![
            (0..3_u8, small.clone(), 0..50_u32, 0..100_u32)
                .prop_map(|(kind, value, before, until)| Step::Mark { kind, value, before, until }),
            (0..100_u32).prop_map(Step::Forget),
            (small.clone(), proptest::option::of(small.clone()), proptest::option::of(small), 0..50_u32)
                .prop_map(|(subject, session, token, issued)| Step::Ask { subject, session, token, issued }),
        ]
    }

    proptest! {
        /// The table agrees with a list of marks that is searched from its beginning to its end.
        #[test]
        fn the_table_answers_like_a_list_of_all_marks(steps in proptest::collection::vec(step(), 0..60)) {
            let kinds = [MarkedClaim::Subject, MarkedClaim::Session, MarkedClaim::Token];
            let marks = SignalMarks::default();
            let mut model: Vec<(u8, u8, u32, u32)> = Vec::new();
            // The test checks the same tokens repeatedly, as the cache does. The epoch that a token stores must not
            // hide a new mark.
            let mut kept: HashMap<(u8, Option<u8>, Option<u8>, u32), Signalled> = HashMap::new();
            for step in steps {
                match step {
                    Step::Mark { kind, value, before, until } => {
                        marks.mark(&mark(kinds[usize::from(kind)], &value.to_string(), before, until));
                        match model.iter_mut().find(|known| (known.0, known.1) == (kind, value)) {
                            Some(known) => {
                                known.2 = known.2.max(before);
                                known.3 = known.3.max(until);
                            }
                            None => model.push((kind, value, before, until)),
                        }
                    }
                    Step::Forget(now) => {
                        marks.forget(u64::from(now));
                        model.retain(|known| known.3 > now);
                        // After this, a refused token may be accepted, but only a check after a new mark notices.
                        kept.clear();
                    }
                    Step::Ask { subject, session, token, issued } => {
                        let asked = kept.entry((subject, session, token, issued)).or_insert_with(|| {
                            let text = |value: Option<u8>| value.map(|value| value.to_string());
                            let (session, token) = (text(session), text(token));
                            Signalled::new(
                                ISSUER,
                                Some(&subject.to_string()),
                                session.as_deref(),
                                token.as_deref(),
                                u64::from(issued),
                            )
                        });
                        let names = [Some(subject), session, token];
                        let revoked = model.iter().any(|(kind, value, before, _)| {
                            names[usize::from(*kind)] == Some(*value) && issued <= *before
                        });
                        prop_assert_eq!(marks.admit(asked).is_err(), revoked);
                    }
                }
                prop_assert_eq!(marks.len(), model.len());
            }
        }
    }
}
