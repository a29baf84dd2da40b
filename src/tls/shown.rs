//! Chooses the certificate for a client by the name that the client asks for (SNI, RFC 6066 section 3).

use super::facts::{Facts, OcspAnswer, Validity};
use super::host_map::{Depth, HostMap};
use super::pair::{self, Unusable};
use super::{Files, NamedFiles};
use crate::clock::Now;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// A certificate that clients may get.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) files: Files,
    /// The name for operators: `default`, the first host in the policy, or the first name in the certificate.
    pub(crate) label: Box<str>,
    pub(crate) is_default: bool,
    bare: Arc<CertifiedKey>,
    stapled: Option<Stapled>,
    pub(crate) validity: Option<Validity>,
}

/// The certificate with the answer of its authority's OCSP responder (RFC 6066 section 8).
#[derive(Debug)]
struct Stapled {
    certified: Arc<CertifiedKey>,
    ends: Option<u64>,
}

impl Shown {
    /// Reads a certificate, its key and the answer of the OCSP responder.
    ///
    /// # Errors
    /// Returns the faulty file and the remedy.
    pub(crate) fn open(files: &Files, entry: Option<&NamedFiles>) -> Result<Self, Unusable> {
        let mut bare = pair::read(files)?;
        let validity = bare.cert.first().and_then(Validity::of);
        let first = entry.map(|entry| entry.hosts_of(&bare.cert[0]).first().cloned().unwrap_or_default());
        let stapled = bare.ocsp.take().map(|answer| Stapled {
            ends: OcspAnswer::of(&answer).and_then(|answer| answer.ends),
            certified: Arc::new(CertifiedKey { ocsp: Some(answer), ..bare.clone() }),
        });
        Ok(Self {
            files: files.clone(),
            is_default: entry.is_none(),
            label: first.unwrap_or_else(|| "default".into()),
            bare: Arc::new(bare),
            stapled,
            validity,
        })
    }

    /// Returns the certificate for a handshake at `now`. A client rejects an answer that has expired, so it is left out.
    fn certified(&self, now: u64) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some(stapled) if stapled.ends.is_none_or(|ends| now <= ends) => &stapled.certified,
            Some(_) | None => &self.bare,
        }
    }

    /// Returns the server's certificate, the first of the chain.
    pub(crate) fn own(&self) -> &CertificateDer<'static> {
        // `pair::read` returns no empty chain.
        &self.bare.cert[0]
    }

    /// Returns whether the certificate is valid at `now` (seconds since 1970).
    pub(crate) fn holds(&self, now: u64) -> bool {
        self.validity.is_some_and(|validity| validity.fault(now).is_none())
    }

    /// Returns the end of the OCSP responder's answer, in seconds since 1970.
    pub(crate) fn staple_ends(&self) -> Option<u64> {
        self.stapled.as_ref()?.ends
    }

    /// Returns whether both show the same chain and the same answer of the OCSP responder.
    pub(crate) fn shows_like(&self, other: &Self) -> bool {
        let answer = |shown: &Self| shown.stapled.as_ref().and_then(|stapled| stapled.certified.ocsp.clone());
        self.bare.cert == other.bare.cert && answer(self) == answer(other)
    }

    /// Returns whether clients accept the certificate for this host.
    pub(crate) fn covers(&self, host: &str) -> bool {
        pair::names_other(self.own(), host.trim_start_matches('[').trim_end_matches(']')).is_none()
    }
}

/// The certificates of the policy, by host.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) all: Vec<Arc<Shown>>,
    by_host: HostMap<Arc<Shown>>,
}

impl Table {
    /// Builds the table from certificates and their entries in the policy. The default certificate has no entry.
    pub(crate) fn new(all: Vec<(Arc<Shown>, Option<&NamedFiles>)>) -> Self {
        let mut by_host = HostMap::new(Depth::One);
        for (shown, entry) in &all {
            match entry {
                None => drop(by_host.insert_any(shown.clone())),
                Some(entry) => {
                    for host in entry.hosts_of(shown.own()) {
                        by_host.insert(&host, shown.clone());
                    }
                }
            }
        }
        Self { all: all.into_iter().map(|(shown, _)| shown).collect(), by_host }
    }

    /// Returns the certificate that takes the place of a pair of the policy: the default certificate, or a certificate
    /// with the same files or the same first host.
    pub(crate) fn predecessor(&self, files: &Files, entry: Option<&NamedFiles>) -> Option<&Arc<Shown>> {
        self.all.iter().find(|shown| match entry {
            None => shown.is_default,
            Some(entry) => {
                !shown.is_default
                    && (shown.files == *files || entry.hosts.first().is_some_and(|host| *host == shown.label))
            }
        })
    }

    /// Returns the certificate for a client that asks for this host. Returns `None` if no certificate is for the host,
    /// and there is no default certificate.
    pub(crate) fn of(&self, host: Option<&str>) -> Option<&Arc<Shown>> {
        self.by_host.get(host)
    }
}

impl NamedFiles {
    /// Returns the hosts for which the certificate is shown: those of the policy, or else the names in the certificate.
    pub(crate) fn hosts_of(&self, own: &CertificateDer<'_>) -> Vec<Box<str>> {
        if self.hosts.is_empty() {
            Facts::of(own).map(|facts| facts.names.dns).unwrap_or_default()
        } else {
            self.hosts.clone()
        }
    }
}

impl ResolvesServerCert for Table {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = canonical_name(&hello);
        self.of(host.as_deref()).map(|shown| shown.certified(Now::read().unix).clone())
    }
}

/// Returns the host that a client asks for, in lower case.
pub(crate) fn canonical_name(hello: &ClientHello<'_>) -> Option<String> {
    hello.server_name().map(str::to_ascii_lowercase)
}
