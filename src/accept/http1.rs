//! Serves HTTP/1.1 on one connection. While the connection is idle, only its byte stream is kept: the state and the
//! buffers of the HTTP library are released until bytes arrive.

use super::core::Core;
use super::eager::{Begun, boxed_in_place};
use super::linger::{linger, send_last_response};
use super::observed_stream::ObservedStream;
use crate::peer::activity::{Command, Timeout};
use crate::peer::{Connection, Session};
use crate::pipeline;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The byte stream of a client, which can wait for input without a buffer.
pub(super) trait Parkable: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Waits until a read may return something: bytes, the end or an error. Consumes nothing.
    fn poll_input(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Makes the connection end with a reset once the stream is dropped. Over TLS, no `close_notify` precedes it.
    fn abort(&self);
}

impl Parkable for TcpStream {
    fn poll_input(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The next read returns the error.
        self.poll_read_ready(cx).map(drop)
    }

    fn abort(&self) {
        // Without a reset, the connection ends in order, as it would have before.
        let _ = self.set_zero_linger();
    }
}

impl Parkable for Box<TlsStream<TcpStream>> {
    fn poll_input(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (tcp, session) = self.get_ref();
        // TLS wants no more records while it holds decrypted bytes, or after the client's close_notify.
        if session.wants_read() { tcp.poll_input(cx) } else { Poll::Ready(()) }
    }

    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

/// The reason why the HTTP library stopped serving a connection.
enum End {
    /// The HTTP library closed the connection, or failed.
    Http(hyper::Result<()>),
    Timeout(Timeout),
    /// The connection is idle.
    Idle,
}

/// The state of a connection after the requests that were served.
enum Next<S> {
    /// The connection is idle: its stream, and the bytes that were read and belong to no request yet.
    Idle(S, Bytes),
    Takeover(Session),
    Closed,
}

/// Serves the connection until HTTP ends. Returns the session of the protocol that takes the connection over, if any.
pub(super) async fn serve<S: Parkable>(
    core: &Core,
    connection: &Rc<Connection>,
    mut stream: S,
) -> Option<Session> {
    let mut unread = Bytes::new();
    loop {
        if unread.is_empty() && !wait_for_input(core, connection, &stream).await {
            return None;
        }
        // In a box, because this task exists as long as the connection.
        match Box::pin(converse(core, connection, stream, unread)).await {
            Next::Idle(idle, early) => (stream, unread) = (idle, early),
            Next::Takeover(session) => return Some(session),
            Next::Closed => return None,
        }
    }
}

/// Waits without any buffer until the client sends something. Returns false if the connection must close instead.
async fn wait_for_input<S: Parkable>(core: &Core, connection: &Connection, stream: &S) -> bool {
    let mut parked = None;
    poll_fn(|cx| {
        if stream.poll_input(cx).is_ready() {
            return Poll::Ready(true);
        }
        match connection.activity.command(cx) {
            Some(Command::Close(timeout)) => {
                core.count_timeout(timeout);
                Poll::Ready(false)
            }
            // A closing connection still serves a request in transit, until the sweep closes the connection.
            Some(Command::Drain | Command::Park) | None => {
                parked.get_or_insert_with(|| Parked::new(core));
                Poll::Pending
            }
        }
    })
    .await
}

/// Counts a parked connection until it is dropped.
struct Parked<'c>(&'c Core);

impl<'c> Parked<'c> {
    fn new(core: &'c Core) -> Self {
        core.count_park();
        Self(core)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.count_unpark();
    }
}

/// Serves requests until the connection is idle, or ends. `unread` precedes the bytes of the stream.
async fn converse<S: Parkable>(
    core: &Core,
    connection: &Rc<Connection>,
    stream: S,
    unread: Bytes,
) -> Next<S> {
    connection.activity.resume();
    let io = TokioIo::new(ObservedStream::resumed(stream, unread, connection.clone()));
    let service = {
        let connection = connection.clone();
        let worker = core.worker.clone();
        service_fn(move |request| {
            let request = boxed_in_place(|| pipeline::handle(worker.clone(), connection.clone(), request));
            Begun::new(request, &connection.activity)
        })
    };
    let mut http = core.http1().serve_connection(io, service);
    let end = drive(connection, &mut http).await;
    // The takeover owns the connection that holds it. It begins only after the whole response was written.
    let takeover = connection.takeover.take().filter(|_| matches!(end, End::Http(Ok(()))));
    let parts = http.into_parts();
    connection.known_token.release();
    let (stream, has_suppressed_output) = parts.io.into_inner().into_inner();
    // Several clients take the beginning of an answer for the whole one after an orderly end, although it is shorter than
    // its announced length (findings/half-a-download-that-looks-whole.sh).
    let is_unread = matches!(end, End::Timeout(_)) && connection.activity.is_blocked();
    if is_unread || connection.activity.is_broken_off() {
        if let End::Timeout(timeout) = end {
            core.count_timeout(timeout);
        }
        stream.abort();
        return Next::Closed;
    }
    match end {
        // Even an empty `read_buf` holds the memory of its buffer.
        End::Idle if parts.read_buf.is_empty() => return Next::Idle(stream, Bytes::new()),
        End::Idle => return Next::Idle(stream, parts.read_buf),
        End::Http(Ok(())) => match takeover {
            Some(takeover) => return Next::Takeover(takeover.begin(Box::new(stream), parts.read_buf)),
            None => linger(stream, core.worker.settings().body_timeout).await,
        },
        End::Http(Err(error)) => match core.reject_unparsable(connection, &error) {
            Some(answer) if has_suppressed_output => send_last_response(stream, &answer).await,
            Some(_) | None => linger(stream, core.worker.settings().body_timeout).await,
        },
        End::Timeout(timeout) => {
            core.count_timeout(timeout);
            if timeout == Timeout::Head {
                let answer = core.reject_slow_head(connection);
                send_last_response(stream, &answer).await;
            }
        }
    }
    Next::Closed
}

/// Lets the HTTP library serve requests until the connection is idle, or ends.
async fn drive<I, V, B>(connection: &Connection, http: &mut http1::Connection<I, V>) -> End
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    V: Service<Request<Incoming>, Response = Response<B>>,
    V::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    poll_fn(|cx| {
        let command = connection.activity.command(cx);
        // A draining connection closes after the next answer, which announces `close`, or once it was idle. It never
        // closes after an answer that did not announce it, because the next request may already be in transit.
        if let Some(Command::Close(timeout)) = command
            && timeout != Timeout::Farewell
        {
            return Poll::Ready(End::Timeout(timeout));
        }
        match Pin::new(&mut *http).poll(cx) {
            Poll::Ready(end) => Poll::Ready(End::Http(end)),
            Poll::Pending
                if command == Some(Command::Close(Timeout::Farewell))
                    && connection.activity.takes_leave() =>
            {
                Poll::Ready(End::Timeout(Timeout::Farewell))
            }
            // The HTTP library drops its unsent output when it is taken apart, so this question comes right after it
            // has written all that it could.
            Poll::Pending if command == Some(Command::Park) && connection.park() => Poll::Ready(End::Idle),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests;
