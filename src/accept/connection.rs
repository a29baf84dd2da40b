//! Serves HTTP/1.1 or HTTP/2 on one connection and enforces its deadlines.

use super::core::Core;
use super::eager::boxed_in_place;
use super::http1::{self, Parkable};
use super::observed_stream::ObservedStream;
use super::stream_executor::StreamExecutor;
use crate::peer::activity::{Command, Timeout};
use crate::peer::{CoarseMillis, Connection, Protocol, Session};
use crate::pipeline;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Serves a connection until HTTP ends. Returns the session of the protocol that takes the connection over, if any.
pub(super) async fn serve<S: Parkable>(
    core: &Core,
    connection: &Rc<Connection>,
    stream: S,
    protocol: Protocol,
) -> Option<Session> {
    connection.begin_serving(protocol);
    match protocol {
        Protocol::Http1 => http1::serve(core, connection, stream).await,
        // In a box, because the task of an HTTP/1.1 connection would reserve the space, too.
        Protocol::Http2 => {
            Box::pin(serve_http2(core, connection, stream)).await;
            None
        }
    }
}

/// The time that a draining connection has no request before it sends GOAWAY, of which up to one sweep is the inaccuracy of the
/// coarse clock. The client has then read its last answer.
const GOODBYE_PAUSE: CoarseMillis = 500;
/// The time that a client may begin requests without a pause. After its next request, GOAWAY waits as long for any moment
/// without a request, and then follows the next request.
const GOODBYE_WAIT: CoarseMillis = 1000;

/// Decides when a connection that ends sends GOAWAY.
///
/// GOAWAY asks the client for a new connection, and must not cost an answer. Some clients fail the requests in progress
/// when they receive it, although it includes them (httpx 0.28, undici 7), and httpx even if it reads GOAWAY together with
/// the end of the answer. GOAWAY therefore waits for a pause. A client that never pauses gets it with a request. One
/// without further requests needs no GOAWAY before its answer.
#[derive(Debug, Default)]
struct Goodbye {
    has_request: Cell<bool>,
    drains_since: Cell<Option<CoarseMillis>>,
    needs_no_pause: Cell<bool>,
    is_overdue: Cell<bool>,
}

impl Goodbye {
    /// Records that a request begins.
    fn observe_request(&self, connection: &Connection) {
        self.has_request.set(true);
        if let Some(since) = self.drains_since.get() {
            let wait = connection.coarse_now().saturating_sub(since);
            self.needs_no_pause.set(wait >= GOODBYE_WAIT);
            self.is_overdue.set(wait >= 2 * GOODBYE_WAIT);
        }
    }

    /// Returns whether a draining connection sends GOAWAY now, after the HTTP library has done all that it could.
    ///
    /// A client whose connection is new may get GOAWAY before it sends its first request. HAProxy then fails the
    /// request, although the connection would still serve it. The GOAWAY therefore waits for a request.
    fn is_due(&self, connection: &Connection) -> bool {
        let (activity, now) = (&connection.activity, connection.coarse_now());
        self.drains_since.set(self.drains_since.get().or(Some(now)));
        let pause = if self.needs_no_pause.get() { 0 } else { GOODBYE_PAUSE };
        activity.is_retired()
            || self.is_overdue.get()
            || (self.has_request.get() && activity.is_idle_for(pause, now))
    }
}

async fn serve_http2<S: Parkable>(core: &Core, connection: &Rc<Connection>, stream: S) {
    let io = TokioIo::new(ObservedStream::new(stream, connection.clone(), Protocol::Http2));
    let goodbye = Rc::new(Goodbye::default());
    let service = {
        let connection = connection.clone();
        let worker = core.worker.clone();
        let goodbye = goodbye.clone();
        // The HTTP library moves a stream's future several times before polling it. Moving a box is cheap.
        service_fn(move |request| {
            goodbye.observe_request(&connection);
            boxed_in_place(|| pipeline::handle(worker.clone(), connection.clone(), request))
        })
    };
    let http = core.http2(StreamExecutor(connection.clone())).serve_connection(io, service);
    let mut http = pin!(http);
    let mut draining = false;
    let end = poll_fn(|cx| {
        let command = connection.activity.command(cx);
        if let Some(Command::Close(timeout)) = command
            && timeout != Timeout::Farewell
        {
            if timeout == Timeout::Drain && !draining {
                // RFC 9113 section 6.8: a server sends GOAWAY before it closes.
                http.as_mut().graceful_shutdown();
                let _ = http.as_mut().poll(cx);
            }
            return Poll::Ready(Err(timeout));
        }
        let polled = http.as_mut().poll(cx);
        let says_goodbye = match command {
            Some(Command::Drain) => goodbye.is_due(connection),
            Some(Command::Close(_)) => true,
            Some(Command::Park) | None => false,
        };
        if polled.is_pending() && says_goodbye && !draining {
            draining = true;
            http.as_mut().graceful_shutdown();
            // A request may cross the GOAWAY.
            connection.activity.postpone_farewell(connection.coarse_now());
            return http.as_mut().poll(cx).map(Ok);
        }
        match polled {
            Poll::Pending
                if command == Some(Command::Close(Timeout::Farewell))
                    && connection.activity.takes_leave() =>
            {
                Poll::Ready(Err(Timeout::Farewell))
            }
            polled => polled.map(Ok),
        }
    })
    .await;
    if connection.activity.is_retired() {
        core.count_timeout(Timeout::Idle);
    }
    match end {
        Ok(Ok(())) => {}
        Ok(Err(error)) => drop(core.reject_unparsable(connection, &error)),
        Err(timeout) => {
            core.count_timeout(timeout);
            if timeout == Timeout::Head {
                drop(core.reject_slow_head(connection));
            }
        }
    }
}
