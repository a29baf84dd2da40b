//! Who, and may they: the pure core.
//!
//! No I/O, no await, no clock of its own, so that the proxy, and whatever else must know a verdict, call one and
//! the same function.

use crate::authenticate::{Admission, Place, Principal, Refused, Shown, TokenCache, Trust, authenticate};
use crate::authorize::{Permit, Rule, authorize};
use crate::clock::Now;
use crate::denial::Denial;
use crate::route::Params;
use std::rc::Rc;

/// A refusal, and who it was that is refused, as far as that was established: an operator wants to know.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub denial: Denial,
    /// The value found and the value expected, for the operator, if authentication refuses.
    pub detail: Option<Box<str>>,
    /// Whose token verified, when the refusal came after that, and where it was.
    pub caller: Option<(Rc<Principal>, Place)>,
}

impl Refusal {
    /// The explanation for the operator: the value required and the value found.
    pub fn why(&self, rule: &Rule, params: &Params<'_>, now: Now) -> Option<String> {
        let by_rule = |(principal, _): &(Rc<Principal>, Place)| rule.why(principal, params, now);
        let detail = self.detail.as_deref().map(str::to_owned);
        detail.or_else(|| self.caller.as_ref().and_then(by_rule))
    }
}

/// Decides: is the caller who the route asks for, and may they do this?
///
/// # Errors
/// The first check that fails. On a cached token this allocates nothing (`tests/alloc.rs`).
pub fn decide(
    admission: &Admission,
    rule: &Rule,
    trust: &Trust,
    shown: &Shown<'_>,
    params: &Params<'_>,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Permit, Refusal> {
    let caller = authenticate(admission, trust, shown, now, tokens)
        .map_err(|Refused { denial, detail }| Refusal { denial, detail, caller: None })?;
    authorize(rule, caller.clone(), params, now).map_err(|denial| Refusal { denial, detail: None, caller })
}
