//! Reads the revocations that running gateways have recorded, for commands that check a token.

use crate::authority::apply_marks;
use crate::policy::Compiled;
use crate::signals::read_marks;
use crate::store::Store;
use std::path::Path;

/// Adds the marks of signals in the state folder to a compiled policy. Returns why the policy may accept a token that a
/// running gateway refuses as revoked.
pub(super) fn load_signals(compiled: &Compiled) -> Option<String> {
    let policy = &compiled.policy;
    if policy.issuer_settings.is_some() {
        return Some("they are in the store of [authority], which only --live asks".to_owned());
    }
    if policy.receivers.is_empty() {
        return None;
    }
    read_marks(&compiled.settings.state_dir, policy.trust.revoked().signals()).err()
}

/// Adds the revocations in the store and in the state folder to a compiled policy.
///
/// # Errors
/// Returns the reason why revocations cannot be read. The policy may then accept revoked tokens.
pub(super) fn load(compiled: &Compiled) -> Result<(), String> {
    let revoked = compiled.policy.trust.revoked();
    if !compiled.policy.receivers.is_empty() {
        read_marks(&compiled.settings.state_dir, revoked.signals())?;
    }
    let Some(settings) = &compiled.policy.issuer_settings else { return Ok(()) };
    // If no gateway has created the store yet, there are no revocations. A command that only reads must not create the
    // store.
    if settings.store.0.strip_prefix("sqlite:").is_some_and(|path| !Path::new(path).exists()) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let applied = runtime.block_on(async {
        let store = Store::open(&settings.store.0, Path::new("")).await?;
        apply_marks(&mut store.feed(), revoked, 0).await
    });
    applied.map(drop).map_err(|error| format!("[authority] store: {error}"))
}
