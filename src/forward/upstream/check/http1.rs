//! Checks over HTTP/1.1: a GET.

use super::failure::{Failure, HEAD_MAX, USER_AGENT};
use crate::forward::upstream::stream::Stream;
use http::{HeaderValue, Request, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::pin::pin;

/// Sends a GET and returns the status of its answer.
pub(super) async fn get(stream: Stream, host: &HeaderValue, path: &str) -> Result<u16, Failure> {
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(Failure::of)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Failure::of)?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    // The body is not read, because its length is the server's choice.
    let mut is_open = true;
    let answer = poll_fn(|cx| {
        if is_open {
            is_open = connection.as_mut().poll(cx).is_pending();
        }
        answer.as_mut().poll(cx)
    })
    .await;
    Ok(answer.map_err(Failure::of)?.status().as_u16())
}
