//! Applies and reports new keys of an issuer, which the gateway fetched or another gateway passed on.

use crate::authenticate::{Key, KeySet};
use crate::clock::Now;
use crate::journal::Level;
use crate::key_source::{Copy, KeySource, Owner};
use crate::worker::Shared;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Returns the name of a key in logs and in the copy on disk.
pub(super) fn key_name(key: &Key) -> String {
    Copy::key_name(key.id(), key.algorithm().as_str())
}

/// Makes the current keys of a source part of the policy.
pub(super) fn publish(shared: &Shared, source: &Arc<KeySource>, now: Now) {
    shared.policy.update(|policy| policy.with_fetched(source, now));
}

/// Logs that a source answers again.
pub(super) fn log_recovery(shared: &Shared, source: &KeySource) {
    let fields = [source.settings().owner.label()];
    shared.journal.event(Level::Info, "the keys of an issuer can be fetched again", &fields);
}

/// Logs the added and removed keys, and the keys that cannot be used, if the set has changed.
pub(super) fn log_changes(
    shared: &Shared,
    owner: &Owner,
    (keys, known): (&KeySet, &KeySet),
    skipped: &[String],
    has_before: bool,
) {
    let names = |keys: &KeySet| keys.iter().map(key_name).collect::<BTreeSet<_>>();
    let (now, before) = (names(keys), names(known));
    if has_before && keys.is_same(known) {
        return;
    }
    let list = |names: Vec<&String>| {
        let shown: Vec<&str> = names.iter().take(10).map(|name| name.as_str()).collect();
        shown.join(", ")
    };
    let (kind, name) = owner.label();
    shared.journal.event_with(
        Level::Info,
        "the keys of an issuer were fetched",
        &[
            (kind, name.into()),
            ("keys", now.len().into()),
            ("new", (&list(now.difference(&before).collect())).into()),
            ("gone", (&list(before.difference(&now).collect())).into()),
            ("not_used", skipped.len().into()),
        ],
    );
    for why in skipped.iter().take(5) {
        let why: String = why.chars().take(300).collect();
        let fields = [owner.label(), ("why", &why)];
        shared.journal.event(Level::Warn, "a key of an issuer is not used", &fields);
    }
}
