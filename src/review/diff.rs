//! Compares two policies, and lists the callers who gain or lose access.
//!
//! Both policies evaluate the same requests: sample requests to the routes of either policy, from the callers that the
//! rules of either policy distinguish. The module `sample` explains why these samples are sufficient.

use super::sample::{self, Caller, Grants, Sample};
use super::settings_diff::SettingChange;
use crate::clock::Now;
use crate::explain::describe::{upstream_of, with_fields};
use crate::explain::text::Line;
use crate::explain::{Examiner, Outcome, Verdict};
use crate::policy::{Handler, Policy};
use crate::route::Fields;
use http::Method;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// The differences between two policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// Access that the new policy adds. Operators should review it first.
    pub gains: Vec<Change>,
    /// Access that the new policy removes.
    pub losses: Vec<Change>,
    /// Requests that both policies allow, but through different routes or to different upstreams.
    pub moves: Vec<Change>,
    /// Other settings that differ.
    pub others: Vec<SettingChange>,
}

/// A difference between the policies for one kind of caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// A description of the caller. For a move, the description covers all callers who are allowed.
    pub caller: String,
    /// The methods.
    pub methods: Vec<String>,
    /// The host and path, as the policy writes them.
    pub covers: String,
    /// An example request.
    pub example: String,
    /// The result under the old policy.
    pub before: Side,
    /// The result under the new policy.
    pub after: Side,
}

/// The result of a request under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Side {
    /// The name of the matching route, if any.
    pub route: Option<String>,
    /// `passed`, `redirected`, or the code of the refusal.
    pub outcome: String,
    /// Whether the rule refuses the request, but the request is forwarded because its route is in shadow mode.
    pub shadow: bool,
    /// The name of the upstream, if the request is forwarded; `authority` or `gateway` if the gateway answers the
    /// request.
    pub upstream: Option<String>,
}

impl Difference {
    /// Whether the policies do not differ.
    pub(crate) fn is_empty(&self) -> bool {
        self.gains.is_empty() && self.losses.is_empty() && self.moves.is_empty() && self.others.is_empty()
    }
}

impl Side {
    pub(super) fn of(policy: &Policy, verdict: &Verdict) -> Self {
        let route = verdict.route.and_then(|route| policy.routes.get(route));
        let upstream = route.filter(|_| verdict.reaches()).map(|route| match &route.handler {
            Handler::Forward(delivery) => upstream_of(delivery).0,
            Handler::Answer(_) => "authority".to_owned(),
            Handler::Publish(_) => "gateway".to_owned(),
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
    /// Formats the result for operators, such as `refused by "orders": insufficient_role`.
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

/// A URL for which the policies are compared, and the methods of the routes that match the URL.
struct RequestTarget {
    url: String,
    fields: Fields,
    covers: String,
    methods: Vec<Method>,
}

/// Returns the changes in access if `new` replaces `old`. Leaves `others` empty, because the comparison of other
/// settings requires the files of both policies.
pub(crate) fn difference(old: &Policy, new: &Policy) -> Difference {
    let comparison = Comparison { old: Examiner::new(old), new: Examiner::new(new), now: Now::read() };
    let mut difference = Difference::default();
    for place in places(old, new) {
        comparison.compare(&place, &mut difference);
    }
    difference
}

/// Returns the sample URLs of the new policy, followed by the sample URLs that only the old policy has.
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
        // A policy may lose or gain the only route that takes the request without the header fields.
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

/// The results of one request under the old and the new policy.
type Pair = (Side, Side);

/// A group of methods of a URL. Under each policy, the same route matches all of these methods, with the same results.
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

    fn compare(&self, place: &RequestTarget, difference: &mut Difference) {
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
            self.compare_group(place, group, difference);
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
    /// Returns the sample callers for the rules of two routes: callers with exactly the grants that a rule requires,
    /// and the same callers with one excluded role in addition. If a rule names issuers, each of these callers is
    /// returned once for every issuer.
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

/// Returns the callers for whose results `is_so` is true, without callers who only have more grants than another
/// returned caller. Each returned caller represents all callers with more grants.
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

/// Returns the excluded roles that change the result for a caller with these grants, as ` without role x`. A caller
/// with an additional role gets a different result only if a rule excludes that role.
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
    /// Formats the differences for operators, gains first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
mod tests {
    use super::super::sample::tests::policy;
    use super::*;
    use proptest::prelude::*;

    fn route(path: &str, rest: &str) -> String {
        format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\nmethods = [\"GET\"]\n{rest}\n")
    }

    fn between(old: &str, new: &str) -> Difference {
        difference(&policy(old), &policy(new))
    }

    /// Formats each change as the caller, the methods and path, the old result and the new result.
    fn read(changes: &[Change]) -> Vec<String> {
        let text = |change: &Change| {
            let Change { caller, covers, before, after, .. } = change;
            format!("{caller} | {} {covers} | {before} | {after}", change.methods.join(","))
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn a_role_more_gains_and_a_role_less_loses() {
        let (one, both) = (route("/a", "roles = [\"admin\"]"), route("/a", "roles = [\"admin\", \"clerk\"]"));
        let found = between(&one, &both);
        let gain =
            "role clerk | GET,HEAD /a | refused by \"/a\": insufficient_role | passed by \"/a\", to echo";
        assert_eq!(read(&found.gains), [gain]);
        assert!(found.losses.is_empty() && found.moves.is_empty(), "{found}");
        let found = between(&both, &one);
        assert_eq!(read(&found.losses).len(), 1);
        assert!(found.losses[0].caller == "role clerk" && found.gains.is_empty(), "{found}");
    }

    #[test]
    fn what_is_no_longer_asked_for_is_a_gain_for_those_without() {
        let guarded = route("/a", "roles = [\"admin\"]\nscopes = [\"a:read\"]");
        for (new, who) in [
            (route("/a", "scopes = [\"a:read\"]"), "scope a:read"),
            (route("/a", "roles = [\"admin\"]"), "role admin"),
            (route("/a", ""), "any token"),
            (route("/a", "access = \"public\""), "everyone, with or without a token"),
            (format!("{guarded}mode = \"shadow\""), "everyone, with or without a token"),
        ] {
            let found = between(&guarded, &new);
            assert_eq!(found.gains.iter().map(|gain| &*gain.caller).collect::<Vec<_>>(), [who], "{found}");
            assert!(found.losses.is_empty(), "{found}");
        }
        let found = between(&route("/a", ""), &route("/a", "access = \"public\""));
        assert_eq!(found.gains[0].caller, "without a token", "others passed before");
    }

    #[test]
    fn a_route_for_a_header_is_compared_with_and_without_it() {
        let (plain, version) = (route("/a", "roles = [\"admin\"]"), "headers = { X-V = \"2\" }");
        let open = route("/a", &format!("name = \"v2\"\naccess = \"public\"\n{version}"));
        let found = between(&plain, &format!("{plain}{open}"));
        let gain = "everyone, with or without a token | GET,HEAD /a with x-v: 2 | refused by \"/a\": missing_token | passed by \"v2\", to echo";
        assert_eq!((read(&found.gains), found.losses.len()), (vec![gain.to_owned()], 0), "{found}");
        assert!(found.gains[0].example.ends_with("/a with x-v: 2"), "{found}");
        // As long as `/a` has a route for the header, requests to `/a` without the header are refused. Once that route
        // is gone, the wider route takes them.
        let (wide, only) = (route("/{*r}", "access = \"public\""), route("/a", version));
        let found = between(&format!("{wide}{only}"), &wide);
        let places: Vec<_> = found.gains.iter().map(|gain| (&*gain.caller, &*gain.covers)).collect();
        assert_eq!(
            places,
            [("everyone, with or without a token", "/a"), ("without a token", "/a with x-v: 2")],
            "{found}"
        );
    }

    #[test]
    fn an_excluded_role_is_a_loss_for_those_who_have_it() {
        let (open, closed) = (route("/a", ""), route("/a", "not_roles = [\"banned\"]"));
        let callers =
            |changes: &[Change]| changes.iter().map(|change| change.caller.clone()).collect::<Vec<_>>();
        let found = between(&open, &closed);
        assert_eq!(
            (callers(&found.losses), found.gains.len()),
            (vec!["role banned".to_owned()], 0),
            "{found}"
        );
        let found = between(&closed, &open);
        assert_eq!(
            (callers(&found.gains), found.losses.len()),
            (vec!["role banned".to_owned()], 0),
            "{found}"
        );
        let found = between(&route("/a", "roles = [\"admin\"]"), &closed);
        assert_eq!(callers(&found.gains), ["any token without role banned"], "{found}");
        assert_eq!(callers(&found.losses), ["role admin and role banned"], "{found}");
    }

    #[test]
    fn each_issuer_is_asked_about_where_a_rule_names_one() {
        let second = "[[issuer]]\nissuer = \"https://second.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
            secret = \"f123456789abcdef0123456789abcdef\"\n";
        let of = |issuers: &str| format!("{second}{}", route("/a", issuers));
        let callers =
            |changes: &[Change]| changes.iter().map(|change| change.caller.clone()).collect::<Vec<_>>();
        let one = "issuers = [\"https://id.example.com/\"]";
        let both = "issuers = [\"https://id.example.com/\", \"https://second.example.com/\"]";
        let other = "issuers = [\"https://second.example.com/\"]";
        let token_of_second = vec!["a token of https://second.example.com/".to_owned()];
        for (old, new, gains, losses) in [
            (one, "", token_of_second.clone(), vec![]),
            (one, both, token_of_second.clone(), vec![]),
            ("", one, vec![], token_of_second.clone()),
            (one, other, token_of_second, vec!["a token of https://id.example.com/".to_owned()]),
            ("", both, vec![], vec![]),
        ] {
            let found = between(&of(old), &of(new));
            assert_eq!(
                (callers(&found.gains), callers(&found.losses)),
                (gains, losses),
                "{old} {new}: {found}"
            );
        }
    }

    #[test]
    fn a_route_that_comes_goes_or_is_covered_by_another_shows() {
        let (a, rest) = (route("/a/{id}", "roles = [\"admin\"]"), route("/a/{*rest}", ""));
        let found = between(&rest, &format!("{rest}{a}"));
        let loss = "any token | GET,HEAD /a/{id} | passed by \"/a/{*rest}\", to echo | refused by \"/a/{id}\": insufficient_role";
        assert_eq!(read(&found.losses), [loss]);
        let moved = "all callers who pass | GET,HEAD /a/{id} | passed by \"/a/{*rest}\", to echo | passed by \"/a/{id}\", to echo";
        assert_eq!(read(&found.moves), [moved]);
        let found = between(&format!("{rest}{a}"), &a);
        assert_eq!(read(&found.losses).len(), 1, "{found}");
        assert_eq!(found.losses[0].after.route, None);
        let found = between(&a, &format!("{a}{rest}"));
        assert_eq!((found.gains.len(), &*found.gains[0].covers), (1, "/a/{*rest}"), "{found}");
    }

    #[test]
    fn methods_are_told_apart_where_the_verdicts_are() {
        let open = "[[route]]\npath = \"/a\"\nupstream = \"echo\"\n";
        let found = between(&route("/a", ""), open);
        assert_eq!(found.gains.len(), 1, "{found}");
        assert_eq!(found.gains[0].methods, ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
    }

    #[test]
    fn gains_are_told_first() {
        let (open, closed) = ("access = \"public\"", "roles = [\"admin\"]");
        let old = route("/a", open) + &route("/b", closed);
        let new = route("/a", closed) + &route("/b", open);
        let text = between(&old, &new).to_string();
        assert!(text.starts_with("GAINS ACCESS (1)\n  everyone"), "{text}");
        assert!(text.contains("\nloses access (1)\n"), "{text}");
        assert_eq!(between(&old, &old).to_string(), "nothing changes\n");
    }

    const PATHS: [&str; 7] = ["/a", "/a/{x}", "/a/{*r}", "/{*r}", "/b/{y}/c", "/b/{*r}", "/a/sample"];

    /// The settings of a generated route.
    type Made = (u8, u8, u8, u8, u8, bool, bool, bool, (u8, u8));

    fn made(routes: &[Option<Made>]) -> String {
        let mut text = String::new();
        let list = |names: &[&str], mask: u8| {
            let names = names.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
            let names: Vec<_> = names.map(|(_, name)| format!("{name:?}")).collect();
            format!("[{}]", names.join(", "))
        };
        for (path, made) in PATHS.iter().zip(routes) {
            let Some((access, methods, roles, all, scopes, claim, fresh, shadow, (none, any))) = *made else {
                continue;
            };
            text += &format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\n");
            text += &format!("methods = {}\n", list(&["GET", "POST", "PURGE"], methods));
            match access {
                0 => text += "access = \"public\"\n",
                _ => {
                    text += if access == 1 { "access = \"optional\"\n" } else { "" };
                    text += &format!("roles = {}\n", list(&["a", "b", "c"], roles));
                    text += &format!("all_roles = {}\n", list(&["a", "d"], all));
                    text += &format!("scopes = {}\n", list(&["x", "y"], scopes));
                    // `banned` and `e` are never required, so that no rule both requires and excludes a role.
                    text += &format!("not_roles = {}\n", list(&["banned", "e"], none));
                    text += &format!("any_scopes = {}\n", list(&["x", "z"], any));
                    text += match (claim, fresh) {
                        (true, false) => "claims = { tenant = \"acme\" }\n",
                        (true, true) => "claims = { tenant = [\"acme\", \"other\"] }\n",
                        (false, _) => "",
                    };
                    text += if fresh { "fresh = true\n" } else { "" };
                }
            }
            text += if shadow { "mode = \"shadow\"\n" } else { "" };
        }
        text + "[[route]]\npath = \"/always\"\nupstream = \"echo\"\n"
    }

    fn policies() -> impl Strategy<Value = String> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), (0..8u8, 0..8u8));
        let one = (0..4u8, 0..8u8, 0..8u8, 0..4u8, 0..4u8, flags);
        let one =
            one.prop_map(|(access, methods, roles, all, scopes, (claim, fresh, shadow, (none, any)))| {
                // Most routes have few requirements, so that many requests pass.
                (
                    access,
                    methods,
                    roles,
                    if all == 3 { 1 } else { 0 },
                    scopes & 1,
                    claim && fresh,
                    fresh && (!claim || shadow),
                    shadow && claim,
                    (if none < 4 { none } else { 0 }, if any < 3 { any } else { 0 }),
                )
            });
        proptest::collection::vec(proptest::option::of(one), PATHS.len()).prop_map(|routes| made(&routes))
    }

    fn all_grants() -> impl Strategy<Value = Caller> {
        let grants =
            (0..64u8, 0..8u8, any::<bool>(), any::<bool>()).prop_map(|(roles, scopes, claim, fresh)| {
                let some = |names: &[&str], mask: u8| {
                    let names = names.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
                    names.map(|(_, name)| (*name).to_owned()).collect()
                };
                Caller::WithToken(Grants {
                    roles: some(&["a", "b", "c", "d", "banned", "e"], roles),
                    scopes: some(&["x", "y", "z"], scopes),
                    claims: claim
                        .then(|| {
                            let value = sample::ClaimGrant::Value("\"acme\"".to_owned());
                            ("tenant".to_owned(), BTreeSet::from([value]))
                        })
                        .into_iter()
                        .collect(),
                    issuer: None,
                    fresh,
                })
            });
        prop_oneof![1 => Just(Caller::Nobody), 5 => grants]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn a_policy_never_differs_from_itself(text in policies()) {
            let found = between(&text, &text);
            prop_assert!(found.is_empty(), "{}", found);
        }

        #[test]
        fn what_one_way_gains_the_other_way_loses(one in policies(), other in policies()) {
            let set = |changes: &[Change], swapped: bool| -> BTreeSet<String> {
                let text = |change: &Change| {
                    let methods: BTreeSet<_> = change.methods.iter().collect();
                    let url = change.example.split_once(' ').map(|(_, url)| url);
                    let (before, after) =
                        if swapped { (&change.after, &change.before) } else { (&change.before, &change.after) };
                    format!("{} {methods:?} {url:?} {before} {after}", change.caller)
                };
                changes.iter().map(text).collect()
            };
            let (there, back) = (between(&one, &other), between(&other, &one));
            prop_assert_eq!(set(&there.gains, false), set(&back.losses, true));
            prop_assert_eq!(set(&there.losses, false), set(&back.gains, true));
        }

        #[test]
        fn nobody_ever_gains_or_loses_without_its_being_told(one in policies(), other in policies(), caller in all_grants()) {
            let (old, new) = (policy(&one), policy(&other));
            let found = difference(&old, &new);
            let comparison = Comparison { old: Examiner::new(&old), new: Examiner::new(&new), now: Now::read() };
            for place in places(&old, &new) {
                for method in &place.methods {
                    let (before, after) = comparison.ask(method, &place, &caller).unwrap();
                    let text = |changes: &[Change]| {
                        changes.iter().any(|change| {
                            change.example.ends_with(&format!(" {}{}", place.url, with_fields(&place.fields)))
                                && change.methods.iter().any(|known| known == method.as_str())
                        })
                    };
                    match (before.reaches(), after.reaches()) {
                        (false, true) => prop_assert!(text(&found.gains), "{} {} {}: {}", caller, method, place.url, found),
                        (true, false) => prop_assert!(text(&found.losses), "{} {} {}: {}", caller, method, place.url, found),
                        (true, true) | (false, false) => {}
                    }
                }
            }
        }
    }
}
