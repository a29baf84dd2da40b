//! The last words on a connection.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a client that goes on sending may pause.
const PAUSE: Duration = Duration::from_secs(1);
/// How much it may still send.
const BYTES_MAX: usize = 64 << 20;

/// Writes a last answer and closes the connection. The client need not listen.
pub(super) async fn say<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &[u8]) {
    if let Ok(Ok(())) = timeout(PAUSE, stream.write_all(answer)).await {
        linger(stream, PAUSE).await;
    }
}

/// Closes a connection in two steps: says that nothing more will be sent, then reads and drops for a while what the
/// client still sends. A socket closed with unread bytes is reset, and the reset may overtake the last answer: that a
/// body is too large, say, to a client that is still sending it (RFC 9112 section 9.6). A client that pauses, or has
/// closed its end, is not waited for.
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
    // However it ends, the connection is closed next.
    let _ = timeout(time, read).await;
}
