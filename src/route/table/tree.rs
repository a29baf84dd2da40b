//! The trees in which a table looks up a host and a path. The most specific match wins.

use crate::route::host::HostPattern;
use crate::route::lenient::without_ending;
use crate::route::path;
use crate::route::pattern::{LITERAL_BYTES_MAX, Params, PathPattern, Segment};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Hashes the names in a tree with FNV-1a. Only the policy inserts names, so a client cannot make them collide.
type PolicyNames = BuildHasherDefault<Fnv>;

#[derive(Debug)]
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    // The length adds nothing: each map has one kind of names.
    fn write_usize(&mut self, _length: usize) {}
}

/// One tree of paths for each host pattern.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) exact: HashMap<Box<str>, Node, PolicyNames>,
    pub(super) below: HashMap<Box<str>, Node, PolicyNames>,
    pub(super) any: Node,
    /// The length of the longest name in `below`, in bytes. Longer names are not looked up.
    below_bytes_max: usize,
    case: Case,
}

/// Whether literals are compared case-sensitively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Insensitive,
}

/// A node of a path tree. An edge is one segment.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The children by decoded segment. Decoding ensures that an encoded literal does not match a parameter instead.
    literals: HashMap<Box<[u8]>, Self, PolicyNames>,
    param: Option<Box<Self>>,
    rest: Option<usize>,
    end: Option<usize>,
}

impl Trees {
    pub(super) fn new(case: Case) -> Self {
        let (exact, below) = (HashMap::default(), HashMap::default());
        Self { exact, below, any: Node::default(), below_bytes_max: 0, case }
    }

    /// Returns the leaf of a matcher. Creates the nodes if necessary.
    pub(super) fn grow(&mut self, host: &HostPattern, path: &PathPattern) -> &mut Option<usize> {
        let root = match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Below(parent) => {
                self.below_bytes_max = self.below_bytes_max.max(parent.len());
                self.below.entry(parent.clone()).or_default()
            }
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
        };
        root.grow(path.segments(), self.case)
    }

    pub(super) fn find<'p>(
        &self,
        host: Option<&str>,
        path: &'p str,
        params: &mut Params<'p>,
    ) -> Option<usize> {
        let path = path.strip_prefix('/')?;
        self.of(host).find_map(|tree| tree.search(path, self.case, params))
    }

    /// Returns the trees whose host pattern covers a host, most specific first.
    pub(super) fn of<'t>(&'t self, host: Option<&'t str>) -> impl Iterator<Item = &'t Node> {
        let exact = host.and_then(|host| self.exact.get(host));
        // A longer parent name is more specific, so longer names come first.
        let parents = host.filter(|_| !self.below.is_empty()).into_iter().flat_map(|host| {
            host.match_indices('.')
                .map(|(dot, _)| &host[dot + 1..])
                .filter(|name| name.len() <= self.below_bytes_max)
        });
        let below = parents.filter_map(|name| self.below.get(name));
        exact.into_iter().chain(below).chain([&self.any])
    }
}

/// Returns a literal as a tree stores it. A case-insensitive tree omits the ending that a lenient server drops.
fn lenient(literal: &[u8], case: Case) -> Box<[u8]> {
    match case {
        Case::Sensitive => literal.into(),
        Case::Insensitive => {
            let lower = literal.to_ascii_lowercase();
            let kept = std::str::from_utf8(&lower).map_or(&*lower, |text| without_ending(text).as_bytes());
            // An empty literal would mean the end of a path.
            if kept.is_empty() { lower.into() } else { kept.into() }
        }
    }
}

impl Node {
    /// Returns the leaf of a pattern below this node. Creates the nodes if necessary.
    fn grow(&mut self, segments: &[Segment], case: Case) -> &mut Option<usize> {
        match segments {
            [] => &mut self.end,
            [Segment::Rest, ..] => &mut self.rest,
            [Segment::Param, tail @ ..] => self.param.get_or_insert_default().grow(tail, case),
            [Segment::Literal(literal), tail @ ..] => {
                let literal = lenient(literal, case);
                self.literals.entry(literal).or_default().grow(tail, case)
            }
        }
    }

    /// Collects the leaves that cover every path of a pattern. The leaf of the pattern is included.
    pub(super) fn including(&self, segments: &[Segment], spots: &mut Vec<usize>) {
        let Some((segment, tail)) = segments.split_first() else {
            spots.extend(self.end);
            return;
        };
        spots.extend(self.rest);
        let follow = |node: Option<&Self>, spots: &mut Vec<usize>| {
            if let Some(node) = node {
                node.including(tail, spots);
            }
        };
        match segment {
            Segment::Rest => {}
            Segment::Param => follow(self.param.as_deref(), spots),
            Segment::Literal(literal) => {
                follow(self.literals.get(literal), spots);
                // A parameter does not match an empty segment.
                follow(self.param.as_deref().filter(|_| !literal.is_empty()), spots);
            }
        }
    }

    /// Whether `asked` accepts a more specific leaf for these segments, with or without a trailing slash. A literal is
    /// more specific than a parameter, and a parameter is more specific than `{*rest}`.
    pub(super) fn closer(
        &self,
        segments: &[Segment],
        is_closer: bool,
        asked: &impl Fn(usize) -> bool,
    ) -> bool {
        let is_asked = |place: Option<usize>| is_closer && place.is_some_and(asked);
        let last = || self.literals.get(&[][..]).and_then(|node| node.end);
        let Some((segment, tail)) = segments.split_first() else {
            return is_asked(self.end) || is_asked(last()) || is_asked(self.rest);
        };
        // A pattern that ends in a slash also reaches the leaf of the pattern without the slash.
        if is_asked(self.end)
            && matches!(tail, [])
            && matches!(segment, Segment::Literal(literal) if literal.is_empty())
        {
            return true;
        }
        let follow = |node: Option<&Self>, closer: bool| {
            node.is_some_and(|node| node.closer(tail, is_closer || closer, asked))
        };
        let literals =
            || self.literals.iter().filter(|(literal, _)| !literal.is_empty()).map(|(_, node)| node);
        match segment {
            Segment::Literal(literal) => {
                let literal: Box<[u8]> = lenient(literal, Case::Insensitive);
                is_asked(self.rest)
                    || follow(self.literals.get(&literal), false)
                    || follow(self.param.as_deref(), false)
            }
            Segment::Param => {
                is_asked(self.rest)
                    || literals().any(|node| follow(Some(node), true))
                    || follow(self.param.as_deref(), false)
            }
            Segment::Rest => self.any_below(is_closer, asked),
        }
    }

    /// Whether `asked` accepts a leaf at or below this node. Leaves at this node count only if `is_closer` is true.
    fn any_below(&self, is_closer: bool, asked: &impl Fn(usize) -> bool) -> bool {
        let is_asked = |place: Option<usize>| is_closer && place.is_some_and(asked);
        is_asked(self.end)
            || is_asked(self.rest)
            || self.literals.values().chain(self.param.as_deref()).any(|node| node.any_below(true, asked))
    }

    /// Reports each `{*rest}` that no request reaches, together with a leaf that receives some of its requests.
    pub(super) fn unreachable(&self, report: &mut impl FnMut(usize, usize)) {
        if let (Some(lost), Some(winner)) = (self.rest, self.taken()) {
            report(lost, winner);
        }
        self.literals.values().chain(self.param.as_deref()).for_each(|node| node.unreachable(report));
    }

    /// Returns a leaf that receives requests of this node's `{*rest}`, if other leaves cover every remaining path.
    /// Literals do not count: a request may have any other segment.
    fn taken(&self) -> Option<usize> {
        self.literals.get(&[][..])?.end?;
        let param = self.param.as_deref()?;
        param.end?;
        param.rest.or_else(|| param.taken())
    }

    /// Returns the most specific leaf for a path without its leading slash. Visits each node at most once. The
    /// recursion depth is limited by the longest pattern.
    fn search<'p>(&self, path: &'p str, case: Case, params: &mut Params<'p>) -> Option<usize> {
        // A segment is short, so a loop over its bytes is faster than `str::split_once`.
        let (segment, tail) = match path.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        let literal = self.literal(segment, case).and_then(|node| node.descend(tail, case, params));
        if literal.is_some() {
            return literal;
        }
        if let Some(node) = self.param.as_ref().filter(|_| !segment.is_empty()) {
            params.push(segment);
            let found = node.descend(tail, case, params);
            if found.is_some() {
                return found;
            }
            params.pop();
        }
        if self.rest.is_some() {
            params.push(path);
        }
        self.rest
    }

    fn descend<'p>(&self, tail: Option<&'p str>, case: Case, params: &mut Params<'p>) -> Option<usize> {
        match tail {
            Some(path) => self.search(path, case, params),
            None => self.end,
        }
    }

    fn literal(&self, segment: &str, case: Case) -> Option<&Self> {
        if self.literals.is_empty() {
            return None;
        }
        if case == Case::Sensitive && !segment.contains('%') {
            return self.literals.get(segment.as_bytes());
        }
        // `@me` and `%40me` are the same literal for a server that decodes the path.
        let mut literal = [0; LITERAL_BYTES_MAX];
        let mut len = 0;
        for byte in path::decoded(segment.as_bytes()) {
            *literal.get_mut(len)? = match case {
                Case::Sensitive => byte,
                Case::Insensitive => byte.to_ascii_lowercase(),
            };
            len += 1;
        }
        self.literals.get(&literal[..len])
    }
}
