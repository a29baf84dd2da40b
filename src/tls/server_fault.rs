//! Describes faults of servers' certificates, for all connections that the gateway opens over TLS.

use rustls::{CertificateError, Error};
use std::io;

/// Describes an error of a handshake with a server.
pub(crate) fn describe_handshake(error: &io::Error) -> String {
    server_certificate_fault(error).unwrap_or_else(|| error.to_string())
}

/// Describes a fault of a server's certificate that the library reports only by the name of a variant. Returns `None` for
/// any other error.
pub(crate) fn server_certificate_fault(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(other)) = inner else { return None };
    Some(match &*format!("{:?}", other.0) {
        // OpenSSL accepts such a certificate, and `openssl req -x509` makes it.
        "CaUsedAsEndEntity" => {
            "the server shows the certificate of an authority (CA:TRUE) in place of its own; create a \
             self-signed one with openssl req -x509 -addext basicConstraints=critical,CA:FALSE"
                .to_owned()
        }
        "EndEntityUsedAsCa" => {
            "the server's certificate is signed by one that may not sign certificates (CA:FALSE)".to_owned()
        }
        "NameConstraintViolation" => {
            "the server's certificate has a name that its authority may not certify".to_owned()
        }
        "PathLenConstraintViolated" => {
            "the server's certificate has more intermediate authorities than its authority allows".to_owned()
        }
        other => format!("the server's certificate cannot be verified: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::OtherError;
    use std::sync::Arc;

    #[derive(Debug)]
    struct CaUsedAsEndEntity;

    impl std::fmt::Display for CaUsedAsEndEntity {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("CaUsedAsEndEntity")
        }
    }

    impl std::error::Error for CaUsedAsEndEntity {}

    #[test]
    fn only_the_bare_name_of_a_variant_gets_a_sentence() {
        let other = CertificateError::Other(OtherError(Arc::new(CaUsedAsEndEntity)));
        let named = io::Error::new(io::ErrorKind::InvalidData, Error::InvalidCertificate(other));
        assert!(describe_handshake(&named).contains("(CA:TRUE)"));
        let expired = Error::InvalidCertificate(CertificateError::Expired);
        let plain = io::Error::new(io::ErrorKind::InvalidData, expired);
        assert_eq!(server_certificate_fault(&plain), None);
        assert_eq!(describe_handshake(&plain), plain.to_string());
        assert_eq!(server_certificate_fault(&io::ErrorKind::ConnectionReset.into()), None);
    }
}
