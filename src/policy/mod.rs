//! The policy that the gateway enforces: an immutable and complete snapshot. A request is decided by a single snapshot.

mod case;
mod cleartext;
mod compile;
mod faults;
pub mod findings;
mod live;
mod question;
pub(crate) mod resource;
mod server_settings;
mod waivers;

pub use case::{Case, Expectation, ExpectedVerdict};
pub use compile::{Compiled, PolicyIdentity, compile, compile_after};
pub(crate) use compile::{endpoint_limits, hsts};
pub(crate) use faults::Faults;
pub use live::{LivePolicy, Pinned, PinnedPolicy};
pub use question::{Credential, NOBODYS_ADDRESS, Question};
pub use resource::ProtectedResource;
pub use server_settings::{ProxyProtocol, ServerSettings};
pub use waivers::{SortedFindings, WaivedFinding, Waivers};

use crate::api_key_file::ApiKeyFile;
use crate::authenticate::{Algorithm, ApiKeys, CredentialPolicy, KeySet, Trust};
use crate::authority::{Authority, Compat, Endpoint, IssuerSettings};
use crate::authorize::{Rule, ShadowMode};
use crate::clock::Now;
use crate::config::network::Cidr;
use crate::counter::CoreValue;
use crate::denial::Denial;
use crate::forward::edits::AnswerFields;
use crate::forward::files::Files;
use crate::forward::{BodyBounds, Delivery, Proofs, Upstream};
use crate::key_source::KeySource;
use crate::limit::{Fleet, Limit, Limits};
use crate::metrics::RouteCounters;
use crate::peer::Scheme;
use crate::respond::coding::Compression;
use crate::respond::compat::SearchedPlaces;
use crate::respond::cors::Cors;
use crate::respond::redirect::Redirect;
use crate::route::head::HeadBounds;
use crate::route::path::Slashes;
use crate::route::{Head, KnownHost, Matcher, RouteTable};
use crate::shared::{Link, SharedSettings};
use crate::signals::{FileWriter, Receiver, Recorder, SignalKind};
use crate::tls::{ClientRule, HostMap};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use std::sync::Arc;

/// A compiled policy. Clones are cheap, because they share their parts.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The route table. Its entries are indexes of `routes`.
    pub table: Arc<RouteTable<usize>>,
    /// The routes, in the order of the file.
    pub routes: Arc<[Route]>,
    /// The trusted issuers.
    pub trust: Arc<Trust>,
    /// The settings of the local authority, if the policy has one.
    pub issuer_settings: Option<Arc<IssuerSettings>>,
    /// The running local authority, if this policy is served and has one. It outlives the policy.
    pub authority: Option<Arc<Authority>>,
    /// The settings that apply to a request before its route is known.
    pub front: Arc<Front>,
    /// The identity proofs for upstreams.
    pub proofs: Arc<Proofs>,
    /// The upstreams, for health reports.
    pub upstreams: Arc<[Arc<Upstream>]>,
    /// The limits, for reports.
    pub limits: Arc<[Arc<Limit>]>,
    /// The file of API keys, if the policy accepts API keys.
    pub api_key_file: Option<Arc<ApiKeyFile>>,
    /// The protected resources whose metadata the gateway publishes.
    pub resources: Arc<[Arc<ProtectedResource>]>,
    /// The receivers of signals.
    pub receivers: Arc<[Arc<Receiver>]>,
    /// The file that stores the revocations from security events; `None` if the policy is not served or has no signals.
    /// The file outlives the policy.
    pub signal_file: Option<Arc<FileWriter>>,
    /// The settings of the shared state, if the policy has one.
    pub shared_settings: Option<Arc<SharedSettings>>,
    /// The connection to the shared state, if this policy is served and has one. It outlives the policy.
    pub link: Option<Arc<Link>>,
    /// The gateways that share limits, if the policy has a shared state. It outlives the policy.
    pub fleet: Option<Arc<Fleet>>,
}

impl Policy {
    /// Returns the product whose responses the local authority imitates, if any.
    pub fn compat(&self) -> Option<Compat> {
        self.issuer_settings.as_deref()?.compat
    }

    /// Returns the origins whose requests may use cookies. Scripts of these origins may read the gateway's own
    /// responses.
    pub fn origins(&self) -> &[Box<str>] {
        self.issuer_settings.as_deref().map_or(&[], |settings| &settings.origins)
    }

    /// Returns where a route looks for a token.
    pub fn places(&self, route: Option<usize>) -> SearchedPlaces<'_> {
        let endpoint = route.and_then(|route| self.endpoint(route));
        let route = route.and_then(|route| self.routes.get(route));
        let refresh = endpoint == Some(Endpoint::Refresh);
        let cookies = self.trust.cookies();
        let cookie = cookies.map(|names| if refresh { &*names.refresh } else { &*names.access });
        SearchedPlaces { sources: route.map(|route| &route.credential_policy.sources), cookie, refresh }
    }

    /// Returns the endpoint of the local authority that answers the requests of a route.
    pub(crate) fn endpoint(&self, route: usize) -> Option<Endpoint> {
        match self.routes.get(route)?.handler {
            Handler::Answer(endpoint) => Some(endpoint),
            Handler::Forward(_)
            | Handler::Files(_)
            | Handler::Publish(_)
            | Handler::Redirect(_)
            | Handler::Receive(..) => None,
        }
    }

    /// Returns the recorder of revocations by signals.
    pub fn recorder(&self) -> Recorder {
        let marks = self.trust.revoked().signals().clone();
        Recorder::new(marks, self.authority.clone(), self.signal_file.clone())
    }

    /// Returns a copy of this policy with these API keys.
    #[must_use]
    pub fn with_api_keys(&self, keys: Arc<ApiKeys>) -> Self {
        Self { trust: Arc::new(self.trust.with_api_keys(keys)), ..self.clone() }
    }

    /// Returns this policy with a trust that replaces that of `before`.
    #[must_use]
    pub(crate) fn succeeding(self, before: &Self) -> Self {
        let has_same_file = self.api_key_file == before.api_key_file;
        let trust = Trust::clone(&self.trust).succeeding(&before.trust, has_same_file);
        Self { trust: Arc::new(trust), ..self }
    }

    /// Returns a copy of this policy with new keys for one issuer.
    #[must_use]
    pub fn with_keys(&self, issuer: &str, keys: &KeySet) -> Self {
        Self { trust: Arc::new(self.trust.with_keys(issuer, keys)), ..self.clone() }
    }

    /// Returns a copy of this policy with the last valid key set of a source.
    #[must_use]
    pub(crate) fn with_fetched(&self, source: &Arc<KeySource>, now: Now) -> Self {
        for receiver in self.receivers.iter() {
            let is_ours = receiver.keys.own_source().is_some_and(|(known, _)| Arc::ptr_eq(known, source));
            if let (true, Some(issuer)) = (is_ours, self.trust.issuer_named(&receiver.issuer)) {
                receiver.keys.refresh(issuer, now);
            }
        }
        Self { trust: Arc::new(self.trust.with_fetched(source, now)), ..self.clone() }
    }

    /// Returns the keys of all key URLs: the source, the keys in use and the accepted algorithms.
    pub(crate) fn fetched_keys(&self) -> impl Iterator<Item = (&Arc<KeySource>, KeySet, &[Algorithm])> {
        let of_issuers = self.trust.issuers().iter().filter_map(|issuer| {
            issuer.source.as_ref().map(|source| (source, issuer.keys.clone(), &issuer.algorithms[..]))
        });
        let of_receivers = self.receivers.iter().filter_map(|receiver| {
            let (source, keys) = receiver.keys.own_source()?;
            Some((source, keys, &self.trust.issuer_named(&receiver.issuer)?.algorithms[..]))
        });
        of_issuers.chain(of_receivers)
    }
}

/// A route, with one compiled part for each stage of a request.
#[derive(Debug)]
pub struct Route {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// The index in `Policy::routes`.
    pub index: usize,
    /// The requests that the route covers. An endpoint of the authority covers every host in the policy.
    pub matcher: Matcher,
    /// The rate limits.
    pub limits: Limits,
    /// Whether a token is required, and where the request may contain it.
    pub credential_policy: CredentialPolicy,
    /// The requirements on the token.
    pub rule: Rule,
    /// The handler of allowed requests.
    pub handler: Handler,
    /// Whether a browser without a token is redirected to the login page.
    pub login_page: bool,
    /// The name of the form field for the CSRF token.
    pub csrf_field: Option<Box<str>>,
    /// Set if the route is in shadow mode. Rejections are then logged and counted, but not enforced.
    pub shadow: Option<ShadowMode>,
    /// The answers to scripts of other origins. `None` if the upstream decides about CORS itself.
    pub(crate) cors: Option<Arc<Cors>>,
    /// Set if the route refuses all requests for a while. The value is the time after which clients try again, in
    /// seconds.
    pub maintenance: Option<u32>,
    /// The compression of the answers. `None` if they are passed on as they are.
    pub(crate) compression: Option<Box<Compression>>,
    /// The request counters.
    pub counters: Arc<RouteCounters>,
}

impl Route {
    /// Returns the changes to the fields of answers. All upstreams of a split have the same.
    pub(crate) fn answer_fields(&self) -> Option<&AnswerFields> {
        match &self.handler {
            Handler::Forward(delivery) => delivery.answer_fields.as_deref(),
            Handler::Files(files) => files.answer_fields.as_deref(),
            Handler::Answer(_) | Handler::Redirect(_) | Handler::Publish(_) | Handler::Receive(..) => None,
        }
    }
}

/// The handler of allowed requests.
#[derive(Debug)]
pub enum Handler {
    /// Forwards the request.
    Forward(Delivery),
    /// Answers the request as an endpoint of the local authority.
    Answer(Endpoint),
    /// Answers the request with the metadata of a protected resource.
    Publish(Arc<ProtectedResource>),
    /// Redirects the request.
    Redirect(Redirect),
    /// Answers the request with a file.
    Files(Box<Files>),
    /// Answers the request as a receiver of signals.
    Receive(Arc<Receiver>, SignalKind),
}

impl Handler {
    /// Returns the status of a redirect. `None` if the handler does not redirect.
    pub(crate) fn redirect_status(&self) -> Option<StatusCode> {
        match self {
            Self::Redirect(redirect) => Some(redirect.status()),
            Self::Forward(_) | Self::Files(_) | Self::Answer(_) | Self::Publish(_) | Self::Receive(..) => {
                None
            }
        }
    }

    /// Whether an endpoint of the gateway answers the request, and not a `[[route]]` of the file.
    pub const fn is_own(&self) -> bool {
        match self {
            Self::Forward(_) | Self::Files(_) | Self::Redirect(_) => false,
            Self::Answer(_) | Self::Publish(_) | Self::Receive(..) => true,
        }
    }

    /// Returns whether WebSockets, long answers and long uploads end with the caller's token. `None` if the handler has no
    /// such streams.
    pub(crate) const fn ends_with_token(&self) -> Option<bool> {
        match self {
            Self::Forward(delivery) => Some(delivery.ends_with_token),
            Self::Files(files) => Some(files.ends_with_token),
            Self::Answer(_) | Self::Publish(_) | Self::Redirect(_) | Self::Receive(..) => None,
        }
    }
}

/// The settings that apply before the route of a request is known.
#[derive(Debug)]
pub struct Front {
    /// The bounds on the request head.
    pub head_bounds: HeadBounds,
    /// The bounds on the size and speed of the request body.
    pub body_bounds: BodyBounds,
    /// The treatment of `//` in paths.
    pub slashes: Slashes,
    /// The proxies whose forwarding headers are trusted.
    pub trusted_proxies: Box<[Cidr]>,
    /// Additional `Host` values that the admin listener accepts.
    pub admin_hosts: Box<[Box<str>]>,
    /// The value of `Strict-Transport-Security`. `None` if it is not sent.
    pub(crate) hsts: Option<CoreValue>,
    /// Identity headers of other products. They are forwarded if a trusted proxy sends them.
    pub pass: Box<[HeaderName]>,
    /// Whether recent decisions are kept in memory.
    pub keeps_decisions: bool,
    /// Whether cleartext requests are redirected to TLS.
    pub redirect: bool,
    /// The rules for clients' certificates by host. `None` if every connection may carry requests for every host.
    pub client_rules: Option<Box<HostMap<Arc<ClientRule>>>>,
    /// Whether any answer depends on `Origin`.
    pub reads_origin: bool,
}

impl Front {
    /// Whether requests with this scheme are redirected to TLS. If a trusted proxy states the client's scheme, `scheme`
    /// is the client's scheme. Otherwise, it is the scheme of the listener.
    pub fn redirects(&self, scheme: Scheme) -> bool {
        self.redirect && scheme == Scheme::Http
    }

    /// Reads the head of a request, within the bounds of the policy.
    ///
    /// # Errors
    /// Returns the same errors as [`Head::read`].
    pub fn head<'r>(&self, parts: &'r Parts) -> Result<Head<'r>, Denial> {
        Head::read(parts, self.head_bounds, self.slashes)
    }

    /// Reads the head of a request like [`Self::head`]. `known` is the last `Host` of the connection.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Head::read`].
    pub(crate) fn head_after<'r>(&self, known: &KnownHost, parts: &'r Parts) -> Result<Head<'r>, Denial> {
        Head::read_after(Some(known), parts, self.head_bounds, self.slashes)
    }

    /// Reads the head of a forward-auth request from a trusted proxy. The bounds are wider, because the request has
    /// additional fields.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Head::read`].
    #[cold]
    pub fn question<'r>(&self, parts: &'r Parts) -> Result<Head<'r>, Denial> {
        Head::read(parts, self.head_bounds.of_question(), self.slashes)
    }
}
