//! Detects requests that one entry admits, but that a more lenient reader behind the gateway would match to another
//! entry.

use super::tree::Node;
use super::{Guard, RouteTable, Spot};
use crate::route::head::Head;
use crate::route::host::HostPattern;
use crate::route::lenient;
use crate::route::pattern::Params;
use std::borrow::Cow;

impl Guard {
    /// Whether a request admitted under this guard bypasses the other guard, which protects the same upstream with
    /// other or stricter requirements.
    fn is_way_around(self, other: Self) -> bool {
        self.before == other.before && other.asks.is_some() && (self.is_lax || self.asks != other.asks)
    }
}

impl<T> RouteTable<T> {
    /// Whether a request bypasses the guard of another entry for the same upstream, as seen by a reader that ignores
    /// case, drops path parameters, endings and a trailing slash, and decodes repeatedly. Many upstreams read
    /// `/Admin`, `/admin;x`, `/admin.`, `/admin/` and `/%2561dmin` as `/admin`. A laxer catch-all route, which covers
    /// these spellings in the gateway, would bypass the guard of `/admin`. To serve two paths that differ only in
    /// case or in a trailing slash, define a route for each.
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
        // Checks every byte without branching. The compiler processes sixteen bytes at a time, which is faster for a
        // path than to stop at the first odd byte.
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
        // Most paths that contain a dot name a file and are not ambiguous.
        let is_otherwise = lenient::is_ambiguous(path) || path.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_otherwise && !self.has_upper && !spot.slash {
            return false;
        }
        let Some(read) = lenient::reading(path) else { return true };
        // A slash hidden by a second encoding changes the segments of the path.
        if read.matches('/').count() != path.matches('/').count() {
            return true;
        }
        let guards = |other: usize| {
            let other = &self.spots[other];
            match self.taken_by(other, head) {
                Some(met) => self.guards[index].is_way_around(self.guards[met]),
                // The other spot would reject this method.
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

    /// Whether a path of a spot belongs to a more specific entry with another guard once a trailing slash is added or
    /// removed. Computed when the table is built, by walking the trees.
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
            // The host of a request may belong to several trees, so the check is made for each request.
            HostPattern::Any if has_other_hosts => true,
            HostPattern::Below(_) => true,
            HostPattern::Any => closer(&self.caseless.any),
            // If no entry of this host covers a path, the path is looked up under the next wider host pattern.
            HostPattern::Exact(name) => self.caseless.of(Some(name)).any(closer),
        }
    }
}
