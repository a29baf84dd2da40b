//! Keys that an issuer publishes at a URL.
//!
//! A request never fetches keys. The control thread runs at most one fetch at a time for each source. Requests with an
//! unknown `kid` wait for this fetch (`demand`), up to a maximum number and time. The last good set outlives reloads of
//! the policy and, as a copy on disk, restarts (`copy`). It is never used beyond its maximum age.

mod copy;
mod demand;
mod discovery;
mod fetch;
mod passed;
mod schedule;
mod state;
#[cfg(test)]
mod tests;

pub use copy::{Copy, delete_old};
pub use demand::{Asked, Demand, WAIT_MAX, Waited, Wanted};
pub use discovery::{endpoint_of, metadata_urls};
pub use fetch::{FetchError, Fetched};
pub(crate) use fetch::{METADATA_AGE, MetadataMember};
pub use passed::{Forged, MAC, Passed, PassedCounts, PassedSet, SEALED_MAX, SetSecrets, Worth};
pub use state::{GoodSet, Origin, Status};

use crate::clock::Now;
use crate::outbound::{Client, Networks, Settings, Url};
use rustls::RootCertStore;
use state::State;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The URL or URLs at which an issuer publishes its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The key set itself.
    KeySet(Url),
    /// The issuer's metadata, which contain the URL of the key set. The URLs are tried in this order.
    Metadata(Vec<Url>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeySet(url) => url.fmt(f),
            Self::Metadata(urls) => match urls.first() {
                Some(first) => first.fmt(f),
                None => f.write_str("no metadata"),
            },
        }
    }
}

/// The table of the policy whose keys are fetched. The two kinds of names never meet, because an issuer may have any
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The `[[issuer]]` of this name. Its metadata must repeat the name.
    Issuer(Arc<str>),
    /// `[signals.NAME]`.
    Signals(Arc<str>),
}

impl Owner {
    /// Returns the kind and the name, as a label of metrics and a field of the log.
    pub fn label(&self) -> (&'static str, &str) {
        match self {
            Self::Issuer(name) => ("issuer", name),
            Self::Signals(name) => ("signals", name),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.label().1
    }

    /// Returns whether the keys are those of a `[signals.NAME]`.
    pub const fn is_of_signals(&self) -> bool {
        matches!(self, Self::Signals(_))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer(name) => f.write_str(name),
            Self::Signals(name) => write!(f, "[signals.{name}]"),
        }
    }
}

/// The settings for fetching the keys of an issuer. Equal settings fetch the same keys from the same URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// The owner of the keys.
    pub owner: Owner,
    /// The location of the keys.
    pub location: Location,
    /// A digest of the accepted certificate authorities.
    pub authorities: [u8; 32],
    /// The networks that may be reached in addition to the public Internet.
    pub networks: Networks,
    /// Whether the keys may be fetched in cleartext.
    pub allows_http: bool,
    /// The longest time between two fetches.
    pub refresh: Duration,
    /// The maximum age of a set since it was fetched or confirmed.
    pub max_age: Duration,
    /// The minimum time between the starts of two fetches that requests cause.
    pub cooldown: Duration,
    /// The file of the copy on disk.
    pub copy: PathBuf,
}

impl SourceSettings {
    /// Returns whether both settings fetch from the same location. Times are ignored.
    fn is_same_place(&self, other: &Self) -> bool {
        // The pattern lists all fields, so that a new field cannot be forgotten here.
        let Self {
            owner,
            location,
            authorities,
            networks,
            allows_http,
            copy,
            refresh: _,
            max_age: _,
            cooldown: _,
        } = self;
        *owner == other.owner
            && *location == other.location
            && *authorities == other.authorities
            && *networks == other.networks
            && *allows_http == other.allows_http
            && *copy == other.copy
    }
}

/// The keys that one issuer publishes at a URL. The source outlives the policies that refer to it.
pub struct KeySource {
    settings: SourceSettings,
    client: Client,
    demand: Arc<Demand>,
    state: Arc<Mutex<State>>,
    passed: Arc<PassedCounts>,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KeySource {
    /// Returns the source of the previous policy if the settings are equal; otherwise creates a source. A new source
    /// with the same location takes over the last good set and the counts. Any other new source begins with the copy on
    /// disk, unless the copy is too old.
    ///
    /// # Errors
    /// Returns an error if the TLS library rejects the gateway's settings.
    pub fn after(
        settings: SourceSettings,
        roots: Arc<RootCertStore>,
        before: Option<&Arc<Self>>,
        now: Now,
    ) -> Result<Arc<Self>, String> {
        if let Some(same) = before.filter(|before| before.settings == settings) {
            return Ok(same.clone());
        }
        let client = Client::new(Settings {
            roots,
            networks: settings.networks.clone(),
            allows_http: settings.allows_http,
            idle: 0,
        })?;
        let same_place = before.filter(|before| before.settings.is_same_place(&settings));
        let (demand, state, passed) = match same_place {
            Some(before) => (before.demand.clone(), before.state.clone(), before.passed.clone()),
            None => {
                let copy = Copy::read(&settings, now);
                let state = State::begin(copy, settings.max_age, now);
                (Arc::default(), Arc::new(Mutex::new(state)), Arc::default())
            }
        };
        Ok(Arc::new(Self { settings, client, demand, state, passed }))
    }

    /// Returns the settings.
    pub const fn settings(&self) -> &SourceSettings {
        &self.settings
    }

    /// Returns the requests that wait.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Returns the counts of sets that gateways pass to each other.
    pub fn passed(&self) -> &PassedCounts {
        &self.passed
    }

    /// Returns the last good set, unless it is too old.
    pub fn good(&self, now: Now) -> Option<Arc<GoodSet>> {
        self.state().good(self.settings.max_age, now)
    }

    /// Returns whether no fetch has ended since the start.
    pub fn is_untried(&self) -> bool {
        self.state().is_untried()
    }

    /// Returns what operators ask about.
    pub fn status(&self) -> Status {
        self.state().status(&self.settings)
    }

    /// Records a usable set, or the confirmation of the last set. `skipped` contains the reasons why keys of a new set
    /// are not used. Returns the set to use.
    ///
    /// # Errors
    /// Returns an error if the answer confirms the last set, but that set is too old.
    pub fn succeeded(
        &self,
        fetched: Fetched,
        skipped: Option<Vec<String>>,
        first_seen: BTreeMap<String, u64>,
        now: Now,
    ) -> Result<Arc<GoodSet>, FetchError> {
        let mut state = self.state();
        state.succeeded(fetched, skipped, first_seen, &self.settings, now);
        state.good(self.settings.max_age, now).ok_or_else(|| {
            let why = "304 for a set that is no longer kept".to_owned();
            FetchError { kind: "content", why }
        })
    }

    /// Records a failed fetch. The last good set stays in use. Returns whether the reason differs from the previous
    /// failure's reason.
    pub fn failed(&self, error: FetchError, now: Now) -> bool {
        let mut state = self.state();
        let is_news = state.last_error().is_none_or(|last| *last != error);
        state.failed(error, &self.settings, now);
        is_news
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
