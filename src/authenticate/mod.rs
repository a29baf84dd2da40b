//! Who is asking: from a request's headers to a principal, by what an issuer signed.

mod cache;
pub mod claims;
mod credential;
mod identity;
mod json;
mod jws;
mod keys;
pub mod principal;
mod trust;
mod verify;

pub use cache::{Digest, TokenCache, digest_of};
pub use claims::{ClaimId, ClaimPath, ClaimValue};
pub use credential::{bearer, token};
pub use identity::{IdentityHeaders, fold_eq};
pub use keys::{Algorithm, Key, KeySet};
pub use principal::Principal;
pub use trust::{Issuer, Trust};
pub use verify::verify;

use crate::clock::Now;
use crate::denial::{Denial, TokenPart};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::rc::Rc;

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

/// Establishes who is asking. A token that was verified before, by this core and under the same trust, is not
/// verified again.
///
/// # Errors
/// Why the credential is none, or why one is needed.
pub fn authenticate(
    access: Access,
    trust: &Trust,
    headers: &HeaderMap,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Option<Rc<Principal>>, Denial> {
    if access == Access::Public {
        return Ok(None);
    }
    let Some(credential) = bearer(headers)? else {
        return match access {
            // Somebody who says who they are in a way that is not understood must not pass for nobody.
            Access::Optional if headers.contains_key(AUTHORIZATION) => {
                Err(Denial::MalformedToken(TokenPart::Field))
            }
            Access::Optional | Access::Public => Ok(None),
            Access::Authenticated => Err(Denial::MissingToken),
        };
    };
    let digest = digest_of(credential);
    if let Some(principal) = tokens.get(&digest, trust.epoch(), now) {
        return Ok(Some(principal));
    }
    let principal = Rc::new(verify(token(credential)?, trust, now)?);
    tokens.insert(digest, principal.clone());
    Ok(Some(principal))
}
