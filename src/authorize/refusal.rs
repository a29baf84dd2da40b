//! A refused request with what is known about its caller.

use super::Rule;
use crate::authenticate::{Place, Principal};
use crate::clock::Now;
use crate::denial::Denial;
use crate::route::Params;
use std::rc::Rc;

/// A refusal by authentication or by the route's rule, with the caller as far as one was verified.
#[derive(Debug)]
pub struct Refusal {
    /// The reason for the client.
    pub denial: Denial,
    /// The value found and the value expected, for the operator, if authentication refuses.
    pub detail: Option<Box<str>>,
    /// The verified principal and where its token was, if the refusal came after the verification.
    pub caller: Option<(Rc<Principal>, Place)>,
}

impl Refusal {
    /// Explains the refusal to the operator: the value required and the value found.
    pub fn why(&self, rule: &Rule, params: &Params<'_>, now: Now) -> Option<String> {
        let by_rule = |(principal, _): &(Rc<Principal>, Place)| rule.why(principal, params, now);
        let detail = self.detail.as_deref().map(str::to_owned);
        detail.or_else(|| self.caller.as_ref().and_then(by_rule))
    }
}
