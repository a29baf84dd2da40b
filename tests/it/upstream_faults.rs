//! Faults of the network between the gateway and a server at every stage of an exchange, over HTTP/1.1 and HTTP/2: no
//! wrong byte, no short answer that looks whole, no second POST.

use crate::PUBLIC;
use crate::kit::faults::{Fault, FaultProxy, Mortal, Toward};
use crate::kit::upstream::After;
use crate::kit::{Answer, Connection, ISSUER, Portcullis, Request, Upstream, http2, tls};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The number of bytes of the body of each answer.
const BODY: usize = 600;

fn body() -> Vec<u8> {
    (0..BODY).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect()
}

fn head(target: &str) -> String {
    let framing = if target == "/chunked" {
        "transfer-encoding: chunked".to_owned()
    } else {
        format!("content-length: {BODY}")
    };
    format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")
}

/// A server that answers with [`body`], in two chunks for `/chunked`.
fn service() -> Upstream {
    Upstream::with(|seen, wire| {
        if !wire.read_body() {
            return After::Close;
        }
        let (target, body) = (seen.target.clone(), body());
        let mut answer = head(&target).into_bytes();
        if target == "/chunked" {
            for half in body.chunks(BODY / 2) {
                answer.extend(format!("{:x}\r\n", half.len()).bytes());
                answer.extend(half);
                answer.extend(b"\r\n");
            }
            answer.extend(b"0\r\n\r\n");
        } else {
            answer.extend(body);
        }
        wire.send(answer);
        After::Keep
    })
}

fn port(server: &Upstream) -> u16 {
    server.to_string().rsplit(':').next().unwrap().parse().unwrap()
}

/// A gateway with cleartext and TLS listeners in front of a server behind a proxy.
struct Stage {
    service: Upstream,
    proxy: FaultProxy,
    gateway: Portcullis,
}

impl Stage {
    #[track_caller]
    fn new(timeout: &str) -> Self {
        let service = service();
        let proxy = FaultProxy::start(port(&service));
        let gateway = Portcullis::with(&format!(
            "{ISSUER}\n[server]\nhttps = \"127.0.0.1:0\"\n[upstream.app]\nservers = [\"{proxy}\"]\n\
             timeout = \"{timeout}\"\n{PUBLIC}"
        ))
        .start();
        Self { service, proxy, gateway }
    }

    /// Sends a request over this version of HTTP. A POST has a body of ten bytes.
    #[track_caller]
    fn send(&self, is_http2: bool, method: &str, target: &str) -> Answer {
        let text = if method == "POST" { "0123456789" } else { "" };
        if is_http2 {
            let request = http2::request(method, target).body(Bytes::from_static(text.as_bytes())).unwrap();
            return http2::exchange(self.gateway.https(), vec![request]).remove(0);
        }
        let request = if method == "POST" { Request::post(target, text) } else { Request::get(target) };
        let mut connection = Connection::open(self.gateway.http());
        connection.send(request.bytes());
        connection.try_answer(method).expect("each request gets an answer")
    }

    /// Injects a fault, sends a request, and checks the guarantees that hold for every fault.
    #[track_caller]
    fn strike(&self, (is_http2, method, target): (bool, &str, &str), plan: (Toward, Fault, usize)) -> Answer {
        let before = self.service.requests().len();
        self.proxy.inject(plan.0, plan.1, plan.2);
        let answer = self.send(is_http2, method, target);
        let what = format!("{method} {target}, HTTP/2: {is_http2}, {plan:?}: {answer:#?}");
        assert!(self.proxy.has_struck(), "{what}");
        match (answer.status, answer.complete) {
            (200, true) => assert_eq!(answer.body, body(), "{what}"),
            (200, false) => assert!(body().starts_with(&answer.body), "{what}"),
            (502..=504, true) => assert!(answer.code().starts_with("upstream_"), "{what}"),
            _ => panic!("{what}"),
        }
        let served = self.service.requests().len() - before;
        if method == "POST" {
            assert!(self.proxy.begun() <= 1 && served <= 1, "a POST is sent once: {what}");
        }
        answer
    }
}

const CALLS: [(bool, &str, &str); 8] = [
    (false, "GET", "/length"),
    (false, "GET", "/chunked"),
    (false, "POST", "/length"),
    (false, "POST", "/chunked"),
    (true, "GET", "/length"),
    (true, "GET", "/chunked"),
    (true, "POST", "/length"),
    (true, "POST", "/chunked"),
];

/// The bytes of an answer at which faults begin: before the head, in it, at its end, in the body, at the last byte.
fn stages(target: &str) -> [usize; 6] {
    let head = head(target).len();
    let last = if target == "/chunked" { head + BODY + 18 } else { head + BODY - 1 };
    [0, 1, head - 1, head, head + BODY / 2, last]
}

#[test]
fn an_answer_whose_connection_ends_is_repeated_refused_or_cut() {
    let stage = Stage::new("10s");
    for call in CALLS {
        for fault in [Fault::Reset, Fault::Close] {
            for at in stages(call.2) {
                // The connection of the request is sometimes new and sometimes kept.
                if at % 2 == 0 {
                    stage.proxy.inject(Toward::Server, Fault::Drip, usize::MAX);
                    stage.send(false, "GET", "/length").is(200);
                }
                let answer = stage.strike(call, (Toward::Gateway, fault, at));
                let what = format!("{call:?} {fault:?} at {at}: {answer:#?}");
                let is_in_head = at < head(call.2).len();
                match (call.1, is_in_head) {
                    ("GET", true) => assert!(answer.status == 200 && answer.complete, "{what}"),
                    ("POST", true) => assert_eq!((answer.status, answer.complete), (502, true), "{what}"),
                    (_, _) => assert!(answer.status == 502 || !answer.complete, "{what}"),
                }
            }
        }
    }
}

#[test]
fn a_request_whose_connection_ends_is_repeated_only_if_that_is_safe() {
    let stage = Stage::new("10s");
    for call in CALLS {
        for fault in [Fault::Reset, Fault::Close] {
            for at in [0, 1, 40] {
                let answer = stage.strike(call, (Toward::Server, fault, at));
                let expected = if call.1 == "GET" { 200 } else { 502 };
                assert_eq!((answer.status, answer.complete), (expected, true), "{call:?} {fault:?} at {at}");
            }
        }
    }
}

#[test]
fn slow_bytes_change_no_answer() {
    let stage = Stage::new("10s");
    for call in CALLS {
        for (toward, at) in [(Toward::Server, 0), (Toward::Gateway, 0), (Toward::Gateway, 50)] {
            for fault in [Fault::Drip, Fault::Delay(Duration::from_millis(20))] {
                stage.strike(call, (toward, fault, at)).is(200);
            }
        }
    }
}

#[test]
fn an_answer_that_stops_is_refused_or_cut_in_time() {
    let stage = Stage::new("300ms");
    for call in CALLS {
        let head = head(call.2).len();
        for (toward, at) in [(Toward::Server, 0), (Toward::Gateway, head - 1), (Toward::Gateway, head + 9)] {
            let answer = stage.strike(call, (toward, Fault::BlackHole, at));
            let is_cut = toward == Toward::Gateway && at > head;
            assert!(
                if is_cut { !answer.complete } else { answer.status == 504 },
                "{call:?} {at}: {answer:#?}"
            );
        }
    }
}

/// TLS detects each changed byte.
#[test]
fn a_corrupt_byte_of_tls_never_reaches_the_client() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let server = tls::Server::start(certificate.der(), &key);
    let proxy = FaultProxy::start(server.port());
    let gateway = Portcullis::with(&format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"https://localhost:{}\"]\nca = \"ca.pem\"\n\
         connect_timeout = \"1s\"\ntimeout = \"1s\"\n{PUBLIC}",
        proxy.port()
    ))
    .file("ca.pem", certificate.pem())
    .start();
    for at in [7, 90, 150, 600, 700, 800, 900] {
        proxy.inject(Toward::Gateway, Fault::Corrupt, at);
        let mut connection = Connection::open(gateway.http());
        connection.send(Request::get("/").bytes());
        let answer = connection.try_answer("GET").expect("an answer");
        match (answer.status, answer.complete) {
            (200, true) => assert_eq!(answer.text(), "encrypted", "at {at}"),
            (200, false) => assert!("encrypted".starts_with(&answer.text()), "at {at}: {answer:#?}"),
            (status, _) => assert!((502..=504).contains(&status), "at {at}: {answer:#?}"),
        }
    }
}

#[test]
fn a_corrupt_head_is_a_bad_gateway() {
    let stage = Stage::new("10s");
    for call in CALLS {
        let head = head(call.2);
        // A digit of the status, a letter of the framing field's name, and its value's last byte.
        for at in [9, 17, head.len() - 5] {
            let answer = stage.strike(call, (Toward::Gateway, Fault::Corrupt, at));
            assert_eq!((answer.status, answer.complete), (502, true), "{call:?} at {at}: {answer:#?}");
        }
    }
}

/// Sends 2,150 GETs through 20 kills of one of two servers.
#[test]
fn no_kill_of_a_server_costs_an_answer() {
    let (mut mortal, steady) = (Mortal::start(), Mortal::start());
    let gateway = Portcullis::with(&format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"{mortal}\", \"{steady}\"]\n{PUBLIC}"
    ))
    .start();
    let (address, answered, ended) = (gateway.http(), AtomicUsize::new(0), AtomicBool::new(false));
    let (answered, ended) = (&answered, &ended);
    let failed: Vec<Answer> = std::thread::scope(|scope| {
        let ask = || {
            let mut failed = Vec::new();
            let mut connection = Connection::open(address);
            while answered.load(Ordering::SeqCst) < 2_150 || !ended.load(Ordering::SeqCst) {
                let answer = Request::get("/").over(&mut connection);
                if answer.status != 200 || !answer.complete || answer.text() != "alive" {
                    failed.push(answer);
                }
                answered.fetch_add(1, Ordering::SeqCst);
            }
            failed
        };
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let deadline = Instant::now() + 3 * crate::kit::PATIENCE;
        let pass = |count: usize| {
            let goal = answered.load(Ordering::SeqCst) + count;
            while answered.load(Ordering::SeqCst) < goal && Instant::now() < deadline {
                std::thread::yield_now();
            }
        };
        for _ in 0..20 {
            pass(60);
            mortal.kill();
            pass(40);
            mortal.revive();
        }
        ended.store(true, Ordering::SeqCst);
        asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect()
    });
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:#?}",
        failed.len(),
        answered.load(Ordering::SeqCst),
        failed[0]
    );
}
