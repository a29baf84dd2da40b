//! Rewrites a path by a regular expression.
//!
//! The expression sees the canonical path, after the decision. The result must be a canonical path too, so it contains
//! no dot segment, no empty segment and no encoded separator, whatever the groups match.

use crate::denial::Malformed;
use crate::route::path::{PATH_BYTES_MAX, canonical, has_parameters};
use regex::bytes::{Captures, Regex, RegexBuilder};
use std::borrow::Cow;
use std::fmt;

/// The longest expression and the longest template, in bytes.
const TEXT_BYTES_MAX: usize = 500;
/// The largest compiled expression, in bytes. The time of a match grows with it.
const COMPILED_BYTES_MAX: usize = 64 * 1024;

/// An expression for whole paths, and the template of the new path.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    parts: Box<[Part]>,
    text: Box<str>,
}

/// A part of a template.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Literal(Box<str>),
    /// The number of a group.
    Group(usize),
}

/// The reason why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PatternFault {
    /// The expression is invalid or too large.
    Pattern(String),
    /// The template cannot produce a path.
    Template(String),
}

impl Pattern {
    /// Compiles an expression and a template, in which `{1}` and `{name}` are groups of the expression.
    pub(crate) fn parse(pattern: &str, template: &str) -> Result<Self, PatternFault> {
        if pattern.len() > TEXT_BYTES_MAX {
            return Err(PatternFault::Pattern(format!("longer than {TEXT_BYTES_MAX} bytes")));
        }
        let compile = |text: &str| {
            let mut builder = RegexBuilder::new(text);
            // A canonical path is ASCII.
            builder.unicode(false).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(4 * COMPILED_BYTES_MAX);
            builder.build().map_err(|error| PatternFault::Pattern(last_line(&error.to_string())))
        };
        // By itself, so that an unbalanced parenthesis does not close the group below.
        compile(pattern)?;
        let first = pattern.trim_start_matches('^').chars().next();
        if first.is_none_or(|first| first.is_ascii_alphanumeric()) {
            return Err(PatternFault::Pattern(
                "the expression covers whole paths, which begin with /".to_owned(),
            ));
        }
        let regex = compile(&format!("^(?:{pattern})$"))?;
        let parts = parts(template, &regex).map_err(PatternFault::Template)?;
        let pattern = Self { regex, parts, text: template.into() };
        // Nearly any group can match one letter, and no group makes an invalid template valid.
        let probe = pattern.fill(|_| "a").map_err(|fault| {
            PatternFault::Template(match fault {
                Malformed::Rewritten => "not in canonical spelling".to_owned(),
                fault => fault.reason().to_owned(),
            })
        })?;
        if has_parameters(&probe) {
            return Err(PatternFault::Template("contains path parameters (;)".to_owned()));
        }
        Ok(pattern)
    }

    /// Returns the new path, or the same path if the expression does not match it.
    ///
    /// # Errors
    /// Returns [`Malformed::Rewritten`] if the new path is not canonical, or has parameters that the old one has not.
    pub(crate) fn path<'p>(&self, path: &'p str) -> Result<Cow<'p, str>, Malformed> {
        let Some(groups) = self.regex.captures(path.as_bytes()) else { return Ok(Cow::Borrowed(path)) };
        let sent = self.fill(|number| text(&groups, number)).map_err(|_| Malformed::Rewritten)?;
        if has_parameters(&sent) && !has_parameters(path) {
            return Err(Malformed::Rewritten);
        }
        Ok(Cow::Owned(sent))
    }

    /// Returns the expression for whole paths.
    pub(crate) fn expression(&self) -> &str {
        let text = self.regex.as_str();
        text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text)
    }

    /// Returns the parts of the template: literals, and the numbers of groups.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Fills the template.
    fn fill<'g>(&self, group: impl Fn(usize) -> &'g str) -> Result<String, Malformed> {
        let mut sent = String::new();
        for part in &self.parts {
            sent.push_str(match part {
                Part::Literal(text) => text,
                Part::Group(number) => group(*number),
            });
            if sent.len() > PATH_BYTES_MAX {
                return Err(Malformed::PathTooLong);
            }
        }
        match canonical(&sent)? {
            Cow::Borrowed(_) => Ok(sent),
            Cow::Owned(_) => Err(Malformed::Rewritten),
        }
    }
}

fn text<'p>(groups: &Captures<'p>, number: usize) -> &'p str {
    let matched = groups.get(number).map(|found| found.as_bytes()).unwrap_or_default();
    std::str::from_utf8(matched).unwrap_or_default()
}

/// Returns the message of an error without the copy of the expression.
fn last_line(error: &str) -> String {
    error.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

fn parts(template: &str, regex: &Regex) -> Result<Box<[Part]>, String> {
    if template.len() > TEXT_BYTES_MAX {
        return Err(format!("longer than {TEXT_BYTES_MAX} bytes"));
    }
    // With a group at its start, a request could choose the first segment.
    if !template.starts_with('/') {
        return Err("does not begin with /".to_owned());
    }
    // Many proxies write groups as `$1`. The upstream would receive these characters.
    let mut dollars = template.match_indices('$').map(|(at, _)| &template[at + 1..]);
    if dollars.any(|after| after.starts_with(|next: char| next.is_ascii_digit() || next == '{')) {
        return Err("groups are written {1}, without $".to_owned());
    }
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a { without its }")?;
        let number = match name.parse::<usize>() {
            Ok(number) => Some(number).filter(|number| (1..regex.captures_len()).contains(number)),
            Err(_) => regex.capture_names().position(|known| known == Some(name)),
        };
        let number = number.ok_or_else(|| format!("the pattern has no group {{{name}}}"))?;
        parts.extend([Part::Literal(literal.into()), Part::Group(number)]);
        rest = after;
    }
    parts.push(Part::Literal(rest.into()));
    Ok(parts.into())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(why) | Self::Template(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(pattern: &str, template: &str, path: &str) -> Result<String, Malformed> {
        Pattern::parse(pattern, template).unwrap().path(path).map(Cow::into_owned)
    }

    #[test]
    fn groups_fill_the_template_and_other_paths_stay() {
        for (pattern, template, path, sent) in [
            (r"/shop/(\d+)/(.*)", "/v2/{2}/{1}", "/shop/7/parts/a", "/v2/parts/a/7"),
            ("/(?<lang>de|en)/(?<rest>.*)", "/{rest}-{lang}", "/de/a", "/a-de"),
            ("^/a$", "/b", "/a", "/b"),
            ("/a", "/b", "/a/", "/a/"),
            ("/a", "/b", "/x/a", "/x/a"),
            ("/a|/b", "/c", "/bb", "/bb"),
            ("/(a)?b", "/x{1}", "/b", "/x"),
            ("(?i)/A/(.*)", "/{1}", "/a/B", "/B"),
            ("/a/(.*)", "/{1}", "/a/%20;v=1", "/%20;v=1"),
        ] {
            assert_eq!(
                rewritten(pattern, template, path).as_deref(),
                Ok(sent),
                "{pattern} {template} {path}"
            );
        }
    }

    #[test]
    fn a_result_that_is_no_canonical_path_is_refused() {
        let long = format!("/a/{}", "x".repeat(PATH_BYTES_MAX / 2));
        for (pattern, template, path) in [
            ("/a/(.*)", "/b/{1}/c", "/a/"),
            ("/a/(.*)-(.*)", "/{1}{2}/etc", "/a/.-."),
            ("/a/(..)(.*)", "/{2}{1}", "/a/%20x"),
            ("/a/(.*)", "/{1}{1}{1}", &*long),
            ("/(a)/([^/]*)/?", "/p/{2}/", "/a/"),
            ("/a/(.)(.*)", "/{1}2F{2}", "/a/%252F"),
        ] {
            assert_eq!(rewritten(pattern, template, path), Err(Malformed::Rewritten), "{path}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_make_a_path_is_a_fault() {
        for pattern in
            ["/(", "shop/(.*)", "", "/a)|(/b", r"/(\w{1,200}){1,200}", &"/a".repeat(300), r"/\p{Greek}"]
        {
            let fault = Pattern::parse(pattern, "/x").unwrap_err();
            assert!(matches!(fault, PatternFault::Pattern(_)), "{pattern}: {fault:?}");
        }
        for template in [
            "x", "", "{1}", "/{2}", "/{", "/{no}", "/{0}", "//{1}", "/../{1}", "/%2f{1}", "/%{1}", "/a b",
            "/a?{1}", "/a#", "/a;b", "/$1", "/a/${1}",
        ] {
            let fault = Pattern::parse("/(.*)", template).unwrap_err();
            assert!(matches!(fault, PatternFault::Template(_)), "{template}: {fault:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// For every match of the groups, the upstream receives a canonical path that is within the bounds.
        #[test]
        fn a_rewritten_path_is_canonical(
            raw in "(/([a-c.]|%2e|%2E|%25|%20|%5|2|f|C|;|%3b)+){0,5}/?",
            template in "/([a-c.]|%20|/|-|\\{[12]\\}){0,8}",
            pattern in prop_oneof![
                Just("/(.*)/(.*)"), Just("/(.?)(.*)"), Just("/([^/]*)/?(.*)"), Just("(.*)%(.*)"), Just("(.*?)[.](.*)")
            ],
        ) {
            let (Ok(path), Ok(pattern)) = (canonical(&raw), Pattern::parse(pattern, &template)) else { return Ok(()) };
            if let Ok(sent) = pattern.path(&path) {
                prop_assert!(matches!(canonical(&sent), Ok(Cow::Borrowed(_))), "{}", sent);
                prop_assert!(!has_parameters(&sent) || has_parameters(&path), "{}", sent);
            }
        }
    }
}
