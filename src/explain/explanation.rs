//! What is told of a request: a verdict, or all that led to it. Owned, so that it outlives the policy that it is about, and
//! can be written and read again.

use super::describe::methods;
use super::near::NearRoute;
use crate::authenticate::Principal;
use crate::denial::Denial;
use crate::policy::Route;
use crate::route::Found;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::net::IpAddr;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes.
    Passed,
    /// It came in cleartext, and is sent to TLS.
    Redirected,
    /// It is refused.
    Refused(Denial),
}

impl Outcome {
    /// Whether it passes.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Passed)
    }

    /// In a word: `passed`, `redirected`, or the code of the refusal.
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
    /// A refusal is read by its code: what else it holds is not told.
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

/// The verdict on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The route that covers it: a position in [`crate::policy::Policy::routes`].
    pub route: Option<usize>,
    /// What becomes of it, were its route not in the shadow.
    pub outcome: Outcome,
    /// Whether it is refused and passes all the same, because its route is in the shadow.
    pub shadow: bool,
}

impl Verdict {
    /// Whether it reaches the upstream, in the shadow or not.
    pub fn reaches(&self) -> bool {
        self.shadow || self.outcome.passes()
    }
}

/// All that can be told of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// As asked.
    pub method: String,
    /// As asked: scheme, host, path and query.
    pub url: String,
    /// The client's address, as limits count it.
    pub client: IpAddr,
    /// The host that decides, where there is one reading.
    pub host: Option<String>,
    /// The path that decides and is forwarded, where there is one reading.
    pub path: Option<String>,
    /// The route that covers it.
    pub route: Option<MatchedRoute>,
    /// Other routes that cover it less specifically, or nearly.
    pub near: Vec<NearRoute>,
    /// Who calls, where a token verified.
    pub caller: Option<CallerIdentity>,
    /// What is asked of the caller, in order.
    pub checks: Vec<CheckResult>,
    /// The limits that would count it, in order.
    pub limits: Vec<AppliedLimit>,
    /// What becomes of it, were its route not in the shadow.
    pub outcome: Outcome,
    /// Whether it is refused and passes all the same, because its route is in the shadow.
    pub shadow: bool,
    /// The status of the refusal.
    pub status: Option<u16>,
    /// What the client is told of the refusal.
    pub detail: Option<Cow<'static, str>>,
    /// Why it is refused, in the operator's words: `detail` of the access log.
    #[serde(default)]
    pub reason: Option<String>,
    /// What the upstream gets.
    pub outgoing: Option<UpstreamRequest>,
}

/// The route that covers a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MatchedRoute {
    /// Its name.
    pub name: String,
    /// The hosts that it covers.
    pub host: String,
    /// The paths.
    pub path: String,
    /// The methods; empty: all.
    pub methods: Vec<String>,
    /// The values of the path's parameters.
    pub params: Vec<(String, String)>,
}

/// Who calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallerIdentity {
    /// `sub`.
    pub subject: String,
    /// `iss`.
    pub issuer: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
}

/// One thing that is asked of the caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckResult {
    /// What.
    pub asks: String,
    /// How it ended; `None` where it was not come to.
    pub outcome: Option<Outcome>,
}

/// A limit that would count the request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppliedLimit {
    /// Its name.
    pub name: String,
    /// How fast.
    pub quota: String,
    /// By what, for this request.
    pub by: String,
    /// Whether it is charged before the caller is known.
    pub before_token: bool,
}

/// What the upstream gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamRequest {
    /// The upstream's name; `authority` where the gateway answers itself.
    pub upstream: String,
    /// Its servers.
    pub servers: Vec<String>,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The header fields, names in lower case. What is made anew for each request is described in angle brackets.
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
