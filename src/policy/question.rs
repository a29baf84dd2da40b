//! A request that is asked about, though nobody sent it: made of a line such as `GET https://host/path`, and of who
//! is to have sent it.
//!
//! It is put together as a client's would be and nothing of it is read here: what it means is for the code that serves
//! requests to say.

use crate::clock::Now;
use crate::peer::Scheme;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use serde_json::{Map, Value};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Where a question comes from that does not say: an address that nobody has (TEST-NET-1, RFC 5737).
pub const NOBODYS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What a request shows of who sends it.
#[derive(Clone, Default)]
pub enum Credential {
    /// What its header fields hold.
    #[default]
    AsSent,
    /// A token with these claims that verifies. `iss`, `aud` and `exp` are filled in where they are not given, and so is
    /// what only the local authority could know: that no session of the account was ended since.
    Claims(Map<String, Value>),
    /// This token.
    Token(String),
}

impl fmt::Debug for Credential {
    /// Never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsSent => f.write_str("AsSent"),
            Self::Claims(claims) => f.debug_tuple("Claims").field(claims).finish(),
            Self::Token(_) => f.write_str("Token(…)"),
        }
    }
}

/// A request that is asked about.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its head, as if it came over HTTP/1.1.
    pub parts: Parts,
    /// Over which listener it comes.
    pub scheme: Scheme,
    /// From where.
    pub client: IpAddr,
    /// Who sends it.
    pub credential: Credential,
    /// When.
    pub now: Now,
}

impl Question {
    /// A request of this method for this URL, from nobody.
    ///
    /// # Errors
    /// What keeps it from being one, in words.
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

    /// A request such as `GET https://api.example.com/orders`; without a method, a GET.
    ///
    /// # Errors
    /// What keeps it from being one, in words.
    pub fn parse(request: &str) -> Result<Self, String> {
        match request.trim().split_once(' ') {
            Some((method, url)) => Self::new(method, url.trim_start()),
            None => Self::new("GET", request.trim()),
        }
    }

    /// With this field too.
    ///
    /// # Errors
    /// What keeps it from being one, in words.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, String> {
        let name: HeaderName = name.parse().map_err(|_| format!("\"{name}\" is not a header name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("not a header value: {name}"))?;
        match name {
            // There is one host, and the URL names it, unless the question is what happens if they differ.
            header::HOST => drop(self.parts.headers.insert(name, value)),
            _ => drop(self.parts.headers.append(name, value)),
        }
        Ok(self)
    }

    /// From a caller with a token of these claims.
    #[must_use]
    pub fn claims(self, claims: Map<String, Value>) -> Self {
        Self { credential: Credential::Claims(claims), ..self }
    }

    /// With this token.
    #[must_use]
    pub fn token(self, token: String) -> Self {
        Self { credential: Credential::Token(token), ..self }
    }

    /// From this address.
    #[must_use]
    pub fn client(self, client: IpAddr) -> Self {
        Self { client: client.to_canonical(), ..self }
    }

    /// At this time.
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
    fn what_is_no_request_is_said_to_be_none() {
        for (line, told) in [
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
            assert!(why.contains(told), "{line}: {why}");
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
