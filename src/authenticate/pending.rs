//! The facts that a refused request can wait for. Authentication never waits; the pipeline does.

use crate::clock::Now;
use crate::denial::Denial;
use crate::key_source::{Waited, Wanted};
use std::time::Instant;

/// A missing fact that may become available while the request waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A key of the issuer.
    Keys(Wanted),
}

impl Pending {
    /// Waits until the token can be judged again, `deadline` at the latest.
    ///
    /// # Errors
    /// If waiting was in vain: the denial for a check that could not be made, or `None` if the first one stands.
    pub async fn wait(&self, deadline: Instant, now: Now) -> Result<(), Option<Denial>> {
        match self {
            Self::Keys(wanted) => match wanted.wait(deadline, now).await {
                Waited::Fetched => Ok(()),
                Waited::Absent => Err(None),
                Waited::Unavailable => Err(Some(Denial::CheckUnavailable)),
            },
        }
    }

    /// Says what the gateway would do about it, for an explanation, which never waits.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Keys(_) => "a running gateway fetches the issuer's keys and decides again",
        }
    }
}
