//! The gateway changes the framing of an upstream's answer for the client. Tests every framing with HTTP/1.1 and HTTP/2
//! clients, and what the log and the metrics report about truncated answers.

use crate::admin::{metric, metrics};
use crate::kit::account::AUTHORITY;
use crate::kit::http2::{Frames, Verdict, block, exchange, frame, request};
use crate::kit::upstream::{After, Gate, Seen, Wire};
use crate::kit::{Answer, Connection, ISSUER, Portcullis, Request, Upstream, eventually, tls, values};
use crate::{PUBLIC, encrypted, policy};
use bytes::Bytes;
use std::process::Command;

/// One framing by the upstream, and the expected answer to the client.
struct Case {
    /// The name of the case, with the source of the expected value.
    name: &'static str,
    method: &'static str,
    /// The bytes that the upstream sends.
    sent: &'static str,
    after: After,
    status: u16,
    body: &'static str,
    /// The expected `Content-Length` over HTTP/1.1 and over HTTP/2.
    lengths: [Option<&'static str>; 2],
}

const fn case(
    name: &'static str,
    method: &'static str,
    sent: &'static str,
    status: u16,
    body: &'static str,
    lengths: [Option<&'static str>; 2],
) -> Case {
    Case { name, method, sent, after: After::Keep, status, body, lengths }
}

const fn closing(case: Case) -> Case {
    Case { after: After::Close, ..case }
}

/// Marks a case that the gateway refuses with this code.
const REFUSED: &str = "upstream_failed";

const NONE: [Option<&str>; 2] = [None, None];

const CASES: [Case; 31] = [
    case(
        "a length",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        200,
        "hello",
        [Some("5"); 2],
    ),
    case(
        "chunks",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        "hello",
        NONE,
    ),
    case(
        "RFC 9112 6.3 (3): Transfer-Encoding overrides Content-Length, which is removed",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        "hello",
        NONE,
    ),
    case(
        "RFC 9112 6.3 (3): the same with a length that is too long",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        "hello",
        NONE,
    ),
    case(
        "RFC 9110 8.6: the same length twice becomes one",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        200,
        "ok",
        [Some("2"); 2],
    ),
    case(
        "RFC 9110 8.6: a list of one length becomes that length",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        200,
        "hello",
        [Some("5"); 2],
    ),
    case(
        "leading zeros",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 005\r\n\r\nhello",
        200,
        "hello",
        [Some("5"); 2],
    ),
    closing(case(
        "RFC 9110 8.6: unequal lengths are refused",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        502,
        REFUSED,
        NONE,
    )),
    closing(case(
        "RFC 9110 8.6: a list of unequal lengths is refused",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        502,
        REFUSED,
        NONE,
    )),
    closing(case(
        "RFC 9110 8.6: a length that is no number is refused",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        502,
        REFUSED,
        NONE,
    )),
    case(
        "RFC 9110 8.6: 204 has no length",
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        204,
        "",
        NONE,
    ),
    closing(case(
        "RFC 9110 8.6: 204 has no length and no body",
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        204,
        "",
        NONE,
    )),
    case(
        "RFC 9110 8.6: 204 to HEAD",
        "HEAD",
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        204,
        "",
        NONE,
    ),
    closing(case(
        "RFC 9112 6.1: 204 has no coding",
        "GET",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        204,
        "",
        NONE,
    )),
    // hyper omits the field from a 304 over HTTP/1.1, as RFC 9110 8.6 allows.
    case(
        "RFC 9110 8.6: the length of 304 is that of the representation",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n",
        304,
        "",
        [None, Some("500")],
    ),
    case(
        "304 with lengths that contradict each other has none",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        304,
        "",
        NONE,
    ),
    case(
        "RFC 9110 8.6: the length of an answer to HEAD is that of GET",
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
        200,
        "",
        [Some("500"); 2],
    ),
    case(
        "a listed length in an answer to HEAD becomes one",
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        200,
        "",
        [Some("5"); 2],
    ),
    case("HEAD without a length", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200, "", NONE),
    case("HEAD of chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", NONE),
    case(
        "205 without content",
        "GET",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        205,
        "",
        [Some("0"); 2],
    ),
    closing(case(
        "RFC 9112 6.1: a coding before chunked would lose its label",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        502,
        REFUSED,
        NONE,
    )),
    closing(case(
        "RFC 9112 6.1: chunked twice",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        502,
        REFUSED,
        NONE,
    )),
    closing(case(
        "RFC 9112 6.1: HTTP/1.0 has no codings",
        "GET",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        502,
        REFUSED,
        NONE,
    )),
    case(
        "RFC 9112 5.1: white space before the colon is removed",
        "GET",
        "HTTP/1.1 200 OK\r\nX-Powered-By : legacy\r\nContent-Length: 2\r\n\r\nok",
        200,
        "ok",
        [Some("2"); 2],
    ),
    case(
        "RFC 9112 5.1: and before that of a framing field too",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        "hello",
        NONE,
    ),
    case(
        "RFC 9110 15.2: interim answers end before the final one",
        "GET",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 7\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        "ok",
        [Some("2"); 2],
    ),
    closing(case(
        "RFC 9112 6.3 (8): without a length the body ends with the connection",
        "GET",
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        200,
        "to the end",
        NONE,
    )),
    closing(case(
        "an empty body that ends with the connection",
        "GET",
        "HTTP/1.0 200 OK\r\n\r\n",
        200,
        "",
        NONE,
    )),
    case(
        "an empty body of chunks",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        200,
        "",
        NONE,
    ),
    case(
        "trailers end a body; those that would frame or set something are removed (RFC 9110 6.5.1)",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\
         Set-Cookie: a=b\r\n\r\n",
        200,
        "ok",
        NONE,
    ),
];

/// Starts a gateway with both listeners and an upstream that answers `/N` with the bytes of case N.
fn table() -> (Upstream, Portcullis) {
    let upstream = Upstream::with(|seen: &Seen, wire: &mut Wire| {
        if !wire.read_body() {
            return After::Close;
        }
        match seen.target[1..].parse::<usize>().ok().and_then(|number| CASES.get(number)) {
            Some(case) => {
                wire.send(case.sent);
                case.after
            }
            None => {
                wire.answer("200 OK", "", "next");
                After::Keep
            }
        }
    });
    let gateway = encrypted(&upstream, PUBLIC);
    (upstream, gateway)
}

#[track_caller]
fn is_right(case: &Case, answer: &Answer, version: usize) {
    let name = format!("{} over HTTP/{}", case.name, version + 1);
    assert_eq!(answer.status, case.status, "{name}: {answer:#?}");
    assert!(answer.complete, "{name}: {answer:#?}");
    if case.body == REFUSED {
        assert_eq!(answer.code(), REFUSED, "{name}");
        return;
    }
    assert_eq!(answer.text(), case.body, "{name}");
    assert_eq!(answer.header("content-length"), case.lengths[version], "{name}: {answer:#?}");
    assert!(values(&answer.trailers, "content-length").is_empty(), "{name}");
    assert!(values(&answer.trailers, "set-cookie").is_empty(), "{name}");
}

#[test]
fn every_framing_reaches_a_client_of_http_1() {
    let (_upstream, gateway) = table();
    for (number, case) in CASES.iter().enumerate() {
        let mut connection = Connection::open(gateway.http());
        let answer = Request::new(case.method, &format!("/{number}")).over(&mut connection);
        is_right(case, &answer, 0);
        let line = gateway.access_line(&answer);
        assert_eq!(line["complete"], true, "{}: {line}", case.name);
        let level = if case.status == 502 { "warn" } else { "info" };
        assert_eq!(line["level"], level, "{}: {line}", case.name);
        if case.status == 502 {
            assert!(
                line["detail"].as_str().is_some_and(|detail| !detail.is_empty()),
                "{}: {line}",
                case.name
            );
        }
        // The rest of an answer is never read as the start of the next answer.
        assert_eq!(Request::get("/next").over(&mut connection).is(200).text(), "next", "{}", case.name);
    }
}

#[test]
fn every_framing_reaches_a_client_of_http_2() {
    let (_upstream, gateway) = table();
    let requests = CASES
        .iter()
        .enumerate()
        .map(|(number, case)| request(case.method, &format!("/{number}")).body(Bytes::new()).unwrap());
    let answers = exchange(gateway.https(), requests.collect());
    for (case, answer) in CASES.iter().zip(&answers) {
        is_right(case, answer, 1);
        let line = gateway.access_line(answer);
        assert_eq!(line["complete"], true, "{}: {line}", case.name);
    }
}

/// curl uses nghttp2, which enforces RFC 9113 section 8.1.1 more strictly than most clients.
#[test]
fn every_framing_reaches_curl() {
    let (_upstream, gateway) = table();
    for version in ["--http1.1", "--http2"] {
        for (number, case) in CASES.iter().enumerate() {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--insecure", "--max-time", "20", version]);
            curl.args(["--write-out", "|%{http_code}|%{http_version}"]);
            if case.method == "HEAD" {
                curl.args(["--head", "--output", "/dev/null"]);
            }
            let output =
                curl.arg(format!("https://{}/{number}", gateway.https())).output().expect("curl is there");
            let text = String::from_utf8_lossy(&output.stdout);
            let name = format!("{} {version}: {text} {}", case.name, String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{name}");
            let protocol = if version == "--http2" { "2" } else { "1.1" };
            assert!(text.ends_with(&format!("|{}|{protocol}", case.status)), "{name}");
            if case.status != 502 {
                assert_eq!(text.split('|').next(), Some(case.body), "{name}");
            }
        }
    }
}

#[test]
fn an_odd_field_of_an_old_server_passes_in_its_plain_form() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\nX-Powered-By \t: legacy\r\nContent-Length: 2\r\n\r\nok");
    let gateway = encrypted(&upstream, PUBLIC);
    assert_eq!(Request::get("/").to(gateway.http()).header("x-powered-by"), Some("legacy"));
}

/// Answers that end early: the sent bytes, how the connection ends, and the counted reason.
const CUTS: [(&str, &str, &str); 6] = [
    ("Content-Length: 10\r\n\r\nhalf ", "close", "closed"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhalf \r\n", "close", "closed"),
    ("Transfer-Encoding: chunked\r\n\r\na\r\nhalf ", "close", "closed"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhalf \r\nzz\r\n", "close", "invalid"),
    ("Content-Length: 10\r\n\r\nhalf ", "reset", "reset"),
    ("Content-Length: 10\r\n\r\nhalf ", "stall", "stalled"),
];

/// Starts a gateway and an upstream that truncates the answer to `/N` as row N of `CUTS` describes.
fn cutting() -> (Upstream, Portcullis, Gate) {
    let gate = Gate::new();
    let closed = gate.clone();
    let upstream = Upstream::with(move |seen, wire| {
        wire.read_body();
        let (sent, end, _) = CUTS[seen.target[1..].parse::<usize>().unwrap()];
        wire.send(format!("HTTP/1.1 200 OK\r\n{sent}"));
        match end {
            "stall" => closed.wait(),
            "reset" => {
                wire.peer_reads();
                wire.reset();
            }
            _ => {}
        }
        After::Close
    });
    let route = format!("{PUBLIC}timeout = \"1s\"\n");
    let gateway = encrypted(&upstream, &route);
    (upstream, gateway, gate)
}

#[track_caller]
fn is_logged_and_counted_as_broken(gateway: &Portcullis, id: &str, reason: &str, before: f64) {
    let line = gateway
        .wait_log("the cut answer's line", |line| line["request_id"] == *id && !line["status"].is_null());
    assert_eq!((&line["complete"], &line["status"]), (&false.into(), &200.into()), "{line}");
    assert_eq!(line["level"], "warn", "{line}");
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("the upstream's answer")), "{line}");
    let label = format!("reason=\"{reason}\"");
    let labels = ["upstream=\"app\"", &*label];
    let now = metric(&metrics(gateway), "portcullis_upstream_broken_answers_total", &labels);
    assert_eq!(now, before + 1.0, "{reason}");
}

#[track_caller]
fn broken(gateway: &Portcullis, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    metric(&metrics(gateway), "portcullis_upstream_broken_answers_total", &[&label])
}

#[test]
fn an_answer_that_breaks_off_looks_broken_over_http_1_and_is_a_warning() {
    let (_upstream, gateway, gate) = cutting();
    for (number, (sent, end, reason)) in CUTS.iter().enumerate() {
        let before = broken(&gateway, reason);
        let mut connection = Connection::open(gateway.http());
        let answer = Request::get(&format!("/{number}")).over(&mut connection);
        assert_eq!((answer.status, answer.complete), (200, false), "{sent:?} {end}: {answer:#?}");
        connection.is_closed();
        is_logged_and_counted_as_broken(&gateway, answer.header("x-request-id").unwrap(), reason, before);
    }
    gate.open();
}

/// RFC 9113 section 8.1.1: a truncated answer is malformed, so its stream ends with RST_STREAM.
#[test]
fn an_answer_that_breaks_off_looks_broken_over_http_2_and_is_a_warning() {
    let (_upstream, gateway, gate) = cutting();
    for (number, (sent, end, reason)) in CUTS.iter().enumerate() {
        let before = broken(&gateway, reason);
        let ask = request("GET", &format!("/{number}")).body(Bytes::new()).unwrap();
        let answer = exchange(gateway.https(), vec![ask]).remove(0);
        assert_eq!((answer.status, answer.complete), (200, false), "{sent:?} {end}: {answer:#?}");
        is_logged_and_counted_as_broken(&gateway, answer.header("x-request-id").unwrap(), reason, before);
    }
    gate.open();
}

/// Ruby's Net::HTTP and other clients take a part of an answer for the whole one if its connection ends in order
/// (findings/half-a-download-that-looks-whole.sh). The end of chunks is visible, so no byte of them is lost to a reset.
#[test]
fn an_answer_that_breaks_off_before_its_length_ends_with_a_reset() {
    let (_upstream, gateway, gate) = cutting();
    let open: [&dyn Fn() -> Connection; 2] =
        [&|| Connection::open(gateway.http()), &|| Connection::tls(gateway.https())];
    for (number, (sent, end, _)) in CUTS.iter().enumerate() {
        let is_sized = sent.starts_with("Content-Length");
        for (version, is_reset) in [("1.1", is_sized), ("1.0", true)] {
            for (name, open) in ["cleartext", "TLS"].iter().zip(open) {
                let mut connection = open();
                connection.send(format!("GET /{number} HTTP/{version}\r\nHost: gateway.test\r\n\r\n"));
                assert_eq!(connection.read_head().expect("the head comes").status, 200);
                assert_eq!(connection.is_reset(), is_reset, "{sent:?} {end} HTTP/{version} {name}");
            }
        }
    }
    gate.open();
    let whole = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = encrypted(&whole, PUBLIC);
    for version in ["1.1\r\nConnection: close", "1.0"] {
        let mut connection = Connection::open(gateway.http());
        connection.send(format!("GET / HTTP/{version}\r\nHost: gateway.test\r\n\r\n"));
        connection.answer().is(200);
        assert!(!connection.is_reset(), "{version}: a whole answer ends in order");
    }
}

#[test]
fn a_broken_answer_is_logged_where_only_refusals_are() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ");
        After::Close
    });
    let gateway =
        Portcullis::with(&format!("[log]\naccess = \"refusals\"\n{}", policy(&upstream, PUBLIC))).start();
    let answer = Request::get("/").to(gateway.http());
    assert_eq!(gateway.access_line(&answer)["complete"], false);
}

#[test]
fn an_answer_whose_client_left_is_not_complete() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbeginning\r\n");
        wire.peer_left();
        After::Close
    });
    let gateway = encrypted(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    let head = connection.read_head().expect("the head comes");
    drop(connection);
    upstream.wait_for_departure();
    let line = gateway.access_line(&head);
    assert_eq!((&line["complete"], &line["level"]), (&false.into(), &"info".into()), "{line}");
    let now = metric(&metrics(&gateway), "portcullis_upstream_broken_answers_total", &[]);
    assert_eq!(now, 0.0, "the upstream did nothing wrong");
}

/// RFC 9113 section 5.4.2: a client cancels a stream with RST_STREAM.
#[test]
fn an_answer_whose_stream_the_client_reset_is_not_complete() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbeginning\r\n");
        wire.peer_left();
        After::Close
    });
    let gateway = encrypted(&upstream, PUBLIC);
    let mut frames = Frames::open(gateway.http());
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/reset")];
    let flags = frame::END_HEADERS | frame::END_STREAM;
    frames.send(frame::HEADERS, flags, 1, &block(&fields)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    frames.send(frame::RST_STREAM, 0, 1, &8_u32.to_be_bytes()).unwrap();
    upstream.wait_for_departure();
    let line = gateway.wait_log("the line of the stream", |line| line["path"] == "/reset");
    assert_eq!((&line["complete"], &line["level"]), (&false.into(), &"info".into()), "{line}");
}

/// RFC 9112 section 9.8: over TLS, an answer that ends with its connection is complete only after `close_notify`.
#[test]
fn the_end_of_an_answer_over_tls_is_checked() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    for (says_goodbye, reason) in [(true, None), (false, Some("closed"))] {
        let answer = "HTTP/1.1 200 OK\r\n\r\nto the end";
        let server = tls::Server::answering(certificate.der(), &key, answer, says_goodbye);
        let gateway = Portcullis::with(&format!(
            "{ISSUER}\n[upstream.app]\nservers = [\"https://localhost:{}\"]\nca = \"ca.pem\"\n{PUBLIC}",
            server.port()
        ))
        .file("ca.pem", certificate.pem())
        .start();
        let answer = Request::get("/").to(gateway.http());
        assert_eq!((answer.status, answer.complete), (200, says_goodbye), "{answer:#?}");
        let line = gateway.access_line(&answer);
        assert_eq!(line["complete"], says_goodbye, "{line}");
        assert_eq!(broken(&gateway, "closed"), f64::from(u8::from(reason.is_some())));
    }
}

#[test]
fn refusals_and_the_gateways_own_answers_are_complete() {
    let gateway = Portcullis::with(&policy(
        &Upstream::start(),
        "[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/echo\"\nupstream = \"echo\"\naccess = \"public\"\n",
    ))
    .start();
    for (method, path) in [("GET", "/echo"), ("HEAD", "/echo"), ("GET", "/nothing"), ("HEAD", "/nothing")] {
        let answer = Request::new(method, path).to(gateway.http());
        assert_eq!(gateway.access_line(&answer)["complete"], true, "{method} {path}");
    }
}

const OPEN: &str = "
[[route]]
path     = \"/open\"
upstream = \"app\"
access   = \"public\"
";

#[test]
fn no_upstream_sets_a_cookie_of_the_gateway() {
    for (more, ours, theirs) in [
        (
            "",
            vec![
                "__Host-portcullis=stolen; Path=/; Secure; HttpOnly",
                "__Host-portcullis-refresh=; Max-Age=0; Path=/",
                "__Host-portcullis-csrf=x; Path=/; Secure",
                "__Host-portcullis-login=x; Path=/; Secure",
                "=__Host-portcullis=nameless",
            ],
            vec!["access_token_cookie=1; Path=/", "session=2", "csrf_access_token=3"],
        ),
        (
            "compat = \"flask-jwt-extended\"\n",
            vec![
                "access_token_cookie=stolen; Path=/",
                "refresh_token_cookie=x",
                "csrf_access_token=x",
                "csrf_refresh_token=x",
            ],
            vec!["session=2; HttpOnly"],
        ),
    ] {
        let fields: String =
            ours.iter().chain(&theirs).map(|cookie| format!("Set-Cookie: {cookie}\r\n")).collect();
        let upstream = Upstream::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
        let gateway =
            Portcullis::with(&format!("{AUTHORITY}cookies = true\n{more}\n{}", policy(&upstream, OPEN)))
                .start();
        for _ in 0..3 {
            let answer = Request::get("/open").to(gateway.http());
            answer.is(200);
            assert_eq!(values(&answer.headers, "set-cookie"), theirs, "{more}");
        }
        eventually("the cookies are counted", || {
            let labels = ["upstream=\"app\""];
            let removed = metric(&metrics(&gateway), "portcullis_upstream_cookies_removed_total", &labels);
            removed == 3.0 * ours.len() as f64
        });
        let log = gateway.stop();
        assert_eq!(log.matches("set a cookie with one of the gateway's names").count(), 1, "once: {log}");
        assert!(!log.contains("stolen"), "{log}");
    }
}
