//! Two HTTP/2 clients: a well-behaved client on hyper, and a client that writes frames by hand.

use super::client::{Answer, HOST};
use super::{PATIENCE, tls};
use bytes::Bytes;
use http_body::{Body, Frame as BodyFrame};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

/// Runs hyper's tasks for a connection on the current runtime.
#[derive(Clone, Copy, Debug)]
struct Here;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// Begins an HTTP/2 request, to be sent with [`exchange`].
pub fn request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(format!("https://{HOST}{path}"))
}

/// Sends requests one after another over one TLS connection, and returns their answers.
#[track_caller]
pub fn exchange(address: SocketAddr, requests: Vec<http::Request<Bytes>>) -> Vec<Answer> {
    runtime().block_on(async {
        let talk = async {
            let mut sender = open(address).await;
            let mut answers = Vec::new();
            for request in requests {
                let response = sender.send_request(request.map(Full::new)).await.expect("an answer");
                answers.push(read(response).await);
            }
            answers
        };
        tokio::time::timeout(PATIENCE, talk).await.expect("answers within the deadline")
    })
}

/// Sends requests over one TLS connection in `streams` parallel streams until `next` returns `None`. Each stream sends
/// one request after another. `take` gets each answer, with the value that `next` returned beside the request.
#[track_caller]
pub fn crowd<T: 'static>(
    address: SocketAddr,
    streams: usize,
    next: impl Fn() -> Option<(T, http::Request<Bytes>)> + Clone + 'static,
    take: impl Fn(T, Answer) + Clone + 'static,
) {
    tokio::task::LocalSet::new().block_on(&runtime(), async {
        let sender = open(address).await;
        let ask = |_| {
            let (mut sender, next, take) = (sender.clone(), next.clone(), take.clone());
            tokio::task::spawn_local(async move {
                while let Some((what, request)) = next() {
                    let answer = async {
                        let response = sender.send_request(request.map(Full::new)).await;
                        read(response.expect("an answer")).await
                    };
                    take(what, tokio::time::timeout(2 * PATIENCE, answer).await.expect("an answer in time"));
                }
            })
        };
        let asking: Vec<_> = (0..streams).map(ask).collect();
        for asking in asking {
            asking.await.expect("no stream fails");
        }
    });
}

/// Sends a request over a new TLS connection. The first half of its body is sent at once, the second half when the test
/// provides it.
#[track_caller]
pub fn upload(
    address: SocketAddr,
    request: http::request::Builder,
    first: Bytes,
    second: oneshot::Receiver<Bytes>,
) -> Answer {
    let request = request.body(Halves { first: Some(first), second: Some(second) }).unwrap();
    runtime().block_on(async {
        let talk = async {
            let mut sender = open(address).await;
            read(sender.send_request(request).await.expect("an answer")).await
        };
        // The deadline is long, because the test decides when it provides the second half.
        tokio::time::timeout(10 * PATIENCE, talk).await.expect("an answer within the deadline")
    })
}

/// A body in two halves.
struct Halves {
    first: Option<Bytes>,
    second: Option<oneshot::Receiver<Bytes>>,
}

impl Body for Halves {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(BodyFrame::data(first))));
        }
        let Some(second) = &mut self.second else { return Poll::Ready(None) };
        let given = ready!(Pin::new(second).poll(cx)).expect("the test gives the second half");
        self.second = None;
        Poll::Ready(Some(Ok(BodyFrame::data(given))))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Connects over TLS, and drives the connection in the background.
async fn open<B>(address: SocketAddr) -> http2::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let options = tls::Options { alpn: vec!["h2"], ..tls::Options::default() };
    let socket = tokio::net::TcpStream::connect(address).await.expect("the gateway listens");
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(tls::config(&options))).connect(name, socket).await.unwrap();
    let (sender, connection) = http2::handshake(Here, TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Answer {
    let pairs = |map: &http::HeaderMap| {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        map.iter().map(|(name, value)| (name.to_string(), text(value))).collect::<Vec<_>>()
    };
    let (parts, body) = response.into_parts();
    let mut answer =
        Answer { status: parts.status.as_u16(), headers: pairs(&parts.headers), ..Answer::default() };
    if let Ok(body) = body.collect().await {
        answer.complete = true;
        answer.trailers = body.trailers().map(pairs).unwrap_or_default();
        answer.body = body.to_bytes().to_vec();
    }
    answer
}

/// Frame types and flags (RFC 9113 section 6).
pub mod frame {
    /// `DATA`.
    pub const DATA: u8 = 0;
    /// `HEADERS`.
    pub const HEADERS: u8 = 1;
    /// `PRIORITY`.
    pub const PRIORITY: u8 = 2;
    /// `RST_STREAM`.
    pub const RST_STREAM: u8 = 3;
    /// `SETTINGS`.
    pub const SETTINGS: u8 = 4;
    /// `PUSH_PROMISE`.
    pub const PUSH_PROMISE: u8 = 5;
    /// `PING`.
    pub const PING: u8 = 6;
    /// `GOAWAY`.
    pub const GOAWAY: u8 = 7;
    /// `CONTINUATION`.
    pub const CONTINUATION: u8 = 9;
    /// `WINDOW_UPDATE`.
    pub const WINDOW_UPDATE: u8 = 8;
    /// A flag of `HEADERS` and `DATA`: the last frame of the stream in this direction.
    pub const END_STREAM: u8 = 1;
    /// The flag of SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// A flag of `HEADERS` and `CONTINUATION`: the last frame of the field section.
    pub const END_HEADERS: u8 = 4;
    /// A flag of `HEADERS` and `DATA`: the payload begins with the length of its padding.
    pub const PADDED: u8 = 8;
}

/// A cleartext HTTP/2 connection that a test drives frame by frame.
#[derive(Debug)]
pub struct Frames {
    stream: std::net::TcpStream,
}

/// A received frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The frame type.
    pub kind: u8,
    /// The flags.
    pub flags: u8,
    /// The stream id.
    pub stream: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frames {
    /// Connects, and sends the preface and empty settings.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[])
    }

    /// Connects, and sends the preface and these settings.
    #[track_caller]
    pub fn open_with(address: SocketAddr, settings: &[u8]) -> Self {
        let stream = std::net::TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut frames = Self { stream };
        frames.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames.send(frame::SETTINGS, 0, 0, settings).unwrap();
        frames
    }

    /// Returns another handle on the same connection, for writing from another thread.
    pub fn writer(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap() }
    }

    /// Sets the time limit of a write.
    pub fn write_timeout(&self, timeout: Duration) {
        self.stream.set_write_timeout(Some(timeout)).unwrap();
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the gateway has closed the connection.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.stream.write_all(&bytes)
    }

    /// Reads the next frame. Returns `None` if the connection is closed.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Waits for the gateway's reaction to a stream: a status, or a reset of the stream or the connection.
    pub fn verdict(&mut self, stream: u32) -> Verdict {
        loop {
            match self.next() {
                Some(frame) if frame.stream == stream && frame.kind == frame::HEADERS => {
                    return Verdict::Status(indexed_status(&frame.payload));
                }
                Some(frame) if frame.stream == stream && frame.kind == frame::RST_STREAM => {
                    return Verdict::Reset;
                }
                Some(frame) if frame.kind == frame::GOAWAY => return Verdict::Goodbye,
                Some(_) => {}
                None => return Verdict::Goodbye,
            }
        }
    }
}

/// The gateway's reaction to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An answer with this status, or 0 if its encoding is not recognised.
    Status(u16),
    /// The gateway sent `RST_STREAM`.
    Reset,
    /// The gateway sent `GOAWAY` or closed the connection.
    Goodbye,
}

/// Decodes the status at the start of a header block: an index into the static table (RFC 7541 appendix A), or a
/// literal whose name is such an index.
fn indexed_status(block: &[u8]) -> u16 {
    // A change of the table size may precede the status (section 6.3).
    let block = match block {
        [0x20..=0x3e, rest @ ..] => rest,
        [0x3f, rest @ ..] => rest.iter().position(|b| b & 0x80 == 0).map_or(rest, |end| &rest[end + 1..]),
        _ => block,
    };
    match block.first() {
        // A literal value with the indexed name `:status`: three digits (section 6.2).
        Some(0x08 | 0x18 | 0x48) => match block.get(1) {
            Some(3) => std::str::from_utf8(&block[2..5]).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            Some(0x82 | 0x83) => huffman_status(&block[2..]).unwrap_or(0),
            _ => 0,
        },
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8a) => 206,
        Some(0x8b) => 304,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        _ => 0,
    }
}

/// Decodes three Huffman-coded digits of 5 or 6 bits each (RFC 7541 appendix B).
fn huffman_status(bytes: &[u8]) -> Option<u16> {
    let bits = bytes.iter().chain([&0; 3]).take(3).fold(0, |bits, byte| bits << 8 | u32::from(*byte));
    let (mut left, mut status) = (24, 0);
    for _ in 0..3 {
        let five = (bits >> (left - 5)) & 0x1f;
        if five <= 2 {
            status = status * 10 + five;
            left -= 5;
        } else {
            status = status * 10 + ((bits >> (left - 6)) & 0x3f).checked_sub(0x19 - 3)?;
            left -= 6;
        }
    }
    u16::try_from(status).ok()
}

/// Encodes a header block without compression: each field is a literal without indexing (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            if text.len() < 127 {
                block.push(text.len() as u8);
            } else {
                let mut rest = text.len() - 127;
                block.push(127);
                while rest >= 128 {
                    block.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
