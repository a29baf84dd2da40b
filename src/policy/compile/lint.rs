//! What can be served, and should be looked at: what an experienced reader of policies would ask about.
//!
//! Run on a policy that compiled. Each finding has an id of its own and can be waived in the file, with a reason.

mod exposure;
mod names;
mod routes;
mod tokens;

use super::Faults;
use crate::config::file::File;
use crate::config::place::nearest;
use crate::explain::case::Case;
use crate::policy::findings::{ALL, Kind, kind};
use crate::policy::{Policy, ServerPlan};
use std::collections::BTreeMap;

/// A policy, and what it was made of.
struct Subject<'s> {
    file: &'s File,
    policy: &'s Policy,
    plan: &'s ServerPlan,
    cases: &'s [Case],
}

/// Looks for all that should be looked at.
pub(super) fn lint(file: &File, policy: &Policy, plan: &ServerPlan, cases: &[Case], faults: &mut Faults<'_>) {
    let subject = Subject { file, policy, plan, cases };
    exposure::lint(&subject, faults);
    tokens::lint(&subject, faults);
    routes::lint(&subject, faults);
    names::lint(&subject, faults);
}

/// What is wrong with the file's waivers themselves.
pub(super) fn waivers(file: &File, faults: &mut Faults<'_>) {
    let mut check = |table: &str, waivers: &BTreeMap<String, String>| {
        for (id, reason) in waivers {
            let key = format!("{table}.waive.{id}");
            match kind(id) {
                Some(Kind::Weakness | Kind::Advice) if reason.trim().is_empty() => {
                    let hint = "why it is accepted: whoever reads the file next will ask";
                    faults.fault("bad_value", &key, "no reason", hint);
                }
                Some(Kind::Weakness | Kind::Advice) => {}
                Some(Kind::Fault) => {
                    faults.fault("unknown_name", &key, "a fault, which cannot be waived", "mend it");
                }
                None => {
                    let waivable: Vec<&str> =
                        ALL.iter().filter(|(_, kind)| *kind != Kind::Fault).map(|(id, _)| *id).collect();
                    let near = nearest(id, &waivable);
                    let near = near.map(|near| format!("the nearest is \"{near}\"; ")).unwrap_or_default();
                    let hint = format!("{near}the findings are in docs/findings.md");
                    faults.fault("unknown_name", &key, format!("no finding \"{id}\""), hint);
                }
            }
        }
    };
    check("policy", &file.policy.waive);
    for (index, route) in file.route.iter().enumerate().filter(|(_, route)| !route.waive.is_empty()) {
        check(&format!("route[{index}]"), &route.waive);
    }
}
