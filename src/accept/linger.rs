//! Closes a connection in a way that lets the client read the last response.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Maximum pause of a client that keeps sending.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of bytes that it may still send.
const BYTES_MAX: usize = 64 << 20;

/// Writes a last answer and closes the connection. The client need not listen.
pub(super) async fn send_last_response<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, response: &[u8]) {
    if let Ok(Ok(())) = timeout(PAUSE, stream.write_all(response)).await {
        linger(stream, PAUSE).await;
    }
}

/// Closes a connection in two steps: signals the end of output, then reads and discards the client's input for a while.
/// A socket closed with unread bytes is reset, and the reset may overtake the last answer, such as the refusal of a
/// body that the client is still sending (RFC 9112 section 9.6). The gateway does not wait for a client that pauses or
/// has closed its end.
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
