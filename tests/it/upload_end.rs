//! The ends of uploads: the token of a client that still sends its body expires or is revoked.

use crate::http2_upstreams::{Call, Handling, Server, serve};
use crate::kit::account::{AUTHORITY, add, login};
use crate::kit::client::{Answer, Connection, HOST};
use crate::kit::forge::{issuer_without_leeway, now};
use crate::kit::upstream::{After, Gate};
use crate::kit::{PATIENCE, Portcullis, Request, Upstream, eventually, token};
use bytes::Bytes;
use http::Response;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A service for each version of HTTP. Each reads the bodies of its requests.
struct Services {
    one: Upstream,
    two: Server,
    /// The number of bodies that did not arrive whole.
    cut: Arc<AtomicUsize>,
    /// Holds the answers to whole requests for `/one/held`.
    gate: Gate,
}

impl Services {
    /// Starts the services. An `/early` path gets a whole answer before its body is read, and a `/long` path the
    /// beginning of an answer.
    fn start() -> Self {
        let (cut, gate) = (Arc::new(AtomicUsize::new(0)), Gate::new());
        let (cut_one, held) = (cut.clone(), gate.clone());
        let one = Upstream::with(move |seen, wire| {
            if seen.target.ends_with("/early") {
                wire.answer("200 OK", "", "early");
            } else if seen.target.ends_with("/long") {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun");
            }
            if !wire.read_body() {
                cut_one.fetch_add(1, Ordering::SeqCst);
                return After::Close;
            }
            if seen.target.ends_with("/held") {
                held.wait();
            }
            wire.answer("200 OK", "", "whole");
            After::Keep
        });
        let cut_two = cut.clone();
        let two = serve(move |_, call| handle(call, cut_two.clone()));
        Self { one, two, cut, gate }
    }

    fn gateway(&self) -> Portcullis {
        let (issuer, one, two) = (issuer_without_leeway(), &self.one, &self.two);
        Portcullis::with(&format!(
            "{issuer}{AUTHORITY}
[upstream.one]
servers = [\"{one}\"]
[upstream.two]
servers  = [\"{two}\"]
protocol = \"http2\"
[[route]]
path     = \"/one/{{*rest}}\"
upstream = \"one\"
[[route]]
path     = \"/two/{{*rest}}\"
upstream = \"two\"
[[route]]
path     = \"/open/{{*rest}}\"
upstream = \"one\"
streams  = \"open\"
[[route]]
path     = \"/hurried/{{*rest}}\"
upstream = \"one\"
timeout  = \"500ms\"
"
        ))
        .start()
    }

    fn wait_for_requests(&self, one: usize, two: usize) {
        self.one.wait_for_requests(one);
        eventually("requests at the HTTP/2 service", || self.two.count() >= two);
    }

    #[track_caller]
    fn have_cut(&self, count: usize) {
        eventually("the services see the end", || self.cut.load(Ordering::SeqCst) == count);
    }
}

fn handle((request, mut respond): Call, cut: Arc<AtomicUsize>) -> Handling {
    Box::pin(async move {
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut answer = None;
        if path.ends_with("/early") || path.ends_with("/long") {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"early"), path.ends_with("/early")).unwrap();
            answer = Some(stream);
        }
        while let Some(data) = body.data().await {
            let Ok(data) = data else {
                cut.fetch_add(1, Ordering::SeqCst);
                return;
            };
            let _ = body.flow_control().release_capacity(data.len());
        }
        if answer.is_none() {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"whole"), true).unwrap();
        }
    })
}

/// Begins an upload over HTTP/1.1.
fn begin(gateway: &Portcullis, path: &str, token: &str) -> Connection {
    let mut connection = Connection::open(gateway.http());
    connection.send(format!(
        "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nfirst\r\n"
    ));
    connection
}

/// Begins an upload over HTTP/2, which lasts until the answer has ended and `until` has fired. Returns the answer, with
/// its trailers among its fields.
fn begin_http2(
    address: SocketAddr,
    path: &str,
    token: &str,
    is_grpc: bool,
    until: Option<oneshot::Receiver<()>>,
) -> JoinHandle<Answer> {
    let mut request = http::Request::post(format!("http://{HOST}{path}"))
        .header("authorization", format!("Bearer {token}"));
    if is_grpc {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
    }
    let request = request.body(()).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let talk = async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let (response, mut upload) = client.send_request(request, false).unwrap();
            upload.send_data(Bytes::from_static(b"first"), false).unwrap();
            let (head, mut body) = response.await.expect("an answer").into_parts();
            let pairs = |map: &http::HeaderMap| {
                let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
                map.iter().map(|(name, value)| (name.to_string(), text(value))).collect::<Vec<_>>()
            };
            let mut answer = Answer { status: head.status.as_u16(), ..Answer::default() };
            answer.headers = pairs(&head.headers);
            answer.complete = loop {
                match body.data().await {
                    Some(Ok(data)) => answer.body.extend_from_slice(&data),
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            if let Some(until) = until {
                until.await.unwrap();
            }
            drop(upload);
            answer
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await.expect("an answer in time") })
    })
}

fn ended(gateway: &Portcullis, kind: &str, reason: &str) -> Option<u64> {
    gateway.metric(&format!("portcullis_streams_ended_total{{kind=\"{kind}\",reason=\"{reason}\"}}"))
}

#[track_caller]
fn is_logged(gateway: &Portcullis, answer: &Answer, ended: &str) {
    let line = gateway.access_line(answer);
    assert_eq!((&line["ended"], &line["bytes_in"]), (&json!(ended), &json!(5)), "{line}");
}

#[test]
fn an_upload_ends_when_its_token_expires_and_a_whole_request_does_not() {
    let services = Services::start();
    let gateway = services.gateway();
    let token = token("ada").claim("exp", json!(now() + 3)).to_string();
    let mut ends = ["/one/a", "/two/a", "/hurried/a"].map(|path| begin(&gateway, path, &token));
    let streams = ["/one/b", "/two/b"].map(|path| begin_http2(gateway.http(), path, &token, false, None));
    let call = begin_http2(gateway.http(), "/two/grpc", &token, true, None);
    let mut open = begin(&gateway, "/open/a", &token);
    let mut held = Connection::open(gateway.http());
    held.send(Request::post("/one/held", "whole").bearer(&token).bytes());
    services.wait_for_requests(5, 3);
    for connection in &mut ends {
        let answer = connection.answer();
        answer.is_refusal(401, "expired_token");
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{answer:#?}");
        connection.is_closed();
        is_logged(&gateway, &answer, "token_expired");
    }
    for answer in streams.map(|stream| stream.join().unwrap()) {
        answer.is_refusal(401, "expired_token");
        is_logged(&gateway, &answer, "token_expired");
    }
    let answer = call.join().unwrap();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("16")), "{answer:#?}");
    assert_eq!(answer.header("grpc-message"), Some("expired_token"));
    is_logged(&gateway, &answer, "token_expired");
    services.have_cut(6);
    assert_eq!(ended(&gateway, "upload", "token_expired"), Some(6));
    // The neighbours go on: the route with streams = "open", and the request that had arrived whole.
    services.gate.open();
    assert_eq!(held.answer().is(200).text(), "whole");
    open.send("4\r\nlast\r\n0\r\n\r\n");
    assert_eq!(open.answer().is(200).text(), "whole");
    assert_eq!(ended(&gateway, "upload", "token_expired"), Some(6));
}

#[test]
fn an_upload_ends_when_its_token_is_revoked() {
    let services = Services::start();
    let gateway = services.gateway();
    add(gateway.dir(), "ada", &[]);
    let token = login(gateway.http(), "ada").access;
    let mut connections = ["/one/a", "/two/a"].map(|path| begin(&gateway, path, &token));
    let streams = ["/one/b", "/two/b"].map(|path| begin_http2(gateway.http(), path, &token, false, None));
    services.wait_for_requests(2, 2);
    Request::post("/auth/logout-all", "").bearer(&token).to(gateway.http()).is(204);
    for connection in &mut connections {
        is_logged(&gateway, connection.answer().is_refusal(401, "revoked_token"), "token_revoked");
        connection.is_closed();
    }
    for answer in streams.map(|stream| stream.join().unwrap()) {
        is_logged(&gateway, answer.is_refusal(401, "revoked_token"), "token_revoked");
    }
    services.have_cut(4);
    assert_eq!(ended(&gateway, "upload", "token_revoked"), Some(4));
}

/// The answer may begin, or end, before the client has sent its body.
#[test]
fn an_upload_that_goes_on_beside_or_after_its_answer_ends_with_its_token() {
    let services = Services::start();
    let gateway = services.gateway();
    add(gateway.dir(), "ada", &[]);
    let token = login(gateway.http(), "ada").access;
    let mut connection = begin(&gateway, "/one/early", &token);
    assert_eq!(connection.answer().is(200).text(), "early");
    let early = ["/one/early", "/two/early"].map(|path| {
        let (end, until) = oneshot::channel();
        (begin_http2(gateway.http(), path, &token, false, Some(until)), end)
    });
    let mut long = begin(&gateway, "/one/long", &token);
    let stream = begin_http2(gateway.http(), "/two/long", &token, false, None);
    services.wait_for_requests(3, 2);
    eventually("the answers have ended", || {
        gateway.log().iter().filter(|line| line["status"] == 200).count() >= 3
    });
    Request::post("/auth/logout-all", "").bearer(&token).to(gateway.http()).is(204);
    for answer in [long.answer(), stream.join().unwrap()] {
        assert_eq!((answer.status, answer.complete), (200, false), "{answer:#?}");
        assert_eq!(gateway.access_line(&answer)["ended"], "token_revoked");
    }
    services.have_cut(5);
    eventually("the ends are counted", || {
        (ended(&gateway, "upload", "token_revoked"), ended(&gateway, "answer", "token_revoked"))
            == (Some(3), Some(2))
    });
    for (stream, end) in early {
        end.send(()).unwrap();
        let answer = stream.join().unwrap();
        assert_eq!((answer.status, answer.complete), (200, true), "{answer:#?}");
    }
}
