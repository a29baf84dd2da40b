//! Bounds the time that a client of the admin listener may take to read an answer. The listener has few connections, so
//! clients that do not read would otherwise shut out the probes for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The maximum time for which a client accepts no byte of an answer.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The maximum time from the first pause of the client to the end of the answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A stream whose writes fail if its client does not read.
#[derive(Debug)]
pub(super) struct TimedWrites<S> {
    stream: S,
    pause_max: Duration,
    answer_max: Duration,
    /// The deadline of the current pause.
    pause: Option<Pin<Box<Sleep>>>,
    /// The beginning of the first pause within the answer.
    since: Option<Instant>,
}

impl<S> TimedWrites<S> {
    pub(super) fn new(stream: S) -> Self {
        Self::bounded(stream, PAUSE_MAX, ANSWER_MAX)
    }

    fn bounded(stream: S, pause_max: Duration, answer_max: Duration) -> Self {
        Self { stream, pause_max, answer_max, pause: None, since: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedWrites<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedWrites<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write(cx, bytes) {
            this.pause = None;
            return Poll::Ready(written);
        }
        let now = Instant::now();
        let since = *this.since.get_or_insert(now);
        let deadline = (now + this.pause_max).min(since + this.answer_max);
        let pause = this.pause.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(pause.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read the answer")))
    }

    /// The HTTP library flushes a stream once it has written all that it holds.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        (this.pause, this.since) = (None, None);
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::sleep;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    fn run(work: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn a_client_that_does_not_read_ends_the_answer() {
        run(async {
            let (server, _client) = duplex(8);
            let (mut server, began) = (TimedWrites::bounded(server, SHORT, LONG), Instant::now());
            let fault = server.write_all(&[0; 9]).await.unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
            assert!(began.elapsed() >= SHORT);
        });
    }

    #[test]
    fn a_client_that_reads_slowly_gets_the_time_of_one_answer() {
        run(async {
            let (server, mut client) = duplex(8);
            let (mut server, began) = (TimedWrites::bounded(server, LONG, 4 * SHORT), Instant::now());
            let reader = async {
                loop {
                    sleep(SHORT / 4).await;
                    client.read_u8().await.unwrap();
                }
            };
            let writer = async {
                let fault = server.write_all(&[0; 10_000]).await.unwrap_err();
                assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
                assert!(began.elapsed() >= 4 * SHORT);
            };
            tokio::select! {
                () = writer => {}
                () = reader => {}
            }
        });
    }

    #[test]
    fn each_answer_has_its_own_time() {
        run(async {
            let (server, mut client) = duplex(8);
            let (mut server, began) = (TimedWrites::bounded(server, LONG, 40 * SHORT), Instant::now());
            while began.elapsed() < 45 * SHORT {
                let reader = async {
                    sleep(SHORT).await;
                    client.read_exact(&mut [0; 9]).await.unwrap();
                };
                let writer = async {
                    server.write_all(&[0; 9]).await.unwrap();
                    server.flush().await.unwrap();
                };
                tokio::join!(reader, writer);
            }
        });
    }
}
