//! Serves HTTP/1.1 or HTTP/2 on one connection and enforces its deadlines.

use super::core::Core;
use super::linger::{linger, send_last_response};
use super::observed_stream::ObservedStream;
use super::stream_executor::StreamExecutor;
use crate::peer::activity::{Command, Timeout};
use crate::peer::{Connection, Protocol, Session};
use crate::pipeline;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves a connection until HTTP ends. Returns the session of the protocol that takes the connection over, if any.
pub(super) async fn serve<S>(
    core: &Core,
    connection: Rc<Connection>,
    stream: S,
    protocol: Protocol,
) -> Option<Session>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    connection.begin_serving(protocol);
    let io = TokioIo::new(ObservedStream::new(stream, connection.clone(), protocol));
    let service = {
        let connection = connection.clone();
        let worker = core.worker.clone();
        service_fn(move |request| pipeline::handle(worker.clone(), connection.clone(), request))
    };
    match protocol {
        Protocol::Http1 => {
            let mut http = core.http1().serve_connection(io, service);
            let mut draining = false;
            let end = poll_fn(|cx| {
                match connection.activity.command(cx) {
                    Some(Command::Close(timeout)) => return Poll::Ready(Err(timeout)),
                    Some(Command::Drain) if !draining => {
                        draining = true;
                        // An idle connection stays open briefly, because a request may be in transit. The response to
                        // that request announces `close`.
                        if connection.activity.is_active() {
                            Pin::new(&mut http).graceful_shutdown();
                        }
                    }
                    Some(Command::Drain) | None => {}
                }
                Pin::new(&mut http).poll(cx).map(Ok)
            })
            .await;
            let parts = http.into_parts();
            let (stream, has_suppressed_output) = parts.io.into_inner().into_inner();
            if let (Ok(Ok(())), Some(takeover)) = (&end, connection.takeover.take()) {
                return Some(takeover.begin(Box::new(stream), parts.read_buf));
            }
            match end {
                Ok(Ok(())) => linger(stream, core.worker.settings().body_timeout).await,
                Ok(Err(error)) => {
                    if let Some(answer) = core.reject_unparsable(&connection, &error)
                        && has_suppressed_output
                    {
                        send_last_response(stream, &answer).await;
                        return None;
                    }
                    linger(stream, core.worker.settings().body_timeout).await;
                }
                Err(timeout) => {
                    core.count_timeout(timeout);
                    if timeout == Timeout::Head {
                        let answer = core.reject_slow_head(&connection);
                        send_last_response(stream, &answer).await;
                    }
                }
            }
        }
        Protocol::Http2 => {
            // The HTTP library moves a stream's future several times before polling it. Moving a box is cheap.
            let service = service_fn(move |request| Box::pin(service.call(request)));
            let http = core.http2(StreamExecutor(connection.clone())).serve_connection(io, service);
            let mut http = pin!(http);
            let mut draining = false;
            let end = poll_fn(|cx| {
                match connection.activity.command(cx) {
                    Some(Command::Close(timeout)) => return Poll::Ready(Err(timeout)),
                    Some(Command::Drain) if !draining => {
                        draining = true;
                        http.as_mut().graceful_shutdown();
                    }
                    Some(Command::Drain) | None => {}
                }
                http.as_mut().poll(cx).map(Ok)
            })
            .await;
            if connection.activity.is_retired() {
                core.count_timeout(Timeout::Idle);
            }
            match end {
                Ok(Ok(())) => {}
                Ok(Err(error)) => drop(core.reject_unparsable(&connection, &error)),
                Err(timeout) => {
                    core.count_timeout(timeout);
                    if timeout == Timeout::Head {
                        drop(core.reject_slow_head(&connection));
                    }
                }
            }
        }
    }
    None
}
