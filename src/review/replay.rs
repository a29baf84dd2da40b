//! Evaluates logged requests under another policy and compares the results.
//!
//! The log does not keep all inputs of a decision ([`crate::decision_log`]). If an input is missing, the result is
//! unknown.

use super::diff::Side;
use super::sample::some_binding;
use crate::authenticate::Issuer;
use crate::authorize::{Check, Expected};
use crate::clock::Now;
use crate::decision_log::{Entry, LoggedCredential};
use crate::denial::Denial;
use crate::explain::text::Line;
use crate::explain::{Examiner, Outcome, Verdict};
use crate::policy::{Policy, Question};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

/// The maximum number of examples in a group.
const EXAMPLES: usize = 3;
/// The token that replaces a rejected token. No issuer accepts it.
const REFUSED_TOKEN: &str = "refused";
/// The subject of all verified tokens. The log does not keep subjects.
const SUBJECT: &str = "(not kept)";

/// The results of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Replay {
    /// The number of decisions.
    pub decisions: usize,
    /// The number of decisions that change under the new policy.
    pub would_change: usize,
    /// The number of unknown decisions, for which the log does not keep all inputs.
    pub unknown: usize,
    /// The number of lines that are not decisions.
    pub unreadable: usize,
    /// The changes. Requests that only the new policy forwards are first.
    pub groups: Vec<Group>,
}

/// Decisions that change in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Group {
    /// The result under the old policy.
    pub before: Side,
    /// The result under the new policy.
    pub after: Side,
    /// The number of decisions.
    pub count: usize,
    /// Example requests.
    pub examples: Vec<String>,
}

/// The result of a decision under one policy.
enum ReplayVerdict {
    Known(Side),
    Unknown,
}

/// Evaluates logged requests under both policies. Each line is a decision as JSON.
pub(crate) fn replay(old: &Policy, new: &Policy, lines: &str) -> Replay {
    let trusts_alike = trust_alike(old, new);
    let (old, new) = (Examiner::new(old), Examiner::new(new));
    let mut replay = Replay::default();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let Ok(entry) = serde_json::from_str::<Entry>(line) else {
            replay.unreadable += 1;
            continue;
        };
        replay.decisions += 1;
        match (verdict(&old, &entry, true), verdict(&new, &entry, trusts_alike)) {
            (ReplayVerdict::Known(before), ReplayVerdict::Known(after)) => {
                let is_same = before.reaches() == after.reaches()
                    && (before.reaches() || before.outcome == after.outcome);
                if !is_same {
                    replay.add(before, after, &entry);
                }
            }
            (ReplayVerdict::Unknown, _) | (_, ReplayVerdict::Unknown) => replay.unknown += 1,
        }
    }
    let rank = |group: &Group| (!group.after.reaches(), !group.before.reaches());
    replay.groups.sort_by(|one, other| rank(one).cmp(&rank(other)).then(other.count.cmp(&one.count)));
    replay
}

impl Replay {
    fn add(&mut self, before: Side, after: Side, entry: &Entry) {
        self.would_change += 1;
        let known = self.groups.iter_mut().find(|group| (&group.before, &group.after) == (&before, &after));
        let group = match known {
            Some(group) => group,
            None => {
                self.groups.push(Group { before, after, count: 0, examples: Vec::new() });
                self.groups.last_mut().expect("one was pushed just now")
            }
        };
        group.count += 1;
        let example = describe(entry);
        if group.examples.len() < EXAMPLES && !group.examples.contains(&example) {
            group.examples.push(example);
        }
    }
}

/// Describes a logged decision for operators.
fn describe(entry: &Entry) -> String {
    let who = match entry.credential {
        LoggedCredential::None => "no token".to_owned(),
        LoggedCredential::Unexamined => "a token that was not checked".to_owned(),
        LoggedCredential::Refused => "a token that was refused".to_owned(),
        LoggedCredential::Verified if entry.roles.is_empty() => "no roles".to_owned(),
        LoggedCredential::Verified => format!("roles {}", entry.roles.join(", ")),
    };
    let Entry { method, scheme, host, path, client, .. } = entry;
    Line(&format!("{method} {scheme}://{host}{path} ({who}; from {client})")).to_string()
}

/// Evaluates a logged request. `trusts_alike` states whether this policy accepts the same tokens as the policy of the
/// log.
fn verdict(examiner: &Examiner<'_>, entry: &Entry, trusts_alike: bool) -> ReplayVerdict {
    let policy = examiner.policy();
    let url = format!("{}://{}{}", entry.scheme, entry.host, entry.path);
    let Ok(question) = Question::new(&entry.method, &url) else { return ReplayVerdict::Unknown };
    let question = question.client(entry.client).at(Now::at(entry.time));
    let question = match entry.credential {
        LoggedCredential::None | LoggedCredential::Unexamined => question,
        LoggedCredential::Refused => question.token(REFUSED_TOKEN.to_owned()),
        LoggedCredential::Verified => question.claims(claims(policy, entry)),
    };
    // The log does not keep header fields.
    if policy.front.head(&question.parts).is_ok_and(|head| policy.table.is_by_fields(&head)) {
        return ReplayVerdict::Unknown;
    }
    let verdict = examiner.verdict(&question);
    let side = Side::of(policy, &verdict);
    match (&verdict.outcome, entry.credential) {
        (_, LoggedCredential::Verified) if needs_unlogged_claim(policy, entry, &verdict) => {
            ReplayVerdict::Unknown
        }
        // The token was not checked when the request was logged, so it may be valid.
        (Outcome::Refused(Denial::MissingToken), LoggedCredential::Unexamined) => ReplayVerdict::Unknown,
        // The placeholder was rejected, so the original token is rejected too, with the logged code.
        (Outcome::Refused(Denial::MalformedToken(_)), LoggedCredential::Refused) if trusts_alike => {
            ReplayVerdict::Known(Side { outcome: entry.code.clone().unwrap_or_default(), ..side })
        }
        (Outcome::Refused(Denial::MalformedToken(_)), LoggedCredential::Refused) => ReplayVerdict::Unknown,
        (Outcome::Passed | Outcome::Redirected | Outcome::Refused(_), _) => ReplayVerdict::Known(side),
    }
}

/// Whether both policies accept the same tokens.
fn trust_alike(old: &Policy, new: &Policy) -> bool {
    let same = |one: &Issuer, other: &Issuer| {
        (&one.name, &one.audience, &one.algorithms, one.leeway, &one.types)
            == (&other.name, &other.audience, &other.algorithms, other.leeway, &other.types)
            // The key of the local authority may be temporary. Each policy may have generated its own.
            && (one.local && other.local || one.keys.is_same(&other.keys))
    };
    let (old, new) = (old.trust.issuers(), new.trust.issuers());
    old.len() == new.len() && old.iter().all(|one| new.iter().any(|other| same(one, other)))
}

/// Returns the logged claims of a verified token, at the paths that this policy reads.
fn claims(policy: &Policy, entry: &Entry) -> Map<String, Value> {
    let mut claims = Map::new();
    let issuers = policy.trust.issuers();
    let issuer =
        issuers.iter().find(|issuer| entry.issuer.as_deref().is_some_and(|name| issuer.is_named(name)));
    if let Some(issuer) = issuer {
        issuer.roles.put(&mut claims, entry.roles.clone().into());
        issuer.scopes.put(&mut claims, entry.scopes.clone().into());
    }
    for path in policy.trust.claims() {
        if let Some(value) = entry.claims.get(&path.to_string()).filter(|value| !value.is_null()) {
            path.put(&mut claims, value.clone());
        }
    }
    claims.insert("iss".to_owned(), entry.issuer.clone().into());
    claims.insert("sub".to_owned(), SUBJECT.into());
    claims.insert("fresh".to_owned(), entry.fresh.into());
    if entry.bound {
        claims.insert("cnf".to_owned(), some_binding());
    }
    if let Some(time) = entry.auth_time {
        claims.insert("auth_time".to_owned(), time.into());
    }
    claims
}

/// Whether the verdict depends on a claim that the log does not keep.
fn needs_unlogged_claim(policy: &Policy, entry: &Entry, verdict: &Verdict) -> bool {
    let Outcome::Refused(Denial::ClaimMismatch) = &verdict.outcome else { return false };
    let route = verdict.route.and_then(|route| policy.routes.get(route));
    let mut checks = route.into_iter().flat_map(|route| route.rule.checks());
    checks.any(|check| match check {
        // The log does not keep header fields.
        Check::Claim { equals: Expected::Header(_), .. } => true,
        Check::Claim { claim, .. } => {
            let path = policy.trust.claims().get(usize::from(claim.0)).map(ToString::to_string);
            path.is_none_or(|path| !entry.claims.contains_key(&path))
        }
        Check::Roles(_)
        | Check::AllRoles(_)
        | Check::NotRoles(_)
        | Check::Scopes { .. }
        | Check::AnyScope { .. }
        | Check::Issuers(_)
        | Check::Fresh { .. }
        | Check::Bound => false,
    })
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decisions, would_change, .. } = self;
        writeln!(f, "recent decisions: {would_change} of {decisions} would change")?;
        for group in &self.groups {
            let mark = if group.after.reaches() { "PASS" } else { "not pass" };
            writeln!(f, "  {} would {mark}", group.count)?;
            writeln!(f, "    was {}", group.before)?;
            writeln!(f, "    is  {}", group.after)?;
            for example in &group.examples {
                writeln!(f, "      {example}")?;
            }
        }
        if self.unknown > 0 {
            writeln!(f, "  {} undecided: the new policy reads a fact that was not recorded", self.unknown)?;
        }
        if self.unreadable > 0 {
            writeln!(f, "  skipped {} lines that are not decisions", self.unreadable)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::policy;
    use super::*;
    use serde_json::json;

    fn entry(path: &str, more: Value) -> String {
        let mut entry = json!({
            "time": 1_000_000, "method": "GET", "scheme": "https", "host": "api.example.com", "path": path,
            "client": "203.0.113.7", "credential": "none",
        });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry.to_string()
    }

    fn verified(path: &str, roles: &[&str], claims: Value) -> String {
        let issuer = "https://id.example.com/";
        entry(
            path,
            json!({ "credential": "verified", "issuer": issuer, "roles": roles, "scopes": ["a:read"], "claims": claims }),
        )
    }

    fn route(path: &str, rest: &str) -> String {
        format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\n{rest}\n")
    }

    fn asked(old: &str, new: &str, lines: &[String]) -> Replay {
        let replay = replay(&policy(old), &policy(new), &lines.join("\n"));
        let counted: usize = replay.groups.iter().map(|group| group.count).sum();
        assert_eq!(counted, replay.would_change);
        replay
    }

    /// Returns the number of changed and the number of unknown decisions.
    fn counts(replay: &Replay) -> (usize, usize) {
        (replay.would_change, replay.unknown)
    }

    #[test]
    fn decisions_that_would_end_otherwise_are_counted_by_what_changes() {
        let old =
            route("/a/{*r}", "roles = [\"clerk\", \"admin\"]\nscopes = [\"a:read\"]") + &route("/b", "");
        let new = route("/a/{*r}", "roles = [\"admin\"]") + &route("/b", "access = \"public\"");
        let lines = [
            verified("/a/1", &["clerk"], json!({})),
            verified("/a/2", &["clerk", "user"], json!({})),
            verified("/a/3", &["admin"], json!({})),
            entry("/b", json!({})),
            entry("/none", json!({})),
            "no decision".to_owned(),
            String::new(),
        ];
        let replay = asked(&old, &new, &lines);
        assert_eq!((replay.decisions, replay.would_change, replay.unreadable), (5, 3, 1));
        assert_eq!(replay.groups.len(), 2);
        let (gain, loss) = (&replay.groups[0], &replay.groups[1]);
        assert_eq!((gain.count, &*gain.before.outcome, &*gain.after.outcome), (1, "missing_token", "passed"));
        assert_eq!((loss.count, &*loss.after.outcome), (2, "insufficient_role"));
        assert_eq!(loss.examples.len(), 2);
        let text = replay.to_string();
        assert!(text.starts_with("recent decisions: 3 of 5 would change\n  1 would PASS\n"), "{text}");
        assert!(text.contains("GET https://api.example.com/a/1 (roles clerk; from 203.0.113.7)"), "{text}");
        assert_eq!(asked(&old, &old, &lines).would_change, 0);
    }

    #[test]
    fn a_refused_token_stays_refused_unless_nobody_looks_at_it_or_other_tokens_are_good() {
        let guarded = route("/a", "");
        let refused = [entry("/a", json!({ "credential": "refused", "code": "expired_token" }))];
        assert_eq!(counts(&asked(&guarded, &route("/a", "roles = [\"x\"]"), &refused)), (0, 0));
        let replay = asked(&guarded, &route("/a", "access = \"public\""), &refused);
        assert_eq!((counts(&replay), &*replay.groups[0].before.outcome), ((1, 0), "expired_token"));
        let mut later = policy(&guarded);
        let mut trust = (*later.trust).clone();
        trust = trust.with_keys("https://id.example.com/", &crate::authenticate::KeySet::default());
        later.trust = std::sync::Arc::new(trust);
        assert_eq!(counts(&super::replay(&policy(&guarded), &later, &refused[0])), (0, 1));
    }

    #[test]
    fn a_missing_fact_is_never_guessed() {
        let open = route("/a", "access = \"public\"");
        let unexamined = [entry("/a", json!({ "credential": "unexamined" }))];
        assert_eq!(
            counts(&asked(&open, &route("/a", ""), &unexamined)),
            (0, 1),
            "the token may be a good one"
        );
        assert_eq!(counts(&asked(&open, &route("/b", ""), &unexamined)), (1, 0), "no token helps");
        assert_eq!(
            counts(&asked(&open, &route("/a", ""), &[entry("/a", json!({}))])),
            (1, 0),
            "there was none"
        );

        let (any, tenant) = (route("/a", ""), route("/a", "claims = { tenant = \"acme\" }"));
        for (claims, counted) in [
            (json!({}), (0, 1)),
            (json!({ "tenant": null }), (1, 0)),
            (json!({ "tenant": "other" }), (1, 0)),
            (json!({ "tenant": "acme" }), (0, 0)),
        ] {
            assert_eq!(
                counts(&asked(&any, &tenant, &[verified("/a", &[], claims.clone())])),
                counted,
                "{claims}"
            );
        }
        let own = route("/u/{user}", "claims = { sub = \"{user}\" }");
        let lines = [verified("/u/(not%20kept)", &[], json!({})), verified("/u/ada", &[], json!({}))];
        assert_eq!(
            counts(&asked(&route("/u/{user}", ""), &own, &lines[1..])),
            (0, 1),
            "who it was is not kept"
        );
    }

    #[test]
    fn a_verdict_that_depends_on_a_header_is_unknown() {
        let (plain, other) = (route("/a", ""), route("/b", "access = \"public\""));
        let version =
            plain.clone() + &route("/a", "name = \"v2\"\nheaders = { X-V = \"2\" }\naccess = \"public\"");
        let line = [verified("/a", &[], json!({}))];
        assert_eq!(counts(&asked(&plain, &version, &line)), (0, 1));
        assert_eq!(counts(&asked(&version, &version, &line)), (0, 1));
        let compared = route("/a", "claims = { tenant = \"{header:X-T}\" }");
        assert_eq!(
            counts(&asked(&plain, &compared, &[verified("/a", &[], json!({ "tenant": "x" }))])),
            (0, 1)
        );
        assert_eq!(counts(&asked(&version, &version, &[entry("/b", json!({}))])), (0, 0), "another path");
        assert_eq!(counts(&asked(&other, &version, &[entry("/b", json!({}))])), (1, 0));
    }

    #[test]
    fn a_cleartext_request_is_redirected_if_the_new_policy_redirects() {
        let line = entry("/a", json!({ "scheme": "http" }));
        let with =
            |plain: &str| route("/a", "access = \"public\"") + &format!("[server]\nplain = \"{plain}\"");
        let replay = asked(&with("serve"), &with("redirect"), &[line]);
        assert_eq!(
            (counts(&replay), replay.groups[0].after.to_string()),
            ((1, 0), "redirected to https".to_owned())
        );
    }

    #[test]
    fn times_of_logins_count_at_the_time_of_the_decision() {
        let (any, fresh) = (route("/a", ""), route("/a", "fresh = \"10m\""));
        let line = |auth_time: u64| {
            let mut entry: Value = serde_json::from_str(&verified("/a", &[], json!({}))).unwrap();
            entry["auth_time"] = auth_time.into();
            [entry.to_string()]
        };
        assert_eq!(counts(&asked(&any, &fresh, &line(1_000_000 - 600))), (0, 0));
        assert_eq!(counts(&asked(&any, &fresh, &line(1_000_000 - 601))), (1, 0));
    }
}
