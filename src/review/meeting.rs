//! Finds requests that two routes cover. If one of the routes is added or removed, such requests change their route.

use crate::route::path::decoded;
use crate::route::{Fields, HostPattern, Matcher, Methods, PathPattern};

/// Returns the hosts, paths and header fields that both matchers cover, with the methods of either: a route also refuses
/// methods that it does not list. Returns `None` if no request has all of them.
pub(super) fn meeting(one: &Matcher, other: &Matcher) -> Option<Matcher> {
    Some(Matcher {
        host: host(&one.host, &other.host)?,
        path: path(&one.path.to_string(), &other.path.to_string())?,
        methods: Methods::union([&one.methods, &other.methods].into_iter()),
        fields: fields(&one.fields, &other.fields)?,
    })
}

fn host(one: &HostPattern, other: &HostPattern) -> Option<HostPattern> {
    if one.includes(other) { Some(other.clone()) } else { other.includes(one).then(|| one.clone()) }
}

fn fields(one: &Fields, other: &Fields) -> Option<Fields> {
    let mut all: Vec<_> = one.iter().cloned().collect();
    for (name, value) in other.iter() {
        match one.iter().find(|(known, _)| known == name) {
            None => all.push((name.clone(), value.clone())),
            Some((_, known)) if known == value => {}
            Some(_) => return None,
        }
    }
    Fields::new(all).ok()
}

fn path(one: &str, other: &str) -> Option<PathPattern> {
    let (mut ours, mut theirs) = (one.split('/'), other.split('/'));
    let mut met: Vec<&str> = Vec::new();
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => break,
            // A rest covers one more segment at least, which may be empty.
            (Some(rest), Some(next)) if is_rest(rest) => {
                met.push(next);
                met.extend(theirs);
                break;
            }
            (Some(next), Some(rest)) if is_rest(rest) => {
                met.push(next);
                met.extend(ours);
                break;
            }
            (Some(our), Some(their)) => met.push(segment(our, their)?),
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
    PathPattern::parse(&met.join("/")).ok().or_else(|| {
        // Both patterns have a parameter of the same name at different places.
        let renamed = met.iter().enumerate().map(|(place, segment)| match segment {
            rest if is_rest(rest) => format!("{{*p{place}}}"),
            param if is_param(param) => format!("{{p{place}}}"),
            literal => (*literal).to_owned(),
        });
        PathPattern::parse(&renamed.collect::<Vec<_>>().join("/")).ok()
    })
}

/// Returns the segment that two segments have in common. A parameter covers no empty segment.
fn segment<'s>(one: &'s str, other: &'s str) -> Option<&'s str> {
    match (is_param(one), is_param(other)) {
        (true, true) => Some(one),
        (true, false) => Some(other).filter(|literal| !literal.is_empty()),
        (false, true) => Some(one).filter(|literal| !literal.is_empty()),
        (false, false) => decoded(one.as_bytes()).eq(decoded(other.as_bytes())).then_some(one),
    }
}

/// A literal brace is written as `%7B`, so a segment that begins with a brace is a parameter.
fn is_param(segment: &str) -> bool {
    segment.starts_with('{')
}

fn is_rest(segment: &str) -> bool {
    segment.starts_with("{*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Head;
    use crate::route::RouteTable;
    use http::{HeaderMap, Method};
    use proptest::prelude::*;
    use std::borrow::Cow;

    fn met(one: &str, other: &str) -> Option<String> {
        path(one, other).map(|path| path.to_string())
    }

    #[test]
    fn two_patterns_meet_in_the_paths_that_both_cover() {
        for (one, other, expected) in [
            ("/a", "/a", Some("/a")),
            ("/a", "/b", None),
            ("/a", "/{x}", Some("/a")),
            ("/{x}", "/{y}", Some("/{x}")),
            ("/a/{x}", "/{y}/b", Some("/a/b")),
            ("/a/{x}", "/a", None),
            ("/a/", "/a/{x}", None),
            ("/a/", "/a/{*x}", Some("/a/")),
            ("/a", "/a/{*x}", None),
            ("/a/b/{x}/", "/a/{*x}", Some("/a/b/{x}/")),
            ("/{*x}", "/a/{*y}", Some("/a/{*y}")),
            ("/@me", "/%40me", Some("/@me")),
            ("/{x}/{*y}", "/a/{x}/{y}", Some("/a/{x}/{y}")),
            ("/{x}/{*z}", "/{y}/a/{x}", Some("/{p1}/a/{p3}")),
        ] {
            assert_eq!(met(one, other).as_deref(), expected, "{one} {other}");
            assert_eq!(met(other, one).is_some(), expected.is_some(), "{other} {one}");
        }
    }

    fn covers(pattern: &str, path: &str) -> bool {
        let matcher = Matcher {
            host: HostPattern::Any,
            path: PathPattern::parse(pattern).unwrap(),
            methods: Methods::any(),
            fields: Fields::default(),
        };
        let table = RouteTable::build(vec![(matcher, ())]).unwrap();
        let headers = HeaderMap::new();
        let (host, path) = (Some(Cow::Borrowed("h.test")), Cow::Borrowed(path));
        let head = Head { method: &Method::GET, host, port: None, path, query: None, headers: &headers };
        table.find(&head).is_ok()
    }

    proptest! {
        /// Patterns meet exactly if some path is covered by both.
        #[test]
        fn a_meeting_covers_what_both_cover(
            one in "(/(a|b|\\{x\\})){0,3}(/\\{\\*r\\}|/a|/)?",
            other in "(/(a|b|\\{y\\})){0,3}(/\\{\\*s\\}|/b|/)?",
            sent in "(/(a|b|c)){0,4}/?",
        ) {
            let is_pattern = |text: &str| PathPattern::parse(text).is_ok();
            prop_assume!(is_pattern(&one) && is_pattern(&other) && sent.starts_with('/'));
            let both = covers(&one, &sent) && covers(&other, &sent);
            prop_assert_eq!(met(&one, &other).is_some_and(|met| covers(&met, &sent)), both);
        }
    }
}
