//! The TLS facts of one connection, and whether the connection may carry a request for a host.

use super::Certificates;
use super::clients::{ClientCertificate, ClientRule, Verifier};
use super::shown::Shown;
use rustls::pki_types::{CertificateDer, UnixTime};
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
    /// The generation of the files whose verifier last accepted `chain`.
    verified: Cell<u64>,
    /// The generation of the files whose verifier last refused `chain`.
    refused: Cell<u64>,
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
        }
    }
}

impl TlsSession {
    pub(super) fn new(
        certificates: Certificates,
        has_name: bool,
        shown: Option<Arc<Shown>>,
        rule: Option<&Verifier>,
        chain: Vec<CertificateDer<'static>>,
        generation: u64,
    ) -> Self {
        let rule = rule.map(|verifier| verifier.rule.clone());
        let client = rule.as_ref().and_then(|rule| ClientCertificate::of(rule, chain.first()?));
        Self {
            certificates,
            has_name,
            shown,
            rule,
            chain,
            client,
            verified: Cell::new(generation),
            refused: Cell::new(0),
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
    /// may send any `Host`. The rule of the first host must not stand for that of another.
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
        if let Some(client) = &self.client {
            if now > client.ends {
                return Err(Misdirected::Expired);
            }
            self.verify_again(now)?;
        }
        // A proxy connects to the gateway under one name and forwards requests for many hosts.
        match host {
            Some(host) if self.has_name && !by_trusted_proxy => self.check_certificate(host),
            Some(_) | None => Ok(()),
        }
    }

    /// Verifies the client's certificate again if the files of its rule have changed.
    fn verify_again(&self, now: u64) -> Result<(), Misdirected> {
        let generation = self.certificates.generation();
        if self.verified.get() == generation {
            return Ok(());
        }
        if self.refused.get() == generation {
            return Err(Misdirected::Refused);
        }
        let Some((own, others)) = self.chain.split_first() else { return Ok(()) };
        let current = self.rule.as_ref().and_then(|rule| self.certificates.verifier(rule));
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        match current.map(|current| current.verifier.verify_client_cert(own, others, now)) {
            Some(Ok(_)) => {
                self.verified.set(generation);
                Ok(())
            }
            Some(Err(_)) | None => {
                self.refused.set(generation);
                Err(Misdirected::Refused)
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
