//! The authority's counters for logins, refreshes, revocations and tokens.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A closed set of `N` outcomes, each with its name in metrics.
pub trait Outcome<const N: usize>: Copy + Into<usize> {
    /// The names in metrics, in the order of the variants.
    const NAMES: [&'static str; N];
}

/// Declares an enum of outcomes with their names in metrics.
macro_rules! outcomes {
    ($(#[$doc:meta])* $name:ident[$count:literal] { $($variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant has the name that it shows in metrics")]
        pub enum $name { $($variant,)+ }

        impl Outcome<$count> for $name {
            const NAMES: [&'static str; $count] = [$($text),+];
        }

        impl From<$name> for usize {
            fn from(outcome: $name) -> Self {
                outcome as Self
            }
        }

        impl $name {
            /// Returns the outcome's name in metrics, logs and the store.
            pub const fn as_str(self) -> &'static str {
                <Self as Outcome<$count>>::NAMES[self as usize]
            }
        }
    };
}

outcomes! {
    /// The outcome of a login with a password.
    LoginOutcome[6] {
        Ok = "ok",
        BadCredentials = "bad_credentials",
        Disabled = "disabled",
        Throttled = "throttled",
        Busy = "busy",
        Invalid = "invalid",
    }
}

outcomes! {
    /// The fleet's count of an attempt to log in.
    FleetLogin[4] {
        Admitted = "admitted",
        Throttled = "throttled",
        // Redis did not answer: this gateway's own throttle decided, or the attempt was refused.
        Alone = "alone",
        Denied = "denied",
    }
}

outcomes! {
    /// The outcome of a refresh.
    RefreshOutcome[8] {
        Ok = "ok",
        Grace = "grace",
        Reuse = "reuse",
        Unproven = "unproven",
        Expired = "expired",
        Ended = "ended",
        Disabled = "disabled",
        Unknown = "unknown",
    }
}

outcomes! {
    /// The cause of a revocation.
    RevocationCause[6] {
        Logout = "logout",
        LogoutAll = "logout_all",
        Session = "session",
        Token = "token",
        Reuse = "reuse",
        Feed = "feed",
    }
}

outcomes! {
    /// The size class of an access token. The bounds are the limits of browsers and servers.
    TokenSize[3] {
        Normal = "normal",
        Over4KiB = "over_4KiB",
        Over8KiB = "over_8KiB",
    }
}

outcomes! {
    /// The claims that an access token left out to stay small.
    Trimmed[1] {
        Roles = "roles",
    }
}

outcomes! {
    /// The outcome of a service's request for a token.
    ServiceOutcome[2] {
        Ok = "ok",
        Refused = "refused",
    }
}

/// One counter for each outcome.
#[derive(Debug)]
pub struct ByOutcome<O, const N: usize> {
    counts: [AtomicU64; N],
    outcome: PhantomData<O>,
}

impl<O, const N: usize> Default for ByOutcome<O, N> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), outcome: PhantomData }
    }
}

impl<O: Outcome<N>, const N: usize> ByOutcome<O, N> {
    /// Counts one occurrence of the outcome.
    pub fn add(&self, outcome: O) {
        self.counts[outcome.into()].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the name and the count of each outcome.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        O::NAMES.into_iter().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// The authority's counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Logins with a password, by outcome.
    pub logins: ByOutcome<LoginOutcome, 6>,
    /// Logins about which the shared state was asked, by outcome.
    pub shared_logins: ByOutcome<FleetLogin, 4>,
    /// Presented refresh tokens, by outcome.
    pub refreshes: ByOutcome<RefreshOutcome, 8>,
    /// Revocations by this gateway's endpoints, by cause.
    pub revocations: ByOutcome<RevocationCause, 6>,
    /// Issued access tokens, by size.
    pub tokens: ByOutcome<TokenSize, 3>,
    /// Access tokens that left out roles because of `role_limit`.
    pub trimmed: ByOutcome<Trimmed, 1>,
    /// Requests of services for their own access token, by outcome.
    pub services: ByOutcome<ServiceOutcome, 2>,
}
