//! The reasons for which a request waits before it can be judged. Authentication never waits; the pipeline does.

use crate::clock::Now;
use crate::introspection::Inquiry;
use crate::key_source::{Asked, Waited, Wanted};
use crate::turns::Turns;
use std::time::Instant;

/// Something that the judgement of a request lacks, and that may come while the request waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A key of the issuer.
    Keys(Wanted),
    /// The issuer's answer about the token.
    Introspection(Inquiry),
    /// A turn of the core for the check of a signature.
    Turn(Turns),
}

/// The reason why a wait was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InVain {
    /// The fact does not exist, so the first refusal stands.
    Absent,
    /// The fact could not be checked, for this reason if the first refusal does not give it.
    Unavailable(Option<Box<str>>),
}

impl Pending {
    /// Waits until the token can be judged again, `deadline` at the latest.
    ///
    /// # Errors
    /// If waiting was in vain.
    pub async fn wait(&self, deadline: Instant, now: Now) -> Result<(), InVain> {
        match self {
            Self::Keys(wanted) => match wanted.wait(deadline, now).await {
                Waited::Fetched => Ok(()),
                Waited::Absent => Err(InVain::Absent),
                Waited::Unavailable => Err(InVain::Unavailable(None)),
            },
            Self::Introspection(inquiry) => {
                let answered = inquiry.wait(deadline, now).await;
                answered.map_err(|unanswered| InVain::Unavailable(Some(unanswered.words().into())))
            }
            Self::Turn(turns) => {
                let granted = tokio::time::timeout_at(deadline.into(), turns.take()).await;
                granted.map_err(|_elapsed| {
                    InVain::Unavailable(Some("the core had no time to check the signature".into()))
                })
            }
        }
    }

    /// Asks for the fact without waiting for it.
    pub fn ask(&self, now: Now) -> Asked {
        match self {
            Self::Keys(wanted) => wanted.ask(now),
            // Only signals ask without waiting, and their statements are signed.
            Self::Introspection(_) => Asked::Absent,
            // Signals are not judged by a core.
            Self::Turn(_) => Asked::Absent,
        }
    }

    /// Says what the gateway would do about it, for an explanation, which never waits.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Keys(_) => "a running gateway fetches the issuer's keys and decides again",
            Self::Introspection(_) => "a running gateway asks the issuer about the token and decides again",
            Self::Turn(_) => "a running gateway checks the signature after those of other requests",
        }
    }
}
