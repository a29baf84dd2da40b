//! The DPoP proofs that any gateway has accepted, so that no proof is accepted by two gateways.
//!
//! Redis keeps a digest of each proof for as long as the proof can be accepted.

use super::{Command, Link, Unanswered};
use crate::authenticate::dpop::UsedProof;
use crate::config::file::OnError;
use crate::denial::Denial;
use crate::hex;
use redis::{ErrorKind, Value, cmd};
use std::sync::atomic::{AtomicU64, Ordering};

/// The kind of the keys.
const KIND: &str = "proof";

/// The outcome of asking for a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofUse {
    /// No gateway had accepted the proof.
    First,
    /// Another gateway had accepted the proof.
    Replayed,
    /// The shared state did not answer, so the proof was refused.
    Denied,
    /// The shared state did not answer, and the proof was accepted.
    Unchecked,
}

impl ProofUse {
    /// All outcomes, in the order of the variants.
    pub const ALL: [Self; 4] = [Self::First, Self::Replayed, Self::Denied, Self::Unchecked];

    /// Returns the outcome's label in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Replayed => "replayed",
            Self::Denied => "denied",
            Self::Unchecked => "unchecked",
        }
    }
}

/// The counts of proofs, by outcome.
#[derive(Debug, Default)]
pub struct ProofCounts([AtomicU64; ProofUse::ALL.len()]);

impl ProofCounts {
    /// Returns how many proofs had this outcome.
    pub fn count(&self, outcome: ProofUse) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }
}

impl Link {
    /// Claims a proof for this gateway. The gateway has already found that it has not accepted the proof itself.
    ///
    /// # Errors
    /// [`Denial::ReplayedProof`] if another gateway has accepted the proof. [`Denial::CheckUnavailable`] if the shared
    /// state does not answer and the policy requires it, with the reason.
    pub async fn claim(&self, proof: UsedProof) -> Result<(), (Denial, Option<Unanswered>)> {
        let mut claim = cmd("SET");
        claim.arg(self.key(KIND, &hex::text(&proof.digest))).arg("").arg("NX").arg("EX").arg(proof.seconds);
        let claimed = self
            .call(|mut connection| async move {
                let answer = match claim.query_async::<Value>(&mut connection).await {
                    Ok(Value::Okay) => Ok(true),
                    Ok(Value::Nil) => Ok(false),
                    Ok(_) => Err((ErrorKind::UnexpectedReturnType, "neither OK nor nil").into()),
                    Err(error) => Err(error),
                };
                answer.map_err(|error| Command::Set.failed(error))
            })
            .await;
        let on_error = self.settings.load().on_error.replay;
        let (outcome, result) = match claimed {
            Ok(false) => (ProofUse::Replayed, Err((Denial::ReplayedProof, None))),
            Ok(true) => (ProofUse::First, Ok(())),
            Err(why) if on_error == OnError::Deny => {
                (ProofUse::Denied, Err((Denial::CheckUnavailable, Some(why))))
            }
            Err(_) => (ProofUse::Unchecked, Ok(())),
        };
        self.proofs.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Returns the counts of proofs.
    pub fn proof_counts(&self) -> &ProofCounts {
        &self.proofs
    }
}
