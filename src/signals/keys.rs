//! The keys that verify the signals of a receiver.

use crate::authenticate::{Issuer, KeySet};
use crate::clock::Now;
use crate::key_source::KeySource;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// The source of a receiver's keys.
#[derive(Debug)]
pub enum SignalKeys {
    /// The transmitter signs with the keys of the issuer.
    OfIssuer,
    /// The keys of a file.
    Fixed(KeySet),
    /// The keys of a URL.
    Fetched(FetchedKeys),
}

/// Keys of a transmitter that are fetched. They are empty until the first fetch.
#[derive(Debug)]
pub struct FetchedKeys {
    source: Arc<KeySource>,
    keys: ArcSwap<KeySet>,
}

impl SignalKeys {
    /// Returns the keys that are fetched from this source, with these keys until the next fetch.
    pub fn fetched(source: Arc<KeySource>, keys: KeySet) -> Self {
        Self::Fetched(FetchedKeys { source, keys: ArcSwap::from_pointee(keys) })
    }

    /// Returns the keys in force and the place that they are fetched from. `issuer` is the issuer in the policy in force.
    pub(super) fn current<'i>(&'i self, issuer: &'i Issuer) -> (KeySet, Option<&'i Arc<KeySource>>) {
        match self {
            Self::OfIssuer => (issuer.keys.clone(), issuer.source.as_ref()),
            Self::Fixed(keys) => (keys.clone(), None),
            Self::Fetched(fetched) => (KeySet::clone(&fetched.keys.load()), Some(&fetched.source)),
        }
    }

    /// Returns the receiver's own source and the keys that it gave.
    pub fn own_source(&self) -> Option<(&Arc<KeySource>, KeySet)> {
        match self {
            Self::OfIssuer | Self::Fixed(_) => None,
            Self::Fetched(fetched) => Some((&fetched.source, KeySet::clone(&fetched.keys.load()))),
        }
    }

    /// Puts the last good set of the receiver's own source into force. Without a good set there are no keys.
    pub(crate) fn refresh(&self, issuer: &Issuer, now: Now) {
        if let Self::Fetched(FetchedKeys { source, keys }) = self {
            let good = source.good(now);
            let set = good.and_then(|good| KeySet::from_jwks(&good.body, &issuer.algorithms).ok());
            keys.store(Arc::new(set.map(|(set, _)| set).unwrap_or_default()));
        }
    }
}
