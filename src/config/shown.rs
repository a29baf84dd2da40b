//! Serializes the types of the policy in the form in which the file writes them, for `config show` and the schema's
//! defaults.
//!
//! Deserializing a serialized value gives the same value, except for secrets. A secret is replaced by a mask that does
//! not reveal its length.

use super::network::{Cidr, Listen};
use super::secret::Secret;
use super::units::{ByteSize, Duration, Rate};
use super::values::{ClaimValues, Fresh, Literal, RoleLimit, TlsVersion, TokenSource};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// The text that is shown instead of a secret.
pub(super) const MASK: &str = "****";

macro_rules! as_its_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_its_text!(Duration, ByteSize, Rate, Cidr);

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.addresses() {
            [] => serializer.serialize_str(""),
            [only] => serializer.collect_str(only),
            several => serializer.collect_seq(several.iter().map(ToString::to_string)),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Environment(name) => serializer.collect_str(&format_args!("env:{name}")),
            Self::File(path) => serializer.collect_str(&format_args!("file:{path}")),
            Self::Literal(_) => serializer.serialize_str(MASK),
        }
    }
}

/// Serializes the URL of a store. The path of an SQLite file is shown. A server's URL is masked if it may contain a
/// password.
pub(super) fn store<S: Serializer>(store: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match store {
        // The URL is not parsed, because URL parsers disagree on where a password ends.
        Some(Secret::Literal(url)) => match url.split_once(':') {
            Some(("sqlite", _)) => serializer.serialize_str(url),
            Some((scheme @ ("postgres" | "postgresql"), rest)) if rest.contains(['@', '?', '%', '#']) => {
                serializer.collect_str(&format_args!("{scheme}://{MASK}"))
            }
            Some(("postgres" | "postgresql", _)) => serializer.serialize_str(url),
            Some(_) | None => serializer.serialize_str(MASK),
        },
        reference => reference.serialize(serializer),
    }
}

/// Serializes the servers of an upstream or of the shared state, with passwords masked. The compiler rejects a URL with a
/// password, but `config show` prints rejected policies too.
pub(super) fn servers<S: Serializer>(servers: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(servers.iter().map(|server| without_password(server)))
}

/// Serializes the URL of a server like [`servers`].
pub(super) fn server<S: Serializer>(server: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    server.as_deref().map(without_password).serialize(serializer)
}

/// Masks the parts of a server's URL that may have a password: the user and the query.
pub(crate) fn without_password(server: &str) -> String {
    if server.starts_with("unix:") {
        return server.to_owned();
    }
    let shown = match server.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{host}"),
        None => server.to_owned(),
    };
    match shown.split_once(['?', '#']) {
        Some((before, _)) => format!("{before}?{MASK}"),
        None => shown,
    }
}

/// Serializes the URL of a document, with a user and a password masked. The compiler rejects such a URL, too.
pub(super) fn url<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(without_user).serialize(serializer)
}

/// Serializes a URL like [`url`].
pub(super) fn set_url<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_user(url))
}

/// Masks the user and the password of a URL. Returns a path, which has no scheme, unchanged.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // An `@` after the authority belongs to the path. A password with a slash ends the authority early, and stands where a
    // port would.
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host =
        authority.ends_with(']') || authority.rsplit_once(':').is_none_or(|(_, port)| is_port(port));
    match rest.rsplit_once('@') {
        Some((_, host)) if authority.contains('@') || !is_host => format!("{scheme}://{MASK}@{host}"),
        Some(_) | None => url.to_owned(),
    }
}

/// Serializes the header fields of a test, with the values of credential fields masked.
pub(super) fn headers<S: Serializer>(
    headers: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, value)| (name, shown_value(name, value))))
}

/// Returns whether a header field may carry a credential. An empty value in an expectation means that the field is absent.
pub(crate) fn is_secret_field(name: &str, value: &str) -> bool {
    is_secret_name(name) && !value.is_empty() || is_token(value)
}

/// Returns the value of a header field for display.
pub(crate) fn shown_value<'v>(name: &str, value: &'v str) -> &'v str {
    if is_secret_field(name, value) { MASK } else { value }
}

/// Serializes the request line of a test. Any query field may carry a token, so every field that looks like a
/// credential is masked.
pub(super) fn request<S: Serializer>(request: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let (before, query) = request.split_once('?').map_or((request, None), |(b, query)| (b, Some(query)));
    let mut shown = before.to_owned();
    if let Some((scheme, rest)) = before.split_once("://")
        && let Some((user, host)) = rest.rsplit_once('@')
    {
        // An `@` in the path, after the host and port, does not end a password. The text before any other `@` may be a
        // password.
        let (first, port) = user.split_once(['/', ':']).unwrap_or((user, ""));
        let is_path = user[first.len()..].starts_with('/') && !first.contains('@')
            || port.split_once('/').is_some_and(|(port, _)| port.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_path {
            shown = format!("{scheme}://{MASK}@{host}");
        }
    }
    for (position, field) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if position == 0 { '?' } else { '&' });
        match field.split_once('=') {
            Some((name, value)) if is_secret_name(name) || is_token(value) => {
                shown.extend([name, "=", MASK]);
            }
            Some(_) | None => shown.push_str(field),
        }
    }
    serializer.serialize_str(&shown)
}

/// Returns whether a header or query field of this name may carry a credential.
fn is_secret_name(name: &str) -> bool {
    const WORDS: [&str; 10] = [
        "authoriz",
        "cookie",
        "token",
        "secret",
        "key",
        "pass",
        "session",
        "signature",
        "credential",
        "csrf",
    ];
    let name = name.to_ascii_lowercase();
    // A percent-encoded name cannot be compared with these words, so it is treated as secret.
    name.contains('%') || name.ends_with("auth") || WORDS.iter().any(|word| name.contains(word))
}

/// Returns whether a value contains `eyJ`, the first characters of every JSON Web Token.
fn is_token(value: &str) -> bool {
    value.contains("eyJ")
}

impl Serialize for TlsVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

impl Serialize for RoleLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::AtMost(count) => count.serialize(serializer),
        }
    }
}

impl Serialize for Fresh {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_bool(false),
            Self::Login => serializer.serialize_bool(true),
            Self::Within(duration) => duration.serialize(serializer),
        }
    }
}

impl Serialize for TokenSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Header => serializer.serialize_str("header"),
            Self::Cookie => serializer.serialize_str("cookie"),
            Self::ApiKey => serializer.serialize_str("api_key"),
            Self::ClientCertificate => serializer.serialize_str("client_certificate"),
            Self::Query(name) => serializer.collect_map([("query", name)]),
            Self::WebSocket(name) => serializer.collect_map([("websocket", name)]),
            Self::ForeignCookie(name) => serializer.collect_map([("cookie", name)]),
            Self::Named(name, prefix) if prefix.is_empty() => serializer.collect_map([("header", name)]),
            Self::Named(name, prefix) => serializer.collect_map([("header", name), ("prefix", prefix)]),
        }
    }
}

impl Serialize for ClaimValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => value.serialize(serializer),
            Self::Any(values) => serializer.collect_seq(values),
        }
    }
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Boolean(flag) => serializer.serialize_bool(*flag),
        }
    }
}
