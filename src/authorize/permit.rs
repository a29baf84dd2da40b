//! The proof that a request may go on.

use super::{Refusal, Rule};
use crate::authenticate::{Place, Principal};
use crate::clock::Now;
use crate::denial::Denial;
use crate::route::Params;
use std::rc::Rc;

/// Proof that a request may go on. There are two ways to get one: [`authorize`] checks the route's rule, and
/// [`Permit::in_shadow`] records a refusal that the route's shadow mode does not enforce. Forwarding takes a permit by
/// value, so each one is spent once.
#[derive(Debug)]
pub struct Permit {
    caller: Option<(Rc<Principal>, Place)>,
}

/// Checks the route's rule against the caller and stops at the first check that fails. An anonymous caller fails every
/// check.
///
/// # Errors
/// The denial of the first check that fails.
pub fn authorize(
    rule: &Rule,
    caller: Option<(Rc<Principal>, Place)>,
    params: &Params<'_>,
    now: Now,
) -> Result<Permit, Denial> {
    match &caller {
        Some((principal, _)) => {
            rule.checks().iter().try_for_each(|check| check.verdict(principal, params, now))?;
        }
        None if rule.checks().is_empty() => {}
        None => return Err(Denial::MissingToken),
    }
    Ok(Permit { caller })
}

impl Permit {
    /// Lifts a refusal on a route in shadow mode. The permit carries the identity that was verified, if any, and comes
    /// out of [`Shadowed::record`].
    #[cold]
    pub fn in_shadow(refusal: Refusal, _mode: &ShadowMode) -> Shadowed {
        Shadowed { refusal }
    }

    /// Returns the caller that the permit was issued to; `None` for an anonymous caller.
    pub fn principal(&self) -> Option<&Rc<Principal>> {
        self.caller.as_ref().map(|(principal, _)| principal)
    }

    /// Where the caller's token was; `None` for an anonymous caller.
    pub fn place(&self) -> Option<Place> {
        self.caller.as_ref().map(|(_, place)| *place)
    }
}

/// The fact that the operator set `mode = "shadow"` for a route. The compiler of the policy makes it, and nothing else
/// does (`tests/structure.rs`).
#[derive(Debug)]
pub struct ShadowMode(());

impl ShadowMode {
    /// Makes the mode of a route whose policy says so.
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

/// A refusal that shadow mode does not enforce, and that nothing has recorded yet.
#[derive(Debug)]
#[must_use = "a refusal in shadow mode must be recorded"]
pub struct Shadowed {
    refusal: Refusal,
}

impl Shadowed {
    /// Hands the refusal to `record` and returns the permit of the request.
    pub fn record(self, record: impl FnOnce(Refusal)) -> Permit {
        let caller = self.refusal.caller.clone();
        record(self.refusal);
        Permit { caller }
    }
}
