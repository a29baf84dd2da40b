//! The byte stream of a connection to a server.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// The byte stream of a connection.
#[derive(Debug)]
pub(in crate::forward) enum Stream {
    Plain(TcpStream),
    /// A connection to a Unix socket.
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Says goodbye to a TLS server, if that is possible without waiting (RFC 8446 section 6.1).
    fn close(&mut self) {
        struct Now<'s>(&'s TcpStream);
        impl io::Write for Now<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.try_write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        if let Self::Tls(tls) = self {
            let (tcp, session) = tls.get_mut();
            session.send_close_notify();
            // The connection ends in any case, so a failure changes nothing.
            let _ = session.write_tls(&mut Now(tcp));
        }
    }
}

impl Stream {
    /// Makes the connection end with a reset once the stream is dropped, so that the server cannot take the bytes that it
    /// has read for a whole request. A Unix socket has no reset.
    #[cold]
    pub(in crate::forward) fn abort(&mut self) {
        // Without a reset, the connection ends in order, as it would have before.
        let _ = match self {
            Self::Plain(tcp) => tcp.set_zero_linger(),
            Self::Unix(_) => Ok(()),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_mut();
                // A `close_notify` before the reset would be an orderly end. After this one, which nobody gets, the session
                // writes no other.
                session.send_close_notify();
                while session.wants_write() && session.write_tls(&mut io::sink()).is_ok() {}
                tcp.set_zero_linger()
            }
        };
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
