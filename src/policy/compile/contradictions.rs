//! Finds rules that no caller can meet, and rules with too many alternatives.

use super::Faults;
use crate::authorize::{Check, Expected};
use std::collections::BTreeSet;

/// The maximum number of alternatives of a rule. `config diff` and the access matrix try each of them.
const WAYS_MAX: usize = 1000;

/// Reports a rule that no caller can meet, or that has more than [`WAYS_MAX`] alternatives.
pub(super) fn check(key: &str, checks: &[Check], faults: &mut Faults<'_>) -> Option<()> {
    let before = faults.fault_count;
    let fault = |found: String, hint: &str, faults: &mut Faults<'_>| {
        faults.fault("impossible_rule", key, found, hint);
    };
    let mut excluded: BTreeSet<&str> = BTreeSet::new();
    let mut issuers: Option<BTreeSet<&str>> = None;
    let mut choices: Vec<usize> = Vec::new();
    for check in checks {
        match check {
            Check::NotRoles(none) => excluded.extend(none.iter().map(|role| &**role)),
            Check::Issuers(any) => {
                let any: BTreeSet<&str> = any.iter().map(|issuer| &**issuer).collect();
                choices.push(any.len());
                issuers = Some(match issuers {
                    Some(known) => known.intersection(&any).copied().collect(),
                    None => any,
                });
            }
            Check::Roles(any) => choices.push(any.len()),
            Check::AnyScope { any, .. } => choices.push(any.len()),
            Check::Claim { equals: Expected::AnyOf(any), .. } => choices.push(any.len()),
            Check::AllRoles(_)
            | Check::Scopes { .. }
            | Check::Claim { .. }
            | Check::Fresh { .. }
            | Check::Bound => {}
        }
    }
    for check in checks {
        let is_excluded = |role: &str| excluded.contains(role);
        let both = match check {
            Check::AllRoles(all) => all.iter().find(|role| is_excluded(role)),
            Check::Roles(any) if any.iter().all(|role| is_excluded(role)) => any.first(),
            Check::Roles(_)
            | Check::NotRoles(_)
            | Check::Scopes { .. }
            | Check::AnyScope { .. }
            | Check::Issuers(_)
            | Check::Claim { .. }
            | Check::Fresh { .. }
            | Check::Bound => None,
        };
        if let Some(role) = both {
            let found = format!("role \"{role}\" is both required and excluded, so nobody passes");
            fault(found, "remove it from not_roles, or from the roles", faults);
        }
    }
    if issuers.is_some_and(|issuers| issuers.is_empty()) {
        let found = "no issuer is in every list of issuers, so nobody passes".to_owned();
        fault(found, "use lists that have an issuer in common", faults);
    }
    let ways = choices.iter().fold(1_usize, |ways, choice| ways.saturating_mul(*choice));
    if ways > WAYS_MAX && choices.len() > 1 {
        faults.fault(
            "too_many",
            key,
            format!("{ways} ways to meet the rule: its lists of alternatives multiply"),
            format!("use at most {WAYS_MAX}, so that comparisons of policies can try each"),
        );
    }
    (faults.fault_count == before).then_some(())
}
