//! The claims that a policy names: their paths, and a number for each.

use super::Faults;
use crate::authenticate::{ClaimId, ClaimPath};
use std::collections::HashMap;

/// The distinct claims of a policy.
#[derive(Default)]
pub(super) struct Claims {
    paths: Vec<ClaimPath>,
    ids: HashMap<ClaimPath, usize>,
}

impl Claims {
    /// Returns the id of a claim. Adds the claim if necessary. A file with more than [`super::CLAIMS_MAX`] claims is
    /// rejected, so larger ids are never used.
    pub(super) fn id(&mut self, path: ClaimPath) -> ClaimId {
        let position = *self.ids.entry(path).or_insert_with_key(|path| {
            self.paths.push(path.clone());
            self.paths.len() - 1
        });
        ClaimId(u16::try_from(position).unwrap_or(u16::MAX))
    }

    /// Returns the number of claims.
    pub(super) const fn count(&self) -> usize {
        self.paths.len()
    }

    /// Returns the path of a claim.
    pub(super) fn name(&self, id: ClaimId) -> String {
        self.paths.get(usize::from(id.0)).map(ToString::to_string).unwrap_or_default()
    }

    pub(super) fn into_paths(self) -> Vec<ClaimPath> {
        self.paths
    }
}

/// Parses the path of a claim. Reports a fault and returns `None` if it is malformed.
pub(super) fn claim_path(key: &str, text: &str, faults: &mut Faults<'_>) -> Option<ClaimPath> {
    match ClaimPath::parse(text) {
        Ok(path) => Some(path),
        Err(why) => {
            faults.fault(
                "bad_claim_path",
                key,
                format!("\"{text}\": {why}"),
                "join names with dots, such as realm_access.roles, and put a name that contains a dot in double quotes",
            );
            None
        }
    }
}
