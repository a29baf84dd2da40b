//! The result of examining a request: a verdict, or every step that led to it. Owned, so that it outlives the policy,
//! and serializable in both directions.

use super::describe::methods;
use super::near::NearRoute;
use crate::authenticate::Principal;
use crate::denial::Denial;
use crate::policy::Route;
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
    /// Reads a refusal by its code. Its other fields are not serialized.
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
    /// The matching route: a position in [`crate::policy::Policy::routes`].
    pub route: Option<usize>,
    /// The outcome that enforcing the route's rule has, even if the route is in shadow mode.
    pub outcome: Outcome,
    /// Whether the request is refused but forwarded anyway, because its route is in shadow mode.
    pub shadow: bool,
}

impl Verdict {
    /// Whether the request is forwarded: it is allowed, or its route is in shadow mode.
    pub fn reaches(&self) -> bool {
        self.shadow || self.outcome.passes()
    }
}

/// Everything that is known about how a request is handled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The method of the question.
    pub method: String,
    /// The URL of the question: scheme, host, path and query.
    pub url: String,
    /// The client's address, as limits count it.
    pub client: IpAddr,
    /// The host that is used for routing; `None` if the request cannot be read.
    pub host: Option<String>,
    /// The path that is used for routing and forwarding; `None` if the request cannot be read.
    pub path: Option<String>,
    /// The matching route.
    pub route: Option<MatchedRoute>,
    /// Routes that match less specifically, or almost match.
    pub near: Vec<NearRoute>,
    /// The caller, if a token was verified.
    pub caller: Option<CallerIdentity>,
    /// The checks of the route, in order.
    pub checks: Vec<CheckResult>,
    /// The limits that would count the request, in order.
    pub limits: Vec<AppliedLimit>,
    /// The outcome that enforcing the route's rule has, even if the route is in shadow mode.
    pub outcome: Outcome,
    /// Whether the request is refused but forwarded anyway, because its route is in shadow mode.
    pub shadow: bool,
    /// The status of the refusal.
    pub status: Option<u16>,
    /// The text that the client receives with the refusal.
    pub detail: Option<Cow<'static, str>>,
    /// Why the request is refused, in detail for operators: `detail` in the access log.
    #[serde(default)]
    pub reason: Option<String>,
    /// The request that the upstream receives.
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
    /// The methods; empty for all.
    pub methods: Vec<String>,
    /// The values of the path's parameters.
    pub params: Vec<(String, String)>,
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

/// One check, and its result for this caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckResult {
    /// The requirement, for people.
    pub asks: String,
    /// The result; `None` if the check was not reached.
    pub outcome: Option<Outcome>,
}

/// A limit that would count the request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppliedLimit {
    /// The name.
    pub name: String,
    /// The quota, for people.
    pub quota: String,
    /// The property that it counts by, with the value for this request.
    pub by: String,
    /// Whether it is charged before the token is verified.
    pub before_token: bool,
}

/// The request that the upstream receives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamRequest {
    /// The name of the upstream; `authority` if the gateway answers itself.
    pub upstream: String,
    /// The origins of its servers.
    pub servers: Vec<String>,
    /// The method.
    pub method: String,
    /// The path and query.
    pub path: String,
    /// The header fields, with names in lower case. Values that are new for each request are described in angle
    /// brackets.
    pub headers: Vec<(String, String)>,
}

impl MatchedRoute {
    pub(super) fn of(route: &Route, found: &Found<'_, '_, usize>) -> Self {
        let names = found.matcher.path.params().iter();
        let values = found.params.as_slice().iter();
        Self {
            name: route.name.to_string(),
            host: found.matcher.host.to_string(),
            path: found.matcher.path.to_string(),
            methods: methods(&found.matcher.methods),
            params: names.zip(values).map(|(name, value)| (name.to_string(), (*value).to_owned())).collect(),
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
