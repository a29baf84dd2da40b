//! The trees in which a table looks up a host and a path: what matches, most specific first.

use crate::route::host::HostPattern;
use crate::route::lenient::without_ending;
use crate::route::path;
use crate::route::pattern::{LITERAL_BYTES_MAX, Params, PathPattern, Segment};
use std::collections::HashMap;

/// One tree of paths for each host pattern.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) exact: HashMap<Box<str>, Node>,
    pub(super) below: HashMap<Box<str>, Node>,
    pub(super) any: Node,
    /// The length of the longest name in `below`: longer ones need no look-up.
    below_bytes_max: usize,
    case: Case,
}

/// Whether upper and lower case make different literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Insensitive,
}

/// A position in a path: what may follow, and what stands here.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// By decoded segment, so that no spelling of a literal falls through to a parameter.
    literals: HashMap<Box<[u8]>, Self>,
    param: Option<Box<Self>>,
    rest: Option<usize>,
    end: Option<usize>,
}

impl Trees {
    pub(super) fn new(case: Case) -> Self {
        let (exact, below) = (HashMap::new(), HashMap::new());
        Self { exact, below, any: Node::default(), below_bytes_max: 0, case }
    }

    /// The place of a matcher, made when it is not there.
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

    /// The trees of the patterns that cover a host, the most specific first.
    fn of<'t>(&'t self, host: Option<&'t str>) -> impl Iterator<Item = &'t Node> {
        let exact = host.and_then(|host| self.exact.get(host));
        // The shorter a parent's name is, the more it covers.
        let parents = host.filter(|_| !self.below.is_empty()).into_iter().flat_map(|host| {
            host.match_indices('.')
                .map(|(dot, _)| &host[dot + 1..])
                .filter(|name| name.len() <= self.below_bytes_max)
        });
        let below = parents.filter_map(|name| self.below.get(name));
        exact.into_iter().chain(below).chain([&self.any])
    }
}

/// A literal as a tree holds it. In the tree for lenient readers, what such a reader drops of it is not there.
fn lenient(literal: &[u8], case: Case) -> Box<[u8]> {
    match case {
        Case::Sensitive => literal.into(),
        Case::Insensitive => {
            let lower = literal.to_ascii_lowercase();
            let kept = std::str::from_utf8(&lower).map_or(&*lower, |text| without_ending(text).as_bytes());
            // A literal of nothing else stays: an empty one is the end of a path.
            if kept.is_empty() { lower.into() } else { kept.into() }
        }
    }
}

impl Node {
    /// The place of a pattern below this node, made when it is not there.
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

    /// The places that cover every path which a pattern covers, its own among them.
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
                // A parameter is never empty.
                follow(self.param.as_deref().filter(|_| !literal.is_empty()), spots);
            }
        }
    }

    /// Whether a place that these segments lead to, but for a slash at the end, is one of those asked for and nearer than they
    /// are: it has a literal where they have a parameter or the rest, or a parameter where they have the rest.
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
        // The end of a path with a slash is that of the path without.
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

    /// Whether any place from here on is one of those asked for; those right here only where they count as nearer already.
    fn any_below(&self, is_closer: bool, asked: &impl Fn(usize) -> bool) -> bool {
        let is_asked = |place: Option<usize>| is_closer && place.is_some_and(asked);
        is_asked(self.end)
            || is_asked(self.rest)
            || self.literals.values().chain(self.param.as_deref()).any(|node| node.any_below(true, asked))
    }

    /// Tells each place of a `{*rest}` that more specific ones leave nothing to, with one of those. A node is asked about
    /// once for each parameter above it, of which a pattern has few.
    pub(super) fn unreachable(&self, tell: &mut impl FnMut(usize, usize)) {
        if let (Some(lost), Some(winner)) = (self.rest, self.taken()) {
            tell(lost, winner);
        }
        self.literals.values().chain(self.param.as_deref()).for_each(|node| node.unreachable(tell));
    }

    /// A place that whatever follows goes to, but for the `{*rest}` here, if there is a place for all of it: nothing at
    /// all, one segment of any name, and several. Literals decide nothing: a segment may always have another name.
    fn taken(&self) -> Option<usize> {
        self.literals.get(&[][..])?.end?;
        let param = self.param.as_deref()?;
        param.end?;
        param.rest.or_else(|| param.taken())
    }

    /// The most specific place that covers a path, given without the slash before it. Goes as deep as the table's
    /// longest pattern, and visits a node at most once, however the path is made.
    fn search<'p>(&self, path: &'p str, case: Case, params: &mut Params<'p>) -> Option<usize> {
        let (segment, tail) = match path.split_once('/') {
            Some((segment, tail)) => (segment, Some(tail)),
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
        if case == Case::Sensitive && !segment.contains('%') {
            return self.literals.get(segment.as_bytes());
        }
        // A literal may be spelled `@me` or `%40me` and mean the same to who decodes it.
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
