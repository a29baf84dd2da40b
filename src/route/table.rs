//! The route table: returns the entry that covers a request, or a denial.
//!
//! Building a table fails if two entries cover the same request. The cost of a look-up depends on the length of the
//! host and path, not on the size of the table.

mod by_fields;
mod bypass;
mod review;
mod tree;

use super::fields::{Fields, Overlap};
use super::head::Head;
use super::host::HostPattern;
use super::methods::Methods;
use super::pattern::{Params, PathPattern};
use crate::denial::{Denial, Malformed};
use by_fields::Group;
use http::Method;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tree::{Case, Trees};

/// The requests that an entry covers.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The hosts.
    pub host: HostPattern,
    /// The paths.
    pub path: PathPattern,
    /// The methods.
    pub methods: Methods,
    /// The header fields that a request must have.
    pub fields: Fields,
}

impl Matcher {
    /// Whether this matcher covers every host and path that `other` covers. Ignores methods and header fields.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        self.host.includes(&other.host) && self.path.includes(&other.path)
    }

    /// Compares two matchers for listings: the more specific matcher is first. Look-ups use the trees instead.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let methods = |matcher: &Self| matcher.methods.allow_value();
        let by_place = self.host.order(&other.host).then_with(|| self.path.order(&other.path));
        let by_fields = || other.fields.count().cmp(&self.fields.count());
        let by_text = || self.fields.to_string().cmp(&other.fields.to_string());
        by_place.then_with(by_fields).then_with(by_text).then_with(|| methods(self).cmp(&methods(other)))
    }
}

/// Entries by matcher. The order of the entries has no effect. The head of `route` describes which entry wins.
#[derive(Debug)]
pub struct RouteTable<T> {
    entries: Vec<(Matcher, T)>,
    spots: Vec<Spot>,
    /// The trees for look-ups. The leaves are indexes of `spots`.
    trees: Trees,
    /// The same trees, compared case-insensitively. The leaves are indexes of `places`.
    caseless: Trees,
    /// The indexes of the spots that differ only in case.
    places: Vec<Vec<usize>>,
    /// Whether the path of any entry contains an upper-case letter.
    has_upper: bool,
    /// The guard of each entry, in the order of `entries`.
    guards: Vec<Guard>,
    /// Whether any two guards differ. If all guards are equal, no guard can be bypassed.
    guards_differ: bool,
}

/// The requirements and the upstream of an entry, as numbers. Equal numbers mean equal requirements or upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The number of the upstream.
    pub(crate) before: u64,
    /// The number of the requirements. `None` if the entry requires nothing.
    pub(crate) asks: Option<u64>,
    /// Whether the entry also admits callers who do not meet the requirements.
    pub(crate) is_lax: bool,
}

/// The entries that have the same host and path pattern. Entries with equal header fields have disjoint methods.
#[derive(Debug)]
struct Spot {
    entries: Vec<usize>,
    allow: Arc<str>,
    /// The entries, grouped by the header fields that they require. `None` if no entry requires a header field.
    groups: Option<Box<[Group]>>,
    /// Whether a path may match another entry when a trailing slash is added or removed. Set together with the guards.
    slash: bool,
    /// The index in `places`.
    place: usize,
}

/// Two entries that cover the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The index of the earlier entry.
    pub(crate) first: usize,
    /// The index of the later entry.
    pub(crate) second: usize,
    /// True if the entries require different header fields, and a request may have the fields of both. False if the
    /// entries share a method.
    pub(crate) by_fields: bool,
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
    /// The matcher of the entry, which names the parameters.
    pub matcher: &'t Matcher,
    /// The values of the path parameters.
    pub params: Params<'p>,
}

impl<T> RouteTable<T> {
    /// Builds a table.
    ///
    /// # Errors
    ///
    /// Returns one conflict for each entry that covers the same requests as an earlier entry. The conflict names the
    /// first such earlier entry.
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
            let place = *table.caseless.grow(&matcher.host, &matcher.path).get_or_insert_with(|| {
                places.push(Vec::new());
                places.len() - 1
            });
            let spots = &mut table.spots;
            let spot = *table.trees.grow(&matcher.host, &matcher.path).get_or_insert_with(|| {
                spots.push(Spot {
                    entries: Vec::new(),
                    allow: Arc::from(""),
                    groups: None,
                    slash: false,
                    place,
                });
                places[place].push(spots.len() - 1);
                spots.len() - 1
            });
            if let Some(first) = taken.take(spot, matcher, index) {
                conflicts.push(Conflict { first, second: index, by_fields: false });
            }
            if let Some(first) = taken.ambiguous(spot, &matcher.fields, index) {
                conflicts.push(Conflict { first, second: index, by_fields: true });
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
        table.group_by_fields();
        // Each entry has a different guard until `guarding` sets the guards.
        table.guards = (0..)
            .take(table.entries.len())
            .map(|asks| Guard { before: 0, asks: Some(asks), is_lax: false })
            .collect();
        Ok(table)
    }

    /// Sets the guard of each entry.
    #[must_use]
    pub(crate) fn guarding(mut self, guard: impl Fn(&T) -> Guard) -> Self {
        self.guards = self.entries.iter().map(|(_, entry)| guard(entry)).collect();
        self.guards_differ = self.guards.windows(2).any(|pair| pair[0] != pair[1]);
        for position in 0..self.spots.len() {
            self.spots[position].slash = self.guards_differ && self.slash_matters(position);
        }
        self
    }

    /// Returns the entry that covers a request. Allocates only for unusual paths, and for paths where a trailing slash
    /// matters.
    ///
    /// # Errors
    ///
    /// Returns [`Denial::NoRoute`] if no entry covers the host and path. Returns [`Denial::BadRequest`] if a lenient
    /// server could match another entry. Returns [`Denial::MethodNotAllowed`] if the most specific host and path do not
    /// list the method.
    pub fn find<'t, 'p>(&'t self, head: &'p Head<'_>) -> Result<Found<'t, 'p, T>, Denial> {
        let mut params = Params::default();
        let host = head.host.as_deref();
        let spot = self.trees.find(host, &head.path, &mut params).ok_or(Denial::NoRoute)?;
        let spot = &self.spots[spot];
        let index = match &spot.groups {
            None => self.by_method(spot, head.method),
            Some(groups) => Some(self.by_fields(spot, groups, head)?),
        };
        match index {
            Some(index) if self.is_way_around(host, head, spot, index) => {
                Err(Denial::BadRequest(Malformed::OtherRoute))
            }
            Some(index) => {
                let (matcher, entry) = &self.entries[index];
                Ok(Found { entry, matcher, params })
            }
            // The request must not fall through to a laxer route. `/{*rest}` was not written for `DELETE /orders/{id}`.
            None => Err(Denial::MethodNotAllowed(Arc::clone(&spot.allow))),
        }
    }

    /// Returns the entries in the order of the input.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Matcher, &T)> {
        self.entries.iter().map(|(matcher, entry)| (matcher, entry))
    }
}

/// Finds conflicts while a table is built, without comparing all pairs of entries. A table may have ten thousand
/// entries.
#[derive(Default)]
struct Taken<'m> {
    /// For each spot and set of fields: the first entry, and the first entry that covers all methods.
    all: HashMap<(usize, &'m Fields), (usize, Option<usize>)>,
    one: HashMap<(usize, &'m Fields, &'m Method), usize>,
    /// For each spot: the distinct sets of fields, each with its first entry.
    sets: HashMap<usize, Vec<(&'m Fields, usize)>>,
}

impl<'m> Taken<'m> {
    /// Adds an entry. Returns the first entry with the same fields that shares a method.
    fn take(&mut self, spot: usize, matcher: &'m Matcher, entry: usize) -> Option<usize> {
        let Matcher { fields, methods, .. } = matcher;
        let (first, any) = self.all.entry((spot, fields)).or_insert((entry, None));
        if methods.is_any() {
            any.get_or_insert(entry);
            // A set is never empty, so the set of all methods shares a method with the first entry.
            return (*first != entry).then_some(*first);
        }
        let mut before = *any;
        for method in methods.iter() {
            let owner = *self.one.entry((spot, fields, method)).or_insert(entry);
            if owner != entry {
                before = Some(before.map_or(owner, |before| before.min(owner)));
            }
        }
        before
    }

    /// Returns the first entry whose fields conflict with `fields`: one request can match both sets, and neither set is
    /// more specific. The policy compiler limits the number of sets.
    fn ambiguous(&mut self, spot: usize, fields: &'m Fields, entry: usize) -> Option<usize> {
        let sets = self.sets.entry(spot).or_default();
        if sets.iter().any(|(known, _)| *known == fields) {
            return None;
        }
        let other = sets.iter().find(|(known, _)| known.overlap(fields) == Overlap::Ambiguous);
        let other = other.map(|(_, first)| *first);
        sets.push((fields, entry));
        other
    }
}

#[cfg(test)]
mod tests;
