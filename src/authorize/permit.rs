//! The proof that a request may go on.

use crate::authenticate::{Place, Principal};
use std::rc::Rc;

/// Proof that this caller met the rule of this request's route. Only `authorize` makes one; forwarding takes it by
/// value, so that each is spent once.
#[derive(Debug)]
pub struct Permit {
    caller: Option<(Rc<Principal>, Place)>,
}

impl Permit {
    /// To be called by [`super::authorize`] alone, after its checks.
    pub(super) fn issue(caller: Option<(Rc<Principal>, Place)>) -> Self {
        Self { caller }
    }

    /// Who it was issued to; `None` for a caller who did not say.
    pub fn principal(&self) -> Option<&Rc<Principal>> {
        self.caller.as_ref().map(|(principal, _)| principal)
    }

    /// Where their token was; `None` for a caller who did not say who they are.
    pub fn place(&self) -> Option<Place> {
        self.caller.as_ref().map(|(_, place)| *place)
    }
}
