//! Who is asking.

pub mod claims;
pub mod principal;

pub use claims::{ClaimId, ClaimPath, ClaimValue};
pub use principal::Principal;

/// Whether a route asks for a caller's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody; credentials are not looked at.
    Public,
    /// With or without a token; a bad one is refused, never ignored.
    Optional,
    /// Only with a good token: the default.
    Authenticated,
}
