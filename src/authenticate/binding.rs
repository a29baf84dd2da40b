//! Checks that the sender of a bound token may use it.

use super::confirmation::Confirmation;
use super::credential::Place;
use super::digest::Digest;
use super::dpop::{Dpop, Thumbprint};
use super::error::CredentialError;
use super::principal::Principal;
use super::request_parts::Credentials;
use crate::clock::Now;
use crate::denial::Denial;

/// Checks that the sender of a token provides the proof that the token requires.
///
/// # Errors
/// Returns why the token or the proof is refused.
#[cold]
pub(super) fn check(
    dpop: &Dpop,
    credentials: &Credentials<'_>,
    principal: &Principal,
    place: Place,
    token: &Digest,
    now: Now,
) -> Result<(), CredentialError> {
    match principal.confirmation {
        Some(Confirmation::Certificate(bound)) if place != Place::Dpop => {
            if dpop.is_assumed() {
                return Ok(());
            }
            match credentials.certificate.map(|certificate| Thumbprint(certificate.thumbprint)) {
                Some(shown) if shown == bound => Ok(()),
                Some(shown) => {
                    let detail = format!(
                        "the token is bound to the certificate {bound}; the client has the certificate {shown}"
                    );
                    Err(CredentialError::because(Denial::WrongCertificate, detail))
                }
                None => {
                    let detail = "the token is bound to a client certificate (cnf.x5t#S256), and the request came without \
                                  one: the client sent none, or no [client_certificates] asks for it on this host, or \
                                  another proxy forwards the request";
                    Err(CredentialError::because(Denial::WrongCertificate, detail))
                }
            }
        }
        Some(Confirmation::Certificate(_) | Confirmation::Key(_)) | None => {
            dpop.check_binding(credentials, principal, place, token, now)
        }
    }
}
