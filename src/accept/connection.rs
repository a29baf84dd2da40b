//! Serves HTTP/1.1 or HTTP/2 on one connection and enforces its deadlines.

use super::core::Core;
use super::http1::{self, Parkable};
use super::observed_stream::ObservedStream;
use super::stream_executor::StreamExecutor;
use crate::peer::activity::{Command, Timeout};
use crate::peer::{Connection, Protocol, Session};
use crate::pipeline;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
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
    let service = {
        let connection = connection.clone();
        let worker = core.worker.clone();
        // The HTTP library moves a stream's future several times before polling it. Moving a box is cheap.
        service_fn(move |request| Box::pin(pipeline::handle(worker.clone(), connection.clone(), request)))
    };
    let http = core.http2(StreamExecutor(connection.clone())).serve_connection(io, service);
    let mut http = pin!(http);
    let mut draining = false;
    let end = poll_fn(|cx| {
        let command = connection.activity.command(cx);
        match command {
            Some(Command::Close(Timeout::Farewell)) | None => {}
            Some(Command::Close(timeout)) => return Poll::Ready(Err(timeout)),
            Some(Command::Drain) if !draining => {
                draining = true;
                http.as_mut().graceful_shutdown();
            }
            Some(Command::Drain | Command::Park) => {}
        }
        match http.as_mut().poll(cx) {
            Poll::Pending
                if command == Some(Command::Close(Timeout::Farewell))
                    && connection.activity.takes_leave() =>
            {
                Poll::Ready(Err(Timeout::Farewell))
            }
            poll => poll.map(Ok),
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
