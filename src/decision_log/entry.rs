//! Defines the format of a logged decision: one line of JSON with all inputs that another policy needs.
//!
//! The gateway writes a [`Decision`], which borrows from the request, and reads an [`Entry`]. Tests check that both
//! have the same format.

use crate::authenticate::{ClaimPath, ClaimValue, Principal};
use crate::peer::Scheme;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Claims that identify a person or a token. They are never written.
const NEVER_KEPT: [&str; 3] = ["sub", "jti", "sid"];

/// The state of a request's credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoggedCredential {
    /// The request had no credential.
    None,
    /// The credential was not examined, because the route is public or no route was found.
    Unexamined,
    /// The credential was refused, so its content is unknown.
    Refused,
    /// The credential was verified.
    Verified,
}

/// A decision to write to the log.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'o> {
    /// The time of the decision, in seconds since 1970.
    pub time: u64,
    /// The method.
    pub method: &'o str,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// The host in canonical spelling, without a port.
    pub host: &'o str,
    /// The path in canonical spelling, without the query.
    pub path: &'o str,
    /// The client's address.
    pub client: IpAddr,
    /// The credential.
    pub credential: LoggedCredential,
    /// The caller, if the token was verified.
    pub principal: Option<&'o Principal>,
    /// The paths of the claims that the policy uses, in the order of the caller's claims.
    pub claims: &'o [ClaimPath],
    /// The name of the route, if a route matches the request.
    pub route: Option<&'o str>,
    /// The code of the denial, if the request was refused.
    pub code: Option<&'static str>,
    /// Whether shadow mode kept the refusal from being enforced.
    pub shadow: bool,
}

impl Serialize for Decision<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("time", &self.time)?;
        line.serialize_entry("method", self.method)?;
        line.serialize_entry("scheme", self.scheme.as_str())?;
        line.serialize_entry("host", self.host)?;
        line.serialize_entry("path", self.path)?;
        line.serialize_entry("client", &self.client)?;
        line.serialize_entry("credential", &self.credential)?;
        if let Some(principal) = self.principal {
            line.serialize_entry("issuer", &*principal.issuer)?;
            line.serialize_entry("roles", &principal.roles)?;
            line.serialize_entry("scopes", &principal.scopes)?;
            line.serialize_entry("claims", &Claims { paths: self.claims, of: principal })?;
            if principal.fresh {
                line.serialize_entry("fresh", &true)?;
            }
            if principal.confirmation.is_some() {
                line.serialize_entry("bound", &true)?;
            }
            if let Some(time) = principal.authenticated {
                line.serialize_entry("auth_time", &time)?;
            }
        }
        if let Some(route) = self.route {
            line.serialize_entry("route", route)?;
        }
        if let Some(code) = self.code {
            line.serialize_entry("code", code)?;
        }
        if self.shadow {
            line.serialize_entry("shadow", &true)?;
        }
        line.end()
    }
}

/// The claims of a caller by path. An absent claim is written as null. A claim that the policy does not use is omitted.
struct Claims<'c> {
    paths: &'c [ClaimPath],
    of: &'c Principal,
}

impl Serialize for Claims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Path<'p>(&'p ClaimPath);

        impl Serialize for Path<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self.0)
            }
        }

        let mut claims = serializer.serialize_map(None)?;
        for (path, value) in self.paths.iter().zip(&self.of.claims) {
            if !NEVER_KEPT.iter().any(|name| path.is_name(name)) {
                claims.serialize_entry(&Path(path), &value.as_ref().map(Plain))?;
            }
        }
        claims.end()
    }
}

/// The value of a claim as JSON. `ClaimValue::Other` is written as null, because it is not equal to any value.
struct Plain<'v>(&'v ClaimValue);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ClaimValue::Text(text) => serializer.serialize_str(text),
            ClaimValue::Number(number) => number.serialize(serializer),
            ClaimValue::Bool(flag) => serializer.serialize_bool(*flag),
            ClaimValue::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(&Plain(value)))?;
                list.end()
            }
            ClaimValue::Other => serializer.serialize_unit(),
        }
    }
}

/// A decision that is read from the log. Unknown keys are ignored, because a newer gateway may have written them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Entry {
    /// The time of the decision, in seconds since 1970.
    pub time: u64,
    /// The method, as the client sent it.
    pub method: String,
    /// The scheme: `http` or `https`.
    pub scheme: String,
    /// The host in canonical spelling, without a port.
    pub host: String,
    /// The path in canonical spelling, without the query.
    pub path: String,
    /// The client's address.
    pub client: IpAddr,
    /// The credential.
    pub credential: LoggedCredential,
    /// The issuer of the token, if it was verified.
    pub issuer: Option<String>,
    /// The roles in the token.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The scopes in the token.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The claims that the policy used, by path.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// Whether the token was issued at a login.
    #[serde(default)]
    pub fresh: bool,
    /// Whether the token was bound to a key of its sender.
    #[serde(default)]
    pub bound: bool,
    /// The time of the login, in seconds since 1970.
    pub auth_time: Option<u64>,
    /// The name of the route, if a route matched the request.
    pub route: Option<String>,
    /// The code of the denial, if the request was refused.
    pub code: Option<String>,
    /// Whether shadow mode kept the refusal from being enforced.
    #[serde(default)]
    pub shadow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    pub(crate) fn principal() -> Principal {
        Principal {
            issuer: Arc::from("https://id.example.com/"),
            subject: "ada@example.com".into(),
            token_id: Some("token-id".into()),
            roles: Box::new(["clerk".into()]),
            scopes: Box::new(["orders:read".into()]),
            claims: Box::new([
                Some(ClaimValue::from(&serde_json::json!("acme"))),
                None,
                Some(ClaimValue::from(&serde_json::json!([1, true, { "a": 1 }]))),
                Some(ClaimValue::from(&serde_json::json!("ada@example.com"))),
            ]),
            authenticated: Some(90),
            fresh: true,
            ..Principal::for_tests()
        }
    }

    fn observed<'o>(principal: Option<&'o Principal>, claims: &'o [ClaimPath]) -> Decision<'o> {
        Decision {
            time: 100,
            method: "GET",
            scheme: Scheme::Https,
            host: "api.example.com",
            path: "/orders/7",
            client: IpAddr::from([203, 0, 113, 7]),
            credential: if principal.is_some() { LoggedCredential::Verified } else { LoggedCredential::None },
            principal,
            claims,
            route: Some("orders"),
            code: None,
            shadow: false,
        }
    }

    fn paths() -> Vec<ClaimPath> {
        ["tenant", "org.\"a.b\"", "plan", "sub"].map(|path| ClaimPath::parse(path).unwrap()).to_vec()
    }

    #[test]
    fn a_written_value_parses_to_the_same_value() {
        let (principal, paths) = (principal(), paths());
        let line = serde_json::to_string(&observed(Some(&principal), &paths)).unwrap();
        let entry: Entry = serde_json::from_str(&line).unwrap();
        assert_eq!(entry.roles, ["clerk"]);
        assert_eq!(entry.scopes, ["orders:read"]);
        assert_eq!(entry.issuer.as_deref(), Some("https://id.example.com/"));
        let claims = serde_json::json!({ "tenant": "acme", "org.\"a.b\"": null, "plan": [1, true, null] });
        assert_eq!(Value::Object(entry.claims), claims);
        assert_eq!(
            (entry.fresh, entry.auth_time, entry.credential),
            (true, Some(90), LoggedCredential::Verified)
        );
        assert_eq!((entry.route.as_deref(), entry.code, entry.shadow), (Some("orders"), None, false));

        let refused = Decision {
            code: Some("no_route"),
            route: None,
            shadow: true,
            credential: LoggedCredential::Refused,
            ..observed(None, &[])
        };
        let entry: Entry = serde_json::from_str(&serde_json::to_string(&refused).unwrap()).unwrap();
        assert_eq!((entry.route, entry.code.as_deref()), (None, Some("no_route")));
        assert_eq!((entry.shadow, entry.credential, entry.issuer), (true, LoggedCredential::Refused, None));
    }

    #[test]
    fn subject_and_token_id_are_not_kept_even_where_the_policy_uses_them() {
        let (principal, paths) = (principal(), paths());
        let line = serde_json::to_string(&observed(Some(&principal), &paths)).unwrap();
        assert!(line.contains("acme"), "{line}");
        for secret in ["ada", "token-id", "\"sub\""] {
            assert!(!line.contains(secret), "{secret}: {line}");
        }
    }
}
