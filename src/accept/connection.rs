//! Serves HTTP/1.1 or HTTP/2 on one connection and enforces its deadlines.

use super::core::Core;
use super::eager::boxed_in_place;
use super::http1::{self, Parkable};
use super::observed_stream::ObservedStream;
use super::stream_executor::StreamExecutor;
use crate::peer::activity::{Command, Timeout};
use crate::peer::{Connection, Protocol, Session};
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

async fn serve_http2<S: Parkable>(core: &Core, connection: &Rc<Connection>, stream: S) {
    let io = TokioIo::new(ObservedStream::new(stream, connection.clone(), Protocol::Http2));
    let has_request = Rc::new(Cell::new(false));
    let service = {
        let connection = connection.clone();
        let worker = core.worker.clone();
        let has_request = has_request.clone();
        // The HTTP library moves a stream's future several times before polling it. Moving a box is cheap.
        service_fn(move |request| {
            has_request.set(true);
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
            return Poll::Ready(Err(timeout));
        }
        let polled = http.as_mut().poll(cx);
        // A client whose connection is new may get GOAWAY before it sends its first request. HAProxy then fails the
        // request, although the connection would still serve it. The GOAWAY therefore waits for a request.
        let says_goodbye = match command {
            Some(Command::Drain) => has_request.get() || connection.activity.is_retired(),
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
