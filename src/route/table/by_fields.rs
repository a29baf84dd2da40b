//! Entries of one host and path that require header fields.
//!
//! Only a spot with such entries has groups, so the other look-ups pay one comparison. A request whose field two readers
//! could read differently is rejected: one reading may belong to a stricter entry.

use super::{RouteTable, Spot};
use crate::denial::{Denial, Malformed};
use crate::route::field::Field;
use crate::route::fields::{Fields, may_mean};
use crate::route::head::Head;
use crate::route::methods::Methods;
use crate::route::pattern::Params;
use http::{HeaderName, Method};
use std::sync::Arc;

/// The entries of a spot that require the same fields. Their methods are disjoint.
#[derive(Debug)]
pub(super) struct Group {
    fields: Fields,
    entries: Vec<usize>,
    allow: Arc<str>,
}

impl<T> RouteTable<T> {
    /// Divides the entries of each spot into groups, the most specific first, if any of them requires fields.
    pub(super) fn group_by_fields(&mut self) {
        for spot in &mut self.spots {
            let fields = |index: usize| &self.entries[index].0.fields;
            if spot.entries.iter().all(|&index| fields(index).is_empty()) {
                continue;
            }
            let mut groups: Vec<Group> = Vec::new();
            for &index in &spot.entries {
                match groups.iter_mut().find(|group| group.fields == *fields(index)) {
                    Some(group) => group.entries.push(index),
                    None => groups.push(Group {
                        fields: fields(index).clone(),
                        entries: vec![index],
                        allow: Arc::from(""),
                    }),
                }
            }
            for group in &mut groups {
                let sets = group.entries.iter().map(|&index| &self.entries[index].0.methods);
                group.allow = Methods::union(sets).allow_value().into();
            }
            groups.sort_by_key(|group| std::cmp::Reverse(group.fields.count()));
            spot.groups = Some(groups.into());
        }
    }

    /// Returns the entry of a spot for a request, with regard to its header fields.
    #[cold]
    pub(super) fn by_fields(&self, spot: &Spot, groups: &[Group], head: &Head<'_>) -> Result<usize, Denial> {
        let names = groups.iter().flat_map(|group| group.fields.iter()).map(|(name, _)| name);
        let names: std::collections::HashSet<&HeaderName> = names.collect();
        for name in names {
            match Field::read(head.headers, name) {
                Field::Absent => {}
                Field::Ambiguous => return Err(Denial::BadRequest(Malformed::RouteField)),
                Field::Once(value) => {
                    let fields = groups.iter().flat_map(|group| group.fields.iter());
                    let wanted: Vec<&[u8]> = fields
                        .filter(|(known, _)| known == name)
                        .map(|(_, value)| value.as_bytes())
                        .collect();
                    let is_exact = wanted.contains(&value);
                    if !is_exact && wanted.iter().any(|wanted| may_mean(value, wanted)) {
                        return Err(Denial::BadRequest(Malformed::RouteField));
                    }
                }
            }
        }
        let is_met = |group: &&Group| {
            group.fields.are_met(|name, value| head.headers.get(name).is_some_and(|sent| sent == value))
        };
        debug_assert!(spot.groups.is_some(), "only a spot with groups is asked");
        // The request never falls through to a wider path, which may be laxer.
        let group = groups.iter().find(is_met).ok_or(Denial::NoRoute)?;
        let has_method = |&&index: &&usize| self.entries[index].0.methods.contains(head.method);
        let found = group.entries.iter().find(has_method).copied();
        found.ok_or_else(|| Denial::MethodNotAllowed(Arc::clone(&group.allow)))
    }

    /// Returns the entry of a spot that takes a request; `None` if the spot rejects it.
    pub(super) fn taken_by(&self, spot: &Spot, head: &Head<'_>) -> Option<usize> {
        match &spot.groups {
            Some(groups) => self.by_fields(spot, groups, head).ok(),
            None => self.by_method(spot, head.method),
        }
    }

    /// Whether header fields decide which entry takes a request.
    pub(crate) fn is_by_fields(&self, head: &Head<'_>) -> bool {
        let spot = self.trees.find(head.host.as_deref(), &head.path, &mut Params::default());
        spot.is_some_and(|spot| self.spots[spot].groups.is_some())
    }

    /// Returns the positions of all entries of each spot with groups.
    pub(crate) fn grouped(&self) -> impl Iterator<Item = &[usize]> {
        self.spots.iter().filter(|spot| spot.groups.is_some()).map(|spot| &*spot.entries)
    }

    /// Whether an entry without required fields, or with, of this spot takes a method.
    pub(super) fn by_method(&self, spot: &Spot, method: &Method) -> Option<usize> {
        spot.entries.iter().copied().find(|&index| self.entries[index].0.methods.contains(method))
    }
}
