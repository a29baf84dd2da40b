//! The parts of a request that authentication uses.

use super::dpop::UsedProof;
use crate::peer::{KnownToken, Relayed, Scheme};
use crate::route::Head;
use crate::tls::ClientCertificate;
use crate::turns::Turns;
use std::cell::Cell;

/// The parts of a request that authentication uses.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'r> {
    /// The head of the request.
    pub head: &'r Head<'r>,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// The facts that a trusted proxy reports about the request.
    pub relayed: Option<&'r Relayed>,
    /// The CSRF token from a form in the body, if the route reads forms.
    pub csrf_field: Option<&'r str>,
    /// The client's certificate, which the handshake of the connection has verified.
    pub certificate: Option<&'r ClientCertificate>,
    /// The last verified token of the connection, if the request's client is at its other end.
    pub(crate) known_token: Option<&'r KnownToken>,
    /// The place of an accepted proof for the shared state. `None` if no other gateway has to be asked.
    pub(crate) used_proof: Option<&'r Cell<Option<UsedProof>>>,
    /// The turns of the core in which signatures are checked. `None` if the request has a turn, or needs none.
    pub(crate) turns: Option<&'r Turns>,
}

impl<'r> Credentials<'r> {
    /// Returns the parts of a request that came from the client alone, without a form field and a certificate.
    pub const fn new(head: &'r Head<'r>, scheme: Scheme) -> Self {
        Self {
            head,
            scheme,
            relayed: None,
            csrf_field: None,
            certificate: None,
            known_token: None,
            used_proof: None,
            turns: None,
        }
    }
}
