//! Compiles `[dpop]`: the settings of DPoP proofs.

use super::Faults;
use super::secrets::resolve;
use crate::authenticate::DpopSettings;
use crate::authenticate::dpop::NonceKey;
use crate::config::file::{DpopNonce, File};
use crate::config::secret::Secret;
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
    let mut key_of = |key: &str, secret: Option<&Secret>| {
        let secret = resolve(key, secret?, faults)?;
        if secret.len() < 32 {
            let hint = "use at least 256 random bits: openssl rand -hex 32";
            faults.fault("weak_secret", key, "a secret of fewer than 32 bytes", hint);
        }
        Some(NonceKey::of(&secret))
    };
    let nonce_key = key_of("dpop.nonce_secret", table.nonce_secret.as_ref());
    let previous_nonce_key = key_of("dpop.previous_nonce_secret", table.previous_nonce_secret.as_ref());
    if table.previous_nonce_secret.is_some() && table.nonce_secret.is_none() {
        let hint = "set it: the gateway issues nonces with this secret only";
        faults.fault("missing_key", "dpop.nonce_secret", "nothing, beside previous_nonce_secret", hint);
    }
    DpopSettings {
        window: window.as_secs(),
        requires_nonce: table.nonce == DpopNonce::Required,
        nonce_key,
        previous_nonce_key,
        replay_entries: table.replay_entries,
        announce: table.announce,
        is_shared: file.shared.as_ref().is_some_and(|shared| shared.replay),
    }
}
