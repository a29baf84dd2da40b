//! Answers of routes that redirect.
//!
//! A template fixes scheme, host and the start of the path, and parameters follow these. A request therefore cannot
//! choose another host: an open redirect is impossible.

use crate::hex::push_percent_code;
use crate::route::Params;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use std::fmt;

/// A compiled `redirect` of a route.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// The text before the first parameter: a whole origin and a slash, or a path of more than a slash.
    start: Box<str>,
    /// The parameters, each with the text after it.
    parts: Box<[(usize, Box<str>)]>,
    /// Whether the query of the request is kept.
    keeps_query: bool,
    status: StatusCode,
    /// Whether caches may keep the answer.
    is_public: bool,
}

impl Redirect {
    /// Parses a template such as `https://new.example.com/docs/{*rest}`. `params` are the names of the route's
    /// parameters.
    ///
    /// # Errors
    /// Returns what is wrong with the template.
    pub(crate) fn parse(
        text: &str,
        status: StatusCode,
        is_public: bool,
        params: &[Box<str>],
    ) -> Result<Self, &'static str> {
        let (start, rest) = text.split_once('{').map_or((text, None), |(start, rest)| (start, Some(rest)));
        if !is_fixed(start, rest.is_none()) {
            return Err("scheme and host, or the start of a path, are not fixed");
        }
        let mut parts = Vec::new();
        let mut rest = rest;
        while let Some(text) = rest {
            let (name, after) = text.split_once('}').ok_or("a brace is not closed")?;
            let name = name.strip_prefix('*').unwrap_or(name);
            let position = params.iter().position(|param| **param == *name);
            let position = position.ok_or("a parameter is not one of the route's path")?;
            let (literal, next) = after.split_once('{').map_or((after, None), |(at, next)| (at, Some(next)));
            parts.push((position, Box::from(literal)));
            rest = next;
        }
        let literals = || parts.iter().map(|(_, literal)| &**literal).chain([start]);
        if !literals().all(|literal| literal.bytes().all(is_of_uri)) {
            return Err("a character is not allowed in a URL");
        }
        let keeps_query = !literals().any(|literal| literal.contains('?'));
        Ok(Self { start: start.into(), parts: parts.into(), keeps_query, status, is_public })
    }

    /// Returns the status of the redirect.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the URL for a request. `query` is the query of the request without tokens.
    pub(crate) fn location(&self, params: &Params<'_>, query: Option<&str>) -> String {
        let mut url = self.start.to_string();
        let mut is_query = self.start.contains('?');
        for (position, literal) in &self.parts {
            let value = params.get(*position).unwrap_or_default();
            if is_query {
                push_query_value(&mut url, value)
            } else {
                url.push_str(value)
            }
            url.push_str(literal);
            is_query |= literal.contains('?');
        }
        if let Some(query) = query.filter(|query| self.keeps_query && !query.is_empty()) {
            url.push('?');
            url.push_str(query);
        }
        url
    }

    /// Returns the answer to a request.
    pub(crate) fn answer(&self, params: &Params<'_>, query: Option<&str>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        // A path and a query are visible ASCII, because the head was read.
        if let Ok(location) = HeaderValue::try_from(self.location(params, query)) {
            headers.insert(LOCATION, location);
        }
        if !self.is_public {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }
}

/// Displays the start of the URL, which no request changes.
impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.start)?;
        f.write_str(if self.parts.is_empty() { "" } else { "…" })
    }
}

/// Appends a part of a canonical path to a query. `&` and `=` would begin another query field.
fn push_query_value(url: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            push_percent_code(url, byte);
        }
    }
}

/// Returns whether the start of a template fixes the origin of every URL. A browser reads `//host` and `/\host` as an
/// origin, so the first segment of a path must begin with another character.
fn is_fixed(start: &str, is_whole: bool) -> bool {
    let authority = start.strip_prefix("https://").or_else(|| start.strip_prefix("http://"));
    match authority {
        Some(rest) => {
            let (host, has_path) = rest.split_once('/').map_or((rest, false), |(host, _)| (host, true));
            let is_host = crate::route::host::Authority::parse(host).is_ok();
            is_host && (has_path || is_whole)
        }
        None => match start.as_bytes() {
            [b'/', next, ..] => !matches!(next, b'/' | b'\\'),
            [b'/'] => is_whole,
            _ => false,
        },
    }
}

/// Returns whether a byte can stand in a URL without encoding. `#` is excluded: the query would follow it.
fn is_of_uri(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Redirect, &'static str> {
        let params = ["id", "rest"].map(Box::from);
        Redirect::parse(text, StatusCode::PERMANENT_REDIRECT, true, &params)
    }

    fn params<'p>(id: &'p str, rest: &'p str) -> Params<'p> {
        let mut params = Params::default();
        params.push(id);
        params.push(rest);
        params
    }

    #[test]
    fn parameters_and_query_stand_after_a_fixed_origin() {
        for (template, url) in [
            ("https://new.example.com", "https://new.example.com?q=1"),
            ("https://new.example.com/docs/{*rest}", "https://new.example.com/docs/a/b?q=1"),
            ("https://new.example.com/{id}/x/{rest}.html", "https://new.example.com/7/x/a/b.html?q=1"),
            ("https://new.example.com/?id={id}", "https://new.example.com/?id=7"),
            ("/new/{*rest}", "/new/a/b?q=1"),
            ("/", "/?q=1"),
        ] {
            assert_eq!(parse(template).unwrap().location(&params("7", "a/b"), Some("q=1")), url);
        }
        let redirect = parse("https://new.example.com/?id={id}").unwrap();
        assert_eq!(
            redirect.location(&params("7&x=%26+", ""), None),
            "https://new.example.com/?id=7%26x%3D%26%2B"
        );
        for template in [
            "",
            "new",
            "{id}",
            "//evil.test/",
            "/\\evil.test/",
            "/{*rest}",
            "https://{id}/",
            "https://new.example.com{*rest}",
            "https://new.example.com:{id}/",
            "https://user@new.example.com/",
            "https:///x",
            "javascript:alert({id})",
            "/new/{other}",
            "/new/{id",
            "/new#{id}",
            "/new \r\n",
        ] {
            assert!(parse(template).is_err(), "{template}");
        }
    }

    proptest! {
        #[test]
        fn no_request_chooses_the_origin(
            template in "(https?://[a-z.{}*:@/]{0,12}|/)[a-z/\\\\{}*?.@:]{0,8}(\\{id\\}|\\{\\*rest\\})?[a-z/]{0,4}",
            raw in "(/[a-z.@:%;\\\\]{1,6}){1,3}",
            query in "[ -~]{0,8}",
        ) {
            let (Ok(redirect), Ok(path)) = (parse(&template), crate::route::path::canonical(&raw)) else { return Ok(()) };
            let params = params(path[1..].split('/').next().unwrap_or_default(), &path[1..]);
            let url = redirect.location(&params, Some(&query));
            let fixed = template.split(['{', '?']).next().unwrap_or_default();
            prop_assert!(url.starts_with(fixed));
            let origin = |url: &str| match url.split_once("://") {
                Some((scheme, rest)) if !url.starts_with('/') => {
                    format!("{scheme}://{}", rest.split(['/', '?', '\\']).next().unwrap_or_default())
                }
                _ => String::new(),
            };
            prop_assert_eq!(origin(&url), origin(fixed));
            prop_assert!(!url.starts_with("//") && !url.starts_with("/\\"), "{}", url);
        }
    }
}
