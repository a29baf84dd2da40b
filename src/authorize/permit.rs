//! The proof that a request may go on.

use crate::authenticate::Principal;
use std::rc::Rc;

/// Proof that this caller met the rule of this request's route. Only `authorize` makes one; forwarding takes it by
/// value, so that each is spent once.
#[derive(Debug)]
pub struct Permit {
    principal: Option<Rc<Principal>>,
}

impl Permit {
    /// To be called by [`super::authorize`] alone, after its checks.
    pub(super) fn issue(principal: Option<Rc<Principal>>) -> Self {
        Self { principal }
    }

    /// Who it was issued to; `None` for a caller who did not say.
    pub fn principal(&self) -> Option<&Rc<Principal>> {
        self.principal.as_ref()
    }
}
