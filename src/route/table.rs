//! The route table: at most one entry for a request, or the denial that says why there is none.
//!
//! Knows nothing of what it holds. That no two entries can claim the same request is settled when the table is
//! built; a look-up costs what the request's host and path are long, not what the table is.

use super::head::Head;
use super::host::HostPattern;
use super::methods::Methods;
use super::path;
use super::pattern::{LITERAL_BYTES_MAX, Params, PathPattern, Segment};
use crate::denial::{Denial, Malformed};
use http::Method;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What an entry covers.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The hosts.
    pub host: HostPattern,
    /// The paths.
    pub path: PathPattern,
    /// The methods.
    pub methods: Methods,
}

impl Matcher {
    /// Whether every host and path that the other covers is covered by this one too; methods take no part.
    pub fn includes(&self, other: &Self) -> bool {
        self.host.includes(&other.host) && self.path.includes(&other.path)
    }

    /// The order in which entries are considered: the first of them all that covers a host and a path is the most
    /// specific one. For listings; a look-up goes through no list.
    pub fn order(&self, other: &Self) -> Ordering {
        let methods = |matcher: &Self| matcher.methods.allow_value();
        let by_place = self.host.order(&other.host).then_with(|| self.path.order(&other.path));
        by_place.then_with(|| methods(self).cmp(&methods(other)))
    }
}

/// Entries by what they cover. The order in which they were given means nothing; `super` says what wins.
#[derive(Debug)]
pub struct RouteTable<T> {
    entries: Vec<(Matcher, T)>,
    spots: Vec<Spot>,
    /// Where requests are looked up; leads to `spots`.
    trees: Trees,
    /// The same without regard to case; leads to the places that spots have there.
    caseless: Trees,
    /// The spots of each place there.
    places: Vec<Vec<usize>>,
    /// Whether a literal holds a letter in upper case.
    has_upper: bool,
    /// What each entry guards.
    guards: Vec<Guard>,
    /// Whether any two entries guard otherwise: where none do, no reading gets past another.
    guards_differ: bool,
}

/// What an entry asks of those whom it lets pass, and before what: by numbers that are equal where these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// What stands behind it.
    pub before: u64,
    /// What it asks; none where it asks nothing.
    pub asks: Option<u64>,
    /// Whether it lets pass whoever does not have that, all the same.
    pub is_lax: bool,
}

impl Guard {
    /// Whether a request that this one lets pass is one that the other would have asked more of, or something else.
    fn is_way_around(self, other: Self) -> bool {
        self.before == other.before && other.asks.is_some() && (self.is_lax || self.asks != other.asks)
    }
}

/// One (host, path shape), whose entries have disjoint methods.
#[derive(Debug)]
struct Spot {
    entries: Vec<usize>,
    allow: Arc<str>,
    /// Whether a path that it covers may be another entry's but for a slash at its end: see `is_way_around`. Known once the
    /// guards are.
    slash: bool,
    /// Its place without regard to case: spots that differ by case alone share one.
    place: usize,
}

/// One tree of paths for each host pattern.
#[derive(Debug)]
struct Trees {
    exact: HashMap<Box<str>, Node>,
    below: HashMap<Box<str>, Node>,
    any: Node,
    /// The length of the longest name in `below`: longer ones need no look-up.
    below_bytes_max: usize,
    case: Case,
}

/// Whether upper and lower case make different literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Sensitive,
    Insensitive,
}

/// A position in a path: what may follow, and what stands here.
#[derive(Debug, Default)]
struct Node {
    /// By decoded segment, so that no spelling of a literal falls through to a parameter.
    literals: HashMap<Box<[u8]>, Self>,
    param: Option<Box<Self>>,
    rest: Option<usize>,
    end: Option<usize>,
}

/// Two entries that would claim the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The index of the first entry that claims what the second does.
    pub first: usize,
    /// The index of the entry that claims the same host, path shape and a method again.
    pub second: usize,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entries {} and {} cover the same host, path and a method", self.first, self.second)
    }
}

impl std::error::Error for Conflict {}

/// The entry that covers a request.
#[derive(Debug)]
pub struct Found<'t, 'p, T> {
    /// The entry.
    pub entry: &'t T,
    /// What it covers; names the parameters.
    pub matcher: &'t Matcher,
    /// Its position among those that the table was built from.
    pub index: usize,
    /// The values of the path's parameters.
    pub params: Params<'p>,
}

impl<T> RouteTable<T> {
    /// Builds a table.
    ///
    /// # Errors
    ///
    /// Every entry that has a method in common with an earlier one of its (host, path shape), with the first such.
    pub fn build(entries: Vec<(Matcher, T)>) -> Result<Self, Vec<Conflict>> {
        let mut table = Self {
            entries,
            spots: Vec::new(),
            trees: Trees::new(Case::Sensitive),
            caseless: Trees::new(Case::Insensitive),
            places: Vec::new(),
            has_upper: false,
            guards: Vec::new(),
            guards_differ: true,
        };
        let mut conflicts = Vec::new();
        let mut taken = Taken::default();
        for (index, (matcher, _)) in table.entries.iter().enumerate() {
            table.has_upper |= matcher.path.has_upper();
            let places = &mut table.places;
            let place = *table.caseless.grow(matcher).get_or_insert_with(|| {
                places.push(Vec::new());
                places.len() - 1
            });
            let spots = &mut table.spots;
            let spot = *table.trees.grow(matcher).get_or_insert_with(|| {
                spots.push(Spot { entries: Vec::new(), allow: Arc::from(""), slash: false, place });
                places[place].push(spots.len() - 1);
                spots.len() - 1
            });
            if let Some(first) = taken.take(spot, &matcher.methods, index) {
                conflicts.push(Conflict { first, second: index });
            }
            spots[spot].entries.push(index);
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        for spot in &mut table.spots {
            let sets = spot.entries.iter().map(|&index| &table.entries[index].0.methods);
            spot.allow = Methods::union(sets).allow_value().into();
        }
        // Until it is said what they guard, each is one that nobody is to get past.
        table.guards = (0..)
            .take(table.entries.len())
            .map(|asks| Guard { before: 0, asks: Some(asks), is_lax: false })
            .collect();
        Ok(table)
    }

    /// Says what each entry guards.
    #[must_use]
    pub fn guarding(mut self, guard: impl Fn(&T) -> Guard) -> Self {
        self.guards = self.entries.iter().map(|(_, entry)| guard(entry)).collect();
        self.guards_differ = self.guards.windows(2).any(|pair| pair[0] != pair[1]);
        for position in 0..self.spots.len() {
            self.spots[position].slash = self.guards_differ && self.slash_matters(position);
        }
        self
    }

    /// The entry that covers a request. Allocates nothing, unless the path holds percent codes or parameters.
    ///
    /// # Errors
    ///
    /// [`Denial::NoRoute`] when none covers its host and path, [`Denial::BadRequest`] when another one does to a reader
    /// that is less exact, [`Denial::MethodNotAllowed`] when what covers them most specifically does not cover its method.
    pub fn find<'t, 'p>(&'t self, head: &'p Head<'_>) -> Result<Found<'t, 'p, T>, Denial> {
        let mut params = Params::default();
        let host = head.host.as_deref();
        let spot = self.trees.find(host, &head.path, &mut params).ok_or(Denial::NoRoute)?;
        let spot = &self.spots[spot];
        match self.by_method(spot, head.method) {
            Some(index) if self.is_way_around(host, head, spot, index) => {
                Err(Denial::BadRequest(Malformed::OtherRoute))
            }
            Some(index) => {
                let (matcher, entry) = &self.entries[index];
                Ok(Found { entry, matcher, index, params })
            }
            // Never a laxer route instead: `DELETE /orders/{id}` is not what `/{*rest}` was written for.
            None => Err(Denial::MethodNotAllowed(Arc::clone(&spot.allow))),
        }
    }

    /// Whether an entry lets a request pass that another one, before the same upstream, would ask something else of: for a
    /// reader that ignores case, drops path parameters, endings and a last slash, and decodes what is encoded twice.
    /// `/Admin`, `/admin;x`, `/admin.`, `/admin/` and `/%2561dmin` are `/admin` to many an upstream: a laxer route for all
    /// else, which covers them here, would be the way around the guard. Who means two paths that differ by case or by their
    /// last slash has a route for each.
    fn is_way_around(&self, host: Option<&str>, head: &Head<'_>, spot: &Spot, index: usize) -> bool {
        let path = &*head.path;
        if !self.guards_differ {
            return false;
        }
        // All bytes and no branch: sixteen at a time, which for a path is faster than to stop at the first.
        let is_odd = |byte: u8| {
            byte.is_ascii_uppercase() | (byte == b'%') | (byte == b';') | (byte == b'.') | (byte == b'$')
        };
        let is_plain = !path.bytes().fold(false, |odd, byte| odd | is_odd(byte));
        if is_plain && !self.has_upper && !spot.slash {
            return false;
        }
        self.is_read_as_another(host, head, spot, index)
    }

    #[cold]
    fn is_read_as_another(&self, host: Option<&str>, head: &Head<'_>, spot: &Spot, index: usize) -> bool {
        let path = &*head.path;
        // Most of the paths with a dot in them are files, and nothing else.
        let is_otherwise =
            path::is_read_otherwise(path) || path.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_otherwise && !self.has_upper && !spot.slash {
            return false;
        }
        let Some(read) = path::leniently(path) else { return true };
        // A slash that a second encoding hides makes a path of other segments.
        if read.matches('/').count() != path.matches('/').count() {
            return true;
        }
        let guards = |other: usize| {
            let other = &self.spots[other];
            match self.by_method(other, head.method) {
                Some(met) => self.guards[index].is_way_around(self.guards[met]),
                // By this method the path would be refused.
                None => {
                    other.entries.iter().any(|&entry| self.guards[entry].before == self.guards[index].before)
                }
            }
        };
        let place = self.caseless.find(host, &read, &mut Params::default());
        if let Some(place) = place.filter(|place| *place != spot.place)
            && self.places[place].iter().any(|&other| guards(other))
        {
            return true;
        }
        if !spot.slash {
            return false;
        }
        let turned = match read.strip_suffix('/') {
            Some("") => return false,
            Some(shorter) => Cow::Borrowed(shorter),
            None => Cow::Owned(format!("{read}/")),
        };
        let own = &self.entries[index].0.path;
        self.caseless.find(host, &turned, &mut Params::default()).is_some_and(|place| {
            let closer = |other: usize| {
                let other = self.spots[other].entries[0];
                self.entries[other].0.path.is_closer(own)
            };
            self.places[place].iter().any(|&other| closer(other) && guards(other))
        })
    }

    /// Whether a path that the entries of a spot cover is, but for a slash at its end, one that other entries of another guard
    /// were written for. Found along the trees' own ways, once, when the table is built.
    fn slash_matters(&self, position: usize) -> bool {
        let spot = &self.spots[position];
        let (matcher, _) = &self.entries[spot.entries[0]];
        if matcher.path.is_literal() {
            return false;
        }
        let guards = |place: usize| {
            self.places[place].iter().flat_map(|&other| &self.spots[other].entries).any(|&other| {
                spot.entries.iter().any(|&own| {
                    let (own, other) = (self.guards[own], self.guards[other]);
                    own.before == other.before && own != other
                })
            })
        };
        let has_other_hosts = !self.caseless.exact.is_empty() || !self.caseless.below.is_empty();
        let own = match &matcher.host {
            HostPattern::Any if has_other_hosts => None,
            HostPattern::Any => Some(&self.caseless.any),
            HostPattern::Below(_) => None,
            HostPattern::Exact(name) => self.caseless.exact.get(name),
        };
        // Where a host belongs to several trees, the route is looked up for each request.
        own.is_none_or(|tree| tree.closer(matcher.path.segments(), false, &guards))
    }

    fn by_method(&self, spot: &Spot, method: &Method) -> Option<usize> {
        spot.entries.iter().copied().find(|&index| self.entries[index].0.methods.contains(method))
    }

    /// The entries, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&Matcher, &T)> {
        self.entries.iter().map(|(matcher, entry)| (matcher, entry))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The pairs of entries (general, specific) where the specific one's place takes requests away from the
    /// general one and refuses them for their method: `DELETE /orders/{id}` is never answered where the path has
    /// a place of its own, `/orders/new`, for GET alone. For reviews.
    pub fn shadowed(&self) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for (position, spot) in self.spots.iter().enumerate() {
            // A spot is made for its first entry, and all of its entries cover the same hosts and paths.
            let specific = spot.entries[0];
            let is_refused = |method: &Method| self.by_method(spot, method).is_none();
            if spot.entries.iter().any(|&index| self.entries[index].0.methods.is_any()) {
                continue;
            }
            for wider in self.including(&self.entries[specific].0) {
                for &general in self.spots[wider].entries.iter().filter(|_| wider != position) {
                    let methods = &self.entries[general].0.methods;
                    if methods.is_any() || methods.iter().any(is_refused) {
                        pairs.push((general, specific));
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs
    }

    /// The entries whose hosts and paths include all those of the entry at this position, but for the entries of its own
    /// place. For reviews.
    pub fn wider(&self, position: usize) -> Vec<&T> {
        let Some((place, _)) = self.entries.get(position) else { return Vec::new() };
        let spots = self.including(place).into_iter().map(|spot| &self.spots[spot].entries);
        let wider = spots.filter(|entries| !entries.contains(&position));
        wider.flatten().map(|&index| &self.entries[index].1).collect()
    }

    /// The entries that no request ever gets to, each with one that takes its requests: `/a/{*rest}` beside `/a/`,
    /// `/a/{x}` and `/a/{x}/{*rest}`. For reviews.
    pub fn unreachable(&self) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        let trees = &self.trees;
        for tree in trees.exact.values().chain(trees.below.values()).chain([&trees.any]) {
            tree.unreachable(&mut |lost, winner| {
                let winner = self.spots[winner].entries[0];
                pairs.extend(self.spots[lost].entries.iter().map(|&lost| (lost, winner)));
            });
        }
        pairs.sort_unstable();
        pairs
    }

    /// The spots whose hosts and paths include all of these, found along the tables' own ways: no more of them are
    /// looked at than cover a request that these cover.
    fn including(&self, place: &Matcher) -> Vec<usize> {
        let mut spots = Vec::new();
        let segments = place.path.segments();
        let mut visit = |tree: Option<&Node>| {
            if let Some(tree) = tree {
                tree.including(segments, &mut spots);
            }
        };
        visit(Some(&self.trees.any));
        let name = match &place.host {
            HostPattern::Any => return spots,
            HostPattern::Below(name) => {
                visit(self.trees.below.get(name));
                name
            }
            HostPattern::Exact(name) => {
                visit(self.trees.exact.get(name));
                name
            }
        };
        for (dot, _) in name.match_indices('.') {
            visit(self.trees.below.get(&name[dot + 1..]));
        }
        spots
    }
}

/// Which entry has which methods of which spot, while a table is built: ten thousand entries of one place are not
/// compared each with each.
#[derive(Default)]
struct Taken<'m> {
    /// The first entry of a spot, and the first of those that cover every method.
    all: HashMap<usize, (usize, Option<usize>)>,
    one: HashMap<(usize, &'m Method), usize>,
}

impl<'m> Taken<'m> {
    /// Notes an entry; returns the first that has a method of it already.
    fn take(&mut self, spot: usize, methods: &'m Methods, entry: usize) -> Option<usize> {
        let (first, any) = self.all.entry(spot).or_insert((entry, None));
        if methods.is_any() {
            any.get_or_insert(entry);
            // A set is never empty.
            return (*first != entry).then_some(*first);
        }
        let mut before = *any;
        for method in methods.iter() {
            let owner = *self.one.entry((spot, method)).or_insert(entry);
            if owner != entry {
                before = Some(before.map_or(owner, |before| before.min(owner)));
            }
        }
        before
    }
}

impl Trees {
    fn new(case: Case) -> Self {
        let (exact, below) = (HashMap::new(), HashMap::new());
        Self { exact, below, any: Node::default(), below_bytes_max: 0, case }
    }

    /// The place of a matcher, made when it is not there.
    fn grow(&mut self, matcher: &Matcher) -> &mut Option<usize> {
        let root = match &matcher.host {
            HostPattern::Any => &mut self.any,
            HostPattern::Below(parent) => {
                self.below_bytes_max = self.below_bytes_max.max(parent.len());
                self.below.entry(parent.clone()).or_default()
            }
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
        };
        root.grow(matcher.path.segments(), self.case)
    }

    fn find<'p>(&self, host: Option<&str>, path: &'p str, params: &mut Params<'p>) -> Option<usize> {
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
            let kept =
                std::str::from_utf8(&lower).map_or(&*lower, |text| path::without_ending(text).as_bytes());
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
    fn including(&self, segments: &[Segment], spots: &mut Vec<usize>) {
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
    fn closer(&self, segments: &[Segment], is_closer: bool, asked: &impl Fn(usize) -> bool) -> bool {
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
    fn unreachable(&self, tell: &mut impl FnMut(usize, usize)) {
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

#[cfg(test)]
mod tests;
