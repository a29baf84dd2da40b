//! The facts that a refused request can wait for. Authentication never waits; the pipeline does.

use crate::clock::Now;
use crate::denial::Denial;
use crate::key_source::{Waited, Wanted};
use std::time::Instant;

/// A missing fact that a wait may bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A key of the issuer.
    Keys(Wanted),
}

impl Pending {
    /// Waits until the token can be verified again, but at most until `deadline`.
    ///
    /// # Errors
    /// Returns an error if the wait was in vain: the denial for a check that could not be made, or `None` if the first
    /// denial stays.
    pub async fn wait(&self, deadline: Instant, now: Now) -> Result<(), Option<Denial>> {
        match self {
            Self::Keys(wanted) => match wanted.wait(deadline, now).await {
                Waited::Fetched => Ok(()),
                Waited::Absent => Err(None),
                Waited::Unavailable => Err(Some(Denial::CheckUnavailable)),
            },
        }
    }

    /// Describes what a running gateway does, for an explanation. An explanation never waits.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Keys(_) => "a running gateway fetches the issuer's keys and decides again",
        }
    }
}
