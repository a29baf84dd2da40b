//! The reasons why TLS handshakes fail, used as a metrics label and a log value.

use crate::counter::Counter;

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// The client spoke HTTP in cleartext.
    Cleartext,
    /// The client did not complete the handshake in time.
    Timeout,
    /// The client closed the connection.
    Closed,
    /// The client does not trust the certificate.
    CertificateRejected,
    /// The client failed for another reason, which its alert names.
    ClientAlert,
    /// Client and gateway have no TLS version or cipher suite in common.
    Incompatible,
    /// Client and gateway have no application protocol in common.
    NoProtocol,
    /// The client requested a server name that is not a host name.
    ServerName,
    /// The client's bytes are not TLS, or violate the message order of TLS.
    NotTls,
    /// Any other failure.
    Other,
}

impl TlsFailure {
    /// All reasons, in the order of their counters.
    pub(crate) const ALL: [Self; 10] = [
        Self::Cleartext,
        Self::Timeout,
        Self::Closed,
        Self::CertificateRejected,
        Self::ClientAlert,
        Self::Incompatible,
        Self::NoProtocol,
        Self::ServerName,
        Self::NotTls,
        Self::Other,
    ];

    /// Returns the name of the reason.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Cleartext => "cleartext",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::CertificateRejected => "certificate_rejected",
            Self::ClientAlert => "client_alert",
            Self::Incompatible => "incompatible",
            Self::NoProtocol => "no_protocol",
            Self::ServerName => "server_name",
            Self::NotTls => "not_tls",
            Self::Other => "other",
        }
    }
}

/// Counts of failed handshakes, by reason.
#[derive(Debug, Default)]
pub(crate) struct TlsFailures([Counter; TlsFailure::ALL.len()]);

impl TlsFailures {
    /// Counts one failed handshake.
    pub(crate) fn add(&self, failure: TlsFailure) {
        self.of(failure).add(1);
    }

    /// Returns the counter of one reason.
    pub(crate) fn of(&self, failure: TlsFailure) -> &Counter {
        &self.0[failure as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        let failures = TlsFailures::default();
        for (place, failure) in TlsFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place, "{failure:?}");
            failures.add(failure);
            assert_eq!(failures.of(failure).get(), 1, "{failure:?}");
        }
    }
}
