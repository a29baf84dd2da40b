//! The TLS facts of one connection, and whether the connection may carry a request for a host.

use super::Certificates;
use super::clients::{ClientCertificate, ClientRule, Verifier};
use super::shown::Shown;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The facts of a connection whose policy has several certificates, or asks clients for certificates.
pub(crate) struct TlsSession {
    certificates: Certificates,
    /// Whether the client asked for a host (SNI).
    has_name: bool,
    shown: Option<Arc<Shown>>,
    /// The rule of the host that the client asked for.
    rule: Option<Arc<ClientRule>>,
    /// The client's certificates, its own first.
    chain: Vec<CertificateDer<'static>>,
    client: Option<ClientCertificate>,
    /// The time after which the revocation lists that accepted `chain` count no longer, in seconds since 1970.
    lists_end: Cell<Option<u64>>,
    /// The generation of the files whose verifier last accepted `chain`.
    verified: Cell<u64>,
    /// The generation of the files whose verifier last refused `chain`, and the reason.
    refused: Cell<Option<(u64, Misdirected)>>,
    /// The host for which the shown certificate was last found valid.
    covered: RefCell<Box<str>>,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession").field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// The reason why a connection may not carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdirected {
    /// The host asks clients for other certificates than the connection did.
    OtherRule,
    /// The host has another certificate, and the connection's certificate is not valid for the host.
    OtherCertificate,
    /// The host requires a certificate, and the connection is not encrypted.
    Cleartext,
    /// The client's certificate has expired since the handshake.
    Expired,
    /// The client's certificate is not accepted any more, because an authority or a revocation list changed.
    Refused,
    /// The client's certificate was revoked.
    Revoked,
    /// A revocation list has expired.
    ListExpired,
    /// The gateway cannot read the client's certificate, so it does not know when the certificate expires.
    Unreadable,
}

impl Misdirected {
    /// Returns a sentence for operators.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::OtherRule => "the host asks clients for other certificates than the connection's host did",
            Self::OtherCertificate => {
                "the connection's certificate is not valid for the host, which has its own"
            }
            Self::Cleartext => "the host requires a client certificate, and the connection is in cleartext",
            Self::Expired => "the client's certificate expired while the connection was open",
            Self::Refused => {
                "the client's certificate is not accepted any more: the files of `ca` or `crl` changed"
            }
            Self::Revoked => "the client's certificate was revoked while the connection was open",
            Self::ListExpired => {
                "a revocation list of the host's `crl` has expired, so no certificate is accepted"
            }
            Self::Unreadable => "the client's certificate cannot be parsed",
        }
    }
}

fn refusal(error: &Error) -> Misdirected {
    match error {
        Error::InvalidCertificate(CertificateError::Revoked) => Misdirected::Revoked,
        Error::InvalidCertificate(
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. },
        ) => Misdirected::ListExpired,
        _ => Misdirected::Refused,
    }
}

impl TlsSession {
    pub(super) fn new(
        certificates: Certificates,
        has_name: bool,
        shown: Option<Arc<Shown>>,
        verifier: Option<&Verifier>,
        chain: Vec<CertificateDer<'static>>,
        generation: u64,
    ) -> Self {
        let rule = verifier.map(|verifier| verifier.rule.clone());
        let client = rule.as_ref().and_then(|rule| ClientCertificate::of(rule, chain.first()?));
        Self {
            certificates,
            has_name,
            shown,
            rule,
            chain,
            client,
            lists_end: Cell::new(verifier.and_then(|verifier| verifier.lists_end)),
            verified: Cell::new(generation),
            refused: Cell::new(None),
            covered: RefCell::default(),
        }
    }

    /// Returns the client's certificate.
    pub(crate) fn client(&self) -> Option<&ClientCertificate> {
        self.client.as_ref()
    }

    /// Checks whether the connection may carry a request for `host` at `now` (seconds since 1970). `rule` is the rule of
    /// the host.
    ///
    /// A client may use one connection for all hosts that its certificate covers (RFC 9113 section 9.1.1), and a client
    /// may send any `Host`. The rule of the first host must not apply to another host.
    ///
    /// # Errors
    /// Returns why the connection may not carry the request.
    pub(crate) fn admit(
        &self,
        host: Option<&str>,
        rule: Option<&ClientRule>,
        by_trusted_proxy: bool,
        now: u64,
    ) -> Result<(), Misdirected> {
        if self.rule.as_deref() != rule {
            return Err(Misdirected::OtherRule);
        }
        self.still_holds(now)?;
        // A proxy connects to the gateway under one name and forwards requests for many hosts.
        match host {
            Some(host) if self.has_name && !by_trusted_proxy => self.check_certificate(host),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks whether the client's certificate, if there is one, is still accepted at `now` (seconds since 1970).
    ///
    /// # Errors
    /// Returns why it is not.
    pub(crate) fn still_holds(&self, now: u64) -> Result<(), Misdirected> {
        if self.chain.is_empty() {
            return Ok(());
        }
        match &self.client {
            None => Err(Misdirected::Unreadable),
            Some(client) if now > client.ends => Err(Misdirected::Expired),
            Some(_) => self.verify_again(now),
        }
    }

    /// Verifies the client's certificate again if the files of its rule have changed, or a revocation list has expired.
    fn verify_again(&self, now: u64) -> Result<(), Misdirected> {
        let generation = self.certificates.generation();
        let is_expired = self.lists_end.get().is_some_and(|ends| now > ends);
        if self.verified.get() == generation && !is_expired {
            return Ok(());
        }
        if let Some((_, why)) = self.refused.get().filter(|(refused, _)| *refused == generation) {
            return Err(why);
        }
        let Some((own, others)) = self.chain.split_first() else { return Ok(()) };
        let current = self.rule.as_ref().and_then(|rule| self.certificates.verifier(rule));
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let verified = match &current {
            Some(current) => {
                current.verifier.verify_client_cert(own, others, now).map_err(|error| refusal(&error))
            }
            None => Err(Misdirected::Refused),
        };
        match verified {
            Ok(_) => {
                self.verified.set(generation);
                self.lists_end.set(current.and_then(|current| current.lists_end));
                Ok(())
            }
            Err(why) => {
                self.refused.set(Some((generation, why)));
                Err(why)
            }
        }
    }

    fn check_certificate(&self, host: &str) -> Result<(), Misdirected> {
        if *host == **self.covered.borrow() {
            return Ok(());
        }
        let is_own = match (self.certificates.shown_for(host), &self.shown) {
            // Only the name matters here: a certificate that was renewed is still the host's certificate.
            (Some(wanted), Some(shown)) => wanted.files == shown.files || shown.covers(host),
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !is_own {
            return Err(Misdirected::OtherCertificate);
        }
        *self.covered.borrow_mut() = host.into();
        Ok(())
    }
}
