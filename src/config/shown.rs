//! The types of the policy back in the text that gives them, as `config show` prints it and the schema tells defaults.
//!
//! What is written here reads again as the same value. Only a secret does not: it is never written, not even its length.

use super::network::{Cidr, Listen};
use super::secret::Secret;
use super::units::{ByteSize, Duration, Rate};
use super::values::{Fresh, Literal, RoleLimit, TlsVersion, TokenSource};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// What stands for a secret that is not shown.
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

/// The URL of a store: the path of a file is no secret, and a server's URL is one as soon as it may hold a password.
pub(super) fn store<S: Serializer>(store: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match store {
        // No URL is taken apart here: what one reading takes for a password another takes for a host.
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

/// Servers of an upstream. The compiler refuses one with a password in its URL, but what is refused is shown, too.
pub(super) fn servers<S: Serializer>(servers: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(servers.iter().map(|server| match server.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{host}"),
        None => server.clone(),
    }))
}

/// Header fields of a test. Those that carry credentials are masked by their name, whatever they carry.
pub(super) fn headers<S: Serializer>(
    headers: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, value)| {
        // An empty value says that the field is not there.
        let is_secret = is_secret_name(name) && !value.is_empty() || is_token(value);
        (name, if is_secret { MASK } else { value })
    }))
}

/// The request line of a test. A query may carry a token, and which of its fields does is the routes' matter.
pub(super) fn request<S: Serializer>(request: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let (before, query) = request.split_once('?').map_or((request, None), |(b, query)| (b, Some(query)));
    let mut shown = before.to_owned();
    if let Some((scheme, rest)) = before.split_once("://")
        && let Some((user, host)) = rest.rsplit_once('@')
    {
        // A path may hold an @, behind a host and its port; all else before one may be a password.
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

/// Whether a header field or a field of a query carries what is to be believed, and not read by others.
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
    // A query's names may be percent-encoded: such a one is no word that can be looked for.
    name.contains('%') || name.ends_with("auth") || WORDS.iter().any(|word| name.contains(word))
}

/// Whether there is something in it that begins as every JSON Web Token does.
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
            Self::Query(name) => serializer.collect_map([("query", name)]),
            Self::Named(name) => serializer.collect_map([("header", name)]),
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
