//! Asks issuers about tokens that only they can judge (RFC 7662). Keeps the answers for a bounded time.
//!
//! A request never asks by itself. `control` sends the questions; a request waits for the answer to its token
//! (`flights`). For each token there is at most one question at a time. The number of open questions and the rate of
//! questions about unknown tokens are bounded. An answer is kept by the SHA-256 of its token (`answers`), so a token is
//! never kept after its question.

mod answers;
mod exchange;
mod flights;
mod state;
#[cfg(test)]
mod tests;

pub use exchange::Answered;
pub use flights::{Asked, Inquiry, Unanswered};
pub use state::{LATENCIES, Status};

use crate::clock::Now;
use crate::key_source::Location;
use crate::outbound::{Client, Networks, Settings, Url};
use rustls::RootCertStore;
use state::State;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// The SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// The number of unused connections that are kept open to an endpoint.
const IDLE: usize = 8;

/// How the gateway proves to the issuer that it may ask.
#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all.
    None,
    /// `client_secret_basic` (RFC 6749 section 2.3.1).
    Basic(Zeroizing<String>, Zeroizing<String>),
    /// `client_secret_post` (RFC 6749 section 2.3.1).
    Post(Zeroizing<String>, Zeroizing<String>),
    /// An access token (RFC 6750).
    Bearer(Zeroizing<String>),
}

impl fmt::Debug for Authentication {
    /// Shows the kind, and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic(..) => "Basic",
            Self::Post(..) => "Post",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// How one issuer is asked. Two equal values give the same answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntrospectionSettings {
    /// The issuer's name, which its metadata must repeat.
    pub issuer: Arc<str>,
    /// The endpoint, or the metadata that name it.
    pub endpoint: Endpoint,
    /// The gateway's credentials.
    pub authentication: Authentication,
    /// The audience of a signed answer (RFC 9701); `None` if answers are plain JSON.
    pub signed_for: Option<Box<str>>,
    /// Whether the issuer is also asked about tokens whose signature the gateway verifies.
    pub always: bool,
    /// The beginnings of the issuer's opaque tokens. Without one, the issuer is asked about every opaque token.
    pub prefixes: Box<[Box<str>]>,
    /// The longest time for which an answer about an active token is used.
    pub max_age: Duration,
    /// How long an answer about an inactive token is used.
    pub negative_max_age: Duration,
    /// The longest time for one question.
    pub timeout: Duration,
    /// How many questions about unknown tokens are asked in `per`.
    pub rate: u32,
    /// The time to which `rate` refers.
    pub per: Duration,
    /// The number of open questions.
    pub concurrent: usize,
    /// A digest of the accepted certificate authorities.
    pub authorities: [u8; 32],
    /// The networks that may be reached besides the public Internet.
    pub networks: Networks,
    /// Whether the issuer may be asked in cleartext.
    pub allows_http: bool,
}

/// Where an issuer is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The endpoint itself.
    Url(Url),
    /// The issuer's metadata, which name the endpoint: the URLs to try, in order.
    Metadata(Vec<Url>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Metadata(urls) => Location::Metadata(urls.clone()).fmt(f),
        }
    }
}

/// An answer about a token, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The token is active.
    Active {
        /// The claims of the answer, as JSON.
        claims: Arc<[u8]>,
        /// The time after which the answer is not used, in seconds since 1970.
        until: u64,
    },
    /// The token is not active: the issuer does not know it, or it has expired or was revoked.
    Inactive,
}

/// An answer about a token, as the issuer gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token is active and has these claims, as JSON.
    Active(Vec<u8>),
    /// The token is not active.
    Inactive,
}

/// The questions to one issuer and its answers. It outlives the policies that refer to it.
pub struct Introspector {
    settings: IntrospectionSettings,
    client: Client,
    state: Mutex<State>,
    /// Wakes the task that sends questions.
    queued: Notify,
}

impl fmt::Debug for Introspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Introspector {
    /// Creates an introspector without answers, or returns the one of the previous policy if nothing changed.
    ///
    /// # Errors
    /// If the TLS library rejects its own settings.
    pub fn after(
        settings: IntrospectionSettings,
        roots: Arc<RootCertStore>,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        if let Some(same) = before.filter(|before| before.settings == settings) {
            return Ok(same.clone());
        }
        let client = Client::new(Settings {
            roots,
            networks: settings.networks.clone(),
            allows_http: settings.allows_http,
            idle: IDLE,
        })?;
        Ok(Arc::new(Self { settings, client, state: Mutex::default(), queued: Notify::new() }))
    }

    /// Returns the settings.
    pub const fn settings(&self) -> &IntrospectionSettings {
        &self.settings
    }

    /// Returns the answer about a token, unless it has become too old.
    pub fn standing(&self, digest: &TokenDigest, now: Now) -> Option<Standing> {
        let mut state = self.state();
        let found = state.answers.find(digest, now);
        state.hits += u64::from(found.is_some());
        found
    }

    /// Returns what operators ask about.
    pub fn status(&self) -> Status {
        self.state().status()
    }

    /// Keeps an answer that no issuer gave.
    #[cfg(test)]
    pub(crate) fn answer_for_tests(&self, digest: TokenDigest, verdict: Verdict, now: Now) {
        let mut state = self.state();
        match verdict {
            Verdict::Active(claims) => state.answers.keep_active(digest, &claims, self.settings.max_age, now),
            Verdict::Inactive => state.answers.keep_inactive(digest, self.settings.negative_max_age, now),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
