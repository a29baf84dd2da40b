//! The route table: at most one entry for a request, or the denial that says why there is none.
//!
//! Knows nothing of what it holds. That no two entries can claim the same request is settled when the table is
//! built; a look-up costs what the request's host and path are long, not what the table is.

mod bypass;
mod review;
mod tree;

use super::head::Head;
use super::host::HostPattern;
use super::methods::Methods;
use super::pattern::{Params, PathPattern};
use crate::denial::{Denial, Malformed};
use http::Method;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tree::{Case, Trees};

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
    pub(crate) fn includes(&self, other: &Self) -> bool {
        self.host.includes(&other.host) && self.path.includes(&other.path)
    }

    /// The order in which entries are considered: the first of them all that covers a host and a path is the most
    /// specific one. For listings; a look-up goes through no list.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
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
pub(crate) struct Guard {
    /// What stands behind it.
    pub(crate) before: u64,
    /// What it asks; none where it asks nothing.
    pub(crate) asks: Option<u64>,
    /// Whether it lets pass whoever does not have that, all the same.
    pub(crate) is_lax: bool,
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

/// Two entries that would claim the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The index of the first entry that claims what the second does.
    pub(crate) first: usize,
    /// The index of the entry that claims the same host, path shape and a method again.
    pub(crate) second: usize,
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
            let place = *table.caseless.grow(&matcher.host, &matcher.path).get_or_insert_with(|| {
                places.push(Vec::new());
                places.len() - 1
            });
            let spots = &mut table.spots;
            let spot = *table.trees.grow(&matcher.host, &matcher.path).get_or_insert_with(|| {
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
    pub(crate) fn guarding(mut self, guard: impl Fn(&T) -> Guard) -> Self {
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
                Ok(Found { entry, matcher, params })
            }
            // Never a laxer route instead: `DELETE /orders/{id}` is not what `/{*rest}` was written for.
            None => Err(Denial::MethodNotAllowed(Arc::clone(&spot.allow))),
        }
    }

    fn by_method(&self, spot: &Spot, method: &Method) -> Option<usize> {
        spot.entries.iter().copied().find(|&index| self.entries[index].0.methods.contains(method))
    }

    /// The entries, in the order in which they were given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Matcher, &T)> {
        self.entries.iter().map(|(matcher, entry)| (matcher, entry))
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

#[cfg(test)]
mod tests;
