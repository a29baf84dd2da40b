//! Closes a connection so that the client can still read the last response.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Maximum time for one write, and for one read while input is discarded.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of bytes to read and discard.
const BYTES_MAX: usize = 64 << 20;

/// Writes a last response and closes the connection. Errors are ignored.
pub(super) async fn send_last_response<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, response: &[u8]) {
    if let Ok(Ok(())) = timeout(PAUSE, stream.write_all(response)).await {
        linger(stream, PAUSE).await;
    }
}

/// Shuts down the output, then reads and discards input for up to `time`.
///
/// Closing a socket that has unread input resets the connection. The reset can destroy the last response before the
/// client reads it, for example if the client is still sending a body (RFC 9112 section 9.6).
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, time: Duration) {
    let read = async {
        timeout(PAUSE, stream.shutdown()).await??;
        let mut sink = vec![0; 16 * 1024];
        let mut bytes = 0;
        while bytes < BYTES_MAX {
            match timeout(PAUSE, stream.read(&mut sink)).await?? {
                0 => break,
                read => bytes += read,
            }
        }
        std::io::Result::Ok(())
    };
    // The connection closes next, so the result does not matter.
    let _ = timeout(time, read).await;
}
