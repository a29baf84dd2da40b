//! Checks the `waive` tables. A waiver accepts a finding and gives a reason.

use super::Faults;
use crate::config::file::File;
use crate::config::place::nearest;
use crate::policy::findings::{ALL, Kind, kind};
use std::collections::BTreeMap;

/// Reports waivers without a reason, waivers of unknown findings, and waivers of faults.
pub(super) fn check(file: &File, faults: &mut Faults<'_>) {
    let mut check = |table: &str, waivers: &BTreeMap<String, String>| {
        for (id, reason) in waivers {
            let key = format!("{table}.waive.{id}");
            match kind(id) {
                Some(Kind::Weakness | Kind::Advice) if reason.trim().is_empty() => {
                    let hint = "state why it is accepted: the next reader of the file will ask";
                    faults.fault("bad_value", &key, "no reason", hint);
                }
                Some(Kind::Weakness | Kind::Advice) => {}
                Some(Kind::Fault) => {
                    faults.fault("unknown_name", &key, "a fault cannot be waived", "fix it");
                }
                None => {
                    let waivable: Vec<&str> =
                        ALL.iter().filter(|(_, kind)| *kind != Kind::Fault).map(|(id, _)| *id).collect();
                    let near = nearest(id, &waivable);
                    let near = near.map(|near| format!("the nearest is \"{near}\"; ")).unwrap_or_default();
                    let hint = format!("{near}`portcullis help findings` lists them");
                    faults.fault("unknown_name", &key, format!("unknown finding \"{id}\""), hint);
                }
            }
        }
    };
    check("policy", &file.policy.waive);
    for (index, route) in file.route.iter().enumerate().filter(|(_, route)| !route.waive.is_empty()) {
        check(&format!("route[{index}]"), &route.waive);
    }
}
