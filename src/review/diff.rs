//! Compares two policies and lists the callers who gain or lose access.
//!
//! Both policies evaluate the same sample requests from the same sample callers. The module `sample` explains why the
//! samples are sufficient.

use super::meeting::meeting;
use super::sample::{self, Caller, Grants, Sample};
use super::settings_diff::SettingChange;
use crate::clock::Now;
use crate::explain::describe::{covers, upstream_and_copies, with_fields};
use crate::explain::text::Line;
use crate::explain::{Examiner, Outcome, Verdict};
use crate::policy::{Handler, Policy};
use crate::route::{Fields, Matcher};
use http::Method;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

/// The maximum number of pairs of routes for which requests are sought that both cover, and of such requests.
const PAIRS_MAX: usize = 4_000_000;
const MEETINGS_MAX: usize = 10_000;

/// The differences between two policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// Access that the new policy adds.
    pub gains: Vec<Change>,
    /// Access that the new policy removes.
    pub losses: Vec<Change>,
    /// Requests that both policies allow, but through other routes or upstreams.
    pub moves: Vec<Change>,
    /// Other changed settings.
    pub others: Vec<SettingChange>,
    /// Whether so many routes differ that not all requests were compared that two routes cover.
    #[serde(skip_serializing_if = "is_false")]
    pub is_incomplete: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A change for one kind of caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// The caller. For a move, this describes all allowed callers.
    pub caller: String,
    /// The methods.
    pub methods: Vec<String>,
    /// The host and path pattern, as written in the policy.
    pub covers: String,
    /// An example request.
    pub example: String,
    /// The result under the old policy.
    pub before: Side,
    /// The result under the new policy.
    pub after: Side,
}

/// The result under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Side {
    /// The name of the route, if any.
    pub route: Option<String>,
    /// `passed`, `redirected`, or the denial code.
    pub outcome: String,
    /// Whether the rule rejects the request, but shadow mode forwards it.
    pub shadow: bool,
    /// The name of the upstream if the request is forwarded. `authority` or `gateway` if the gateway answers itself.
    pub upstream: Option<String>,
}

impl Difference {
    /// Whether there are no differences.
    pub(crate) fn is_empty(&self) -> bool {
        self.gains.is_empty() && self.losses.is_empty() && self.moves.is_empty() && self.others.is_empty()
    }
}

impl Side {
    pub(super) fn of(policy: &Policy, verdict: &Verdict) -> Self {
        let route = verdict.route.and_then(|route| policy.routes.get(route));
        let upstream = route.filter(|_| verdict.reaches()).map(|route| match &route.handler {
            Handler::Forward(delivery) => upstream_and_copies(delivery),
            Handler::Files(files) => format!("files in {}", files.root.display()),
            Handler::Answer(_) => "authority".to_owned(),
            Handler::Publish(_) | Handler::Redirect(_) | Handler::Receive(..) => "gateway".to_owned(),
        });
        Self {
            route: route.map(|route| route.name.to_string()),
            outcome: verdict.outcome.word().to_owned(),
            shadow: verdict.shadow,
            upstream,
        }
    }

    /// Whether the request is forwarded.
    pub(crate) fn reaches(&self) -> bool {
        self.shadow || self.outcome == Outcome::Passed.word()
    }
}

impl fmt::Display for Side {
    /// Formats the result for operators, for example `refused by "orders": insufficient_role`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shadow = if self.shadow { ", and passes in shadow mode" } else { "" };
        match (&self.route, &self.upstream) {
            (Some(route), Some(upstream)) if !self.shadow => {
                write!(f, "passed by {route:?}, to {}", Line(upstream))
            }
            (Some(route), _) => write!(f, "refused by {route:?}: {}{shadow}", self.outcome),
            (None, _) if self.outcome == Outcome::Redirected.word() => f.write_str("redirected to https"),
            (None, _) => write!(f, "refused: {}", self.outcome),
        }
    }
}

/// A URL to compare, with the methods of its routes.
struct RequestTarget {
    url: String,
    fields: Fields,
    covers: String,
    methods: Vec<Method>,
}

/// Returns the changes in access from `old` to `new`. `others` is empty, because other settings are compared by file.
pub(crate) fn difference(old: &Policy, new: &Policy) -> Difference {
    let comparison = Comparison { old: Examiner::new(old), new: Examiner::new(new), now: Now::read() };
    let mut difference = Difference::default();
    let mut seen = HashSet::new();
    for place in places(old, new) {
        comparison.compare(&place, false, &mut seen, &mut difference);
    }
    let (meetings, is_incomplete) = meetings(old, new);
    for place in meetings {
        comparison.compare(&place, true, &mut seen, &mut difference);
    }
    difference.is_incomplete = is_incomplete;
    difference
}

/// Returns requests that an added or removed route and another route cover, and whether there are more. A request can change
/// its route only if such a route covers it, and the sample requests of the two routes may be other ones.
fn meetings(old: &Policy, new: &Policy) -> (Vec<RequestTarget>, bool) {
    let key = |matcher: &Matcher| (covers(matcher), matcher.methods.allow_value());
    let keys = |policy: &Policy| policy.table.iter().map(|(matcher, _)| key(matcher)).collect::<HashSet<_>>();
    let (keys_of_old, keys_of_new) = (keys(old), keys(new));
    let removed = old.table.iter().filter(|(matcher, _)| !keys_of_new.contains(&key(matcher)));
    let added = new.table.iter().filter(|(matcher, _)| !keys_of_old.contains(&key(matcher)));
    let after = removed.flat_map(|(one, _)| new.table.iter().map(move |(other, _)| (one, other)));
    let before = added.flat_map(|(one, _)| old.table.iter().map(move |(other, _)| (one, other)));
    let (mut targets, mut known) = (Vec::new(), HashSet::new());
    for (pair, (one, other)) in after.chain(before).enumerate() {
        if pair >= PAIRS_MAX || targets.len() >= MEETINGS_MAX {
            return (targets, true);
        }
        let Some(met) = meeting(one, other) else { continue };
        let mut methods: Vec<Method> = Vec::new();
        for method in one.methods.iter().chain(other.methods.iter()) {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
        let covers = covers(&met);
        if known.insert((covers.clone(), met.methods.allow_value())) {
            targets.extend(sample::urls(&met).map(|url| RequestTarget {
                url,
                fields: met.fields.clone(),
                covers: covers.clone(),
                methods: methods.clone(),
            }));
        }
    }
    (targets, false)
}

/// Returns the sample URLs of the new policy, then the remaining sample URLs of the old policy.
fn places(old: &Policy, new: &Policy) -> Vec<RequestTarget> {
    let mut places: Vec<RequestTarget> = Vec::new();
    let mut known: HashMap<(String, Fields), usize> = HashMap::new();
    let mut add = |url: &str, fields: Fields, covers: &str, method: Method| {
        let at = *known.entry((url.to_owned(), fields.clone())).or_insert_with(|| {
            let (url, covers) = (url.to_owned(), covers.to_owned());
            places.push(RequestTarget { url, fields, covers, methods: Vec::new() });
            places.len() - 1
        });
        if !places[at].methods.contains(&method) {
            places[at].methods.push(method);
        }
    };
    for sample in sample::requests(new).chain(sample::requests(old)) {
        let Sample { url, fields, covers, method, .. } = sample;
        // Either policy may have the only route for requests without the header fields.
        if !fields.is_empty() {
            let bare = covers.strip_suffix(&with_fields(&fields)).unwrap_or(&covers);
            add(&url, Fields::default(), bare, method.clone());
        }
        add(&url, fields, &covers, method);
    }
    places
}

struct Comparison<'p> {
    old: Examiner<'p>,
    new: Examiner<'p>,
    now: Now,
}

/// The results under the old and the new policy.
type Pair = (Side, Side);

/// The routes under both policies, and the results for a caller without a token.
type Seen = HashSet<((Option<usize>, Option<usize>), Pair)>;

/// Methods of a URL that have the same route and result under each policy.
struct MethodGroup {
    routes: (Option<usize>, Option<usize>),
    nobody: Pair,
    methods: Vec<Method>,
}

impl Comparison<'_> {
    fn ask(&self, method: &Method, place: &RequestTarget, caller: &Caller) -> Option<(Verdict, Verdict)> {
        let question = sample::question(method, &place.url, &place.fields)?.at(self.now);
        let ask =
            |examiner: &Examiner<'_>| examiner.verdict(&caller.question(examiner.policy(), question.clone()));
        Some((ask(&self.old), ask(&self.new)))
    }

    /// Compares the requests of a place. Of a meeting, only those whose routes were not compared before.
    fn compare(&self, place: &RequestTarget, is_meeting: bool, seen: &mut Seen, difference: &mut Difference) {
        let mut groups: Vec<MethodGroup> = Vec::new();
        for method in &place.methods {
            let Some((old, new)) = self.ask(method, place, &Caller::Nobody) else { continue };
            let nobody = (Side::of(self.old.policy(), &old), Side::of(self.new.policy(), &new));
            let routes = (old.route, new.route);
            match groups.iter_mut().find(|known| (known.routes, &known.nobody) == (routes, &nobody)) {
                Some(known) => known.methods.push(method.clone()),
                None => groups.push(MethodGroup { routes, nobody, methods: vec![method.clone()] }),
            }
        }
        for group in &groups {
            let is_new = seen.insert((group.routes, group.nobody.clone()));
            if is_new || !is_meeting {
                self.compare_group(place, group, difference);
            }
        }
    }

    fn compare_group(&self, place: &RequestTarget, group: &MethodGroup, difference: &mut Difference) {
        let MethodGroup { routes: (old, new), nobody, methods } = group;
        let all_grants = self.grants(*old, *new);
        let asked: Vec<(Grants, Pair)> = all_grants
            .into_iter()
            .filter_map(|grants| {
                let caller = Caller::WithToken(grants.clone());
                let (old, new) = self.ask(methods.first()?, place, &caller)?;
                Some((grants, (Side::of(self.old.policy(), &old), Side::of(self.new.policy(), &new))))
            })
            .collect();
        let change = |caller: String, (before, after): &Pair| Change {
            caller,
            methods: methods.iter().map(ToString::to_string).collect(),
            covers: place.covers.clone(),
            example: format!("{} {}{}", methods[0], place.url, with_fields(&place.fields)),
            before: before.clone(),
            after: after.clone(),
        };
        let gains = |(before, after): &Pair| !before.reaches() && after.reaches();
        let loses = |(before, after): &Pair| before.reaches() && !after.reaches();
        difference
            .gains
            .extend(minimal_callers(nobody, &asked, gains).into_iter().map(|(who, pair)| change(who, pair)));
        difference
            .losses
            .extend(minimal_callers(nobody, &asked, loses).into_iter().map(|(who, pair)| change(who, pair)));
        let all = [nobody].into_iter().chain(asked.iter().map(|(_, pair)| pair));
        let mut through = all.filter(|(before, after)| before.reaches() && after.reaches());
        if let Some(pair) = through
            .find(|(before, after)| (&before.route, &before.upstream) != (&after.route, &after.upstream))
        {
            difference.moves.push(change("all callers who pass".to_owned(), pair));
        }
    }
}

impl Comparison<'_> {
    /// Returns the sample callers of two routes: callers with exactly the required grants, and the same callers with
    /// one excluded role. If a rule names issuers, each caller is returned once for each issuer.
    fn grants(&self, old: Option<usize>, new: Option<usize>) -> BTreeSet<Grants> {
        let sides = [(self.old.policy(), old), (self.new.policy(), new)];
        let routes = || sides.iter().filter_map(|(policy, route)| Some((*policy, &policy.routes[(*route)?])));
        let mut all = BTreeSet::from([Grants::default()]);
        all.extend(routes().flat_map(|(policy, route)| sample::minimal_grants(policy, route)));
        let excluded: BTreeSet<String> =
            routes().flat_map(|(_, route)| sample::excluded_roles(route)).collect();
        let with_one = |grants: &Grants| -> Vec<Grants> {
            let with = |role: &String| {
                let mut grants = grants.clone();
                grants.roles.insert(role.clone());
                grants
            };
            excluded.iter().map(with).collect()
        };
        all.extend(all.iter().flat_map(with_one).collect::<Vec<_>>());
        if !routes().any(|(_, route)| sample::names_issuers(route)) {
            return all;
        }
        let known = sides.iter().flat_map(|(policy, _)| policy.trust.issuers());
        let issuers: BTreeSet<String> = known.map(|issuer| issuer.name.to_string()).collect();
        let of_each = |grants: Grants| -> Vec<Grants> {
            match grants.issuer {
                Some(_) => vec![grants],
                None => issuers
                    .iter()
                    .map(|name| Grants { issuer: Some(name.clone()), ..grants.clone() })
                    .collect(),
            }
        };
        all.into_iter().flat_map(of_each).collect()
    }
}

/// Returns the callers for whose results `is_so` is true. Omits a caller who has more grants than another returned
/// caller.
fn minimal_callers<'a>(
    nobody: &'a Pair,
    asked: &'a [(Grants, Pair)],
    is_so: impl Fn(&Pair) -> bool,
) -> Vec<(String, &'a Pair)> {
    let mut anybody = asked.iter().filter(|(grants, _)| grants.is_bare());
    if is_so(nobody) && anybody.all(|(_, pair)| is_so(pair)) {
        return vec![("everyone, with or without a token".to_owned(), nobody)];
    }
    let mut found = Vec::new();
    if is_so(nobody) {
        found.push((Caller::Nobody.to_string(), nobody));
    }
    let concerned: Vec<_> = asked.iter().filter(|(_, pair)| is_so(pair)).collect();
    for (grants, pair) in &concerned {
        let is_meant = concerned.iter().any(|(other, _)| other != grants && grants.includes(other));
        if !is_meant {
            let passes_both = |(before, after): &Pair| before.reaches() && after.reaches();
            let others = asked.iter().filter(|(_, pair)| !is_so(pair) && !passes_both(pair));
            let others = others.map(|(grants, _)| grants);
            found.push((grants.to_string() + &exceptions(grants, others), pair));
        }
    }
    found
}

/// Returns the excluded roles that change the result for a caller, as ` without role x`.
fn exceptions<'a>(grants: &Grants, others: impl Iterator<Item = &'a Grants>) -> String {
    let one_more = |other: &'a Grants| {
        let mut more = other.roles.difference(&grants.roles);
        let role = more.next().filter(|_| more.next().is_none())?;
        let same = Grants { roles: grants.roles.clone(), ..other.clone() };
        (other.includes(grants) && same == *grants).then_some(role.as_str())
    };
    let roles: Vec<&str> = others.filter_map(one_more).collect();
    if roles.is_empty() { String::new() } else { format!(" without role {}", roles.join(" or ")) }
}

impl fmt::Display for Difference {
    /// Formats the differences for operators. Gains are first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_incomplete {
            writeln!(f, "so many routes differ that not all requests were compared that two routes cover")?;
        }
        if self.is_empty() {
            return writeln!(f, "nothing changes");
        }
        for (title, changes) in
            [("GAINS ACCESS", &self.gains), ("loses access", &self.losses), ("goes elsewhere", &self.moves)]
        {
            if changes.is_empty() {
                continue;
            }
            writeln!(f, "{title} ({})", changes.len())?;
            for change in changes {
                let (caller, covers) = (Line(&change.caller), Line(&change.covers));
                writeln!(f, "  {caller}: {} {covers}", change.methods.join(","))?;
                writeln!(f, "    was {}", change.before)?;
                writeln!(f, "    is  {}", change.after)?;
            }
        }
        if !self.others.is_empty() {
            writeln!(f, "also different ({})", self.others.len())?;
            for other in &self.others {
                let text = |side: &Option<String>| side.clone().unwrap_or_else(|| "not given".to_owned());
                let (before, after) = (text(&other.before), text(&other.after));
                writeln!(f, "  {}: {}, was {}", Line(&other.what), Line(&after), Line(&before))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
