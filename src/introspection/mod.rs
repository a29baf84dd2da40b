//! Asks issuers about tokens that only the issuer can verify (RFC 7662). Keeps the answers for a bounded time.
//!
//! The control thread sends the questions. A request waits for the answer to its token (`flights`). There is at most
//! one open question for each token. The number of open questions and the rate of questions about unknown tokens are
//! bounded.
//!
//! An answer is stored under the SHA-256 of its token (`answers`). The token itself is dropped after its question.

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

/// The gateway's own authentication at the endpoint.
#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    /// The gateway does not authenticate.
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

/// The settings for questions to one issuer. Equal settings give the same answers.
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
    /// The prefixes of the issuer's opaque tokens. If there are none, every opaque token is one of this issuer.
    pub prefixes: Box<[Box<str>]>,
    /// The maximum age of an answer about an active token.
    pub max_age: Duration,
    /// The maximum age of an answer about an inactive token.
    pub negative_max_age: Duration,
    /// The timeout of a question.
    pub timeout: Duration,
    /// The maximum number of questions about unknown tokens in `per`.
    pub rate: u32,
    /// The time to which `rate` refers.
    pub per: Duration,
    /// The maximum number of open questions.
    pub concurrent: usize,
    /// A digest of the accepted certificate authorities.
    pub authorities: [u8; 32],
    /// The networks that may be reached in addition to the public Internet.
    pub networks: Networks,
    /// Whether questions may be sent in cleartext.
    pub allows_http: bool,
}

impl IntrospectionSettings {
    /// Returns settings for tests: questions to `https://id.example.com/introspect`. Callers replace the fields that
    /// matter to them.
    ///
    /// # Panics
    /// Never: the endpoint is a URL.
    #[doc(hidden)]
    pub fn for_tests() -> Self {
        Self {
            issuer: Arc::from("https://id.example.com"),
            endpoint: Endpoint::Url(Url::parse("https://id.example.com/introspect").expect("a URL")),
            authentication: Authentication::None,
            signed_for: None,
            always: false,
            prefixes: Box::new([]),
            max_age: Duration::from_secs(60),
            negative_max_age: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            rate: 100,
            per: Duration::from_secs(1),
            concurrent: 8,
            authorities: [0; 32],
            networks: Networks::default(),
            allows_http: false,
        }
    }
}

/// The endpoint of an issuer.
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
    /// Returns the introspector of the previous policy if the settings are equal; otherwise creates one without
    /// answers.
    ///
    /// # Errors
    /// Returns an error if the TLS library rejects the gateway's settings.
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

    /// Returns the state for operators.
    pub fn status(&self) -> Status {
        self.state().status()
    }

    /// Stores an answer without asking an issuer.
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
