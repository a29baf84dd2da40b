//! Compiles `[dpop]`: the settings of DPoP proofs.

use super::Faults;
use super::trust::resolve;
use crate::authenticate::DpopSettings;
use crate::authenticate::dpop::NonceKey;
use crate::config::file::{DpopNonce, File};
use std::time::Duration;

/// The maximum of `window`. Each proof is remembered for this time.
const WINDOW_MAX: Duration = Duration::from_secs(300);
/// The minimum of `replay_entries`. One client may use an eighth of the entries.
const ENTRIES_MIN: usize = 1000;
/// The maximum of `replay_entries`, which uses about 5 GB of memory.
const ENTRIES_MAX: usize = 100_000_000;

pub(super) fn compile(file: &File, faults: &mut Faults<'_>) -> DpopSettings {
    let table = &file.dpop;
    let window = Duration::from(table.window);
    if window.as_secs() == 0 || window > WINDOW_MAX {
        let hint = "use a duration from \"1s\" to \"5m\"";
        faults.fault("bad_value", "dpop.window", table.window.to_string(), hint);
    }
    if !(ENTRIES_MIN..=ENTRIES_MAX).contains(&table.replay_entries) {
        let hint = format!("use a number from {ENTRIES_MIN} to {ENTRIES_MAX}");
        faults.fault("bad_value", "dpop.replay_entries", table.replay_entries.to_string(), hint);
    }
    let secret = table.nonce_secret.as_ref().and_then(|secret| resolve("dpop.nonce_secret", secret, faults));
    if secret.as_ref().is_some_and(|secret| secret.len() < 32) {
        let hint = "use at least 256 random bits: openssl rand -hex 32";
        faults.fault("weak_secret", "dpop.nonce_secret", "a secret of fewer than 32 bytes", hint);
    }
    DpopSettings {
        window: window.as_secs(),
        requires_nonce: table.nonce == DpopNonce::Required,
        nonce_key: secret.as_deref().map(NonceKey::of),
        replay_entries: table.replay_entries,
        announce: table.announce,
    }
}
