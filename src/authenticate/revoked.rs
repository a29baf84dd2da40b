//! The revocations of tokens. Every request checks them without I/O, even if its token is cached. This module contains
//! the marks for the local authority's tokens; `signal_marks` contains the marks for foreign issuers' tokens.
//!
//! A mark is in force before the gateway confirms the revocation to the client. The check usually reads only one
//! number, the epoch. All cores share the epoch, and it changes only when something is revoked. A principal stores the
//! epoch of its last check and is checked again only after the epoch has changed.

use super::mark::{Mark, SignalMark, mark_seconds};
use super::principal::{Local, Principal};
use super::signal_marks::SignalMarks;
use crate::denial::Denial;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// The time that a mark is kept after the last access token that it revokes has expired.
///
/// Four gateways may be involved: one issues the token, one revokes it, one deletes the mark, and one receives the
/// request. A mark outlives its tokens if each of their clocks is within a quarter of this margin of the true time.
pub const MARK_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The revocation marks, shared by all cores.
///
/// Until the longest life of a token has been loaded from the store, tokens may have any life. A command that only
/// inspects a policy opens no store and never loads the longest life.
#[derive(Debug)]
pub struct Revoked {
    /// A number that changes whenever a mark is added. A principal that was checked at an older number is checked
    /// again.
    epoch: AtomicU64,
    /// Whether marks may be missing because the store has been unreadable for too long.
    blind: AtomicBool,
    /// The longest recorded life of an access token, in seconds.
    longest: AtomicU64,
    marks: RwLock<Marks>,
    /// The marks of foreign issuers' tokens.
    signals: Arc<SignalMarks>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self {
            epoch: AtomicU64::default(),
            blind: AtomicBool::default(),
            longest: AtomicU64::new(u64::MAX),
            marks: RwLock::default(),
            signals: Arc::default(),
        }
    }
}

/// The marks, and the subjects to which commands have issued longer-lived tokens. Each mark has the time from which it
/// may be deleted. Each subject has the time at which its last longer-lived token expires. All times are in seconds
/// since 1970.
#[derive(Debug, Default)]
struct Marks {
    subjects: HashMap<Box<str>, u64>,
    tokens: HashMap<Box<str>, u64>,
    sessions: HashMap<Box<str>, u64>,
    accounts: HashMap<Box<str>, (i64, u64)>,
}

impl Revoked {
    /// Creates an empty set that shares the marks of foreign issuers' tokens with another set.
    pub fn sharing(signals: Arc<SignalMarks>) -> Self {
        Self { signals, ..Self::default() }
    }

    /// Returns the marks of foreign issuers' tokens.
    pub fn signals(&self) -> &Arc<SignalMarks> {
        &self.signals
    }

    /// Adds a mark that is kept until `until` (seconds since 1970, exclusive). When the function returns, no core
    /// accepts a token that the mark revokes. Adding a mark again only extends the time until which it is kept.
    pub fn mark(&self, mark: &Mark, until: u64) {
        if let Mark::Signal(mark) = mark {
            let until = mark_seconds(until).max(mark.until);
            return self.signals.mark(&SignalMark { until, ..*mark });
        }
        if self.learn(mark, until) {
            self.signals.news().push(until, || mark.clone());
        }
    }

    /// Adds a mark that another gateway has sent, like [`Self::mark`], and does not send it on. Returns whether it
    /// revokes more than the known marks.
    pub fn learn(&self, mark: &Mark, until: u64) -> bool {
        if let Mark::Signal(mark) = mark {
            let until = mark_seconds(until).max(mark.until);
            return self.signals.learn(&SignalMark { until, ..*mark });
        }
        let mut marks = self.write();
        let later = |known: &mut u64| *known = (*known).max(until);
        let new = match mark {
            Mark::Token(id) => insert(&mut marks.tokens, id, until),
            Mark::Session(id) => insert(&mut marks.sessions, id, until),
            Mark::Account { id, generation } => match marks.accounts.get_mut(id.as_str()) {
                Some((known, end)) => {
                    later(end);
                    let higher = *generation > *known;
                    *known = (*known).max(*generation);
                    higher
                }
                None => {
                    marks.accounts.insert(id.as_str().into(), (*generation, until));
                    true
                }
            },
            // Added above.
            Mark::Signal(_) => false,
        };
        // The epoch changes while the marks are locked. A core that reads the new epoch waits for the lock. A core that
        // reads the old epoch checks its principal again at the next request at the latest.
        if new {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        new
    }

    /// Applies the store's record of token lives: the longest life in seconds and, for each subject, the time at which
    /// the last token made by a command expires.
    pub fn set_lives(&self, longest: u64, subjects: impl Iterator<Item = (String, u64)>) {
        self.write().subjects = subjects.map(|(subject, until)| (subject.into(), until)).collect();
        self.longest.store(longest, Ordering::Release);
    }

    /// Returns the longest recorded life of an access token, in seconds.
    pub fn longest(&self) -> u64 {
        self.longest.load(Ordering::Acquire)
    }

    /// Returns the time until which a token of this subject is accepted, even if its `exp` is later, since marks are
    /// not kept for longer. `issued` and the result (exclusive) are in seconds since 1970.
    pub(super) fn accepted_until(&self, issued: u64, subject: &str) -> u64 {
        let usual = issued.saturating_add(self.longest());
        self.read().subjects.get(subject).map_or(usual, |until| usual.max(*until))
    }

    /// Returns the earliest time at which a mark made now may be deleted. The store, which is not queried here, may
    /// contain a later time for the mark.
    pub fn kept_until(&self, now: u64) -> u64 {
        now.saturating_add(self.longest()).saturating_add(MARK_MARGIN.as_secs())
    }

    /// Sets whether marks may be missing. During that time, no token of the local authority is accepted.
    pub fn set_blind(&self, blind: bool) {
        self.blind.store(blind, Ordering::Release);
    }

    /// Deletes the marks that are kept only until `now` (seconds since 1970) or a time before it.
    pub fn forget(&self, now: u64) {
        let mut marks = self.write();
        marks.tokens.retain(|_, until| *until > now);
        marks.sessions.retain(|_, until| *until > now);
        marks.accounts.retain(|_, (_, until)| *until > now);
        drop(marks);
        self.signals.forget(now);
    }

    /// Returns whether the token with this `jti` is revoked by itself.
    pub fn has_token(&self, id: &str) -> bool {
        self.read().tokens.contains_key(id)
    }

    /// Returns the number of marks of the local authority's tokens.
    pub fn len(&self) -> usize {
        let marks = self.read();
        marks.tokens.len() + marks.sessions.len() + marks.accounts.len()
    }

    /// Returns whether there are no marks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that the token of a principal has not been revoked, for tokens of any issuer.
    ///
    /// # Errors
    /// Returns [`Denial::RevokedToken`] if a mark revokes the token, and [`Denial::CheckUnavailable`] while marks may
    /// be missing.
    #[inline]
    pub fn admit_any(&self, principal: &Principal) -> Result<(), Denial> {
        if let Some(local) = &principal.local {
            self.admit(principal, local)
        } else if let Some(signalled) = &principal.signalled {
            // The store may also contain the marks of signals.
            if self.blind.load(Ordering::Acquire) {
                return Err(Denial::CheckUnavailable);
            }
            self.signals.admit(signalled)
        } else {
            Ok(())
        }
    }

    /// Checks that the token of a local principal has not been revoked.
    ///
    /// # Errors
    /// [`Denial::RevokedToken`] if a mark revokes the token; [`Denial::CheckUnavailable`] while marks may be missing.
    pub(super) fn admit(&self, principal: &Principal, local: &Local) -> Result<(), Denial> {
        if self.blind.load(Ordering::Acquire) {
            return Err(Denial::CheckUnavailable);
        }
        // The epoch is read before the marks. A mark that is added in between is found now or at the next request.
        let epoch = self.epoch.load(Ordering::Acquire);
        if local.unmarked_at.get() == Some(epoch) {
            return Ok(());
        }
        let marks = self.read();
        let of_token = principal.token_id.as_ref().is_some_and(|id| marks.tokens.contains_key(id));
        let of_session = local.session.as_ref().is_some_and(|id| marks.sessions.contains_key(id));
        // A service is not an account, so its tokens have no generation.
        let account = if local.service { None } else { marks.accounts.get(&principal.subject) };
        let of_account = account.is_some_and(|(generation, _)| local.generation < *generation);
        if of_token || of_session || of_account {
            return Err(Denial::RevokedToken);
        }
        local.unmarked_at.set(Some(epoch));
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Marks> {
        // The lock may be poisoned, but a writer that panicked left only complete entries: each insertion is one step.
        self.marks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Marks> {
        self.marks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inserts a mark. Returns whether it is new.
fn insert(marks: &mut HashMap<Box<str>, u64>, id: &str, until: u64) -> bool {
    match marks.get_mut(id) {
        Some(known) => {
            *known = (*known).max(until);
            false
        }
        None => {
            marks.insert(id.into(), until);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn principal(subject: &str, token: &str, session: &str, generation: i64) -> Principal {
        Principal {
            issuer: Arc::from("i"),
            subject: subject.into(),
            token_id: Some(token.into()),
            local: Some(Box::new(Local::new(Some(session.into()), generation, None))),
            ..Principal::for_tests()
        }
    }

    fn verdict(revoked: &Revoked, principal: &Principal) -> Result<(), Denial> {
        revoked.admit(principal, principal.local.as_ref().unwrap())
    }

    #[test]
    fn each_mark_revokes_what_it_names_at_once_and_nothing_else() {
        let account = |id: &str, generation| Mark::Account { id: id.into(), generation };
        for (mark, revokes) in [
            (Mark::Token("t".into()), true),
            (Mark::Token("s".into()), false),
            (Mark::Session("s".into()), true),
            (Mark::Session("t".into()), false),
            (account("ada", 3), true),
            (account("ada", 2), false),
            (account("Ada", 3), false),
        ] {
            let (revoked, caller) = (Revoked::default(), principal("ada", "t", "s", 2));
            assert_eq!(verdict(&revoked, &caller), Ok(()));
            revoked.mark(&mark, 100);
            let expected = if revokes { Err(Denial::RevokedToken) } else { Ok(()) };
            assert_eq!(verdict(&revoked, &caller), expected, "{mark:?}");
            assert_eq!(verdict(&revoked, &caller), expected, "{mark:?}, asked again");
        }
    }

    #[test]
    fn a_service_is_not_revoked_with_the_account_that_is_named_like_it() {
        let revoked = Revoked::default();
        let mut caller = principal("billing", "t", "s", 0);
        caller.local = Some(Box::new(Local::new(None, 0, None).of_service(true)));
        revoked.mark(&Mark::Account { id: "billing".into(), generation: 3 }, 100);
        assert_eq!(verdict(&revoked, &caller), Ok(()));
        revoked.mark(&Mark::Token("t".into()), 100);
        assert_eq!(verdict(&revoked, &caller), Err(Denial::RevokedToken));
    }

    #[test]
    fn a_mark_stays_until_its_end_however_often_it_is_made() {
        let (revoked, caller) = (Revoked::default(), principal("ada", "t", "s", 2));
        let mark = Mark::Account { id: "ada".into(), generation: 5 };
        revoked.mark(&mark, 100);
        revoked.mark(&Mark::Account { id: "ada".into(), generation: 3 }, 50);
        revoked.forget(99);
        assert_eq!(verdict(&revoked, &caller), Err(Denial::RevokedToken));
        assert_eq!(verdict(&revoked, &principal("ada", "t", "s", 4)), Err(Denial::RevokedToken));
        assert_eq!(verdict(&revoked, &principal("ada", "t", "s", 5)), Ok(()));
        revoked.forget(100);
        assert!(revoked.is_empty());
    }

    #[test]
    fn a_token_is_accepted_for_as_long_as_lives_are_on_record_and_a_mark_is_kept_for_longer() {
        let revoked = Revoked::default();
        assert_eq!(revoked.accepted_until(100, "ada"), u64::MAX, "without a record there is no bound");
        revoked.set_lives(60, [("ada".to_owned(), 900), ("old".to_owned(), 120)].into_iter());
        for (subject, until) in [("bob", 160), ("ada", 900), ("old", 160)] {
            assert_eq!(revoked.accepted_until(100, subject), until, "{subject}");
        }
        assert_eq!(revoked.kept_until(100), 160 + MARK_MARGIN.as_secs());
        revoked.set_lives(60, std::iter::empty());
        assert_eq!(revoked.accepted_until(100, "ada"), 160, "its record is gone");
    }

    #[test]
    fn nothing_is_accepted_while_marks_may_be_missing() {
        let (revoked, caller) = (Revoked::default(), principal("ada", "t", "s", 2));
        assert_eq!(verdict(&revoked, &caller), Ok(()));
        revoked.set_blind(true);
        assert_eq!(verdict(&revoked, &caller), Err(Denial::CheckUnavailable));
        revoked.set_blind(false);
        assert_eq!(verdict(&revoked, &caller), Ok(()));
    }
}
