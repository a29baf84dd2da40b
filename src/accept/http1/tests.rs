use super::*;
use crate::forward::Inbound;
use crate::peer::{CoreState, Peer, Protocol, Scheme};
use http::header;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;
use tokio::io::ReadBuf;

/// The two directions of a connection. The test feeds the input and accepts the output piece by piece.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Ends>>);

#[derive(Default)]
struct Ends {
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// The number of bytes that the client accepts.
    room: usize,
    /// The task whose write was blocked.
    writer: Option<Waker>,
    /// The bytes that a TLS session holds, and their maximum number. 0 stands for cleartext.
    held: Vec<u8>,
    held_max: usize,
}

impl Ends {
    /// Accepts some of these bytes.
    fn accept(&mut self, cx: &Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = self.room.min(buf.len());
        if count == 0 && !buf.is_empty() {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.output.extend_from_slice(&buf[..count]);
        self.room -= count;
        Poll::Ready(Ok(count))
    }

    /// Passes on what is held.
    fn send_held(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let sent = self.accept(cx, &held);
            let Poll::Ready(Ok(count)) = sent else {
                self.held = held;
                return Poll::Pending;
            };
            self.held = held[count..].to_vec();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.0.borrow_mut();
        if ends.input.is_empty() {
            return Poll::Pending;
        }
        let count = ends.input.len().min(buf.remaining());
        buf.put_slice(&ends.input.drain(..count).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut ends = self.0.borrow_mut();
        if ends.held_max == 0 {
            return ends.accept(cx, buf);
        }
        // A TLS session accepts bytes although the socket does not.
        loop {
            let count = buf.len().min(ends.held_max - ends.held.len());
            ends.held.extend_from_slice(&buf[..count]);
            match ends.send_held(cx) {
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Ready(_) if count == 0 && !buf.is_empty() => {}
                Poll::Pending | Poll::Ready(_) => return Poll::Ready(Ok(count)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().send_held(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().send_held(cx)
    }
}

impl Parkable for Wire {
    fn poll_input(&self, _: &mut Context<'_>) -> Poll<()> {
        if self.0.borrow().input.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn abort(&self) {}
}

/// A response in pieces. Like the gateway's own, it ends its request with its last piece, and gives nothing to a client
/// that does not read.
struct Pieces(VecDeque<Bytes>, Option<Rc<Connection>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let is_blocked = |connection: &Rc<Connection>| connection.activity.is_blocked();
        if self.1.as_ref().is_some_and(is_blocked) {
            return Poll::Pending;
        }
        let piece = self.0.pop_front();
        if self.0.is_empty() {
            self.end();
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

impl Pieces {
    fn end(&mut self) {
        if let Some(connection) = self.1.take() {
            connection.activity.end_request(connection.coarse_now());
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.end();
    }
}

/// Answers with the method, the path and, unless the path is `/refuse`, the request's body.
async fn answer(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Pieces>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = Inbound::new(body, connection.clone(), &parts.headers);
    connection.activity.begin_request();
    let mut pieces = VecDeque::from([Bytes::from(format!("{} {} ", parts.method, parts.uri))]);
    match body {
        Some(body) if parts.uri.path() == "/refuse" => drop(body),
        Some(body) => {
            let (body, _) = crate::forward::RequestBody::admit(body, BOUNDS).unwrap();
            pieces.push_back(
                body.collect().await.map_or_else(|fault| fault.to_string().into(), |all| all.to_bytes()),
            );
        }
        None => {}
    }
    pieces.retain(|piece| !piece.is_empty());
    let closes = connection.must_close();
    let mut response = Response::new(Pieces(pieces, Some(connection)));
    if closes {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    Ok(response)
}

const BOUNDS: crate::forward::BodyBounds =
    crate::forward::BodyBounds { size: 1 << 20, timeout: Duration::from_secs(60), min_rate: 0 };

/// A step of a client.
#[derive(Clone, Debug)]
enum Step {
    /// Sends the next bytes of the requests.
    Send(usize),
    /// Accepts this many bytes of output.
    Accept(usize),
}

/// The bytes that a client received, and the number of times that its connection was parked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    output: String,
    closed: bool,
    parked: usize,
}

/// Serves the requests `sent` in cleartext. If `parks`, the connection is parked whenever it is idle.
fn serve_steps(sent: &[u8], steps: &[Step], parks: bool) -> Outcome {
    serve_steps_over(Scheme::Http, sent, steps, parks)
}

fn serve_steps_over(scheme: Scheme, sent: &[u8], steps: &[Step], parks: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let peer = Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), scheme };
        let core = Rc::new(CoreState::new(Duration::from_secs(30)));
        let connection = Rc::new(Connection::new(core, peer, None));
        connection.begin_serving(Protocol::Http1);
        let wire = Wire::default();
        let serve = |stream: Wire, unread: Bytes| {
            let io = TokioIo::new(ObservedStream::resumed(stream, unread, connection.clone()));
            let of = connection.clone();
            let mut http = http1::Builder::new();
            http.auto_date_header(false)
                .serve_connection(io, service_fn(move |request| answer(of.clone(), request)))
        };
        let mut http = serve(wire.clone(), Bytes::new());
        let mut outcome = Outcome::default();
        let mut left = sent;
        // The rest is sent and accepted at the end.
        let last = [Step::Send(usize::MAX), Step::Accept(1 << 20)];
        for step in steps.iter().chain(&last) {
            match step {
                Step::Send(count) => {
                    let (now, later) = left.split_at(left.len().min(*count));
                    wire.0.borrow_mut().input.extend(now);
                    left = later;
                }
                Step::Accept(count) => wire.0.borrow_mut().room = *count,
            }
            // The tasks that discard bodies run in between.
            for _ in 0..8 {
                if parks {
                    connection.activity.command_to_park();
                }
                let end = {
                    let driven = std::pin::pin!(drive(&connection, &mut http));
                    driven.poll(&mut Context::from_waker(Waker::noop()))
                };
                match end {
                    Poll::Ready(End::Idle) => {
                        outcome.parked += 1;
                        let parts = http.into_parts();
                        let (stream, suppressed) = parts.io.into_inner().into_inner();
                        assert!(!suppressed);
                        connection.activity.resume();
                        http = serve(stream, parts.read_buf);
                    }
                    Poll::Ready(End::Http(_) | End::Timeout(_)) => {
                        outcome.closed = true;
                        outcome.output = String::from_utf8_lossy(&wire.0.borrow().output).into_owned();
                        return outcome;
                    }
                    Poll::Pending => {}
                }
                tokio::task::yield_now().await;
            }
        }
        outcome.output = String::from_utf8_lossy(&wire.0.borrow().output).into_owned();
        outcome
    })
}

/// The body of each request looks like a request.
fn request(kind: u8, path: &str) -> String {
    const BODY: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    match kind {
        0 => format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"),
        1 => format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len()),
        2 => format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{BODY}\r\n0\r\n\r\n",
            BODY.len()
        ),
        _ => format!("\r\nGET {path} HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n", "x".repeat(3_000)),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop_oneof![0..4_usize, 0..60_usize, 0..4_000_usize];
    let step = (sizes, any::<bool>())
        .prop_map(|(size, sends)| if sends { Step::Send(size) } else { Step::Accept(size) });
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// A connection that is parked at every opportunity answers byte for byte like one that is never parked.
    #[test]
    fn parking_neither_loses_nor_misreads_a_byte(
        scheme in prop::sample::select(vec![Scheme::Http, Scheme::Https]),
        requests in prop::collection::vec((0..4_u8, prop::sample::select(vec!["/a", "/refuse"])), 1..8),
        steps in steps(),
    ) {
        let sent: String = requests.iter().map(|(kind, path)| request(*kind, path)).collect();
        let parked = serve_steps_over(scheme, sent.as_bytes(), &steps, true);
        let kept = serve_steps_over(scheme, sent.as_bytes(), &steps, false);
        prop_assert_eq!((&parked.output, parked.closed), (&kept.output, kept.closed));
        prop_assert!(!parked.output.contains("\r\n\r\nGET /smuggled"), "{}", parked.output);
        prop_assert_eq!(kept.parked, 0);
    }
}

/// The property would hold of a connection that is never parked, too.
#[test]
fn a_connection_is_parked_once_its_response_is_written_and_its_body_read() {
    let all = Step::Accept(1 << 20);
    for kind in 0..4 {
        let sent = request(kind, "/a");
        assert!(serve_steps(sent.as_bytes(), std::slice::from_ref(&all), true).parked > 0, "{sent:?}");
        let short = sent.len() - 1;
        let outcome = serve_steps(&sent.as_bytes()[..short], std::slice::from_ref(&all), true);
        assert_eq!(outcome.parked, 0, "a part of a request: {:?}", &sent[..short]);
    }
    let sent = request(0, "/a");
    let unsent = [Step::Send(usize::MAX), Step::Accept(10)];
    assert!(serve_steps(sent.as_bytes(), &unsent, true).output.ends_with("GET /a "), "no output is lost");
    assert_eq!(serve_steps(b"", std::slice::from_ref(&all), true).parked, 0, "no request yet");
}

/// The rest of a body that nobody reads: the connection is not idle, however long the rest takes.
#[test]
fn the_rest_of_a_refused_body_is_never_parsed_as_a_request() {
    for kind in [1, 2] {
        let sent = request(kind, "/refuse");
        let head = sent.find("GET").unwrap();
        let outcome =
            serve_steps(sent.as_bytes(), &[Step::Accept(1 << 20), Step::Send(head), Step::Send(0)], true);
        assert_eq!(outcome.output.matches("HTTP/1.1 ").count(), 1, "{outcome:?}");
        assert!(outcome.output.ends_with("POST /refuse "), "{outcome:?}");
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers one request with pieces of these sizes. The client accepts `rooms` one after the other, each once nothing wakes
/// the connection's task any more. Returns the output.
fn serve_woken(scheme: Scheme, sizes: &[usize], rooms: &[usize], held_max: usize) -> Vec<u8> {
    let peer = Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), scheme };
    let connection = Rc::new(Connection::new(Rc::new(CoreState::new(Duration::from_secs(30))), peer, None));
    connection.begin_serving(Protocol::Http1);
    let wire = Wire::default();
    wire.0.borrow_mut().held_max = held_max;
    wire.0.borrow_mut().input.extend(request(0, "/a").bytes());
    let io = TokioIo::new(ObservedStream::resumed(wire.clone(), Bytes::new(), connection.clone()));
    let service = |_: Request<Incoming>| {
        connection.activity.begin_request();
        let pieces = sizes.iter().zip(0..).map(|(size, number)| Bytes::from(vec![number; *size])).collect();
        let response = Response::new(Pieces(pieces, Some(connection.clone())));
        std::future::ready(Ok::<_, Infallible>(response))
    };
    let mut settings = http1::Builder::new();
    let mut http =
        settings.auto_date_header(false).max_buf_size(8192).serve_connection(io, service_fn(service));
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(woken.clone());
    woken.0.store(true, Ordering::Relaxed);
    for room in rooms.iter().chain(&[1 << 30]) {
        while woken.0.swap(false, Ordering::Relaxed) {
            let polled = Pin::new(&mut http).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending(), "the client has not closed the connection");
        }
        let mut ends = wire.0.borrow_mut();
        ends.room += room;
        if *room > 0
            && let Some(writer) = ends.writer.take()
        {
            writer.wake();
        }
    }
    while woken.0.swap(false, Ordering::Relaxed) {
        let _ = Pin::new(&mut http).poll(&mut Context::from_waker(&waker));
    }
    let is_idle = connection.activity.is_idle();
    let output = std::mem::take(&mut wire.0.borrow_mut().output);
    assert!(is_idle, "all output was written: {} bytes so far", output.len());
    output
}

proptest! {
    #[test]
    fn an_answer_arrives_whole_however_the_client_reads_it(
        scheme in prop::sample::select(vec![Scheme::Http, Scheme::Https]),
        sizes in prop::collection::vec(prop_oneof![1..9_usize, 1..5000_usize, 1..70_000_usize], 1..12),
        rooms in prop::collection::vec(prop_oneof![0..9_usize, 0..5000_usize, 0..70_000_usize], 0..12),
        held_max in prop_oneof![Just(0_usize), Just(1), 1..70_000_usize],
    ) {
        let output = serve_woken(scheme, &sizes, &rooms, held_max);
        let head = output.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let body: Vec<u8> = sizes.iter().zip(0..).flat_map(|(size, number)| vec![number; *size]).collect();
        prop_assert!(output[head..] == body, "{} bytes", output.len());
    }
}
