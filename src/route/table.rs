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
        // What a request with a host of several trees meets is looked up when it comes.
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
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    fn matcher(host: &str, path: &str, methods: &[&str]) -> Matcher {
        Matcher {
            host: if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host).unwrap() },
            path: PathPattern::parse(path).unwrap(),
            methods: if methods.is_empty() { Methods::any() } else { Methods::parse(methods).unwrap() },
        }
    }

    fn build(entries: &[(&str, &str, &[&str])]) -> Result<RouteTable<()>, Vec<Conflict>> {
        RouteTable::build(
            entries.iter().map(|(host, path, methods)| (matcher(host, path, methods), ())).collect(),
        )
    }

    fn paths(entries: &[&str]) -> RouteTable<()> {
        build(&entries.iter().map(|path| ("", *path, &[][..])).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn an_entry_that_no_request_gets_to_is_told_with_one_that_wins() {
        let all = ["/a/{*rest}", "/a/", "/a/{x}", "/a/{x}/", "/a/{x}/{y}", "/a/{x}/{y}/{*z}"];
        let requests = ["/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d"];
        let table = paths(&all);
        assert_eq!(table.unreachable(), [(0, 5)]);
        assert!(requests.iter().all(|path| get(&table, path) != Some(0)));
        // Without any one of the others something is left for it.
        for missing in 1..all.len() {
            let some: Vec<_> = all.iter().filter(|path| **path != all[missing]).copied().collect();
            let table = paths(&some);
            assert_eq!(table.unreachable(), [], "{some:?}");
            assert_eq!(get(&table, requests[missing - 1]), Some(0), "{some:?}");
        }
    }

    /// The index and the parameters of what is found.
    fn find<T>(
        table: &RouteTable<T>,
        method: &Method,
        host: Option<&str>,
        path: &str,
    ) -> Result<(usize, Vec<String>), Denial> {
        let headers = HeaderMap::new();
        let path = path::canonical(path).unwrap();
        let head =
            Head { method, host: host.map(Cow::Borrowed), port: None, path, query: None, headers: &headers };
        let found = table.find(&head)?;
        assert_eq!(found.params.as_slice().len(), found.matcher.path.params().len());
        Ok((found.index, found.params.as_slice().iter().map(ToString::to_string).collect()))
    }

    fn get(table: &RouteTable<()>, path: &str) -> Option<usize> {
        find(table, &Method::GET, Some("h"), path).ok().map(|(index, _)| index)
    }

    #[test]
    fn a_literal_wins_over_a_parameter_and_that_over_the_rest() {
        let table = paths(&["/a/{*rest}", "/a/{id}", "/a/b"]);
        assert_eq!(get(&table, "/a/b"), Some(2));
        assert_eq!(get(&table, "/a/c"), Some(1));
        assert_eq!(get(&table, "/a/c/d"), Some(0));
        assert_eq!(get(&table, "/a/"), Some(0));
        assert_eq!(get(&table, "/a"), None);
    }

    /// A table whose entries are guarded by different rules before one upstream, but for those whose path is public.
    fn guarded(paths: &[(&str, bool)]) -> RouteTable<(usize, bool)> {
        let entries = paths.iter().enumerate();
        let entries = entries.map(|(nth, (path, public))| (matcher("", path, &[]), (nth, *public))).collect();
        RouteTable::build(entries).unwrap().guarding(|(nth, public)| Guard {
            before: 0,
            asks: (!public).then(|| u64::try_from(*nth).unwrap()),
            is_lax: false,
        })
    }

    #[test]
    fn a_last_slash_never_leads_past_a_route_that_was_written_for_the_path() {
        let refused = |paths: &[(&str, bool)], path: &str| {
            let table = guarded(paths);
            matches!(find(&table, &Method::GET, None, path), Err(Denial::BadRequest(Malformed::OtherRoute)))
        };
        let site = ("/{*rest}", true);
        for (paths, path, is_refused) in [
            (&[site, ("/api/{*rest}", false)][..], "/api", true),
            (&[site, ("/api/{*rest}", false)], "/API", true),
            (&[site, ("/api/{*rest}", false)], "/api/", false),
            (&[site, ("/api/{*rest}", false)], "/apis", false),
            (&[site, ("/admin", false)], "/admin/", true),
            (&[("/{page}", true), ("/api/{*rest}", false)], "/api", true),
            (&[("/api/{*rest}", false), ("/api/orders/{id}", false)], "/api/orders/7/", true),
            (&[("/api/{*rest}", false), ("/api/orders/{id}", false)], "/api/orders/7/8", false),
            // Both are written for it, and each is served as it says.
            (&[site, ("/api/{*rest}", false), ("/api", true)], "/api", false),
            (&[("/api/{*rest}", false), ("/api", false)], "/api/", false),
            (&[("/api/", false), ("/api", true)], "/api", false),
            // A guard is not walked around by what is guarded less elsewhere.
            (&[("/{*rest}", false), ("/login", true)], "/login/", false),
        ] {
            assert_eq!(refused(paths, path), is_refused, "{paths:?} {path}");
        }
    }

    #[test]
    fn what_windows_drops_at_the_end_of_a_name_leads_past_no_guard() {
        let table = guarded(&[("/{*rest}", true), ("/admin/{*rest}", false), ("/v1.", true)]);
        for path in
            ["/admin./x", "/admin%20/x", "/admin%C2%A0/x", "/admin::$DATA/x", "/admin.%20/x", "/ADMIN./x"]
        {
            let met = find(&table, &Method::GET, None, path);
            assert_eq!(met, Err(Denial::BadRequest(Malformed::OtherRoute)), "{path}");
        }
        for (path, index) in
            [("/admins./x", 0), ("/x.y/z.js", 0), ("/.well-known/x", 0), ("/v1.", 2), ("/admin/x.", 1)]
        {
            assert_eq!(find(&table, &Method::GET, None, path).unwrap().0, index, "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn what_is_known_of_last_slashes_beforehand_changes_no_answer(
            patterns in proptest::collection::vec(
                ("(/([ab]|\\{x\\})){0,2}(/|/[ab]|/\\{y\\}|/\\{\\*r\\})", 0..3_u64, 0..2_u64, proptest::sample::select(vec!["", "h", "*.h", "*.g.h"])), 1..7
            ),
            path in "(/[abAc]){0,3}(/|/[ab])",
            host in proptest::sample::select(vec!["h", "g.h", "i.g.h", "z"]),
        ) {
            let entries: Vec<_> = patterns.iter().filter(|(path, ..)| path.matches("{x}").count() < 2).collect();
            let matchers = entries.iter().map(|(path, _, _, host)| matcher(host, path, &[])).enumerate();
            let Ok(table) = RouteTable::build(matchers.map(|(nth, matcher)| (matcher, nth)).collect()) else { return Ok(()) };
            let guard = |nth: &usize| Guard { before: entries[*nth].2, asks: entries[*nth].1.checked_sub(1), is_lax: false };
            let mut table = table.guarding(guard);
            let quick = find(&table, &Method::GET, Some(host), &path);
            table.spots.iter_mut().for_each(|spot| spot.slash = true);
            prop_assert_eq!(quick, find(&table, &Method::GET, Some(host), &path), "{:?} {}", patterns, path);
        }
    }

    #[test]
    fn an_odd_spelling_is_refused_only_where_it_gets_past_a_guard() {
        let guard = |before, asks, is_lax| Guard { before, asks, is_lax };
        let table = |admin: Guard, rest: Guard| {
            let guards = [admin, rest];
            let entries = ["/admin", "/{*rest}"].map(|path| matcher("", path, &[]));
            let table = RouteTable::build(entries.into_iter().zip([0, 1]).collect()).unwrap();
            table.guarding(|index| guards[*index])
        };
        let is_refused = |table: &RouteTable<usize>, path| {
            find(table, &Method::GET, None, path) == Err(Denial::BadRequest(Malformed::OtherRoute))
        };
        let (role, other, nothing) = (Some(1), Some(2), None);
        for (admin, rest, refused) in [
            (guard(0, role, false), guard(0, nothing, false), true),
            (guard(0, role, false), guard(0, other, false), true),
            (guard(0, role, false), guard(0, role, true), true),
            (guard(0, role, false), guard(0, role, false), false),
            (guard(0, nothing, false), guard(0, role, false), false),
            (guard(0, role, false), guard(7, nothing, false), false),
        ] {
            let table = table(admin, rest);
            for path in ["/Admin", "/admin;x=1", "/admin%3Bx", "/%2561dmin"] {
                assert_eq!(is_refused(&table, path), refused, "{path}: {admin:?} {rest:?}");
            }
            assert!(!is_refused(&table, "/admin") && !is_refused(&table, "/Other;x=1"));
        }
        for (before, refused) in [(0, true), (7, false)] {
            let guards = [guard(before, nothing, false), guard(0, nothing, false), guard(0, role, false)];
            let entries = [("/page", &["GET"][..]), ("/{*rest}", &[]), ("/guarded", &[])];
            let entries = entries.map(|(path, methods)| matcher("", path, methods));
            let table = RouteTable::build(entries.into_iter().zip([0, 1, 2]).collect()).unwrap();
            let table = table.guarding(|index| guards[*index]);
            let posted = find(&table, &Method::POST, None, "/Page");
            assert_eq!(posted == Err(Denial::BadRequest(Malformed::OtherRoute)), refused, "{before}");
            assert!(!is_refused(&table, "/Page"), "by GET it passes as it is");
        }
    }

    #[test]
    fn an_earlier_segment_decides_before_a_later_one() {
        let table = paths(&["/{x}/b/c", "/a/{*rest}", "/a/{y}/d"]);
        assert_eq!(get(&table, "/a/b/c"), Some(1));
        assert_eq!(get(&table, "/a/b/d"), Some(2));
        assert_eq!(get(&table, "/z/b/c"), Some(0));
        assert_eq!(get(&table, "/z/b/d"), None);
    }

    #[test]
    fn a_dead_end_leaves_no_parameter_behind() {
        let table = paths(&["/{a}/{b}/x", "/{*rest}"]);
        assert_eq!(find(&table, &Method::GET, None, "/1/2/3"), Ok((1, vec!["1/2/3".into()])));
        assert_eq!(find(&table, &Method::GET, None, "/1/2/x"), Ok((0, vec!["1".into(), "2".into()])));
        assert_eq!(find(&table, &Method::GET, None, "/"), Ok((1, vec![String::new()])));
    }

    #[test]
    fn a_trailing_slash_is_another_path_and_a_parameter_is_never_empty() {
        let table = paths(&["/a", "/b/", "/c/{id}"]);
        assert_eq!(get(&table, "/a"), Some(0));
        assert_eq!(get(&table, "/a/"), None);
        assert_eq!(get(&table, "/b/"), Some(1));
        assert_eq!(get(&table, "/b"), None);
        assert_eq!(get(&table, "/c/"), None);
        assert_eq!(get(&table, "/c/1/"), None);
    }

    #[test]
    fn no_spelling_of_a_literal_falls_through_to_a_laxer_route() {
        let table = paths(&["/{*rest}", "/@me", "/a%20b"]);
        for path in ["/@me", "/%40me", "/%40m%65"] {
            assert_eq!(get(&table, path), Some(1), "{path}");
        }
        assert_eq!(get(&table, "/a%20b"), Some(2));
        assert_eq!(get(&table, "/%2540me"), None, "who decodes twice sees the literal");
        assert_eq!(get(&table, &format!("/%20{}", "a".repeat(2 * LITERAL_BYTES_MAX))), Some(0));
    }

    #[test]
    fn a_path_with_parameters_that_another_route_would_cover_without_is_refused() {
        let table = paths(&["/{*rest}", "/admin", "/files/{name}", "/folder/{*rest}", "/x/"]);
        let refused =
            |path| find(&table, &Method::GET, None, path) == Err(Denial::BadRequest(Malformed::OtherRoute));
        for path in
            ["/admin;x", "/admin;", "/admin%3Bx", "/admin%3b", "/x/;y", "/;x/admin", "/;/admin", "/files;x/a"]
        {
            assert!(refused(path), "{path}");
        }
        assert!(refused("/files/;x"), "without it the name is empty, which is no name");
        for (path, index) in [
            ("/admin", 1),
            ("/adminx", 0),
            ("/y;x", 0),
            ("/files/a;v=2", 2),
            ("/files/a%3Bb", 2),
            ("/folder/a;x/b", 3),
            ("/folder/;x", 3),
        ] {
            assert_eq!(get(&table, path), Some(index), "{path}");
        }
        let alone = paths(&["/a"]);
        assert_eq!(find(&alone, &Method::GET, None, "/a;x"), Err(Denial::NoRoute));
    }

    #[test]
    fn a_path_that_is_another_routes_but_for_case_or_a_second_encoding_is_refused() {
        let table = paths(&["/{*rest}", "/admin/users", "/Reports", "/files/{name}", "/x", "/X", "/%C3%A9"]);
        let refused = |path: &str| {
            find(&table, &Method::GET, None, path) == Err(Denial::BadRequest(Malformed::OtherRoute))
        };
        for path in [
            "/Admin/users",
            "/admin/USERS",
            "/reports",
            "/REPORTS",
            "/Files/a",
            "/%2561dmin/users",
            "/admin%252fusers",
            "/admin%255cusers",
            "/%252561dmin/users",
            "/Admin;x/users",
            "/files%252Fa",
            "/%25C3%25A9",
            "/%252e/admin",
            "/a%2500",
            "/%25252525252525",
            "/a%25ff",
        ] {
            assert!(refused(path), "{path}");
        }
        for (path, index) in [
            ("/admin/users", 1),
            ("/admin/Other", 0),
            ("/Reports", 2),
            ("/files/A%20B", 3),
            ("/files/100%25", 3),
            ("/files/a%2520b", 3),
            ("/x", 4),
            ("/X", 5),
            ("/Else/%2561", 0),
            ("/%C3%A9", 6),
        ] {
            assert_eq!(get(&table, path), Some(index), "{path}");
        }
    }

    #[test]
    fn the_most_specific_host_with_a_path_wins() {
        let table = build(&[
            ("", "/x", &[]),
            ("*.example.com", "/x", &[]),
            ("*.eu.example.com", "/x", &[]),
            ("api.eu.example.com", "/x", &[]),
            ("", "/any", &[]),
            ("*.example.com", "/any", &[]),
        ])
        .unwrap();
        let index = |host, path| find(&table, &Method::GET, host, path).unwrap().0;
        assert_eq!(index(Some("api.eu.example.com"), "/x"), 3);
        assert_eq!(index(Some("www.eu.example.com"), "/x"), 2);
        assert_eq!(index(Some("v1.api.eu.example.com"), "/x"), 2);
        assert_eq!(index(Some("eu.example.com"), "/x"), 1);
        assert_eq!(index(Some("example.com"), "/x"), 0);
        assert_eq!(index(Some("anexample.com"), "/x"), 0);
        assert_eq!(index(None, "/x"), 0);
        // The exact host has no such path: the next one's is taken.
        assert_eq!(index(Some("api.eu.example.com"), "/any"), 5);
        assert_eq!(index(Some("other.org"), "/any"), 4);
    }

    #[test]
    fn a_host_is_more_specific_than_any_path() {
        let table = build(&[("", "/a/b", &[]), ("h", "/{*rest}", &[])]).unwrap();
        assert_eq!(find(&table, &Method::GET, Some("h"), "/a/b").unwrap().0, 1);
        assert_eq!(find(&table, &Method::GET, Some("g"), "/a/b").unwrap().0, 0);
    }

    #[test]
    fn a_method_is_refused_rather_than_left_to_a_laxer_route() {
        let table =
            build(&[("", "/{*rest}", &[]), ("", "/o/{id}", &["GET"]), ("", "/o/{name}", &["PUT", "DELETE"])])
                .unwrap();
        let find = |method, path| find(&table, &method, None, path).map(|(index, _)| index);
        assert_eq!(find(Method::GET, "/o/1"), Ok(1));
        assert_eq!(find(Method::HEAD, "/o/1"), Ok(1));
        assert_eq!(find(Method::DELETE, "/o/1"), Ok(2));
        assert_eq!(
            find(Method::POST, "/o/1"),
            Err(Denial::MethodNotAllowed(Arc::from("GET, HEAD, PUT, DELETE")))
        );
        assert_eq!(find(Method::POST, "/o"), Ok(0));
        assert!(matches!(find(Method::TRACE, "/o"), Err(Denial::MethodNotAllowed(_))));
    }

    #[test]
    fn a_host_with_the_path_but_not_the_method_is_refused_too() {
        let table = build(&[("h", "/a", &["GET"]), ("", "/a", &[])]).unwrap();
        assert!(matches!(find(&table, &Method::POST, Some("h"), "/a"), Err(Denial::MethodNotAllowed(_))));
        assert_eq!(find(&table, &Method::POST, Some("g"), "/a").unwrap().0, 1);
    }

    #[test]
    fn an_empty_table_has_no_route() {
        let table = paths(&[]);
        assert!(table.is_empty());
        assert_eq!(find(&table, &Method::GET, Some("h"), "/"), Err(Denial::NoRoute));
    }

    #[test]
    fn entries_that_claim_the_same_requests_are_conflicts() {
        let conflicts = |entries: &[(&str, &str, &[&str])]| build(entries).err().unwrap_or_default();
        assert_eq!(
            conflicts(&[
                ("", "/a/{x}", &["GET"]),
                ("", "/b", &[]),
                ("", "/a/{y}", &["HEAD"]),
                ("", "/a/{z}", &[])
            ]),
            [Conflict { first: 0, second: 2 }, Conflict { first: 0, second: 3 }]
        );
        assert_eq!(
            conflicts(&[
                ("", "/", &["GET"]),
                ("", "/", &["PUT"]),
                ("", "/", &["POST", "PUT"]),
                ("", "/", &[])
            ]),
            [Conflict { first: 1, second: 2 }, Conflict { first: 0, second: 3 }]
        );
        assert_eq!(
            conflicts(&[("", "/", &[]), ("", "/", &["PUT"]), ("", "/", &["PUT"])]),
            [Conflict { first: 0, second: 1 }, Conflict { first: 0, second: 2 }]
        );
        assert_eq!(conflicts(&[("A.b", "/", &[]), ("a.b.", "/", &[])]).len(), 1);
        assert!(conflicts(&[("a.b", "/", &[]), ("*.b", "/", &[]), ("", "/", &[])]).is_empty());
        assert!(conflicts(&[("", "/a", &["GET"]), ("", "/a", &["POST"])]).is_empty());
        assert!(
            conflicts(&[("", "/{a}", &[]), ("", "/{*a}", &[]), ("", "/a", &[]), ("", "/a/", &[])]).is_empty()
        );
    }

    #[test]
    fn a_route_that_loses_methods_to_a_place_of_its_own_is_told() {
        let table = build(&[
            ("", "/o/{id}", &["GET", "DELETE"]),
            ("", "/o/new", &["GET"]),
            ("", "/o/all", &["GET"]),
            ("", "/o/all", &["DELETE"]),
            ("", "/p/{id}", &["GET"]),
        ])
        .unwrap();
        assert_eq!(table.shadowed(), [(0, 1)]);
        assert_eq!(table.iter().count(), table.len());
    }

    /// The table's promise, said the slow way: whether a pattern covers a path, and how specific it is.
    fn model_covers(pattern: &str, path: &str) -> Option<(Vec<u8>, Vec<String>)> {
        let (mut kinds, mut values) = (Vec::new(), Vec::new());
        let mut left = Some(&path[1..]);
        for part in pattern[1..].split('/') {
            let whole = left?;
            let (segment, tail) =
                whole.split_once('/').map_or((whole, None), |(segment, tail)| (segment, Some(tail)));
            if part.starts_with("{*") {
                kinds.push(2);
                values.push(whole.to_owned());
                left = None;
            } else if part.starts_with('{') {
                if segment.is_empty() {
                    return None;
                }
                kinds.push(1);
                values.push(segment.to_owned());
                left = tail;
            } else {
                if part != segment {
                    return None;
                }
                kinds.push(0);
                left = tail;
            }
        }
        left.is_none().then_some((kinds, values))
    }

    fn model_host(pattern: &str, host: Option<&str>) -> Option<(u8, usize)> {
        match (pattern, pattern.strip_prefix('*')) {
            ("", _) => Some((2, 0)),
            (_, Some(suffix)) => {
                let host = host.filter(|host| host.ends_with(suffix) && host.len() > suffix.len())?;
                Some((1, host.len() - suffix.len()))
            }
            (name, None) => (host == Some(name)).then_some((0, 0)),
        }
    }

    fn entry() -> impl Strategy<Value = (&'static str, String, Vec<&'static str>)> {
        let segment = proptest::sample::select(vec!["a", "b", "c", "{p}", "{p}"]);
        let end = proptest::sample::select(vec!["", "/", "/{*r}"]);
        let path = (proptest::collection::vec(segment, 0..4), end).prop_map(|(segments, end)| {
            let mut path = String::new();
            for (nth, segment) in segments.iter().enumerate() {
                path.push('/');
                path.push_str(&segment.replace('p', &format!("p{nth}")));
            }
            path.push_str(end);
            if path.is_empty() { "/".to_owned() } else { path }
        });
        let host = proptest::sample::select(vec!["", "", "x.y", "z.x.y", "*.y", "*.x.y"]);
        let methods =
            proptest::sample::select(vec![vec![], vec!["GET"], vec!["POST", "PUT"], vec!["GET", "POST"]]);
        (host, path, methods)
    }

    /// Entries that can stand in one table.
    fn kept(entries: Vec<(&'static str, String, Vec<&'static str>)>) -> (Vec<Matcher>, RouteTable<()>) {
        let mut kept: Vec<Matcher> = Vec::new();
        for (host, path, methods) in entries {
            kept.push(matcher(host, &path, &methods));
            if RouteTable::build(kept.iter().cloned().map(|matcher| (matcher, ())).collect()).is_err() {
                kept.pop();
            }
        }
        let table = RouteTable::build(kept.iter().cloned().map(|matcher| (matcher, ())).collect()).unwrap();
        (kept, table)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn no_spelling_that_a_lenient_reader_takes_for_a_path_ever_leads_to_another_route(
            entries in proptest::collection::vec(entry(), 0..24),
            host in proptest::sample::select(vec![None, Some("x.y"), Some("z.x.y"), Some("o")]),
            path in "(/[abcd]){1,5}/?",
            at in any::<proptest::sample::Index>(),
            oddity in 0..7_u8,
        ) {
            let (_, table) = kept(entries);
            let (at, _) = path.char_indices().filter(|(_, c)| *c != '/').nth(at.index(path.replace('/', "").len())).unwrap();
            let (before, letter, after) = (&path[..at], &path[at..=at], &path[at + 1..]);
            let byte = path.as_bytes()[at];
            let odd = match oddity {
                0 => format!("{before}{}{after}", letter.to_uppercase()),
                1 => path.to_uppercase(),
                2 => format!("{before}{letter};x=1{after}"),
                3 => format!("{before}{letter}%3Bx{after}"),
                4 => format!("{before}%25{byte:02x}{after}"),
                5 if at > 1 => format!("{}%252f{letter}{after}", &path[..at - 1]),
                _ => format!("{before};x/{letter}{after}"),
            };
            prop_assume!(odd.starts_with('/'));
            let index = |path: &str| find(&table, &Method::GET, host, path).map(|(index, _)| index);
            // What leads nowhere in its plain spelling is nobody's to guard.
            let (found, plain) = (index(&odd), index(&path));
            if found.is_ok() && plain != Err(Denial::NoRoute) {
                prop_assert_eq!(found, plain, "{} {}", odd, path);
            }
        }

        #[test]
        fn in_their_order_the_first_that_covers_a_place_is_always_the_one_that_is_found(
            entries in proptest::collection::vec(entry(), 0..24),
            host in proptest::sample::select(vec![None, Some("x.y"), Some("z.x.y"), Some("w.z.x.y"), Some("o")]),
            path in "(/[abcd]){1,5}/?",
        ) {
            let (mut kept, table) = kept(entries);
            kept.sort_by(Matcher::order);
            let covers = |matcher: &Matcher| {
                let matcher = Matcher { methods: Methods::any(), ..matcher.clone() };
                get(&RouteTable::build(vec![(matcher, ())]).unwrap(), &path).is_some()
            };
            let first = kept.iter().filter(|matcher| matcher.host.covers(host)).find(|matcher| covers(&Matcher { host: HostPattern::Any, ..(*matcher).clone() }));
            let all: Vec<_> = table.iter().map(|(matcher, ())| (Matcher { methods: Methods::any(), ..matcher.clone() }, matcher.clone())).collect();
            // One of each place is enough, and methods take no part.
            let mut places: Vec<(Matcher, Matcher)> = Vec::new();
            for (place, matcher) in all {
                if !places.iter().any(|(known, _)| known.includes(&place) && place.includes(known)) {
                    places.push((place, matcher));
                }
            }
            let places = RouteTable::build(places).unwrap();
            let headers = HeaderMap::new();
            let head = Head { method: &Method::GET, host: host.map(Cow::Borrowed), port: None, path: Cow::Borrowed(&path), query: None, headers: &headers };
            let found = places.find(&head).ok().map(|found| found.entry);
            prop_assert_eq!(first.is_some(), found.is_some());
            if let (Some(first), Some(found)) = (first, found) {
                prop_assert!(first.includes(found) && found.includes(first), "{:?} {:?}", first, found);
            }
        }

        #[test]
        fn what_shadows_is_always_what_comparing_each_with_each_finds(
            entries in proptest::collection::vec(entry(), 0..24),
        ) {
            let all: Vec<_> = entries.iter().map(|(host, path, methods)| (matcher(host, path, methods), ())).collect();
            let conflicts = RouteTable::build(all.clone()).err().unwrap_or_default();
            let seconds: Vec<_> = conflicts.iter().map(|conflict| conflict.second).collect();
            let kept: Vec<_> = all.into_iter().enumerate().filter(|(index, _)| !seconds.contains(index)).collect();
            let table = RouteTable::build(kept.into_iter().map(|(_, entry)| entry).collect()).unwrap();

            let mut pairs = Vec::new();
            for spot in &table.spots {
                let specific = spot.entries[0];
                let place = &table.entries[specific].0;
                let answers = |method: &Method| table.by_method(spot, method).is_some();
                let takes_all = spot.entries.iter().any(|&index| table.entries[index].0.methods.is_any());
                for (general, (wider, ())) in table.entries.iter().enumerate() {
                    let loses = !takes_all && (wider.methods.is_any() || !wider.methods.iter().all(answers));
                    if loses && wider.includes(place) && !place.includes(wider) {
                        pairs.push((general, specific));
                    }
                }
            }
            pairs.sort_unstable();
            prop_assert_eq!(table.shadowed(), pairs);
        }

        #[test]
        fn entries_always_conflict_with_the_first_that_has_one_of_their_methods(
            entries in proptest::collection::vec(entry(), 0..24),
        ) {
            let all: Vec<_> = entries.iter().map(|(host, path, methods)| (matcher(host, path, methods), ())).collect();
            let same = |one: &Matcher, other: &Matcher| one.includes(other) && other.includes(one);
            let mut expected = Vec::new();
            for (second, (later, ())) in all.iter().enumerate() {
                let claims = |(earlier, ()): &(Matcher, ())| {
                    same(earlier, later) && earlier.methods.overlaps(&later.methods)
                };
                expected.extend(all[..second].iter().position(claims).map(|first| Conflict { first, second }));
            }
            prop_assert_eq!(RouteTable::build(all).err().unwrap_or_default(), expected);
        }

        #[test]
        fn the_table_always_agrees_with_a_naive_model(
            entries in proptest::collection::vec(entry(), 0..24),
            requests in proptest::collection::vec((
                proptest::sample::select(vec![None, Some("x.y"), Some("y"), Some("z.x.y"), Some("q.x.y"), Some("w.z.x.y"), Some("o")]),
                "(/[abcd]){0,5}/?",
                proptest::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::DELETE]),
            ), 1..24),
        ) {
            // Drop what conflicts with something before it, so that a table can be built.
            let mut kept: Vec<(&str, String, Vec<&str>)> = Vec::new();
            for entry in entries {
                kept.push(entry);
                let last = kept.len() - 1;
                let all = kept.iter().map(|(host, path, methods)| (matcher(host, path, methods), ())).collect();
                if RouteTable::build(all).is_err() {
                    kept.remove(last);
                }
            }
            let all = kept.iter().map(|(host, path, methods)| (matcher(host, path, methods), ())).collect();
            let table = RouteTable::<()>::build(all).unwrap();

            for (host, path, method) in requests {
                let path = if path.is_empty() { "/" } else { &*path };
                let candidates: Vec<_> = kept.iter().enumerate().filter_map(|(index, (pattern, route, methods))| {
                    let host_rank = model_host(pattern, host)?;
                    let (kinds, values) = model_covers(route, path)?;
                    Some(((host_rank, kinds), index, values, methods))
                }).collect();
                let best = candidates.iter().map(|(rank, ..)| rank).min();
                let winners: Vec<_> = candidates.iter().filter(|(rank, ..)| Some(rank) == best).collect();
                let takes = |methods: &[&str]| methods.is_empty() || methods.contains(&method.as_str())
                    || (method == Method::HEAD && methods.contains(&"GET"));
                let found = find(&table, &method, host, path);
                match winners.iter().find(|(_, _, _, methods)| takes(methods)) {
                    Some((_, index, values, _)) => prop_assert_eq!(found, Ok((*index, values.clone()))),
                    None if winners.is_empty() => prop_assert_eq!(found, Err(Denial::NoRoute)),
                    None => {
                        let Err(Denial::MethodNotAllowed(allow)) = found else {
                            return Err(TestCaseError::fail(format!("{found:?}")));
                        };
                        for (_, _, _, methods) in &winners {
                            prop_assert!(methods.iter().all(|method| allow.split(", ").any(|one| one == *method)));
                        }
                        prop_assert!(!allow.split(", ").any(|one| one == method.as_str()));
                    }
                }
            }
        }
    }
}
