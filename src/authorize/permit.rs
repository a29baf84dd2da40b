//! The permit, which proves that a request may be forwarded.

use super::{Refusal, RequestFacts, Rule};
use crate::authenticate::{Place, Principal};
use crate::denial::Denial;
use std::rc::Rc;

/// Proof that a request may be forwarded.
///
/// [`authorize`] issues a permit if the route's rule passes. [`Permit::in_shadow`] issues a permit for a refusal in
/// shadow mode. Forwarding consumes the permit.
#[derive(Debug)]
pub struct Permit {
    caller: Option<(Rc<Principal>, Place)>,
}

/// Checks the route's rule for the caller. An anonymous caller passes only a rule without checks.
///
/// # Errors
/// Returns the denial of the first check that fails.
pub fn authorize(
    rule: &Rule,
    caller: Option<(Rc<Principal>, Place)>,
    request: &RequestFacts<'_>,
) -> Result<Permit, Denial> {
    match &caller {
        Some((principal, _)) => {
            rule.checks().iter().try_for_each(|check| check.verdict(principal, request))?;
        }
        None if rule.checks().is_empty() => {}
        None => return Err(Denial::MissingToken),
    }
    Ok(Permit { caller })
}

impl Permit {
    /// Accepts a refusal on a route in shadow mode. [`Shadowed::record`] then returns the permit.
    #[cold]
    pub fn in_shadow(refusal: Refusal, _mode: &ShadowMode) -> Shadowed {
        Shadowed { refusal }
    }

    /// Returns the caller of the request; `None` for an anonymous caller.
    pub fn principal(&self) -> Option<&Rc<Principal>> {
        self.caller.as_ref().map(|(principal, _)| principal)
    }

    /// Returns the place of the caller's token; `None` for an anonymous caller.
    pub fn place(&self) -> Option<Place> {
        self.caller.as_ref().map(|(_, place)| *place)
    }
}

/// Evidence that the operator set `mode = "shadow"` for a route. Only the policy compiler may create it;
/// `tests/structure.rs` checks this.
#[derive(Debug)]
pub struct ShadowMode(());

impl ShadowMode {
    /// Creates the evidence. The caller must have read shadow mode from the policy.
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

/// A refusal in shadow mode that has not been recorded yet.
#[derive(Debug)]
#[must_use = "a refusal in shadow mode must be recorded"]
pub struct Shadowed {
    refusal: Refusal,
}

impl Shadowed {
    /// Passes the refusal to `record` and returns the permit of the request.
    pub fn record(self, record: impl FnOnce(Refusal)) -> Permit {
        let caller = self.refusal.caller.clone();
        record(self.refusal);
        Permit { caller }
    }
}
