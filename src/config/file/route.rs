//! The table `[[route]]`, and the tables and words in it.

use super::policy::{Mode, SecurityHeaders};
use crate::config::reading::{
    OneOrMany, named_texts, one_or_many, optional_one_or_many, optional_text, optional_word, tables, text,
    word,
};
use crate::config::shown;
use crate::config::units::{ByteSize, Duration};
use crate::config::values::{ClaimValues, Fresh, TokenSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[[route]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteSection {
    /// The name in logs and metrics; if empty, the path.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// A host, `*.host`, or empty for any host.
    #[serde(deserialize_with = "text")]
    pub host: String,
    /// The path pattern: literal segments, `{parameter}`, `{*rest}`.
    #[serde(deserialize_with = "text")]
    pub path: String,
    /// The methods that the route matches; if empty, it matches all.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub methods: Vec<String>,
    /// The header fields that a request must have, as a map from name to value.
    #[serde(deserialize_with = "named_texts")]
    pub headers: BTreeMap<String, String>,
    /// The name of the upstream.
    #[serde(deserialize_with = "text")]
    pub upstream: String,
    /// The folder whose files the route serves, in place of an upstream.
    #[serde(deserialize_with = "text")]
    pub files: String,
    /// Other upstreams that share the requests.
    #[serde(deserialize_with = "tables")]
    pub split: Vec<SplitSection>,
    /// The properties by which a request stays with one upstream of `split`.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub split_by: Option<Vec<String>>,
    /// The name of the upstream that gets copies of the requests.
    #[serde(deserialize_with = "text")]
    pub mirror: String,
    /// The percentage of the requests that are copied.
    pub mirror_percent: Option<u16>,
    /// The largest body that is copied.
    pub mirror_body: Option<ByteSize>,
    /// Whether a token is required.
    #[serde(deserialize_with = "word")]
    pub access: Access,
    /// Names of rules that callers must meet in addition.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub rule: Vec<String>,
    /// Roles, any one of which is required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
    /// Roles that are all required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub all_roles: Vec<String>,
    /// Roles that the caller must not have.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub not_roles: Vec<String>,
    /// Scopes that are all required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub scopes: Vec<String>,
    /// Scopes, any one of which is required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub any_scopes: Vec<String>,
    /// Required claims, as a map from claim path to value.
    pub claims: BTreeMap<String, ClaimValues>,
    /// Issuers whose tokens are accepted; if empty, tokens of all issuers are accepted.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub issuers: Vec<String>,
    /// The part of the caller's identity that the upstream receives; all of it if absent.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub identity: Option<Vec<String>>,
    /// Names of rate limits.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Vec<String>,
    /// The name of the `[cors.NAME]` for scripts of other origins.
    #[serde(deserialize_with = "optional_text")]
    pub cors: Option<String>,
    /// The URL to which the route redirects, in place of an upstream.
    #[serde(deserialize_with = "optional_text")]
    pub redirect: Option<String>,
    /// The status of the redirect.
    pub redirect_status: Option<u16>,
    /// Refuses all requests, and the time after which clients try again.
    pub maintenance: Option<Duration>,
    /// A path prefix to remove before forwarding.
    #[serde(deserialize_with = "optional_text")]
    pub strip_prefix: Option<String>,
    /// A path prefix to add before forwarding.
    #[serde(deserialize_with = "optional_text")]
    pub add_prefix: Option<String>,
    /// A regular expression for the whole path.
    #[serde(deserialize_with = "optional_text")]
    pub rewrite_pattern: Option<String>,
    /// The path that replaces a path which matches `rewrite_pattern`.
    #[serde(deserialize_with = "optional_text")]
    pub rewrite_to: Option<String>,
    /// The `Host` that the upstream receives.
    #[serde(deserialize_with = "optional_text")]
    pub rewrite_host: Option<String>,
    /// Header fields that replace those of the client.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub set_request_headers: BTreeMap<String, String>,
    /// Header fields to add to those of the client.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub add_request_headers: BTreeMap<String, String>,
    /// Header fields of the client that the upstream does not receive.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub remove_request_headers: Vec<String>,
    /// Trailers of the client that the upstream receives.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub request_trailers: Vec<String>,
    /// Header fields that replace those of the upstream.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub set_response_headers: BTreeMap<String, String>,
    /// Header fields to add to those of the upstream.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub add_response_headers: BTreeMap<String, String>,
    /// Header fields of the upstream that the client does not receive.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub remove_response_headers: Vec<String>,
    /// The codings with which answers are compressed, the preferred one first.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub compress: Vec<String>,
    /// The media types that are compressed; if empty, the usual ones.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub compress_types: Vec<String>,
    /// Whether answers to requests with credentials are compressed too.
    pub compress_with_credentials: bool,
    /// Overrides the security headers of the policy.
    #[serde(deserialize_with = "optional_word")]
    pub security_headers: Option<SecurityHeaders>,
    /// Whether the upstream of a public route receives the client's `Authorization` unchanged.
    pub pass_authorization: bool,
    /// Overrides whether the upstream receives the caller's verified token in `Authorization`.
    pub forward_token: Option<bool>,
    /// Overrides the timeout of the upstream.
    pub timeout: Option<Duration>,
    /// Whether the route forwards WebSockets.
    pub websocket: bool,
    /// Whether WebSockets, long answers and long uploads end with the token.
    #[serde(deserialize_with = "word")]
    pub streams: Streams,
    /// The maximum time without a byte in the body of an answer, or in either direction of a WebSocket.
    pub silence: Option<Duration>,
    /// Whether the token must come from a login with a password, and the maximum age of that login.
    pub fresh: Fresh,
    /// Whether the token must be bound to a key of its sender.
    pub require_bound: bool,
    /// Overrides where a request may carry its token.
    pub sources: Option<Vec<TokenSource>>,
    /// The way in which a browser without a token is sent to log in.
    #[serde(deserialize_with = "optional_word")]
    pub login: Option<Login>,
    /// The name of the form field that may carry the CSRF token.
    #[serde(deserialize_with = "optional_text")]
    pub csrf_field: Option<String>,
    /// Overrides the mode of the policy.
    #[serde(deserialize_with = "optional_word")]
    pub mode: Option<Mode>,
    /// Findings that are waived for this route, as a map from id to reason.
    #[serde(deserialize_with = "named_texts")]
    pub waive: BTreeMap<String, String>,
}

impl RouteSection {
    /// Returns the header fields whose values are masked where the policy is shown: the key, the name and the value.
    pub(crate) fn masked_headers(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        let tables = [
            ("set_request_headers", &self.set_request_headers),
            ("add_request_headers", &self.add_request_headers),
            ("set_response_headers", &self.set_response_headers),
            ("add_response_headers", &self.add_response_headers),
        ];
        let fields = tables.into_iter().flat_map(|(key, table)| {
            table.iter().map(move |(name, value)| (key, name.as_str(), value.as_str()))
        });
        fields.filter(|(_, name, value)| shown::is_secret_field(name, value))
    }
}

/// `[[route]] split`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSection {
    /// The name of the upstream.
    #[serde(deserialize_with = "text")]
    pub upstream: String,
    /// The percentage of the requests that no property selects.
    pub percent: Option<u16>,
    /// The header fields that select the upstream.
    #[serde(deserialize_with = "named_texts")]
    pub headers: BTreeMap<String, String>,
    /// The subjects that select the upstream.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub subjects: Vec<String>,
    /// The roles, any of which selects the upstream.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
}

/// `[[route]] streams`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Streams {
    /// Ends WebSockets, long answers and long uploads when the token expires or is revoked.
    #[default]
    Expiry,
    /// Lets WebSockets, long answers and long uploads continue.
    Open,
}

/// `[[route]] login`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// Redirects a browser to the authority's login page.
    Page,
}

/// `[[route]] access`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Requires a valid token.
    #[default]
    Authenticated,
    /// Accepts a valid token or no token.
    Optional,
    /// Neither requires nor reads a token.
    Public,
}
