//! Verifies proofs of possession (DPoP, RFC 9449). The client signs a proof for each request with a private key.
//! Without that key, nobody can use a token that is bound to the key.
//!
//! The gateway verifies the proof of every request, even for a cached token. It remembers a proof only after all other
//! checks have passed, so forged proofs use no memory.

mod key;
mod nonce;
mod proof;
mod replay;
mod target;
#[cfg(test)]
mod tests;
mod thumbprint;

pub use key::algorithms;
pub use nonce::NonceKey;
pub use thumbprint::Thumbprint;

use super::digest::Digest;
use super::error::CredentialError;
use super::{Credentials, Place, Principal};
use crate::clock::Now;
use crate::denial::{Denial, ProofFault};
use aws_lc_rs::rand;
use http::{HeaderName, HeaderValue};
use proof::Proof;
use replay::{Created, ReplayBounds, ReplayFault, ReplaySet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The request header with the proof.
pub const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The response header with the gateway's nonce.
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The number of seconds by which a client's clock may be ahead of the gateway's.
const AHEAD: u64 = 10;

/// The settings for proofs.
#[derive(Debug)]
pub struct DpopSettings {
    /// The time that a proof or a nonce can be used, in seconds.
    pub window: u64,
    /// Whether each proof must contain a nonce of the gateway.
    pub requires_nonce: bool,
    /// The key that authenticates nonces. With `None`, the process generates a key at its start.
    pub nonce_key: Option<NonceKey>,
    /// A second key whose nonces are accepted, for the time during which gateways change their keys.
    pub previous_nonce_key: Option<NonceKey>,
    /// The maximum number of remembered proofs.
    pub replay_entries: usize,
    /// Whether challenges for bearer tokens also offer DPoP.
    pub announce: bool,
    /// Whether an accepted proof is also claimed for this gateway in the shared state.
    pub is_shared: bool,
}

impl Default for DpopSettings {
    fn default() -> Self {
        Self {
            window: 60,
            requires_nonce: false,
            nonce_key: None,
            previous_nonce_key: None,
            replay_entries: 1_000_000,
            announce: false,
            is_shared: false,
        }
    }
}

/// The checks of proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// Proofs are verified and remembered.
    Enforce,
    /// Proofs are verified but not remembered, to explain a request.
    Observe,
    /// Proofs are not required, because the caller is simulated.
    Assume,
}

/// Verifies proofs of possession.
#[derive(Clone, Debug)]
pub struct Dpop {
    settings: Arc<DpopSettings>,
    memory: Arc<Memory>,
    duty: Duty,
}

impl Default for Dpop {
    fn default() -> Self {
        Self::new(DpopSettings::default())
    }
}

/// The state that survives a reload of the policy.
#[derive(Debug, Default)]
struct Memory {
    replay: ReplaySet,
    nonce_key: OnceLock<NonceKey>,
    counts: [AtomicU64; ProofOutcome::ALL.len()],
}

/// The outcome of the verification of a proof, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofOutcome {
    /// The proof is valid.
    Accepted,
    /// The proof is missing or invalid.
    Invalid,
    /// The proof was accepted before.
    Replayed,
    /// The proof has no nonce, although one is required, or an old nonce.
    Nonce,
    /// The memory for proofs is full.
    Full,
}

impl ProofOutcome {
    /// All outcomes, in the order of the variants.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Invalid, Self::Replayed, Self::Nonce, Self::Full];

    /// Returns the outcome's label in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Invalid => "invalid",
            Self::Replayed => "replayed",
            Self::Nonce => "nonce",
            Self::Full => "full",
        }
    }
}

/// A proof that this gateway has accepted. Other gateways have to be asked whether they have accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedProof {
    /// The digest of the proof's key and `jti`.
    pub digest: [u8; 16],
    /// The longest time for which the proof can be accepted, in seconds.
    pub seconds: u64,
}

/// The proof of a request for tokens, which has passed all checks except the replay check. `accept` makes that check,
/// after the client has been authenticated.
#[derive(Clone, Debug)]
pub struct CheckedProof {
    key: Thumbprint,
    id: Box<str>,
    created: Created,
    now: Now,
    verifier: Dpop,
}

impl CheckedProof {
    /// Returns the key that signed the proof.
    pub fn key(&self) -> Thumbprint {
        self.key
    }

    /// Remembers the proof, so that it cannot be used again. Returns the key to which the new tokens are bound.
    ///
    /// # Errors
    /// Returns why the proof is refused: it was used before, or cannot be remembered.
    pub fn accept(&self) -> Result<Thumbprint, Denial> {
        let remembered = self.verifier.remember(&self.key, &self.id, self.created, self.now);
        let remembered = remembered.map_err(|refused| refused.denial);
        self.verifier.count_outcome(remembered.as_ref().map(drop));
        remembered.map(|()| self.key)
    }

    /// Returns the proof for the shared state, if the gateways share the used proofs.
    pub fn used(&self) -> Option<UsedProof> {
        self.verifier.used(&self.key, &self.id)
    }
}

impl Dpop {
    /// Creates a verifier without remembered proofs.
    pub fn new(settings: DpopSettings) -> Self {
        Self { settings: Arc::new(settings), memory: Arc::default(), duty: Duty::Enforce }
    }

    /// Takes over the remembered proofs, the nonces and the counters from the verifier of the previous policy.
    #[must_use]
    pub(super) fn carry_over(self, before: &Self) -> Self {
        Self { memory: before.memory.clone(), ..self }
    }

    /// Returns a verifier for explanations. It looks proofs up, but does not remember or count them.
    #[must_use]
    pub(super) fn observing(&self) -> Self {
        Self { duty: Duty::Observe, ..self.clone() }
    }

    /// Returns a verifier for simulated callers, which assumes that a caller with a bound token has proven its key.
    #[must_use]
    pub(super) fn assuming(&self) -> Self {
        Self { duty: Duty::Assume, ..self.clone() }
    }

    /// Returns whether bound tokens are accepted without a proof, because the caller is simulated.
    pub(super) fn is_assumed(&self) -> bool {
        self.duty == Duty::Assume
    }

    /// Rejects proofs that could be used before this process began to serve, because an earlier process may have
    /// accepted them. The client then gets a nonce.
    pub fn begin(&self, now: Now) {
        self.memory.replay.refuse_before(now.unix);
    }

    /// Returns the settings.
    pub fn settings(&self) -> &DpopSettings {
        &self.settings
    }

    /// Returns the nonce for `DPoP-Nonce`.
    pub fn nonce(&self, now: Now) -> HeaderValue {
        self.nonce_key().issue(now.unix)
    }

    /// Returns the number of remembered proofs.
    pub fn remembered(&self) -> usize {
        self.memory.replay.len()
    }

    /// Returns how many proofs had this outcome.
    pub fn count(&self, outcome: ProofOutcome) -> u64 {
        self.memory.counts[outcome as usize].load(Ordering::Relaxed)
    }

    fn nonce_key(&self) -> &NonceKey {
        if let Some(key) = &self.settings.nonce_key {
            return key;
        }
        self.memory.nonce_key.get_or_init(|| {
            let mut secret = [0; 32];
            // The process has read random numbers before, or it would not have started.
            rand::fill(&mut secret).expect("the system has given random numbers to this process before");
            NonceKey::of(&secret)
        })
    }

    /// Returns when a nonce was issued; `None` if its key is unknown.
    fn nonce_issued(&self, nonce: &str) -> Option<u64> {
        let previous = self.settings.previous_nonce_key.as_ref();
        self.nonce_key().issued(nonce).or_else(|| previous?.issued(nonce))
    }

    /// Checks the binding of a token in a request. A bound token requires the `DPoP` scheme and a proof by its key,
    /// because a thief could otherwise use it as a bearer token. An unbound token must not use the `DPoP` scheme,
    /// because the client would believe that its token is bound.
    ///
    /// # Errors
    /// Returns why the token or the proof is refused.
    #[cold]
    pub(super) fn check_binding(
        &self,
        credentials: &Credentials<'_>,
        principal: &Principal,
        place: Place,
        token: &Digest,
        now: Now,
    ) -> Result<(), CredentialError> {
        let Some(super::Confirmation::Key(key)) = principal.confirmation else {
            let detail =
                "the token is not bound to a key (it has no cnf.jkt), and was sent with the scheme DPoP";
            return Err(CredentialError::because(Denial::UnboundToken, detail));
        };
        if place != Place::Dpop {
            let detail = "the token is bound to a key (cnf.jkt), and was not sent as Authorization: DPoP";
            return Err(CredentialError::because(Denial::BoundToken, detail));
        }
        if self.duty == Duty::Assume {
            return Ok(());
        }
        self.verify(credentials, Some((token, &key)), now).map(|_| ())
    }

    /// Checks the proof of a request for tokens, or returns `None` if there is no proof. Does not remember the proof,
    /// because a client without credentials must not fill the memory.
    ///
    /// # Errors
    /// Returns the first check of RFC 9449 section 4.3 that fails.
    pub fn check_token_request(
        &self,
        credentials: &Credentials<'_>,
        now: Now,
    ) -> Result<Option<CheckedProof>, CredentialError> {
        if !credentials.head.headers.contains_key(DPOP) {
            return Ok(None);
        }
        let checked = self.check(credentials, None, now);
        if let Err(refused) = &checked {
            self.count_outcome(Err(&refused.denial));
        }
        let (proof, created) = checked?;
        let (key, id) = (proof.thumbprint(), proof.id().into());
        Ok(Some(CheckedProof { key, id, created, now, verifier: self.clone() }))
    }

    /// Verifies the proof of a request, and remembers it. `bound` contains the digest of the proof's token, and the key
    /// to which that token is bound.
    ///
    /// # Errors
    /// Returns the first check of RFC 9449 section 4.3 that fails.
    pub fn verify(
        &self,
        credentials: &Credentials<'_>,
        bound: Option<(&Digest, &Thumbprint)>,
        now: Now,
    ) -> Result<Thumbprint, CredentialError> {
        let verified = self.check(credentials, bound, now).and_then(|(proof, created)| {
            let key = proof.thumbprint();
            self.remember(&key, proof.id(), created, now)?;
            if let Some(place) = credentials.used_proof {
                place.set(self.used(&key, proof.id()));
            }
            Ok(key)
        });
        self.count_outcome(verified.as_ref().map(drop).map_err(|refused| &refused.denial));
        verified
    }

    /// Returns an accepted proof for the shared state, if the gateways share the used proofs.
    fn used(&self, key: &Thumbprint, id: &str) -> Option<UsedProof> {
        let is_shared = self.settings.is_shared && self.duty == Duty::Enforce;
        // The client's clock may be ahead when the proof is used, and that of a gateway a little.
        let seconds = self.settings.window + 2 * AHEAD;
        is_shared.then(|| UsedProof { digest: replay::mark(key, id), seconds })
    }

    fn count_outcome(&self, outcome: Result<(), &Denial>) {
        if self.duty != Duty::Enforce {
            return;
        }
        let outcome = match outcome {
            Ok(()) => ProofOutcome::Accepted,
            Err(Denial::UseDpopNonce) => ProofOutcome::Nonce,
            Err(Denial::ReplayedProof) => ProofOutcome::Replayed,
            Err(Denial::CheckUnavailable) => ProofOutcome::Full,
            Err(_) => ProofOutcome::Invalid,
        };
        self.memory.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Makes all checks of a proof except the one for a replay. Returns the proof, and when it was created.
    fn check<'r>(
        &self,
        credentials: &Credentials<'r>,
        bound: Option<(&Digest, &Thumbprint)>,
        now: Now,
    ) -> Result<(Proof<'r>, Created), CredentialError> {
        let mut fields = credentials.head.headers.get_all(DPOP).iter();
        let Some(field) = fields.next() else { return Err(Denial::InvalidProof(ProofFault::Missing).into()) };
        if fields.next().is_some() {
            return Err(Denial::InvalidProof(ProofFault::Repeated).into());
        }
        let proof = Proof::read(field.as_bytes())?;
        let thumbprint = proof.thumbprint();
        if let Some((_, key)) = bound
            && *key != thumbprint
        {
            let detail = format!("the proof is by the key {thumbprint}, and the token is bound to {key}");
            return Err(CredentialError::because(Denial::InvalidProof(ProofFault::OtherKey), detail));
        }
        proof.check_request(credentials)?;
        if let Some((token, _)) = bound {
            proof.check_token(token)?;
        }
        proof.check_signature()?;
        let created = self.created(&proof, now)?;
        Ok((proof, created))
    }

    /// Returns when the proof was created: when its nonce was issued or, without a nonce, its `iat`. A client whose
    /// clock is wrong gets a nonce, and can then create an acceptable proof.
    fn created(&self, proof: &Proof<'_>, now: Now) -> Result<Created, CredentialError> {
        let nonce = |detail: String| Err(CredentialError::because(Denial::UseDpopNonce, detail));
        let window = self.settings.window;
        let is_acceptable = |time: u64| time <= now.unix + AHEAD && now.unix.saturating_sub(time) <= window;
        match proof.nonce() {
            Some(text) => match self.nonce_issued(text) {
                Some(issued) if is_acceptable(issued) => Ok(Created::ByNonce(issued)),
                Some(issued) => {
                    nonce(format!("the proof's nonce was issued at {issued}, and it is {} now", now.unix))
                }
                None => nonce("the gateway did not issue the proof's nonce".to_owned()),
            },
            None if self.settings.requires_nonce => nonce("the proof has no nonce".to_owned()),
            None => match proof.issued() {
                issued if is_acceptable(issued) => Ok(Created::ByClient(issued)),
                issued => nonce(format!(
                    "the proof's iat is {issued}, and it is {} now; the window is {window} s",
                    now.unix
                )),
            },
        }
    }

    fn remember(
        &self,
        key: &Thumbprint,
        id: &str,
        created: Created,
        now: Now,
    ) -> Result<(), CredentialError> {
        let bounds =
            ReplayBounds { span: self.settings.window + AHEAD, capacity: self.settings.replay_entries };
        let is_recorded = self.duty == Duty::Enforce;
        let admitted = self.memory.replay.admit(key, id, created, now.unix, bounds, is_recorded);
        admitted.map_err(|fault| match fault {
            ReplayFault::Seen => Denial::ReplayedProof.into(),
            ReplayFault::Forgotten => CredentialError::because(
                Denial::UseDpopNonce,
                "the proof was created before the gateway started, or before its clock was set back",
            ),
            ReplayFault::Full => CredentialError::because(
                Denial::CheckUnavailable,
                format!("{} DPoP proofs are remembered ([dpop] replay_entries)", bounds.capacity),
            ),
            ReplayFault::FullForKey => CredentialError::because(
                Denial::CheckUnavailable,
                "the client's DPoP proofs take the share of one key ([dpop] replay_entries)",
            ),
        })
    }
}
