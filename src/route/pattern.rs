//! Path patterns of routes, and the values of path parameters.

use super::path::{self, SEGMENTS_MAX};
use crate::denial::Malformed;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// The maximum number of parameters in a path pattern.
pub(crate) const PARAMS_MAX: usize = 8;

/// The maximum length of a literal segment, in bytes after decoding. Request segments are decoded into an array of this
/// size.
pub(super) const LITERAL_BYTES_MAX: usize = 255;

/// A path pattern. Each segment is a literal or `{name}`, which covers one non-empty segment. The last segment can be
/// `{*name}`, which covers the remaining path, even an empty one. `/api/{*rest}` covers `/api/` and `/api/x/y`, but not
/// `/api`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
    params: Box<[Box<str>]>,
}

/// A segment of a pattern. The order of the variants is the order of matching.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    /// The decoded text. `/@me` also covers `/%40me`, because an upstream that decodes the path sees `/@me`.
    Literal(Box<[u8]>),
    /// One non-empty segment.
    Param,
    /// The remaining path.
    Rest,
}

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the pattern and how to fix it.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        let Some(tail) = text.strip_prefix('/') else {
            return Err(PatternFault::new(
                format!("the path `{text}`, which does not begin with a slash"),
                format!("write `/{text}`"),
            ));
        };
        let count = tail.split('/').count();
        if count > SEGMENTS_MAX {
            return Err(PatternFault::new(
                format!("a path of {count} segments"),
                format!("a request has at most {SEGMENTS_MAX}: shorten the path"),
            ));
        }
        let mut segments = Vec::with_capacity(count);
        let mut params: Vec<Box<str>> = Vec::new();
        for (nth, source) in tail.split('/').enumerate() {
            let is_last = nth + 1 == count;
            let name = source.strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
            let Some(name) = name else {
                segments.push(Segment::Literal(parse_literal(text, source, is_last)?));
                continue;
            };
            let (name, segment) = match name.strip_prefix('*') {
                Some(name) => (name, Segment::Rest),
                None => (name, Segment::Param),
            };
            if segment == Segment::Rest && !is_last {
                return Err(PatternFault::new(
                    format!("`{{*{name}}}` before the end of `{text}`"),
                    format!(
                        "it matches the rest of the path: put it last, or write `{{{name}}}` for one segment"
                    ),
                ));
            }
            check_name(name, &params)?;
            params.push(name.into());
            segments.push(segment);
        }
        if params.len() > PARAMS_MAX {
            return Err(PatternFault::new(
                format!("{} parameters in `{text}`", params.len()),
                format!("a path has at most {PARAMS_MAX}; a last `{{*rest}}` takes several segments"),
            ));
        }
        Ok(Self { text: text.into(), segments: segments.into(), params: params.into() })
    }

    /// Returns the parameter names. A parameter has the same position in [`Params`].
    pub(crate) fn params(&self) -> &[Box<str>] {
        &self.params
    }

    /// Returns the segments. If the pattern ends in a slash, the last segment is an empty literal.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether a literal contains an upper-case letter.
    pub(super) fn has_upper(&self) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Literal(literal) => literal.iter().any(u8::is_ascii_uppercase),
            Segment::Param | Segment::Rest => false,
        })
    }

    /// Compares two patterns segment by segment. A literal is less than a parameter, and a parameter is less than
    /// `{*rest}`.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.segments.cmp(&other.segments)
    }

    /// Whether the pattern has no parameters.
    pub(super) fn is_literal(&self) -> bool {
        self.params.is_empty()
    }

    /// Whether this pattern is more specific than `other`. The patterns must cover the same path, apart from a trailing
    /// slash. The first segments that differ in kind decide: a literal is more specific than a parameter, and a
    /// parameter is more specific than `{*rest}`. Returns false if the patterns differ only at the end.
    pub(super) fn is_closer(&self, other: &Self) -> bool {
        let pairs = self.segments.iter().zip(&other.segments);
        let kind = |segment: &Segment| match segment {
            Segment::Literal(literal) if literal.is_empty() => None,
            Segment::Literal(_) => Some(0),
            Segment::Param => Some(1),
            Segment::Rest => Some(2),
        };
        let mut kinds = pairs.map(|(ours, theirs)| (kind(ours), kind(theirs)));
        match kinds.find(|(ours, theirs)| ours != theirs) {
            Some((Some(ours), Some(theirs))) => ours < theirs,
            // One of the patterns ends here.
            Some((None, _) | (_, None)) | None => false,
        }
    }

    /// Whether this pattern covers every path that `other` covers.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let mut theirs = other.segments.iter();
        for ours in &self.segments {
            match (ours, theirs.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Param, Some(Segment::Param)) => {}
                (Segment::Param, Some(Segment::Literal(literal))) if !literal.is_empty() => {}
                (Segment::Literal(ours), Some(Segment::Literal(theirs))) if ours == theirs => {}
                (Segment::Literal(_) | Segment::Param | Segment::Rest, _) => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Parses a literal segment. Rejects any spelling that is not canonical.
fn parse_literal(text: &str, source: &str, is_last: bool) -> Result<Box<[u8]>, PatternFault> {
    if source.is_empty() {
        return if is_last {
            Ok(Box::default())
        } else {
            Err(PatternFault::new(
                format!("an empty segment (`//`) in `{text}`"),
                "remove one of the slashes",
            ))
        };
    }
    if source.contains(['{', '}']) {
        return Err(PatternFault::new(
            format!("`{source}` in `{text}`"),
            "a parameter is a whole segment, as in `/orders/{id}`; write `%7B` and `%7D` for braces",
        ));
    }
    if source == "*" || source == "**" {
        return Err(PatternFault::new(
            format!("`{source}` in `{text}`, which would be an asterisk"),
            "write `{name}` for one segment, a last `{*rest}` for all that remain, or `%2A` for an asterisk",
        ));
    }
    if matches!(source, "." | "..") {
        return Err(PatternFault::new(
            format!("the dot segment `{source}` in `{text}`"),
            "request paths have no dot segments: write the resolved path",
        ));
    }
    if path::has_parameters(source) {
        return Err(PatternFault::new(
            format!("the path parameter of `{source}` in `{text}`"),
            "some servers do not count the text after `;` as part of the path, and a request that two servers would \
             read differently is rejected: write the path without it",
        ));
    }
    let rooted = format!("/{source}");
    match path::canonical(&rooted) {
        Ok(Cow::Borrowed(_)) => {}
        Ok(Cow::Owned(canonical)) => {
            return Err(PatternFault::new(
                format!("`{source}` in `{text}`, which is not the canonical spelling"),
                format!("write `{}`", &canonical[1..]),
            ));
        }
        Err(malformed) => {
            return Err(PatternFault::new(
                format!("`{source}` in `{text}`: {}", reason(malformed)),
                "no accepted request contains it: remove it",
            ));
        }
    }
    let literal: Box<[u8]> = path::decoded(source.as_bytes()).collect();
    if literal.len() > LITERAL_BYTES_MAX {
        return Err(PatternFault::new(
            format!("a segment of {} bytes", literal.len()),
            format!("a literal segment has at most {LITERAL_BYTES_MAX}"),
        ));
    }
    Ok(literal)
}

/// Describes for the operator why no request path contains a literal.
fn reason(malformed: Malformed) -> &'static str {
    match malformed {
        Malformed::EncodedSeparator => "an encoded slash or backslash",
        Malformed::Backslash => "a backslash",
        Malformed::ControlByte => "a control character",
        Malformed::DotSegment => "a hidden dot segment",
        Malformed::OtherRoute => "a path of another route",
        Malformed::EmptySegment => "an empty segment",
        Malformed::PercentCode => "a percent sign without two hexadecimal digits",
        Malformed::NotUtf8 => "bytes that are not UTF-8",
        Malformed::Fragment => "a fragment",
        Malformed::Target => "a query",
        Malformed::PathTooLong => "too long a path",
        Malformed::Host
        | Malformed::HostMismatch
        | Malformed::RouteField
        | Malformed::Framing
        | Malformed::OriginalMissing
        | Malformed::OriginalTwice
        | Malformed::OriginalSpelling
        | Malformed::OriginalOverride
        | Malformed::PaddedValue
        | Malformed::Rewritten
        | Malformed::WebSocket
        | Malformed::Handshake(_) => "not a path",
    }
}

/// Rejects a name that is not an identifier, and a second parameter of the same name. Claim rules use these names.
fn check_name(name: &str, before: &[Box<str>]) -> Result<(), PatternFault> {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    if !is_word {
        return Err(PatternFault::new(
            format!("the parameter name `{name}`"),
            "use letters, digits and `_`, and do not begin with a digit",
        ));
    }
    if before.iter().any(|other| **other == *name) {
        return Err(PatternFault::new(
            format!("two parameters named `{name}`"),
            "give each parameter of a path its own name",
        ));
    }
    Ok(())
}

/// A fault in a host, path or method pattern, described for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternFault {
    found: Cow<'static, str>,
    remedy: Cow<'static, str>,
}

impl PatternFault {
    pub(super) fn new(found: impl Into<Cow<'static, str>>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { found: found.into(), remedy: remedy.into() }
    }

    /// Returns a description of the fault.
    pub(crate) fn found(&self) -> &str {
        &self.found
    }

    /// Returns how to fix the fault.
    pub(crate) fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found, self.remedy)
    }
}

impl std::error::Error for PatternFault {}

/// The values of the path parameters, in the order of the pattern. The values are slices of the canonical path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params<'p> {
    values: [&'p str; PARAMS_MAX],
    len: usize,
}

impl<'p> Params<'p> {
    /// Returns the value of a parameter, percent-encoded as in the canonical path.
    pub(crate) fn get(&self, position: usize) -> Option<&'p str> {
        self.as_slice().get(position).copied()
    }

    /// Returns all values.
    pub(crate) fn as_slice(&self) -> &[&'p str] {
        &self.values[..self.len]
    }

    /// Appends a value. A valid pattern has at most `PARAMS_MAX` parameters.
    pub fn push(&mut self, value: &'p str) {
        debug_assert!(self.len < PARAMS_MAX, "a pattern holds at most PARAMS_MAX parameters");
        if self.len < PARAMS_MAX {
            self.values[self.len] = value;
            self.len += 1;
        }
    }

    /// Removes the last value.
    pub(crate) fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_keeps_its_text_and_the_order_of_its_names() {
        let pattern = pattern("/t/{tenant}/o/{id}/{*rest}");
        assert_eq!(pattern.to_string(), "/t/{tenant}/o/{id}/{*rest}");
        assert_eq!(pattern.params().iter().map(|name| &**name).collect::<Vec<_>>(), ["tenant", "id", "rest"]);
    }

    #[test]
    fn a_faulty_pattern_says_what_would_be_right() {
        let long = format!("/{}", "a".repeat(LITERAL_BYTES_MAX + 1));
        let deep = "/a".repeat(SEGMENTS_MAX + 1);
        for (text, says) in [
            ("", "write `/`"),
            ("orders", "write `/orders`"),
            ("/a//b", "remove one of the slashes"),
            ("//", "remove one of the slashes"),
            ("/a/../b", "dot segment `..`"),
            ("/./b", "dot segment `.`"),
            ("/%61dmin", "write `admin`"),
            ("/caf\u{e9}", "write `caf%C3%A9`"),
            ("/a b", "write `a%20b`"),
            ("/a%2fb", "encoded slash"),
            ("/a?b=1", "a query"),
            ("/a#b", "a fragment"),
            ("/a%", "percent sign"),
            ("/v{n}", "a whole segment"),
            ("/{a}{b}", "name"),
            ("/a}", "a whole segment"),
            ("/{", "a whole segment"),
            ("/*", "{*rest}"),
            ("/a/**", "{*rest}"),
            ("/{}", "parameter name ``"),
            ("/{*}", "parameter name ``"),
            ("/{1a}", "begin with a digit"),
            ("/{a-b}", "letters, digits"),
            ("/{a}/{a}", "its own name"),
            ("/{a}/{*a}", "its own name"),
            ("/{*rest}/a", "put it last"),
            ("/{*rest}/", "put it last"),
            ("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{*i}", "at most 8"),
            (&long, "at most 255"),
            (&deep, "at most 128"),
        ] {
            let fault = PathPattern::parse(text).expect_err(text).to_string();
            assert!(fault.contains(says), "{text}: {fault}");
        }
    }

    #[test]
    fn eight_parameters_are_fine() {
        assert_eq!(pattern("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{*h}").params().len(), PARAMS_MAX);
    }

    #[test]
    fn inclusion_knows_what_each_segment_takes() {
        for (general, specific) in [
            ("/{*r}", "/a/b"),
            ("/{*r}", "/"),
            ("/a/{*r}", "/a/"),
            ("/{x}", "/a"),
            ("/{x}", "/{y}"),
            ("/a/{*r}", "/a/{*s}"),
        ] {
            assert!(pattern(general).includes(&pattern(specific)), "{general} {specific}");
        }
        for (general, specific) in [
            ("/a/{*r}", "/a"),
            ("/{x}", "/"),
            ("/a", "/{x}"),
            ("/{x}", "/{*r}"),
            ("/{x}", "/a/"),
            ("/a", "/a/b"),
            ("/a/b", "/a"),
        ] {
            assert!(!pattern(general).includes(&pattern(specific)), "{general} {specific}");
        }
    }
}
