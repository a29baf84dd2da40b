//! The refusal of a request, with the verified facts about its caller.

use super::{RequestFacts, Rule};
use crate::authenticate::{Pending, Place, Principal};
use crate::denial::Denial;
use std::rc::Rc;

/// A refusal by authentication or by the route's rule, with the caller if one was verified.
#[derive(Debug)]
pub struct Refusal {
    /// The reason that the client receives.
    pub denial: Denial,
    /// The value found and the value expected, for the operator. Only authentication sets this field.
    pub detail: Option<Box<str>>,
    /// The verified principal and the place of its token; `None` if no token was verified before the refusal.
    pub caller: Option<(Rc<Principal>, Place)>,
    /// The missing fact that the request can wait for; `None` if waiting cannot change the refusal.
    pub pending: Option<Box<Pending>>,
}

impl Refusal {
    /// Returns the explanation for the operator: the value required and the value found.
    pub fn why(&self, rule: &Rule, request: &RequestFacts<'_>) -> Option<String> {
        let by_rule = |(principal, _): &(Rc<Principal>, Place)| rule.why(principal, request);
        let detail = self.detail.as_deref().map(str::to_owned);
        detail.or_else(|| self.caller.as_ref().and_then(by_rule))
    }
}
