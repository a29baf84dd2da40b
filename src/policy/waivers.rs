//! Findings that the file accepts, each with the reason why.
//!
//! A fault of the policy itself cannot be waived: it is not a matter of opinion that a name means nothing.

use super::findings::{Kind, kind};
use crate::config::Loaded;
use crate::config::file::File;
use crate::diagnostic::{Diagnostic, Place, Severity};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the file accepts.
#[derive(Clone, Debug, Default)]
pub struct Waivers {
    /// Wherever it is.
    anywhere: BTreeMap<String, Waiver>,
    /// On the route of this position in the file.
    of_route: BTreeMap<usize, BTreeMap<String, Waiver>>,
}

/// One finding that is accepted.
#[derive(Clone, Debug)]
struct Waiver {
    reason: String,
    key: String,
    place: Place,
}

/// A finding that is accepted, and why.
#[derive(Clone, Debug, Serialize)]
pub struct WaivedFinding {
    /// The finding.
    #[serde(flatten)]
    pub finding: Diagnostic,
    /// The reason, as the file gives it.
    pub reason: String,
}

/// Findings, sorted by whether the file accepts them.
#[derive(Clone, Debug, Default)]
pub struct SortedFindings {
    /// Those that it does not.
    pub left: Vec<Diagnostic>,
    /// Those that it does.
    pub waived: Vec<WaivedFinding>,
}

impl Waivers {
    /// Those of a file. What is wrong with one is for the compiler to say.
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

    /// Sorts findings by whether they are accepted.
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

    /// The waivers that waive nothing of all that was found: what they speak of was mended, or never was.
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

/// The position of the route that a key is of.
fn route_of(key: &str) -> Option<usize> {
    key.strip_prefix("route[")?.split_once(']')?.0.parse().ok()
}
