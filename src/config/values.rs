//! The types of values that only a single key uses.

use super::reading::{ValueError, text};
use super::units::Duration;
use serde::Deserialize;
use serde::de::{self, Deserializer};
use std::collections::BTreeMap;

/// `[tls] min_version`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// `"1.2"`
    Tls12,
    /// `"1.3"`
    Tls13,
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match text(deserializer)?.as_str() {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            other => {
                Err(ValueError::new(format!("unknown version {other:?}"), "\"1.2\" or \"1.3\"").into_serde())
            }
        }
    }
}

/// `[authority] role_limit`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleLimit {
    /// All roles of the account.
    All,
    /// At most this number of roles. The number is at least 1.
    AtMost(usize),
}

impl<'de> Deserialize<'de> for RoleLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text(deserializer)?;
        match (text.as_str(), text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(count)) if count > 0 => Ok(Self::AtMost(count)),
            (_, _) => {
                let expected = "a number of at least 1, or \"all\"";
                Err(ValueError::new(format!("{text:?}: not a limit"), expected).into_serde())
            }
        }
    }
}

/// `[[route]] fresh`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fresh {
    /// Any token.
    #[default]
    Any,
    /// Only a token from a login with a password.
    Login,
    /// Only a token from a login with a password at most this long ago.
    Within(Duration),
}

impl<'de> Deserialize<'de> for Fresh {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Flag(bool),
            Text(String),
        }
        let error = || {
            let found = "neither a boolean nor a duration";
            ValueError::new(found, "true, false or a duration such as \"10m\"").into_serde()
        };
        match Written::deserialize(deserializer).map_err(|_| error())? {
            Written::Flag(false) => Ok(Self::Any),
            Written::Flag(true) => Ok(Self::Login),
            Written::Text(text) => match text.as_str() {
                "true" => Ok(Self::Login),
                "false" => Ok(Self::Any),
                text => text.parse().map(Self::Within).map_err(|_| error()),
            },
        }
    }
}

/// An element of `[[route]] sources` and `[policy] sources`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer`.
    Header,
    /// The cookie of the local authority.
    Cookie,
    /// The cookie of this name, which another program sets.
    ForeignCookie(String),
    /// The subprotocol that follows the subprotocol of this name in `Sec-WebSocket-Protocol`.
    WebSocket(String),
    /// The header field of API keys, and `Authorization: ApiKey`.
    ApiKey,
    /// The client's certificate.
    ClientCertificate,
    /// The query field of this name.
    Query(String),
    /// The header of this name, with this text before the token.
    Named(String, String),
}

impl<'de> Deserialize<'de> for TokenSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            Table(BTreeMap<String, String>),
        }
        let error = || {
            let expected = "\"header\", \"cookie\", \"query\", \"websocket\", \"api_key\", \"client_certificate\", { header = \"X-Api-Token\" }, \
                            { header = \"X-Api-Token\", prefix = \"Token \" }, { cookie = \"CF_Authorization\" } \
                            or { query = \"token\" }";
            ValueError::new("not a source of tokens", expected).into_serde()
        };
        match Written::deserialize(deserializer).map_err(|_| error())? {
            Written::Word(word) => match word.as_str() {
                "header" => Ok(Self::Header),
                "cookie" => Ok(Self::Cookie),
                "query" => Ok(Self::Query("access_token".to_owned())),
                "websocket" => Ok(Self::WebSocket("bearer".to_owned())),
                "api_key" => Ok(Self::ApiKey),
                "client_certificate" => Ok(Self::ClientCertificate),
                _ => Err(error()),
            },
            Written::Table(table) => {
                let table: Vec<_> = table.iter().map(|(key, value)| (&**key, value.clone())).collect();
                match &table[..] {
                    [("header", name)] => Ok(Self::Named(name.clone(), String::new())),
                    [("header", name), ("prefix", prefix)] => Ok(Self::Named(name.clone(), prefix.clone())),
                    [("cookie", name)] => Ok(Self::ForeignCookie(name.clone())),
                    [("websocket", name)] => Ok(Self::WebSocket(name.clone())),
                    [("query", name)] => Ok(Self::Query(name.clone())),
                    _ => Err(error()),
                }
            }
        }
    }
}

/// A value that a claim is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// Literal text, or `{parameter}` for the value of a path parameter.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
}

/// The values that a claim may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValues {
    /// One value, which may be a placeholder such as `{tenant}`.
    One(Literal),
    /// Any of these literal values.
    Any(Vec<Literal>),
}

impl ClaimValues {
    /// Returns the values as written.
    pub fn literals(&self) -> &[Literal] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Any(values) => values,
        }
    }
}

impl<'de> Deserialize<'de> for ClaimValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LiteralVisitor)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(LiteralVisitor)? {
            ClaimValues::One(value) => Ok(value),
            ClaimValues::Any(_) => {
                Err(ValueError::new("a list within a list", "text, a whole number or a boolean").into_serde())
            }
        }
    }
}

/// Reads one literal, or a list of them.
struct LiteralVisitor;

impl<'de> de::Visitor<'de> for LiteralVisitor {
    type Value = ClaimValues;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("text, a whole number, a boolean or a list of these")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ClaimValues, E> {
        Ok(ClaimValues::One(Literal::Text(text.to_owned())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<ClaimValues, E> {
        Ok(ClaimValues::One(Literal::Integer(number)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<ClaimValues, E> {
        i64::try_from(number).map(|number| ClaimValues::One(Literal::Integer(number))).map_err(|_| {
            ValueError::new("a number that is too large", "a number of at most 64 bits").into_serde()
        })
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<ClaimValues, E> {
        Ok(ClaimValues::One(Literal::Boolean(flag)))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<ClaimValues, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(ClaimValues::Any(values))
    }
}
