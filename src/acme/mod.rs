//! Orders the gateway's certificate from an ACME server (RFC 8555), proves control of the domains by TLS-ALPN-01
//! (RFC 8737) or HTTP-01 (RFC 8555 section 8.3), and decides when to renew (RFC 9773).
//!
//! The account and the certificate are in the state folder. Gateways that share the folder take turns by a lock, and
//! all of them answer the challenges of the one that orders. `control::acme` runs the orders on the control thread.

mod account;
mod challenges;
mod failure;
mod files;
mod order;
mod rehearsal;
mod schedule;
mod status;
mod transport;

pub(crate) use challenges::Challenges;
pub(crate) use failure::Failure;
pub(crate) use files::{Files, Kept};
pub(crate) use order::{Order, order, renewal_window};
#[doc(hidden)]
pub use rehearsal::rehearse;
pub(crate) use schedule::{Attempts, ORDERS_PER_DAY, Wait, Window, back_off, renewal, window_age};
pub(crate) use status::{Report, Status};

use crate::outbound::{Networks, Url};
use rustls::RootCertStore;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// The maximum number of domains in one certificate. Let's Encrypt has the same bound.
pub(crate) const DOMAINS_MAX: usize = 100;

/// The way in which the gateway proves that it serves a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// By a certificate for the ALPN protocol `acme-tls/1` on port 443 (RFC 8737).
    TlsAlpn01,
    /// By a document on port 80 (RFC 8555 section 8.3).
    Http01,
}

impl Challenge {
    /// Returns the name of the challenge in the protocol.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// The account at the ACME server's operator that the gateway's account belongs to (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key's identifier.
    pub id: Box<str>,
    /// The key for HMAC-SHA256.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("id", &self.id).finish_non_exhaustive()
    }
}

/// `[tls] acme`
#[derive(Clone, Debug)]
pub struct Settings {
    /// The domains of the certificate, in lower case, each once.
    pub domains: Box<[Box<str>]>,
    /// The address for messages of the server's operator.
    pub email: Option<Box<str>>,
    /// The URL of the server's directory.
    pub directory: Url,
    /// The certificate authorities to trust for the server.
    pub roots: Arc<RootCertStore>,
    /// The digest of `roots`.
    pub authorities: [u8; 32],
    /// The private networks in which the server may be.
    pub networks: Networks,
    /// The challenge.
    pub challenge: Challenge,
    /// Whether the operator agrees to the server's terms of service.
    pub agrees_to_terms: bool,
    /// The account at the server's operator.
    pub external_account: Option<ExternalAccount>,
    /// The profile of the certificate.
    pub profile: Option<Box<str>>,
    /// The folder for the files that the gateway generates.
    pub state: PathBuf,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        // The pattern lists all fields, so that a new field cannot be forgotten here.
        let Self {
            domains,
            email,
            directory,
            roots: _,
            authorities,
            networks,
            challenge,
            agrees_to_terms,
            external_account,
            profile,
            state,
        } = self;
        *domains == other.domains
            && *email == other.email
            && *directory == other.directory
            && *authorities == other.authorities
            && *networks == other.networks
            && *challenge == other.challenge
            && *agrees_to_terms == other.agrees_to_terms
            && *external_account == other.external_account
            && *profile == other.profile
            && *state == other.state
    }
}

/// The settings, the answers to challenges and the status, which all threads share.
#[derive(Debug, Default)]
pub(crate) struct Acme {
    settings: Mutex<Option<Arc<Settings>>>,
    /// The answers to the challenges of current orders.
    pub(crate) challenges: Arc<Challenges>,
    /// The state for operators.
    pub(crate) status: Status,
}

impl Acme {
    pub(crate) fn new(settings: Option<Arc<Settings>>) -> Self {
        Self { settings: Mutex::new(settings), ..Self::default() }
    }

    /// Returns the settings. `None` if the policy has no `[tls] acme`.
    pub(crate) fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses the settings of a new policy. Equal settings change nothing.
    pub(crate) fn follow(&self, new: Option<Arc<Settings>>) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if settings.as_deref() != new.as_deref() {
            *settings = new;
        }
    }
}
