//! Passes fetched keys of issuers between the gateways of a fleet, through the shared state.
//!
//! A gateway whose fetch is due first looks for a set that another gateway has fetched since. One gateway at a time asks
//! the issuer. Without an answer of the shared state, each gateway fetches for itself.

use super::key_news::{log_changes, log_recovery, publish};
use crate::authenticate::{Algorithm, Key, KeySet};
use crate::clock::Now;
use crate::journal::Level;
use crate::key_source::{Forged, GoodSet, KeySource, MAC, Passed, PassedSet, SEALED_MAX, SetSecrets, Worth};
use crate::shared::{Command, Link, Unanswered};
use crate::worker::Shared;
use redis::{Cmd, FromRedisValue, Value, cmd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time that one gateway keeps the others from asking the issuer. Requests may wait for the keys in this time.
const TURN: Duration = Duration::from_secs(3);
/// The pause before a gateway looks again for the set that another one fetches.
const PAUSE: Duration = Duration::from_millis(50);

/// The fleet of a source.
#[derive(Debug)]
pub(super) struct Fleet {
    link: Arc<Link>,
    secrets: Arc<SetSecrets>,
    /// The name of the set in Redis.
    set: String,
    /// The name of the entry that exists while a gateway asks the issuer.
    turn: String,
}

/// The action of a gateway whose fetch is due.
#[derive(Debug)]
pub(super) enum Due {
    /// It uses a set of another gateway.
    Take(PassedKeys),
    /// It asks the issuer.
    Fetch {
        /// The time at which its turn began; `None` if the shared state does not say whose turn it is.
        turn: Option<Instant>,
        /// The set of another gateway, for the case that the issuer does not answer.
        spare: Option<PassedKeys>,
    },
}

/// A set of another gateway with its keys.
#[derive(Debug)]
pub(super) struct PassedKeys {
    set: PassedSet,
    keys: KeySet,
    /// The reasons why keys of the set are not used.
    skipped: Vec<String>,
    /// The algorithms that the policy accepted when the keys were read.
    algorithms: Vec<Algorithm>,
}

/// The sets that a gateway has found while it waits for its turn.
#[derive(Debug, Default)]
struct Found {
    /// The MAC of the last one.
    mac: Vec<u8>,
    /// The newest authentic one that this gateway can use.
    set: Option<PassedKeys>,
}

impl Fleet {
    /// Returns the fleet of a source; `None` if the policy in force passes no keys.
    pub(super) fn of(shared: &Shared, source: &KeySource) -> Option<Self> {
        let policy = shared.policy.load();
        let secrets = policy.shared_settings.as_ref()?.keys.clone()?;
        let link = policy.link.clone()?;
        let name = source.passed_name();
        let (set, turn) = (link.key("keys", &name), link.key("keys-turn", &name));
        Some(Self { link, secrets, set, turn })
    }

    /// Waits for the first connection of this process before the first fetch, so that a gateway that starts finds the
    /// sets of the fleet.
    pub(super) async fn begin(&self, source: &KeySource) {
        if self.link.connections() == 0 && source.is_untried() {
            let patience = self.link.settings().connect_timeout;
            // Without a connection, the gateway fetches for itself.
            drop(tokio::time::timeout(patience, self.link.until_up()).await);
        }
    }

    /// Decides what to do about a due fetch: waits for a set that another gateway is fetching, for a few seconds at most.
    pub(super) async fn ask(&self, shared: &Shared, source: &Arc<KeySource>) -> Due {
        let began = Instant::now();
        let mut found = Found::default();
        loop {
            let asked = Instant::now();
            let (turn, is_over) = match self.take_turn().await {
                Ok(true) => (Some(asked), true),
                Ok(false) => (None, began.elapsed() >= TURN),
                // Redis that refuses to write may still have the set.
                Err(Unanswered::Failed(_)) => (None, true),
                Err(_) => return Due::Fetch { turn: None, spare: found.set },
            };
            // Look after the turn was taken: the set of the gateway before is there.
            let looked = self.look(shared, source, &mut found).await;
            let replaces = |set: &mut PassedKeys| set.worth(source) == Worth::Fetch;
            if let Some(set) = found.set.take_if(replaces) {
                self.end_turn(turn).await;
                return Due::Take(set);
            }
            if is_over || looked.is_err() {
                return Due::Fetch { turn, spare: found.set };
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Passes a set on that was just fetched.
    pub(super) async fn give(&self, source: &KeySource, good: &GoodSet, fresh: Option<Duration>) {
        let Some(sealed) = source.seal(&self.secrets, good, fresh) else { return };
        let kept = source.settings().max_age.as_millis();
        let mut set = cmd("SET");
        set.arg(&self.set).arg(sealed).arg("PX").arg(u64::try_from(kept).unwrap_or(u64::MAX));
        if self.call::<Value>(Command::Set, set).await.is_ok() {
            source.passed().add(Passed::Given);
        }
    }

    /// Looks for a set that another gateway has passed on. A set is read once: while gateways wait for the next one, only
    /// its MAC is read.
    async fn look(
        &self,
        shared: &Shared,
        source: &Arc<KeySource>,
        found: &mut Found,
    ) -> Result<(), Unanswered> {
        if !found.mac.is_empty() && self.read(MAC).await? == found.mac {
            return Ok(());
        }
        let sealed = self.read(SEALED_MAX).await?;
        found.mac = sealed[..sealed.len().min(MAC)].to_vec();
        if sealed.is_empty() {
            return Ok(());
        }
        match source.open(&self.secrets, &sealed) {
            Ok(set) if found.set.as_ref().is_none_or(|known| known.set.fetched() < set.fetched()) => {
                if let Some(keys) = PassedKeys::of(shared, source, set) {
                    found.set = Some(keys);
                }
            }
            Ok(_) => {}
            Err(Forged) => {
                if source.passed().add(Passed::Rejected) {
                    let event =
                        "the keys of an issuer in the shared state are not authentic; they are not used";
                    shared.journal.event(Level::Warn, event, &[source.settings().owner.label()]);
                }
            }
        }
        Ok(())
    }

    /// Reads the first `length` bytes of the set.
    async fn read(&self, length: usize) -> Result<Vec<u8>, Unanswered> {
        let mut get = cmd("GETRANGE");
        get.arg(&self.set).arg(0).arg(length - 1);
        self.call(Command::GetRange, get).await
    }

    /// Lets another gateway ask the issuer.
    pub(super) async fn end_turn(&self, began: Option<Instant>) {
        // After its end, the turn may be that of another gateway.
        if began.is_some_and(|began| began.elapsed() < TURN) {
            let mut del = cmd("DEL");
            del.arg(&self.turn);
            // Without an answer, the turn ends by itself.
            drop(self.call::<Value>(Command::Del, del).await);
        }
    }

    async fn take_turn(&self) -> Result<bool, Unanswered> {
        let mut set = cmd("SET");
        set.arg(&self.turn)
            .arg("")
            .arg("NX")
            .arg("PX")
            .arg(u64::try_from(TURN.as_millis()).unwrap_or(u64::MAX));
        Ok(self.call::<Value>(Command::Set, set).await? == Value::Okay)
    }

    async fn call<T: FromRedisValue>(&self, command: Command, text: Cmd) -> Result<T, Unanswered> {
        let ask = |mut connection| async move {
            text.query_async(&mut connection).await.map_err(|error| command.failed(error))
        };
        self.link.call(ask).await
    }
}

impl PassedKeys {
    /// Reads the keys of a set. Returns `None` if the policy no longer has the source, or accepts none of the keys.
    fn of(shared: &Shared, source: &Arc<KeySource>, set: PassedSet) -> Option<Self> {
        let policy = shared.policy.load();
        let (.., algorithms) = policy.fetched_keys().find(|(known, ..)| Arc::ptr_eq(known, source))?;
        let (keys, skipped) = KeySet::from_jwks(set.body(), algorithms).ok()?;
        Some(Self { set, keys, skipped, algorithms: algorithms.to_vec() })
    }

    /// Returns the use of the set.
    pub(super) fn worth(&self, source: &KeySource) -> Worth {
        source.worth(&self.set, self.keys.iter().map(Key::id), Now::read())
    }

    /// Applies the set for what it is worth. Returns the set and its keys; `None` if it cannot be used: it has just become
    /// too old, or a reload has changed the algorithms or removed the source.
    pub(super) fn take(
        self,
        shared: &Shared,
        source: &Arc<KeySource>,
        worth: Worth,
    ) -> Option<(Arc<GoodSet>, KeySet)> {
        let Self { set, keys, skipped, algorithms } = self;
        let now = Now::read();
        let policy = shared.policy.load();
        let (_, ours, accepted) = policy.fetched_keys().find(|(known, ..)| Arc::ptr_eq(known, source))?;
        if *accepted != *algorithms {
            return None;
        }
        let (has_before, was_failing) = (source.good(now).is_some(), source.status().error.is_some());
        let good = source.take_over(set, worth, &skipped, now)?;
        log_changes(shared, &source.settings().owner, (&keys, &ours), &skipped, has_before);
        if was_failing && worth == Worth::Fetch {
            log_recovery(shared, source);
        }
        source.passed().add(Passed::Taken);
        publish(shared, source, now);
        Some((good, keys))
    }
}
