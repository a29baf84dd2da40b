//! Rejects a request that matches one entry here, but would match another entry for a more lenient server behind the
//! gateway.

use super::tree::Node;
use super::{Guard, RouteTable, Spot};
use crate::route::head::Head;
use crate::route::host::HostPattern;
use crate::route::lenient;
use crate::route::pattern::Params;
use std::borrow::Cow;

impl Guard {
    /// Whether a request that passed this guard bypasses the other guard. Both guards must protect the same upstream,
    /// and the other guard must have different or stricter requirements.
    fn is_way_around(self, other: Self) -> bool {
        self.before == other.before && other.asks.is_some() && (self.is_lax || self.asks != other.asks)
    }
}

impl<T> RouteTable<T> {
    /// Whether the request bypasses the guard of another entry for the same upstream.
    ///
    /// Many servers read `/Admin`, `/admin;x`, `/admin.`, `/admin/` and `/%2561dmin` as `/admin`. In the gateway, these
    /// paths may match a laxer catch-all route. The request would then reach `/admin` without its guard. An operator
    /// who serves both `/admin` and `/Admin` writes a route for each.
    pub(super) fn is_way_around(
        &self,
        host: Option<&str>,
        head: &Head<'_>,
        spot: &Spot,
        index: usize,
    ) -> bool {
        let path = &*head.path;
        if !self.guards_differ {
            return false;
        }
        // Checks every byte without branching. The compiler vectorizes the loop, which is faster than stopping at the
        // first odd byte.
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
        // Most dots in a path are in file names, which are not ambiguous.
        let is_otherwise = lenient::is_ambiguous(path) || path.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_otherwise && !self.has_upper && !spot.slash {
            return false;
        }
        let Some(read) = lenient::reading(path) else { return true };
        // A slash that was encoded twice changes the number of segments.
        if read.matches('/').count() != path.matches('/').count() {
            return true;
        }
        let guards = |other: usize| {
            let other = &self.spots[other];
            match self.taken_by(other, head) {
                Some(met) => self.guards[index].is_way_around(self.guards[met]),
                // The other spot rejects this method.
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

    /// Whether adding or removing a trailing slash may turn a path of this spot into a path of a more specific entry
    /// with another guard. Computed when the table is built.
    pub(super) fn slash_matters(&self, position: usize) -> bool {
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
        let closer = |tree: &Node| tree.closer(matcher.path.segments(), false, &guards);
        let has_other_hosts = !self.caseless.exact.is_empty() || !self.caseless.below.is_empty();
        match &matcher.host {
            // The host of a request may have several trees, so each request is checked.
            HostPattern::Any if has_other_hosts => true,
            HostPattern::Below(_) => true,
            HostPattern::Any => closer(&self.caseless.any),
            // If no entry of this host covers a path, the next wider host pattern is searched.
            HostPattern::Exact(name) => self.caseless.of(Some(name)).any(closer),
        }
    }
}
