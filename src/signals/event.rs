//! The kinds of events, and their effects on tokens.

use crate::authenticate::LOGOUT_EVENT;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of event. All kinds that the gateway does not know are `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// CAEP: a session was revoked.
    SessionRevoked,
    /// CAEP: a credential was added, changed or removed.
    CredentialChange,
    /// CAEP: claims of tokens have changed.
    TokenClaimsChange,
    /// RISC: the account was disabled.
    AccountDisabled,
    /// RISC: the account was deleted.
    AccountPurged,
    /// RISC: somebody else obtained a credential of the account.
    CredentialCompromise,
    /// RISC: the account needs a new credential.
    CredentialChangeRequired,
    /// RISC, deprecated: all sessions of the account were revoked.
    SessionsRevoked,
    /// OpenID Connect Back-Channel Logout.
    Logout,
    /// Shared Signals: the transmitter tests the stream.
    Verification,
    /// Shared Signals: the transmitter has paused, disabled or enabled the stream.
    StreamUpdated,
    /// Any other event.
    Unknown,
}

/// The effect of an event on the issuer's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tokens of the event's subject are revoked.
    Revokes,
    /// The event concerns the stream. The gateway logs it.
    OfStream,
    /// The gateway only acknowledges and counts the event.
    None,
}

/// The kinds with their names in metrics and their URIs.
const KINDS: [(EventKind, &str, &[&str]); 12] = [
    (
        EventKind::SessionRevoked,
        "session_revoked",
        &["https://schemas.openid.net/secevent/caep/event-type/session-revoked"],
    ),
    (
        EventKind::CredentialChange,
        "credential_change",
        &["https://schemas.openid.net/secevent/caep/event-type/credential-change"],
    ),
    (
        EventKind::TokenClaimsChange,
        "token_claims_change",
        &["https://schemas.openid.net/secevent/caep/event-type/token-claims-change"],
    ),
    (
        EventKind::AccountDisabled,
        "account_disabled",
        &["https://schemas.openid.net/secevent/risc/event-type/account-disabled"],
    ),
    (
        EventKind::AccountPurged,
        "account_purged",
        &["https://schemas.openid.net/secevent/risc/event-type/account-purged"],
    ),
    (
        EventKind::CredentialCompromise,
        "credential_compromise",
        &["https://schemas.openid.net/secevent/risc/event-type/credential-compromise"],
    ),
    (
        EventKind::CredentialChangeRequired,
        "credential_change_required",
        &["https://schemas.openid.net/secevent/risc/event-type/account-credential-change-required"],
    ),
    (
        EventKind::SessionsRevoked,
        "sessions_revoked",
        &["https://schemas.openid.net/secevent/risc/event-type/sessions-revoked"],
    ),
    (EventKind::Logout, "logout", &[LOGOUT_EVENT]),
    (
        EventKind::Verification,
        "verification",
        &[
            "https://schemas.openid.net/secevent/ssf/event-type/verification",
            // The names in the drafts before SSF 1.0, and in RISC.
            "https://schemas.openid.net/secevent/sse/event-type/verification",
            "https://schemas.openid.net/secevent/risc/event-type/verification",
        ],
    ),
    (
        EventKind::StreamUpdated,
        "stream_updated",
        &[
            "https://schemas.openid.net/secevent/ssf/event-type/stream-updated",
            "https://schemas.openid.net/secevent/sse/event-type/stream-updated",
        ],
    ),
    (EventKind::Unknown, "unknown", &[]),
];

impl EventKind {
    /// Returns the kind of event with this URI. URIs are compared exactly (RFC 8417 section 2.2).
    pub fn of(uri: &str) -> Self {
        KINDS.iter().find(|(_, _, uris)| uris.contains(&uri)).map_or(Self::Unknown, |(kind, _, _)| *kind)
    }

    /// Returns the name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// Returns the effect of an event of this kind.
    pub const fn effect(self) -> Effect {
        match self {
            Self::SessionRevoked
            | Self::CredentialChange
            | Self::TokenClaimsChange
            | Self::AccountDisabled
            | Self::AccountPurged
            | Self::CredentialCompromise
            | Self::CredentialChangeRequired
            | Self::SessionsRevoked
            | Self::Logout => Effect::Revokes,
            Self::Verification | Self::StreamUpdated => Effect::OfStream,
            Self::Unknown => Effect::None,
        }
    }
}

/// The outcome of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalOutcome {
    /// Accepted, and in force.
    Accepted,
    /// Accepted earlier.
    Repeated,
    /// Its subject is not understood.
    NotUnderstood,
    /// Not valid, or not by the transmitter.
    Rejected,
    /// Valid, but it could not be kept.
    Failed,
    /// Its key is not known yet.
    Deferred,
}

const OUTCOMES: [&str; 6] = ["accepted", "repeated", "not_understood", "rejected", "failed", "deferred"];

impl SignalOutcome {
    /// Returns the name in metrics.
    pub const fn as_str(self) -> &'static str {
        OUTCOMES[self as usize]
    }
}

/// The counts of one receiver. They outlive a reload of the policy.
#[derive(Debug, Default)]
pub struct SignalCounters {
    events: [AtomicU64; KINDS.len()],
    outcomes: [AtomicU64; OUTCOMES.len()],
    last_event: AtomicU64,
    poll_errors: AtomicU64,
    last_poll: AtomicU64,
}

impl SignalCounters {
    pub(super) fn event(&self, kind: EventKind, now: u64) {
        self.events[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.last_event.store(now, Ordering::Relaxed);
    }

    pub(super) fn outcome(&self, outcome: SignalOutcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn polled(&self, ok: bool, now: u64) {
        if ok {
            self.last_poll.store(now, Ordering::Relaxed);
        } else {
            self.poll_errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of accepted events of each kind.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().zip(&self.events).map(|((_, name, _), count)| (*name, count.load(Ordering::Relaxed)))
    }

    /// Returns the number of signals by outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.iter().zip(&self.outcomes).map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }

    /// Returns the time of the last accepted event in seconds since 1970; 0 if there was none.
    pub fn last_event(&self) -> u64 {
        self.last_event.load(Ordering::Relaxed)
    }

    /// Returns the number of polls that failed.
    pub fn poll_errors(&self) -> u64 {
        self.poll_errors.load(Ordering::Relaxed)
    }

    /// Returns the time of the last poll that succeeded, in seconds since 1970; 0 if there was none.
    pub fn last_poll(&self) -> u64 {
        self.last_poll.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_stands_at_its_own_place() {
        for (place, (kind, name, uris)) in KINDS.iter().enumerate() {
            assert_eq!((*kind as usize, kind.as_str()), (place, *name));
            assert!(uris.iter().all(|uri| EventKind::of(uri) == *kind));
        }
        assert_eq!(
            EventKind::of("https://schemas.openid.net/secevent/caep/event-type/Session-Revoked"),
            EventKind::Unknown
        );
        assert_eq!(EventKind::of(""), EventKind::Unknown);
    }
}
