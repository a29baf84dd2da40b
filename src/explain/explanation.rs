//! The result of examining a request: a verdict, or an explanation of every step.

use super::describe::{fields, methods, places};
use super::near::NearRoute;
use crate::authenticate::{Access, CredentialPolicy, Principal, Sources};
use crate::denial::Denial;
use crate::policy::{Handler, Route};
use crate::route::Found;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::net::IpAddr;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request is allowed.
    Passed,
    /// The request arrived in cleartext and is redirected to https.
    Redirected,
    /// The request is refused.
    Refused(Denial),
}

impl Outcome {
    /// Whether the request is allowed.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Passed)
    }

    /// Returns `passed`, `redirected`, or the code of the refusal.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Redirected => "redirected",
            Self::Refused(denial) => denial.code(),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Outcome {
    /// Reads a refusal from its code. The other fields of the refusal are lost.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.as_str() {
            "passed" => Ok(Self::Passed),
            "redirected" => Ok(Self::Redirected),
            code => Denial::every()
                .into_iter()
                .find(|denial| denial.code() == code)
                .map(Self::Refused)
                .ok_or_else(|| de::Error::custom("a code that this version does not know")),
        }
    }
}

/// The verdict on a request: its route and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The position of the matching route in [`crate::policy::Policy::routes`].
    pub route: Option<usize>,
    /// The outcome, regardless of shadow mode.
    pub outcome: Outcome,
    /// Whether the request is refused but still forwarded, because its route is in shadow mode.
    pub shadow: bool,
}

impl Verdict {
    /// Whether the request is forwarded, because it is allowed or because its route is in shadow mode.
    pub fn reaches(&self) -> bool {
        self.shadow || self.outcome.passes()
    }
}

/// Every step of the decision on a request, and its outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The method of the request.
    pub method: String,
    /// The URL of the request, with scheme, host, path and query.
    pub url: String,
    /// The client's address. Rate limits by `client_ip` use this address.
    pub client: IpAddr,
    /// The host for routing; `None` if the request cannot be read.
    pub host: Option<String>,
    /// The path for routing and forwarding; `None` if the request cannot be read.
    pub path: Option<String>,
    /// Whether clients of the host are asked for a certificate, and the table that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The matching route.
    pub route: Option<MatchedRoute>,
    /// Other routes that match less specifically, or that differ from the request in one property.
    pub near: Vec<NearRoute>,
    /// The caller, if a token was verified.
    pub caller: Option<CallerIdentity>,
    /// The rights of scripts of the request's `Origin`. `None` if the request has no origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_origin: Option<CrossOrigin>,
    /// The checks of the route, in order.
    pub checks: Vec<CheckResult>,
    /// The rate limits that the request would be charged to, in order.
    pub limits: Vec<AppliedLimit>,
    /// The outcome, regardless of shadow mode.
    pub outcome: Outcome,
    /// Whether the request is refused but still forwarded, because its route is in shadow mode.
    pub shadow: bool,
    /// The status of the refusal, if the request is refused.
    pub status: Option<u16>,
    /// The text that the client receives with the refusal, if the request is refused.
    pub detail: Option<Cow<'static, str>>,
    /// The detailed reason for the refusal, for operators. The access log contains it as `detail`.
    #[serde(default)]
    pub reason: Option<String>,
    /// The authentication schemes of the refusal's challenge, if it has one.
    #[serde(default)]
    pub challenge: Vec<String>,
    /// The URL of the metadata that the refusal names, if the request is for a protected resource (RFC 9728).
    #[serde(default)]
    pub resource_metadata: Option<String>,
    /// The request that the upstream would receive.
    pub outgoing: Option<UpstreamRequest>,
}

/// The route that matches a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MatchedRoute {
    /// The name.
    pub name: String,
    /// The host pattern.
    pub host: String,
    /// The path pattern.
    pub path: String,
    /// The methods; empty if the route matches all methods.
    pub methods: Vec<String>,
    /// The header fields that the route requires, as pairs of name and value.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The parameters of the path, as pairs of name and value.
    pub params: Vec<(String, String)>,
    /// The name of the route's `[cors.NAME]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<String>,
    /// The places where the route looks for a credential, if they are not the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Whether a browser without a valid token is sent to the login page.
    #[serde(default, skip_serializing_if = "is_false")]
    pub login_page: bool,
    /// The field of forms that may contain the CSRF token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf_field: Option<String>,
    /// Whether the route forwards WebSockets.
    #[serde(default, skip_serializing_if = "is_false")]
    pub websocket: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The verified caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallerIdentity {
    /// The `sub` claim.
    pub subject: String,
    /// The `iss` claim.
    pub issuer: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
}

/// A check of a route, and its result for the caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckResult {
    /// A description of the requirement.
    pub asks: String,
    /// The result; `None` if the check was not reached.
    pub outcome: Option<Outcome>,
}

/// A rate limit that the request would be charged to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppliedLimit {
    /// The name.
    pub name: String,
    /// A description of the quota.
    pub quota: String,
    /// The property that the limit counts by, with its value for this request.
    pub by: String,
    /// Whether the limit is charged before the token is verified.
    pub before_token: bool,
}

/// The rights of scripts of another origin in a browser (Fetch Standard, section 3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossOrigin {
    /// The `Origin` of the request.
    pub origin: String,
    /// Whether the request is a preflight, which the gateway answers without a token.
    pub is_preflight: bool,
    /// Whether the browser sends the request after this preflight, or lets the script read the answer. `None` if the
    /// upstream decides.
    pub is_allowed: Option<bool>,
    /// The gateway's fields for the browser.
    pub fields: Vec<(String, String)>,
}

/// The party that answers a permitted request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Responder {
    /// An upstream.
    #[default]
    Upstream,
    /// An endpoint of the authority.
    Authority,
    /// Another endpoint of the gateway: metadata, or a receiver of signals.
    Gateway,
    /// The gateway, with a file of a folder.
    Files,
    /// The gateway, with a redirect.
    Redirect,
    /// The gateway, which answers a preflight.
    Preflight,
}

/// The text in place of a value that the policy sets and that may be a credential. An explanation has other readers than
/// the policy, for example at the admin listener.
pub const NOT_SHOWN: &str = "<not shown>";

/// The request that the upstream would receive, or the request that the gateway answers itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpstreamRequest {
    /// The party that answers.
    #[serde(default)]
    pub responder: Responder,
    /// The name of the upstream; otherwise the name of the responder.
    pub upstream: String,
    /// The shares of all upstreams, if several upstreams share the requests of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The way in which a request stays with one of these upstreams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_by: Option<String>,
    /// The upstream that gets a copy. `None` if requests like this one are never copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The requests that are copied, and the upstream that gets the copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<String>,
    /// The origins of the upstream's servers, or the folder of the files.
    pub servers: Vec<String>,
    /// The verification of the servers, and the certificate that they are shown, if they use TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The content coding of the answer, if the route compresses answers to this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// The media types that are compressed, if they are not the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compress_types: Vec<String>,
    /// `expiry` if WebSockets, long answers and long uploads end with the caller's token, otherwise `open`. `None` without a
    /// token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<String>,
    /// The trailers that pass on with the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<String>,
    /// The version of HTTP that the servers use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The way in which requests choose a server, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// The server that the request tries first, if the request itself decides this: the only server, or the one that a
    /// key of the request selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The longest time to open a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<String>,
    /// The longest wait for the head of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// The longest silence in the body of the answer, or in a WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<String>,
    /// Whether the request may be sent again after a server has received a part of it and failed. `None` if the gateway
    /// answers itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_repeatable: Option<bool>,
    /// The bound on requests that are sent again, for a request that may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<String>,
    /// The changes to the fields of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_fields: Option<String>,
    /// The status of the redirect, or of the answer to a preflight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The method.
    pub method: String,
    /// The path and query, or the URL of the redirect.
    pub path: String,
    /// The header fields, with names in lower case. A description in angle brackets replaces each value that is
    /// generated per request. Values that the route sets are masked if they may be credentials.
    pub headers: Vec<(String, String)>,
    /// The names of the question's header fields that do not pass on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// The masked fields with their values, for comparisons.
    #[serde(skip)]
    pub hidden: Vec<(String, String)>,
}

impl MatchedRoute {
    pub(super) fn of(route: &Route, found: &Found<'_, '_, usize>) -> Self {
        let names = found.matcher.path.params().iter();
        let values = found.params.as_slice().iter();
        let CredentialPolicy { access, sources } = &route.credential_policy;
        let is_usual = *access == Access::Public || *sources == Sources::default();
        let websocket = match &route.handler {
            Handler::Forward(delivery) => delivery.websocket,
            Handler::Files(_)
            | Handler::Answer(_)
            | Handler::Redirect(_)
            | Handler::Publish(_)
            | Handler::Receive(..) => false,
        };
        Self {
            name: route.name.to_string(),
            host: found.matcher.host.to_string(),
            path: found.matcher.path.to_string(),
            methods: methods(&found.matcher.methods),
            headers: fields(&found.matcher.fields),
            params: names.zip(values).map(|(name, value)| (name.to_string(), (*value).to_owned())).collect(),
            cors: route.cors.as_ref().map(|cors| cors.name.to_string()),
            sources: if is_usual { Vec::new() } else { places(sources) },
            login_page: route.login_page,
            csrf_field: route.csrf_field.as_deref().map(str::to_owned),
            websocket,
        }
    }
}

impl CallerIdentity {
    pub(super) fn of(principal: &Principal) -> Self {
        let owned = |list: &[Box<str>]| list.iter().map(ToString::to_string).collect();
        Self {
            subject: principal.subject.to_string(),
            issuer: principal.issuer.to_string(),
            roles: owned(&principal.roles),
            scopes: owned(&principal.scopes),
        }
    }
}
