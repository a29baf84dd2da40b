//! Queries for policy reviews. Request handling does not use them.

use super::Matcher;
use super::RouteTable;
use super::tree::Node;
use crate::route::host::HostPattern;
use http::Method;

impl<T> RouteTable<T> {
    /// Returns pairs of a general entry and a specific entry that rejects some of the general entry's requests. For
    /// example, if `/orders/new` lists only GET, `DELETE /orders/new` is rejected and never reaches `DELETE
    /// /orders/{id}`.
    pub(crate) fn shadowed(&self) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for (position, spot) in self.spots.iter().enumerate() {
            // A spot has at least one entry. All its entries cover the same hosts and paths.
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

    /// Returns the entries that cover every host and path of the entry at `position`. Omits entries of the same spot.
    pub(crate) fn wider(&self, position: usize) -> Vec<&T> {
        let Some((place, _)) = self.entries.get(position) else { return Vec::new() };
        let spots = self.including(place).into_iter().map(|spot| &self.spots[spot].entries);
        let wider = spots.filter(|entries| !entries.contains(&position));
        wider.flatten().map(|&index| &self.entries[index].1).collect()
    }

    /// Returns each entry that no request reaches, with an entry that receives its requests. For example, `/a/`,
    /// `/a/{x}` and `/a/{x}/{*rest}` receive all requests of `/a/{*rest}`.
    pub(crate) fn unreachable(&self) -> Vec<(usize, usize)> {
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

    /// Returns the spots that cover every host and path of a matcher. Visits only the parts of the trees that can
    /// match.
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
