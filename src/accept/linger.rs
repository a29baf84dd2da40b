//! Closes a connection in a way that lets the client read the last response.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Maximum time to wait for one write, or for the next input of a client that keeps sending.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of bytes to read and discard.
const BYTES_MAX: usize = 64 << 20;

/// Writes a last response and closes the connection. Ignores a client that does not read the response.
pub(super) async fn send_last_response<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, response: &[u8]) {
    if let Ok(Ok(())) = timeout(PAUSE, stream.write_all(response)).await {
        linger(stream, PAUSE).await;
    }
}

/// Closes a connection in two steps: shuts down the output, then reads and discards input for up to `time`.
///
/// Closing a socket that has unread input resets the connection, and the reset may destroy the last response before
/// the client reads it, such as the rejection of a body that the client is still sending (RFC 9112 section 9.6). The
/// gateway does not wait for a client that pauses or has closed its end.
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
    // The connection is closed next, so the result does not matter.
    let _ = timeout(time, read).await;
}
