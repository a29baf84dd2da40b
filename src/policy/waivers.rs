//! Waivers: the findings that a policy file accepts, with reasons.
//!
//! Faults cannot be waived.

use super::findings::{Kind, kind};
use crate::config::Loaded;
use crate::config::file::File;
use crate::diagnostic::{Diagnostic, Place, Severity};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The waivers of a policy file.
#[derive(Clone, Debug, Default)]
pub struct Waivers {
    /// The waivers for the whole file, by id of the finding.
    anywhere: BTreeMap<String, Waiver>,
    /// The waivers for single routes, by index of the route and id of the finding.
    of_route: BTreeMap<usize, BTreeMap<String, Waiver>>,
}

/// A waiver of a finding.
#[derive(Clone, Debug)]
struct Waiver {
    reason: String,
    key: String,
    place: Place,
}

/// A waived finding.
#[derive(Clone, Debug, Serialize)]
pub struct WaivedFinding {
    /// The finding.
    #[serde(flatten)]
    pub finding: Diagnostic,
    /// The reason in the policy file.
    pub reason: String,
}

/// Findings, separated into waived and other findings.
#[derive(Clone, Debug, Default)]
pub struct SortedFindings {
    /// The findings that are not waived.
    pub left: Vec<Diagnostic>,
    /// The waived findings.
    pub waived: Vec<WaivedFinding>,
}

impl Waivers {
    /// Collects the waivers of a file. The compiler reports invalid waivers.
    pub(super) fn of(loaded: &Loaded) -> Self {
        let File { policy, route, .. } = &loaded.file;
        let waivers = |table: &str, written: &BTreeMap<String, String>| -> BTreeMap<String, Waiver> {
            let waiver = |(id, reason): (&String, &String)| {
                let key = format!("{table}.waive.{id}");
                let place = loaded.places.of(&key);
                (id.clone(), Waiver { reason: reason.clone(), key, place })
            };
            written.iter().map(waiver).collect()
        };
        let of_route = route
            .iter()
            .enumerate()
            .filter(|(_, table)| !table.waive.is_empty())
            .map(|(index, table)| (index, waivers(&format!("route[{index}]"), &table.waive)))
            .collect();
        Self { anywhere: waivers("policy", &policy.waive), of_route }
    }

    fn of_finding(&self, found: &Diagnostic) -> Option<&Waiver> {
        if kind(found.id) == Some(Kind::Fault) {
            return None;
        }
        let route = route_of(&found.key).and_then(|route| self.of_route.get(&route));
        route.and_then(|route| route.get(found.id)).or_else(|| self.anywhere.get(found.id))
    }

    /// Separates waived findings from other findings.
    pub fn sift(&self, found: Vec<Diagnostic>) -> SortedFindings {
        let mut sifted = SortedFindings::default();
        for finding in found {
            match self.of_finding(&finding) {
                Some(waiver) => sifted.waived.push(WaivedFinding { reason: waiver.reason.clone(), finding }),
                None => sifted.left.push(finding),
            }
        }
        sifted
    }

    /// Returns a warning for each waiver that matches no finding.
    pub fn unused(&self, sifted: &SortedFindings) -> Vec<Diagnostic> {
        let used: BTreeSet<&str> = sifted
            .waived
            .iter()
            .filter_map(|waived| self.of_finding(&waived.finding))
            .map(|waiver| waiver.key.as_str())
            .collect();
        let all = self.anywhere.values().chain(self.of_route.values().flat_map(BTreeMap::values));
        all.filter(|waiver| !used.contains(waiver.key.as_str()))
            .map(|waiver| Diagnostic {
                severity: Severity::Warning,
                id: "unused_waiver",
                place: waiver.place.clone(),
                key: waiver.key.clone(),
                found: "the finding does not occur here".to_owned(),
                hint: "remove the waiver: it would hide the next such finding".to_owned(),
                refers_to: None,
            })
            .collect()
    }
}

/// Returns the index of the route whose table contains this key.
fn route_of(key: &str) -> Option<usize> {
    key.strip_prefix("route[")?.split_once(']')?.0.parse().ok()
}
