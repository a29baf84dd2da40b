//! Entries that require header fields.
//!
//! Look-ups for other entries pay only one comparison. A request is rejected if two servers could read a required
//! field differently, because a stricter entry may apply to one of the two values.

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
    /// Groups the entries of each spot by the fields that they require, most specific group first.
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

    /// Returns the entry of a spot that matches the request's header fields and method.
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
        // The request must not fall through to a wider path, which may be laxer.
        let group = groups.iter().find(is_met).ok_or(Denial::NoRoute)?;
        let has_method = |&&index: &&usize| self.entries[index].0.methods.contains(head.method);
        let found = group.entries.iter().find(has_method).copied();
        found.ok_or_else(|| Denial::MethodNotAllowed(Arc::clone(&group.allow)))
    }

    /// Returns the entry of a spot that covers a request. `None` if the spot rejects the request.
    pub(super) fn taken_by(&self, spot: &Spot, head: &Head<'_>) -> Option<usize> {
        match &spot.groups {
            Some(groups) => self.by_fields(spot, groups, head).ok(),
            None => self.by_method(spot, head.method),
        }
    }

    /// Whether the entry for a request depends on header fields.
    pub(crate) fn is_by_fields(&self, head: &Head<'_>) -> bool {
        let spot = self.trees.find(head.host.as_deref(), &head.path, &mut Params::default());
        spot.is_some_and(|spot| self.spots[spot].groups.is_some())
    }

    /// Returns the entries of each spot that is grouped by header fields.
    pub(crate) fn grouped(&self) -> impl Iterator<Item = &[usize]> {
        self.spots.iter().filter(|spot| spot.groups.is_some()).map(|spot| &*spot.entries)
    }

    /// Returns the first entry of a spot that covers a method. Ignores header fields.
    pub(super) fn by_method(&self, spot: &Spot, method: &Method) -> Option<usize> {
        spot.entries.iter().copied().find(|&index| self.entries[index].0.methods.contains(method))
    }
}
