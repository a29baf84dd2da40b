//! Defines the reasons for failed TLS handshakes. They are a metrics label and a log value.

use crate::counter::Counter;

/// The reason why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// The client sent HTTP in cleartext.
    Cleartext,
    /// The client did not complete the handshake in time.
    Timeout,
    /// The client closed the connection.
    Closed,
    /// The client does not trust the certificate.
    CertificateRejected,
    /// The client's alert names another reason.
    ClientAlert,
    /// Client and gateway share no TLS version or cipher suite.
    Incompatible,
    /// Client and gateway share no application protocol.
    NoProtocol,
    /// The client requested a server name that is not a host name.
    ServerName,
    /// The client requested a host for which there is no certificate, and there is no default certificate.
    UnknownHost,
    /// The client has no certificate, and the host requires one.
    NoClientCertificate,
    /// The client's certificate is not accepted.
    ClientCertificate,
    /// The client's bytes are not TLS, or its messages are out of order.
    NotTls,
    /// Any other failure.
    Other,
}

impl TlsFailure {
    /// All reasons, in the order of their counters.
    pub(crate) const ALL: [Self; 13] = [
        Self::Cleartext,
        Self::Timeout,
        Self::Closed,
        Self::CertificateRejected,
        Self::ClientAlert,
        Self::Incompatible,
        Self::NoProtocol,
        Self::ServerName,
        Self::UnknownHost,
        Self::NoClientCertificate,
        Self::ClientCertificate,
        Self::NotTls,
        Self::Other,
    ];

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
            Self::UnknownHost => "unknown_host",
            Self::NoClientCertificate => "no_client_certificate",
            Self::ClientCertificate => "client_certificate",
            Self::NotTls => "not_tls",
            Self::Other => "other",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct TlsFailures([Counter; TlsFailure::ALL.len()]);

impl TlsFailures {
    pub(crate) fn add(&self, failure: TlsFailure) {
        self.of(failure).add(1);
    }

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
