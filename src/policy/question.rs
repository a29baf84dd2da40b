//! A hypothetical request to evaluate. It consists of a line such as `GET https://host/path` and a description of the
//! client.
//!
//! It is evaluated by the code that evaluates requests of clients.

use crate::clock::Now;
use crate::peer::Scheme;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use serde_json::{Map, Value};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The default client address, which is reserved for documentation (TEST-NET-1, RFC 5737).
pub const NOBODYS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The credential of a request.
#[derive(Clone, Default)]
pub enum Credential {
    /// The credential in the request's headers, if any.
    #[default]
    AsSent,
    /// A valid token with these claims. Missing `iss`, `aud` and `exp` claims are added. The current session
    /// generation of the local authority is added too.
    Claims(Map<String, Value>),
    /// This token, which is verified.
    Token(String),
}

impl fmt::Debug for Credential {
    /// Formats the credential without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsSent => f.write_str("AsSent"),
            Self::Claims(claims) => f.debug_tuple("Claims").field(claims).finish(),
            Self::Token(_) => f.write_str("Token(…)"),
        }
    }
}

/// A hypothetical request.
#[derive(Clone, Debug)]
pub struct Question {
    /// The request head, as received over HTTP/1.1.
    pub parts: Parts,
    /// The scheme of the listener that receives the request.
    pub scheme: Scheme,
    /// The address of the client.
    pub client: IpAddr,
    /// The credential.
    pub credential: Credential,
    /// The time of the request.
    pub now: Now,
}

impl Question {
    /// Creates a request without a credential.
    ///
    /// # Errors
    ///
    /// Returns a readable reason if the request is invalid.
    pub fn new(method: &str, url: &str) -> Result<Self, String> {
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("\"{method}\" is not a method"))?;
        let absolute = || format!("\"{url}\" is not a URL such as https://api.example.com/orders");
        let (scheme, rest) = url.split_once("://").ok_or_else(absolute)?;
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(absolute()),
        };
        if rest.contains('#') {
            return Err("a fragment (#) is never sent: it stays with the client".to_owned());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.is_empty() {
            return Err(absolute());
        }
        let target = match target.as_bytes().first() {
            Some(b'/') => target.to_owned(),
            Some(_) | None => format!("/{target}"),
        };
        let uri: Uri = target.parse().map_err(|error| format!("\"{target}\" is not a path: {error}"))?;
        let host = HeaderValue::from_str(authority).map_err(|_| format!("\"{authority}\" is not a host"))?;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method;
        parts.uri = uri;
        parts.version = Version::HTTP_11;
        parts.headers = HeaderMap::new();
        parts.headers.insert(header::HOST, host);
        let now = Now::read();
        Ok(Self { parts, scheme, client: NOBODYS_ADDRESS, credential: Credential::AsSent, now })
    }

    /// Parses a request such as `GET https://api.example.com/orders`. The default method is GET.
    ///
    /// # Errors
    ///
    /// Returns a readable reason if the request is invalid.
    pub fn parse(request: &str) -> Result<Self, String> {
        match request.trim().split_once(' ') {
            Some((method, url)) => Self::new(method, url.trim_start()),
            None => Self::new("GET", request.trim()),
        }
    }

    /// Adds a header.
    ///
    /// # Errors
    ///
    /// Returns a readable reason if the header is invalid.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, String> {
        let name: HeaderName = name.parse().map_err(|_| format!("\"{name}\" is not a header name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("not a header value: {name}"))?;
        match name {
            // `Host` replaces the host of the URL. A question can then test a `Host` that differs from the URL.
            header::HOST => drop(self.parts.headers.insert(name, value)),
            _ => drop(self.parts.headers.append(name, value)),
        }
        Ok(self)
    }

    /// Sets the credential to a valid token with these claims.
    #[must_use]
    pub fn claims(self, claims: Map<String, Value>) -> Self {
        Self { credential: Credential::Claims(claims), ..self }
    }

    /// Sets the credential to this token.
    #[must_use]
    pub fn token(self, token: String) -> Self {
        Self { credential: Credential::Token(token), ..self }
    }

    /// Sets the client address.
    #[must_use]
    pub fn client(self, client: IpAddr) -> Self {
        Self { client: client.to_canonical(), ..self }
    }

    /// Sets the time of the request.
    #[must_use]
    pub fn at(self, now: Now) -> Self {
        Self { now, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_becomes_the_request_that_a_client_would_send() {
        let question = Question::parse("POST https://api.example.com:8443/a%2Fb//c?q=1").unwrap();
        assert_eq!(question.parts.method, Method::POST);
        assert_eq!(question.parts.uri, "/a%2Fb//c?q=1", "untouched: what it means is decided elsewhere");
        assert_eq!(question.parts.headers[header::HOST], "api.example.com:8443");
        assert_eq!(question.scheme, Scheme::Https);
        for (line, target) in [
            ("http://h", "/"),
            ("GET http://h?q", "/?q"),
            ("  https://h/x  ", "/x"),
            ("PURGE  http://h/", "/"),
        ] {
            assert_eq!(Question::parse(line).unwrap().parts.uri, target, "{line}");
        }
    }

    #[test]
    fn input_that_is_no_request_is_reported() {
        for (line, expected) in [
            ("GET /orders", "not a URL"),
            ("GET ftp://h/", "not a URL"),
            ("GET https:///x", "not a URL"),
            ("G(T https://h/", "not a method"),
            ("GET https://h/#x", "fragment"),
            ("GET https://h/a b", "not a path"),
            ("GET https://h\u{1}/", "not a host"),
            ("", "not a URL"),
        ] {
            let why = Question::parse(line).expect_err(line);
            assert!(why.contains(expected), "{line}: {why}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let question = Question::parse("https://h/").unwrap().token("secret".to_owned());
        assert!(!format!("{question:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "(GET )?(https?://)?\\PC{0,40}") {
            let _ = Question::parse(&line);
        }
    }
}
