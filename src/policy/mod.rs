//! What the gateway obeys: an immutable snapshot, complete and consistent. Holding one is enough to decide any
//! request.

mod case;
mod cleartext;
mod compile;
mod faults;
pub mod findings;
mod live;
mod question;
mod server_settings;
mod waivers;

pub use case::{Case, Expectation, ExpectedVerdict};
pub(crate) use compile::endpoint_limits;
pub use compile::{Compiled, compile, compile_after};
pub(crate) use faults::Faults;
pub use live::{LivePolicy, Pinned, PinnedPolicy};
pub use question::{Credential, NOBODYS_ADDRESS, Question};
pub use server_settings::ServerSettings;
pub use waivers::{SortedFindings, WaivedFinding, Waivers};

use crate::authenticate::{CredentialPolicy, KeySet, Trust};
use crate::authority::{Authority, Compat, Endpoint, IssuerSettings};
use crate::authorize::{Rule, ShadowMode};
use crate::config::network::Cidr;
use crate::denial::Denial;
use crate::forward::{BodyBounds, Delivery, Proofs, Upstream};
use crate::limit::{Limit, Limits};
use crate::metrics::RouteCounters;
use crate::peer::Scheme;
use crate::respond::compat::Places;
use crate::route::head::HeadBounds;
use crate::route::path::Slashes;
use crate::route::{Head, Matcher, RouteTable};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use std::sync::Arc;

/// A compiled policy. Cheap to clone: one that differs in a part shares the others.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which route covers a head: positions in `routes`.
    pub table: Arc<RouteTable<usize>>,
    /// The routes, in the order of the file.
    pub routes: Arc<[Route]>,
    /// Whose tokens are believed.
    pub trust: Arc<Trust>,
    /// What the local authority issues, if there is one.
    pub issuer_settings: Option<Arc<IssuerSettings>>,
    /// The local authority at work, where this policy is served: it outlives the policies that mean it.
    pub authority: Option<Arc<Authority>>,
    /// What holds for all requests.
    pub front: Arc<Front>,
    /// What proves identity to upstreams.
    pub proofs: Arc<Proofs>,
    /// The upstreams, for telling of their health.
    pub upstreams: Arc<[Arc<Upstream>]>,
    /// The limits, for telling of their refusals.
    pub limits: Arc<[Arc<Limit>]>,
}

impl Policy {
    /// Whose clients are not to notice that they talk to another issuer.
    pub fn compat(&self) -> Option<Compat> {
        self.issuer_settings.as_deref()?.compat
    }

    /// The origins whose scripts may read the gateway's own answers, and whose requests with cookies are accepted.
    pub fn origins(&self) -> &[Box<str>] {
        self.issuer_settings.as_deref().map_or(&[], |settings| &settings.origins)
    }

    /// Where a route looks for a token.
    pub fn places(&self, route: Option<usize>) -> Places<'_> {
        let route = route.and_then(|route| self.routes.get(route));
        let refresh = route.is_some_and(|route| match route.handler {
            Handler::Answer(endpoint) => endpoint == Endpoint::Refresh,
            Handler::Forward(_) => false,
        });
        let cookies = self.trust.cookies();
        let cookie = cookies.map(|names| if refresh { &*names.refresh } else { &*names.access });
        Places { sources: route.map(|route| &route.admission.sources), cookie, refresh }
    }

    /// This policy with other keys of one issuer.
    #[must_use]
    pub fn with_keys(&self, issuer: &str, keys: &KeySet) -> Self {
        Self { trust: Arc::new(self.trust.with_keys(issuer, keys)), ..self.clone() }
    }
}

/// One compiled part for each stage: how fast, whom to trust, what to require, where to.
#[derive(Debug)]
pub struct Route {
    /// In logs and metrics.
    pub name: Arc<str>,
    /// Its place in `Policy::routes`.
    pub index: usize,
    /// What it covers; the authority's endpoints cover more, on each host that the policy names.
    pub matcher: Matcher,
    /// How fast.
    pub limits: Limits,
    /// Whether a token is needed, and where it may be.
    pub admission: CredentialPolicy,
    /// What the token must say.
    pub rule: Rule,
    /// What is done with a request that may pass.
    pub handler: Handler,
    /// Whether a browser without a token is sent to the login page.
    pub login_page: bool,
    /// The field of a form that may carry the CSRF token.
    pub csrf_field: Option<Box<str>>,
    /// Present in shadow mode: refusals are logged and counted but not enforced.
    pub shadow: Option<ShadowMode>,
    /// What became of its requests.
    pub counters: Arc<RouteCounters>,
}

/// What is done with a request that may pass.
#[derive(Debug)]
pub enum Handler {
    /// It is sent on.
    Forward(Delivery),
    /// The local authority answers.
    Answer(Endpoint),
}

/// What holds for all requests, before a route is known.
#[derive(Debug)]
pub struct Front {
    /// How large a head may be.
    pub head_bounds: HeadBounds,
    /// How large and slow a body may be.
    pub body_bounds: BodyBounds,
    /// What becomes of `//`.
    pub slashes: Slashes,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: Box<[Cidr]>,
    /// Values of `Host` that the admin listener accepts besides its addresses.
    pub admin_hosts: Box<[Box<str>]>,
    /// `Strict-Transport-Security`, unless it is turned off.
    pub hsts: Option<HeaderValue>,
    /// Whether upstreams get the client's verified token in `Authorization`.
    pub forward_token: bool,
    /// Fields of other products that pass from a trusted proxy.
    pub pass: Box<[HeaderName]>,
    /// Whether decisions are kept in memory for a while.
    pub keeps_decisions: bool,
    /// Whether requests in cleartext are sent to TLS.
    pub redirect: bool,
}

impl Front {
    /// Whether requests with this scheme are redirected to TLS. The scheme of the listener counts, and so does the
    /// client's scheme according to a trusted proxy.
    pub fn redirects(&self, scheme: Scheme) -> bool {
        self.redirect && scheme == Scheme::Http
    }

    /// Reads the head of a request as the policy has heads read.
    ///
    /// # Errors
    /// As [`Head::read`].
    pub fn head<'r>(&self, parts: &'r Parts) -> Result<Head<'r>, Denial> {
        Head::read(parts, self.head_bounds, self.slashes)
    }

    /// Reads the head of a trusted proxy's question, which has more fields than the original request.
    ///
    /// # Errors
    /// As [`Head::read`].
    #[cold]
    pub fn question<'r>(&self, parts: &'r Parts) -> Result<Head<'r>, Denial> {
        Head::read(parts, self.head_bounds.of_question(), self.slashes)
    }
}
