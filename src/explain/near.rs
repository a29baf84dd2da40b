//! Finds the routes that were nearly chosen for a request: routes that match less specifically, and routes that differ
//! from the request in one property.
//!
//! Each route is matched alone in a table, by the code that also routes clients' requests.

use super::describe::methods_and_place;
use crate::denial::Denial;
use crate::policy::Route;
use crate::route::{Fields, Found, Head, HostPattern, Matcher, Methods, RouteTable};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The maximum number of routes that are reported. Operators read the whole list.
const NEAR_MAX: usize = 8;

/// The reason why a route was not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NearReason {
    /// The route matches, but the chosen route is more specific.
    LessSpecific,
    /// The route would match if the method were different.
    Method,
    /// The route would match if the host were different.
    Host,
    /// The route would match if the request had other header fields.
    Header,
    /// The route would match if a trailing slash were added to the path or removed from it.
    TrailingSlash,
    /// The route would match if the letter case of the path were different.
    Case,
    /// The route matches paths below this path.
    Below,
}

impl NearReason {
    /// Describes the reason for operators.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::LessSpecific => "matches too, but is less specific",
            Self::Method => "does not match the method",
            Self::Host => "does not match the host",
            Self::Header => "does not match the header fields",
            Self::TrailingSlash => "differs by a trailing slash, which makes a different path",
            Self::Case => "differs by upper and lower case, which makes a different path",
            Self::Below => "matches only paths below this one",
        }
    }
}

/// A route that was not chosen, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearRoute {
    /// The name of the route.
    pub route: String,
    /// The methods, host and path that the route matches.
    pub covers: String,
    /// The reason why the route was not chosen.
    pub why: NearReason,
}

/// Returns the routes that were nearly chosen for a request, ordered by reason.
pub(super) fn near(
    table: &RouteTable<usize>,
    routes: &[Route],
    head: &Head<'_>,
    found: Option<&Found<'_, '_, usize>>,
) -> Vec<NearRoute> {
    let mut near: Vec<NearRoute> = Vec::new();
    for (matcher, index) in table.iter() {
        let Some(route) = routes.get(*index).filter(|_| found.is_none_or(|found| found.entry != index))
        else {
            continue;
        };
        if is_elsewhere(&matcher.path.to_string(), &head.path) {
            continue;
        }
        let Some(why) = miss(matcher, head) else { continue };
        if !near.iter().any(|known| known.route == *route.name && known.why <= why) {
            near.push(NearRoute { route: route.name.to_string(), covers: methods_and_place(matcher), why });
        }
    }
    near.sort_by_key(|near| near.why);
    near.truncate(NEAR_MAX);
    near
}

/// Returns whether a literal segment of a pattern differs from the path in more than letter case.
///
/// [`miss`] rejects these patterns too, but takes a hundred times as long. Only [`miss`] compares segments with
/// percent-encoding.
fn is_elsewhere(pattern: &str, path: &str) -> bool {
    let is_plain = |text: &str| !text.contains(['%', '{']);
    pattern
        .split('/')
        .zip(path.split('/'))
        .any(|(word, segment)| is_plain(word) && is_plain(segment) && !word.eq_ignore_ascii_case(segment))
}

/// Returns the reason why a matcher was not chosen. Returns `None` if the matcher differs from the request head in more
/// than one property.
fn miss(matcher: &Matcher, head: &Head<'_>) -> Option<NearReason> {
    match alone(matcher.clone(), head) {
        Ok(()) => return Some(NearReason::LessSpecific),
        Err(Denial::MethodNotAllowed(_)) => return Some(NearReason::Method),
        Err(_) => {}
    }
    let anywhere = Matcher { host: HostPattern::Any, ..matcher.clone() };
    if alone(anywhere, head).is_ok() {
        return Some(NearReason::Host);
    }
    let any_fields = Matcher { fields: Fields::default(), ..matcher.clone() };
    if alone(any_fields, head).is_ok() {
        return Some(NearReason::Header);
    }
    let any_method = Matcher { methods: Methods::any(), ..matcher.clone() };
    let with_path = |path: String| Head {
        method: head.method,
        host: head.host.as_deref().map(Cow::Borrowed),
        port: head.port,
        path: Cow::Owned(path),
        query: head.query,
        headers: head.headers,
    };
    let slash = match head.path.strip_suffix('/') {
        Some(shorter) if !shorter.is_empty() => shorter.to_owned(),
        Some(_) | None => format!("{}/", head.path),
    };
    if alone(any_method.clone(), &with_path(slash)).is_ok() {
        return Some(NearReason::TrailingSlash);
    }
    // The pattern may contain upper-case letters. Each path segment that differs only in case is replaced by the
    // pattern's segment.
    let pattern = matcher.path.to_string();
    let is_same_word = |(word, segment): (&str, &str)| {
        if word.eq_ignore_ascii_case(segment) { word.to_owned() } else { segment.to_owned() }
    };
    let mut words = pattern.split('/');
    let recased: Vec<String> = head
        .path
        .split('/')
        .map(|segment| is_same_word((words.next().unwrap_or_default(), segment)))
        .collect();
    if alone(any_method.clone(), &with_path(recased.join("/"))).is_ok() {
        return Some(NearReason::Case);
    }
    // Any word stands for a parameter of the pattern.
    let below = format!("{}/word", head.path.trim_end_matches('/'));
    alone(any_method, &with_path(below)).is_ok().then_some(NearReason::Below)
}

/// Matches a request head against a table that contains only this matcher.
fn alone(matcher: Matcher, head: &Head<'_>) -> Result<(), Denial> {
    let Ok(table) = RouteTable::build(vec![(matcher, ())]) else { return Err(Denial::NoRoute) };
    table.find(head).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::PathPattern;
    use crate::route::head::HeadBounds;
    use crate::route::path::Slashes;
    use http::Request;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pattern_of_another_path_is_never_near(
            pattern in "(/(a|B|@c|%40c|x%20y|\\{p\\})){0,3}(/|/\\{\\*r\\})?",
            path in "(/(a|A|b|B|@c|%40c|@C|x%20y|d)){0,3}/?",
            host in "h|g",
            method in "GET|PUT",
        ) {
            let Ok(pattern) = PathPattern::parse(&pattern) else { return Ok(()) };
            let matcher =
                Matcher { host: HostPattern::parse("h").unwrap(), path: pattern, methods: Methods::any(), fields: Fields::default() };
            let path = if path.is_empty() { "/" } else { &path };
            let request = Request::builder().method(&*method).uri(path).header("host", host);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let bounds = HeadBounds { header_count: 100, header_bytes: 65_536 };
            let Ok(head) = Head::read(&parts, bounds, Slashes::Strict) else { return Ok(()) };
            if is_elsewhere(&matcher.path.to_string(), &head.path) {
                prop_assert_eq!(miss(&matcher, &head), None);
            }
        }
    }
}
