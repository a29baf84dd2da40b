//! Finds the caller that a client certificate identifies.

use super::cache::TokenCache;
use super::digest::digest_of_facts;
use super::error::CredentialError;
use super::principal::Principal;
use super::trust::Trust;
use crate::clock::Now;
use crate::denial::Denial;
use crate::tls::ClientCertificate;
use std::rc::Rc;

/// Returns the caller that a certificate identifies.
///
/// # Errors
/// Returns [`Denial::MissingToken`] if the policy does not know the certificate's table any more, and
/// [`Denial::MalformedToken`] if the certificate does not have exactly one subject.
#[cold]
pub(super) fn verify_certificate(
    certificate: &ClientCertificate,
    trust: &Trust,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Rc<Principal>, CredentialError> {
    let known = trust.certificate_callers().iter().find(|known| known.rule == certificate.rule);
    let Some(callers) = known else { return Err(Denial::MissingToken.into()) };
    let facts = [callers.identity, certificate.thumbprint].concat();
    let cached = digest_of_facts("client certificate", &facts);
    if let Some(principal) = tokens.get(&cached, trust.epoch(), now) {
        return Ok(principal);
    }
    let principal = Rc::new(callers.principal(certificate, trust.claims(), trust.identity())?);
    tokens.insert(cached, principal.clone());
    Ok(principal)
}
