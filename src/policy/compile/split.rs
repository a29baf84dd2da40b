//! Compiles `split` and `split_by` of a route.

use super::Faults;
use super::claims::Claims;
use super::matcher::fields;
use super::upstreams::{Upstreams, destination, hash_by};
use crate::authenticate::IdentityHeaders;
use crate::config::file::{Access, RouteSection, SplitSection};
use crate::forward::{Audience, Delivery, Destination, HashBy, Selector, Share, Split};
use std::collections::HashSet;
use std::sync::Arc;

/// The maximum number of other upstreams of one route.
const UPSTREAMS_MAX: usize = 20;
/// The maximum number of names in one list.
const NAMES_MAX: usize = 1000;

/// A split without the settings that all upstreams of the route share.
#[derive(Debug)]
pub(super) struct Draft {
    upstreams: Vec<(String, Chosen, Destination)>,
    own: Share,
    by: Vec<HashBy>,
}

#[derive(Debug)]
enum Chosen {
    By(Selector),
    Share(u16),
}

impl Draft {
    /// Returns the destinations of the other upstreams.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.upstreams.iter().map(|(_, _, destination)| destination)
    }

    /// Adds the split to the settings of the route's own upstream.
    pub(super) fn complete(
        self,
        own: Delivery,
        audience: impl Fn(&str) -> Option<Arc<Audience>>,
    ) -> Delivery {
        let (mut selected, mut shares) = (Vec::new(), Vec::new());
        for (name, chosen, destination) in self.upstreams {
            let Some(audience) = audience(&name) else { continue };
            let delivery = Delivery { destination, audience, ..own.clone() };
            match chosen {
                Chosen::By(selector) => selected.push((selector, delivery)),
                Chosen::Share(percent) => shares.push((Share::new(&name, percent), delivery)),
            }
        }
        let split =
            Split { selected: selected.into(), shares: shares.into(), own: self.own, by: self.by.into() };
        Delivery { split: Some(Box::new(split)), ..own }
    }
}

pub(super) fn compile(
    key: &str,
    table: &RouteSection,
    upstreams: &Upstreams,
    identity: &IdentityHeaders,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Draft> {
    let at = format!("{key}.split");
    let has_shares = table.split.iter().any(|share| share.percent.is_some());
    let by = by(key, table, has_shares, claims, faults);
    if table.split.is_empty() {
        return None;
    }
    if table.split.len() > UPSTREAMS_MAX {
        let hint = format!("use at most {UPSTREAMS_MAX}");
        faults.fault("too_many", &at, format!("{} upstreams", table.split.len()), hint);
    }
    let mut drafts = Vec::new();
    let mut names = HashSet::from([table.upstream.as_str()]);
    for (index, share) in table.split.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if share.percent.is_some() && !names.insert(&share.upstream) {
            let found = format!("\"{}\" has another share of the route", share.upstream);
            faults.fault("same_name", &format!("{at}.upstream"), found, "one share for each upstream");
        }
        let chosen = chosen(&at, table, share, identity, faults);
        let destination = destination(&at, &share.upstream, upstreams, faults);
        drafts.extend(chosen.zip(destination).map(|(it, to)| (share.upstream.clone(), it, to)));
    }
    let given: u32 = table.split.iter().filter_map(|share| share.percent).map(u32::from).sum();
    let Some(rest) = 100_u32.checked_sub(given) else {
        let found = format!("{given} percent for the upstreams of split");
        faults.fault("bad_value", &at, found, "at most 100; the route's upstream gets the rest");
        return None;
    };
    let own = Share::new(&table.upstream, u16::try_from(rest).unwrap_or(100));
    Some(Draft { upstreams: drafts, own, by })
}

/// Returns what selects an upstream: exactly one of the four keys.
fn chosen(
    at: &str,
    table: &RouteSection,
    share: &SplitSection,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Chosen> {
    let by_caller = [("subjects", &share.subjects), ("roles", &share.roles)];
    for (name, list) in by_caller.iter().filter(|(_, list)| !list.is_empty()) {
        let at = format!("{at}.{name}");
        if table.access == Access::Public {
            let hint = "access = \"authenticated\" or \"optional\", or select by headers";
            faults.fault("impossible_rule", &at, "set on a public route, which has no caller", hint);
        }
        if list.len() > NAMES_MAX || list.iter().any(String::is_empty) {
            let found = format!("{} names, or an empty one", list.len());
            faults.fault("bad_value", &at, found, format!("at most {NAMES_MAX} names"));
        }
    }
    let boxed = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
    match (share.percent, share.headers.is_empty(), share.subjects.is_empty(), share.roles.is_empty()) {
        (Some(percent @ 0..=100), true, true, true) => Some(Chosen::Share(percent)),
        (Some(percent), true, true, true) => {
            let found = percent.to_string();
            faults.fault("bad_value", &format!("{at}.percent"), found, "a percentage from 0 to 100");
            None
        }
        (None, false, true, true) => {
            Some(Chosen::By(Selector::Headers(fields(at, &share.headers, identity, faults)?)))
        }
        (None, true, false, true) => Some(Chosen::By(Selector::Subjects(boxed(&share.subjects)))),
        (None, true, true, false) => Some(Chosen::By(Selector::Roles(boxed(&share.roles)))),
        _ => {
            let hint = "one of percent, headers, subjects and roles; write a second table for another choice";
            faults.fault("bad_value", at, "none or several properties that select the upstream", hint);
            None
        }
    }
}

fn by(
    key: &str,
    table: &RouteSection,
    has_shares: bool,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Vec<HashBy> {
    let at = format!("{key}.split_by");
    let Some(list) = &table.split_by else { return vec![HashBy::Subject, HashBy::ClientIp] };
    if !has_shares {
        let hint = "add a percent to split, or remove this";
        faults.fault("impossible_rule", &at, "set, but no upstream of split has a percent", hint);
    }
    if let [word] = &list[..]
        && word == "request"
    {
        return Vec::new();
    }
    let read = |(index, text): (usize, &String)| hash_by(&format!("{at}[{index}]"), text, claims, faults);
    let by: Vec<HashBy> = list.iter().enumerate().filter_map(read).collect();
    if list.is_empty() {
        let hint = "[\"subject\", \"client_ip\"], or \"request\" to draw the upstream for each request";
        faults.fault("bad_value", &at, "an empty list", hint);
    }
    by
}
