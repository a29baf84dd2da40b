//! More requests than the gateway may have in progress.

use crate::kit::http2::{self, request};
use crate::kit::upstream::{After, Gate};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, policy};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn bounded(requests: usize, upstream: &Upstream) -> Portcullis {
    let policy = format!("[server.bounds]\nrequests = {requests}\n{}", policy(upstream, PUBLIC));
    Portcullis::with(&policy).start()
}

#[test]
fn a_request_beyond_the_bound_is_refused_at_once_and_one_within_it_is_not() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let gateway = bounded(2, &upstream);
    let mut held: Vec<_> = (0..2).map(|_| Connection::open(gateway.http())).collect();
    held[0].send(Request::get("/").bytes());
    upstream.wait_for_requests(1);
    held[1].send(Request::get("/").bytes());
    upstream.wait_for_requests(2);

    let mut third = Connection::open(gateway.http());
    let answer = Request::get("/").over(&mut third);
    answer.is_refusal(503, "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("connection"), None, "the connection stays open");
    assert!(answer.header("x-request-id").is_some());
    // The rest of a small body is not read as a request.
    Request::post("/", "GET / HTTP/1.1\r\nhost: x\r\n\r\n").over(&mut third).is_refusal(503, "overloaded");
    Request::get("/").over(&mut third).is_refusal(503, "overloaded");
    assert_eq!(gateway.metric("portcullis_requests_shed_total"), Some(3));
    assert_eq!(gateway.metric("portcullis_requests_in_progress"), Some(2));
    assert_eq!(
        gateway.metric(
            "portcullis_requests_total{route=\"\",outcome=\"refused\",status=\"5xx\",reason=\"overloaded\"}"
        ),
        Some(3)
    );
    let line = gateway.wait_log("the refusals are logged", |line| !line["refused"].is_null());
    assert_eq!(line["bound"], 2);
    assert_eq!(upstream.requests().len(), 2);

    gate.open();
    for connection in &mut held {
        assert_eq!(connection.answer().is(200).text(), "late");
    }
    assert_eq!(Request::get("/").over(&mut third).is(200).text(), "late");
}

#[test]
fn a_grpc_call_beyond_the_bound_gets_a_status_of_grpc() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let policy = format!(
        "[server]\nhttps = \"127.0.0.1:0\"\n[server.bounds]\nrequests = 1\n{}",
        policy(&upstream, PUBLIC)
    );
    let gateway = Portcullis::with(&policy).start();
    let mut held = Connection::open(gateway.http());
    held.send(Request::get("/").bytes());
    upstream.wait_for_requests(1);
    let call = request("POST", "/a.Service/Call").header("content-type", "application/grpc");
    let answers =
        http2::exchange(gateway.https(), vec![call.body(Bytes::from_static(b"\0\0\0\0\0")).unwrap()]);
    assert_eq!(answers[0].is(200).header("grpc-status"), Some("14"), "UNAVAILABLE");
    gate.open();
    held.answer().is(200);
}

/// Ten times as many clients as the bound allows: the accepted requests keep their speed, the service sees no more than
/// the bound, and the admin listener answers.
#[test]
fn at_ten_times_the_bound_the_accepted_requests_are_served_and_the_admin_listener_answers() {
    const BOUND: usize = 8;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (now.clone(), most.clone());
    let upstream = Upstream::with(move |_, wire| {
        let (now, most) = &counted;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // A service that takes some time for each request.
        std::thread::sleep(Duration::from_millis(20));
        now.fetch_sub(1, Ordering::SeqCst);
        wire.answer("200 OK", "", "done");
        After::Keep
    });
    let gateway = bounded(BOUND, &upstream);
    let (address, ended) = (gateway.http(), Arc::new(AtomicBool::new(false)));
    let (served, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..10 * BOUND)
        .map(|_| {
            let (ended, served, refused) = (ended.clone(), served.clone(), refused.clone());
            std::thread::spawn(move || {
                let mut connection = Connection::open(address);
                while !ended.load(Ordering::SeqCst) {
                    let answer = Request::get("/").over(&mut connection);
                    match answer.status {
                        200 => served.fetch_add(1, Ordering::SeqCst),
                        503 if answer.header("retry-after") == Some("1") => {
                            refused.fetch_add(1, Ordering::SeqCst)
                        }
                        _ => panic!("{answer:?}"),
                    };
                }
            })
        })
        .collect();
    eventually("both kinds of answers", || {
        served.load(Ordering::SeqCst) > 0 && refused.load(Ordering::SeqCst) > 10 * BOUND
    });
    let (begun, before) = (Instant::now(), served.load(Ordering::SeqCst));
    eventually("the accepted requests are served", || served.load(Ordering::SeqCst) >= before + 200);
    let rate = 200.0 / begun.elapsed().as_secs_f64();
    // Without other load, 8 requests of 20 ms give 400 a second.
    assert!(rate > 40.0, "{rate} requests a second");
    let begun = Instant::now();
    Request::get("/readyz").to(gateway.admin()).is(200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    ended.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    assert!(most.load(Ordering::SeqCst) <= BOUND, "{most:?}");
}
