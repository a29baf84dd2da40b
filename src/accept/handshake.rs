//! The TLS handshake of one connection, and why it failed.

use super::core::Core;
use crate::journal::Level;
use crate::metrics::tls_failure::TlsFailure;
use crate::peer::{CoarseMillis, Connection};
use rustls::{AlertDescription, Error, PeerMisbehaved};
use std::cell::RefCell;
use std::io;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// One core logs failures of one reason at most once in this interval: scanners fail all day.
const LOG_PAUSE: CoarseMillis = 10_000;

/// Shakes hands within `header_timeout`. A failure is counted and logged.
pub(super) async fn shake_hands(
    core: &Core,
    connection: &Connection,
    stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(core.worker.settings().header_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            failed(core, connection, failure(&error), &error.to_string());
            None
        }
        Err(_elapsed) => {
            failed(core, connection, TlsFailure::Timeout, "the handshake took longer than header_timeout");
            None
        }
    }
}

/// Counts a failure, and logs it unless one of its reason was logged a moment ago.
pub(super) fn failed(core: &Core, connection: &Connection, failure: TlsFailure, detail: &str) {
    core.worker.counters().tls_failures.add(failure);
    if let Some(unlogged) = core.tls_log().admit(failure, core.coarse_now()) {
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

fn failure(error: &io::Error) -> TlsFailure {
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

/// The failures that one core logged recently.
#[derive(Debug, Default)]
pub(crate) struct TlsLog {
    /// By reason: when the last failure was logged, and how many were omitted since.
    last: RefCell<[Option<(CoarseMillis, u64)>; TlsFailure::ALL.len()]>,
}

impl TlsLog {
    /// Returns how many failures of this reason were omitted since the last logged one; `None` if this one is omitted
    /// too.
    fn admit(&self, failure: TlsFailure, tick: CoarseMillis) -> Option<u64> {
        let last = &mut self.last.borrow_mut()[failure as usize];
        match last {
            Some((at, unlogged)) if tick.saturating_sub(*at) < LOG_PAUSE => {
                *unlogged += 1;
                None
            }
            _ => Some(last.replace((tick, 0)).map_or(0, |(_, unlogged)| unlogged)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_one_reason_are_logged_now_and_then_with_how_many_were_not() {
        let log = TlsLog::default();
        assert_eq!(log.admit(TlsFailure::NotTls, 5), Some(0));
        assert_eq!(log.admit(TlsFailure::NotTls, 6), None);
        assert_eq!(log.admit(TlsFailure::Closed, 6), Some(0), "another reason");
        assert_eq!(log.admit(TlsFailure::NotTls, 10_004), None);
        assert_eq!(log.admit(TlsFailure::NotTls, 10_005), Some(2));
        assert_eq!(log.admit(TlsFailure::NotTls, 20_005), Some(0));
    }

    #[test]
    fn errors_have_reasons() {
        let of = |error: Error| failure(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(of(Error::AlertReceived(AlertDescription::UnknownCA)), TlsFailure::CertificateRejected);
        assert_eq!(of(Error::AlertReceived(AlertDescription::UserCanceled)), TlsFailure::ClientAlert);
        assert_eq!(of(Error::NoApplicationProtocol), TlsFailure::NoProtocol);
        assert_eq!(failure(&io::ErrorKind::UnexpectedEof.into()), TlsFailure::Closed);
        assert_eq!(failure(&io::Error::other("odd")), TlsFailure::Other);
    }
}
