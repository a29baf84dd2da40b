//! Performs TLS handshakes, and counts and logs failed ones.

use super::core::Core;
use crate::journal::Level;
use crate::metrics::tls_failure::TlsFailure;
use crate::peer::Connection;
use crate::tls::{CertificateFault, Certificates};
use rustls::server::Acceptor;
use rustls::{AlertDescription, Error, PeerMisbehaved, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// Performs the handshake within `header_timeout`. If it fails, counts and logs the failure and returns `None`.
pub(super) async fn handshake(
    core: &Core,
    connection: &Connection,
    stream: TcpStream,
    certificates: &Certificates,
) -> Option<Box<TlsStream<TcpStream>>> {
    let negotiated = negotiate(core, connection, stream, certificates);
    match tokio::time::timeout(core.worker.settings().header_timeout, negotiated).await {
        Ok(Ok(stream)) => stream.map(Box::new),
        Ok(Err((failure, detail))) => {
            record_failure(core, connection, failure, &detail);
            None
        }
        Err(_elapsed) => {
            record_failure(
                core,
                connection,
                TlsFailure::Timeout,
                "the handshake took longer than header_timeout",
            );
            None
        }
    }
}

/// Performs the handshake with the certificate of the host that the client asks for, and keeps the facts of the
/// connection. Returns `None` if the handshake validated a domain for an ACME server: nothing may follow it.
async fn negotiate(
    core: &Core,
    connection: &Connection,
    stream: TcpStream,
    certificates: &Certificates,
) -> Result<Option<TlsStream<TcpStream>>, (TlsFailure, String)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
        .await
        .map_err(|error| (classify(&error), describe(&error)))?;
    let hello = start.client_hello();
    if let Some(config) = core.worker.challenges().configuration(&hello) {
        validate(core, start, config).await;
        return Ok(None);
    }
    let selected = certificates.select(&hello);
    let host = hello.server_name().map(str::to_owned);
    core.handshakes().take().await;
    let stream = start.into_stream(selected.config.clone()).await.map_err(|error| match host {
        Some(host) if selected.has_certificate => {
            (classify(&error), format!("{}; the client asked for {host}", describe(&error)))
        }
        None if selected.has_certificate => (classify(&error), describe(&error)),
        Some(host) => (
            TlsFailure::UnknownHost,
            format!("no certificate is for {host}, and [tls] has none for other hosts"),
        ),
        None => {
            let detail = "the client asked for no host, and [tls] has no certificate for other hosts";
            (TlsFailure::UnknownHost, detail.to_owned())
        }
    })?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    if let Some(session) = selected.session(chain) {
        connection.set_tls(session);
    }
    Ok(Some(stream))
}

/// Completes a handshake that validates a domain, and closes the connection (RFC 8737 section 3).
async fn validate(core: &Core, start: StartHandshake<TcpStream>, config: Arc<ServerConfig>) {
    // A failure is a fact of the order: the ACME server reports it there.
    if let Ok(mut stream) = start.into_stream(config).await {
        core.worker.counters().acme_challenges.add(1);
        let _ = stream.shutdown().await;
    }
}

/// Counts a failure. Logs it unless the core has recently logged a failure with the same reason.
pub(super) fn record_failure(core: &Core, connection: &Connection, failure: TlsFailure, detail: &str) {
    core.worker.counters().tls_failures.add(failure);
    if let Some(unlogged) = core.tls_log().record(failure as usize, core.coarse_now()) {
        let client = connection.peer.address.to_string();
        core.worker.journal().event_with(
            Level::Info,
            "TLS handshake failed",
            &[
                ("client", (&client).into()),
                ("reason", failure.as_str().into()),
                ("detail", detail.into()),
                ("unlogged", unlogged.into()),
            ],
        );
    }
}

/// Describes an error for operators.
fn describe(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    inner.and_then(CertificateFault::of).map_or_else(|| error.to_string(), ToString::to_string)
}

fn classify(error: &io::Error) -> TlsFailure {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => TlsFailure::Closed,
            _ => TlsFailure::Other,
        };
    };
    match error {
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => TlsFailure::CertificateRejected,
        Error::AlertReceived(_) => TlsFailure::ClientAlert,
        Error::NoCertificatesPresented => TlsFailure::NoClientCertificate,
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => TlsFailure::ClientCertificate,
        Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        Error::NoApplicationProtocol => TlsFailure::NoProtocol,
        Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => TlsFailure::ServerName,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::DecryptError
        | Error::PeerSentOversizedRecord
        | Error::PeerMisbehaved(_) => TlsFailure::NotTls,
        _ => TlsFailure::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_map_to_reasons() {
        let of = |error: Error| classify(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(of(Error::AlertReceived(AlertDescription::UnknownCA)), TlsFailure::CertificateRejected);
        assert_eq!(of(Error::AlertReceived(AlertDescription::UserCanceled)), TlsFailure::ClientAlert);
        assert_eq!(of(Error::NoApplicationProtocol), TlsFailure::NoProtocol);
        assert_eq!(of(Error::NoCertificatesPresented), TlsFailure::NoClientCertificate);
        let revoked = Error::InvalidCertificate(rustls::CertificateError::Revoked);
        assert_eq!(of(revoked), TlsFailure::ClientCertificate);
        assert_eq!(classify(&io::ErrorKind::UnexpectedEof.into()), TlsFailure::Closed);
        assert_eq!(classify(&io::Error::other("odd")), TlsFailure::Other);
    }
}
