//! What changes for whom when one policy takes the place of another.
//!
//! Both policies answer the same questions: the requests that either one's routes name, from the callers that either one's
//! rules tell apart there. See [`super::sample`] for why no difference is between these.

use super::sample::{self, Caller, Holding};
use super::{Examiner, Question, Verdict, facts, upstream_of};
use crate::clock::Now;
use crate::policy::{Handler, Policy};
use http::Method;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// What changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Who gets where they did not: what a review is for.
    pub gains: Vec<Change>,
    /// Who does not get any more where they did.
    pub losses: Vec<Change>,
    /// What is served by another route than before, or sent elsewhere.
    pub moves: Vec<Change>,
    /// What else is different, in words.
    pub others: Vec<Other>,
}

/// A difference for one sort of caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Who; everybody who gets through, for a move.
    pub caller: String,
    /// With which methods.
    pub methods: Vec<String>,
    /// Where: host and path as the policy writes them.
    pub covers: String,
    /// A request for which it is so.
    pub example: String,
    /// What became of it.
    pub before: Side,
    /// What becomes of it.
    pub after: Side,
}

/// What one policy does with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The route that covers it.
    pub route: Option<String>,
    /// `passed`, or the code of the refusal.
    pub outcome: String,
    /// Whether it passes although it is refused, since the route is in the shadow.
    pub shadow: bool,
    /// Where it is sent, when it passes.
    pub upstream: Option<String>,
}

/// A difference that is not about who gets where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// What.
    pub what: String,
    /// As it was; none: it was not.
    pub before: Option<String>,
    /// As it is; none: it is no more.
    pub after: Option<String>,
}

impl Difference {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.gains.is_empty() && self.losses.is_empty() && self.moves.is_empty() && self.others.is_empty()
    }
}

impl Side {
    pub(super) fn of(policy: &Policy, verdict: &Verdict) -> Self {
        let route = verdict.route.and_then(|route| policy.routes.get(route));
        let upstream = route.filter(|_| verdict.reaches()).map(|route| match &route.handler {
            Handler::Forward(delivery) => upstream_of(delivery).0,
            Handler::Answer(_) => "authority".to_owned(),
        });
        Self {
            route: route.map(|route| route.name.to_string()),
            outcome: verdict.outcome.word().to_owned(),
            shadow: verdict.shadow,
            upstream,
        }
    }

    /// Whether the request gets where it was to go.
    pub fn reaches(&self) -> bool {
        self.shadow || self.outcome == "passed"
    }
}

impl fmt::Display for Side {
    /// For people: `orders: insufficient_role`, `no route: no_route`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shadow = if self.shadow { ", and passes in the shadow" } else { "" };
        match (&self.route, &self.upstream) {
            (Some(route), Some(upstream)) if !self.shadow => {
                write!(f, "passed by {route:?}, to {upstream}")
            }
            (Some(route), _) => write!(f, "refused by {route:?}: {}{shadow}", self.outcome),
            (None, _) => write!(f, "refused: {}", self.outcome),
        }
    }
}

/// A place that is asked about, with the methods that the policies name there.
struct Place {
    url: String,
    covers: String,
    methods: Vec<Method>,
}

/// What changes when `new` takes the place of `old`.
pub fn difference(old: &Policy, new: &Policy) -> Difference {
    let both = Both { old: Examiner::new(old), new: Examiner::new(new), now: Now::read() };
    let mut difference = Difference { others: facts::others(old, new), ..Difference::default() };
    for place in places(old, new) {
        both.compare(&place, &mut difference);
    }
    difference
}

/// The places that the new policy names, then those that only the old one does.
fn places(old: &Policy, new: &Policy) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for sample in sample::requests(new).chain(sample::requests(old)) {
        let at = *known.entry(sample.url.clone()).or_insert_with(|| {
            places.push(Place { url: sample.url, covers: sample.covers, methods: Vec::new() });
            places.len() - 1
        });
        if !places[at].methods.contains(&sample.method) {
            places[at].methods.push(sample.method);
        }
    }
    places
}

struct Both<'p> {
    old: Examiner<'p>,
    new: Examiner<'p>,
    now: Now,
}

/// What both policies do with one request of one caller.
type Pair = (Side, Side);

impl Both<'_> {
    fn ask(&self, method: &Method, url: &str, caller: &Caller) -> Option<(Verdict, Verdict)> {
        // Every URL of a sample is one.
        let question = Question::new(method.as_str(), url).ok()?.at(self.now);
        let ask =
            |examiner: &Examiner<'_>| examiner.verdict(&caller.asking(examiner.policy(), question.clone()));
        Some((ask(&self.old), ask(&self.new)))
    }

    fn compare(&self, place: &Place, difference: &mut Difference) {
        // With which methods two routes meet here: what they do with a caller is the same for all of these.
        let mut meetings: Vec<((Pair, Option<usize>, Option<usize>), Vec<Method>)> = Vec::new();
        for method in &place.methods {
            let Some((old, new)) = self.ask(method, &place.url, &Caller::Nobody) else { continue };
            let sides = (Side::of(self.old.policy(), &old), Side::of(self.new.policy(), &new));
            let meeting = (sides, old.route, new.route);
            match meetings.iter_mut().find(|(known, _)| *known == meeting) {
                Some((_, methods)) => methods.push(method.clone()),
                None => meetings.push((meeting, vec![method.clone()])),
            }
        }
        for ((nobody, old, new), methods) in meetings {
            self.meet(place, nobody, (old, new), &methods, difference);
        }
    }

    fn meet(
        &self,
        place: &Place,
        nobody: Pair,
        (old, new): (Option<usize>, Option<usize>),
        methods: &[Method],
        difference: &mut Difference,
    ) {
        let holdings =
            [(self.old.policy(), old), (self.new.policy(), new)].into_iter().flat_map(|(policy, route)| {
                route.map(|route| sample::satisfying(policy, &policy.routes[route])).unwrap_or_default()
            });
        let holdings: BTreeSet<Holding> = holdings.chain([Holding::default()]).collect();
        let asked: Vec<(Holding, Pair)> = holdings
            .into_iter()
            .filter_map(|holding| {
                let caller = Caller::Holder(holding.clone());
                let (old, new) = self.ask(methods.first()?, &place.url, &caller)?;
                Some((holding, (Side::of(self.old.policy(), &old), Side::of(self.new.policy(), &new))))
            })
            .collect();
        let change = |caller: String, (before, after): &Pair| Change {
            caller,
            methods: methods.iter().map(ToString::to_string).collect(),
            covers: place.covers.clone(),
            example: format!("{} {}", methods[0], place.url),
            before: before.clone(),
            after: after.clone(),
        };
        let gains = |(before, after): &Pair| !before.reaches() && after.reaches();
        let loses = |(before, after): &Pair| before.reaches() && !after.reaches();
        difference
            .gains
            .extend(those(&nobody, &asked, gains).into_iter().map(|(who, pair)| change(who, pair)));
        difference
            .losses
            .extend(those(&nobody, &asked, loses).into_iter().map(|(who, pair)| change(who, pair)));
        let all = [&nobody].into_iter().chain(asked.iter().map(|(_, pair)| pair));
        let mut through = all.filter(|(before, after)| before.reaches() && after.reaches());
        if let Some(pair) = through
            .find(|(before, after)| (&before.route, &before.upstream) != (&after.route, &after.upstream))
        {
            difference.moves.push(change("whoever passes".to_owned(), pair));
        }
    }
}

/// Of the callers for whom something is so, those who hold least: whoever holds more is meant by them.
fn those<'a>(
    nobody: &'a Pair,
    asked: &'a [(Holding, Pair)],
    is_so: impl Fn(&Pair) -> bool,
) -> Vec<(String, &'a Pair)> {
    let anybody = asked.iter().find(|(holding, _)| *holding == Holding::default());
    if is_so(nobody) && anybody.is_none_or(|(_, pair)| is_so(pair)) {
        return vec![("everybody, with a token or without".to_owned(), nobody)];
    }
    let mut found = Vec::new();
    if is_so(nobody) {
        found.push((Caller::Nobody.to_string(), nobody));
    }
    let concerned: Vec<_> = asked.iter().filter(|(_, pair)| is_so(pair)).collect();
    for (holding, pair) in &concerned {
        let is_meant = concerned.iter().any(|(other, _)| other != holding && holding.includes(other));
        if !is_meant {
            found.push((holding.to_string(), pair));
        }
    }
    found
}

impl fmt::Display for Difference {
    /// For people: gains first.
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
                writeln!(f, "  {}: {} {}", change.caller, change.methods.join(","), change.covers)?;
                writeln!(f, "    was {}", change.before)?;
                writeln!(f, "    is  {}", change.after)?;
            }
        }
        if !self.others.is_empty() {
            writeln!(f, "also different ({})", self.others.len())?;
            for other in &self.others {
                match (&other.before, &other.after) {
                    (Some(before), Some(after)) => {
                        writeln!(f, "  {}\n    was {before}\n    is  {after}", other.what)?;
                    }
                    (None, Some(after)) => writeln!(f, "  {}: new\n    is  {after}", other.what)?,
                    (Some(before), None) => writeln!(f, "  {}: gone\n    was {before}", other.what)?,
                    (None, None) => {}
                }
            }
        }
        Ok(())
    }
}
