//! Upstreams under load and with failures: retries, the limit on connections, and their metrics.

use crate::admin::{metric, metrics};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::upstream::{After, ClosedPort, Gate};
use crate::kit::{Connection, ISSUER, PATIENCE, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Starts a gateway with these servers.
#[track_caller]
fn before(servers: &[&dyn std::fmt::Display], more: &str, routes: &str) -> Portcullis {
    let servers = servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ");
    Portcullis::with(&format!("{ISSUER}\n[upstream.app]\nservers = [{servers}]\n{more}\n{routes}")).start()
}

/// Starts an upstream that reads each request and closes the connection without a response.
fn dying() -> Upstream {
    Upstream::with(|_, wire| {
        wire.read_body();
        After::Close
    })
}

#[track_caller]
fn app(gateway: &Portcullis, name: &str, labels: &[&str]) -> f64 {
    let labels: Vec<_> = labels.iter().copied().chain(["upstream=\"app\""]).collect();
    metric(&metrics(gateway), name, &labels)
}

/// RFC 9110 section 9.2.2: a proxy may retry an idempotent request if its connection broke before a response.
#[test]
fn a_safe_request_whose_server_died_goes_to_another_server() {
    let (dead, good) = (dying(), Upstream::start());
    let gateway = before(&[&dead, &good], "", PUBLIC);
    for request in [Request::get("/"), Request::new("PUT", "/"), Request::new("DELETE", "/")] {
        request.to(gateway.http()).is(200);
    }
    assert!(!dead.requests().is_empty(), "the dead server was asked");
    assert_eq!(good.requests().len(), 3);
    assert_eq!(app(&gateway, "portcullis_upstream_retries_total", &[]), dead.requests().len() as f64);
}

#[test]
fn a_safe_request_is_sent_to_the_only_server_twice_and_not_more() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::with(move |_, wire| {
        wire.read_body();
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            return After::Close;
        }
        wire.answer("200 OK", "", "second");
        After::Keep
    });
    let first = gateway(&upstream, PUBLIC);
    assert_eq!(Request::get("/").to(first.http()).is(200).text(), "second");
    assert_eq!(upstream.requests().len(), 2);

    let all = [dying(), dying(), dying()];
    let gateway = before(&[&all[0], &all[1], &all[2]], "", PUBLIC);
    Request::get("/").to(gateway.http()).is_refusal(502, "upstream_failed");
    assert_eq!(all.iter().map(|dead| dead.requests().len()).sum::<usize>(), 2, "one repetition");
}

/// A server that is being stopped breaks its idle connections, and also new ones that it had no time to accept.
#[test]
fn a_safe_request_on_the_kept_connection_of_a_dying_server_goes_to_another_server() {
    let dying_after_one = || {
        let count = AtomicUsize::new(0);
        Upstream::with(move |_, wire| {
            wire.read_body();
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                return After::Close;
            }
            wire.answer("200 OK", "", "once");
            After::Keep
        })
    };
    let (dead, good) = (dying_after_one(), Upstream::start());
    let gateway = before(&[&dead, &good], "", PUBLIC);
    let mut client = Connection::open(gateway.http());
    for _ in 0..8 {
        client.send("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
        client.answer().is(200);
    }
    assert!(dead.requests().len() >= 2, "the server broke a kept connection");
}

#[test]
fn a_kept_connection_that_breaks_is_not_the_only_retry() {
    for (breaks, status, seen) in [(2, 200, 4), (3, 502, 4)] {
        let count = AtomicUsize::new(0);
        let upstream = Upstream::with(move |_, wire| {
            wire.read_body();
            if (1..=breaks).contains(&count.fetch_add(1, Ordering::SeqCst)) {
                return After::Close;
            }
            wire.answer("200 OK", "", "fine");
            After::Keep
        });
        let gateway = gateway(&upstream, PUBLIC);
        let mut client = Connection::open(gateway.http());
        for expected in [200, status] {
            client.send("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
            client.answer().is(expected);
        }
        assert_eq!(
            upstream.requests().len(),
            seen,
            "one answered, one on the kept connection, two on new ones"
        );
    }
}

#[test]
fn a_request_that_may_have_done_something_is_sent_once() {
    for request in [Request::post("/", "pay"), Request::new("POST", "/")] {
        let (dead, other) = (dying(), dying());
        let gateway = before(&[&dead, &other], "", PUBLIC);
        request.to(gateway.http()).is_refusal(502, "upstream_failed");
        assert_eq!(dead.requests().len() + other.requests().len(), 1, "{request:?}");
    }
    let (dead, other) = (dying(), dying());
    let gateway = before(&[&dead, &other], "", PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send("PUT / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 4\r\n\r\nbody");
    connection.answer().is_refusal(502, "upstream_failed");
    assert_eq!(dead.requests().len() + other.requests().len(), 1, "a body that was streamed is gone");
}

#[test]
fn a_server_that_fails_is_down_until_it_has_answered() {
    let port = ClosedPort::new();
    let gateway = before(&[&port], "", PUBLIC);
    let up = || app(&gateway, "portcullis_upstream_up", &[]);
    assert_eq!(up(), 1.0);
    Request::get("/").to(gateway.http()).is_refusal(503, "upstream_unavailable");
    assert_eq!(up(), 0.0);
    let _upstream = port.listen();
    assert_eq!(up(), 0.0, "nobody has asked it");
    Request::get("/").to(gateway.http()).is(200);
    assert_eq!(up(), 1.0);
    let log = gateway.stop();
    for event in ["an upstream server is down", "an upstream server is up again"] {
        assert_eq!(log.matches(event).count(), 1, "{event}: {log}");
    }
}

#[test]
fn failed_connections_are_counted_by_reason_and_named_in_the_log() {
    // A server that answers everything in cleartext, including TLS.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let https = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        }
    });
    let key = rcgen::KeyPair::generate().unwrap();
    let ca =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let closed = ClosedPort::new();
    for (server, reason, detail) in [
        (closed.to_string(), "refused", "connection refused"),
        ("http://nowhere.invalid:80".to_owned(), "dns", "cannot resolve its name"),
        (https, "tls", "does not speak TLS"),
    ] {
        let policy = format!("{ISSUER}\n[upstream.app]\nservers = [\"{server}\"]\nca = \"ca.pem\"\n{PUBLIC}");
        let gateway = Portcullis::with(&policy).file("ca.pem", &ca).start();
        let answer = Request::get("/").to(gateway.http());
        answer.is_refusal(503, "upstream_unavailable");
        let line = gateway.access_line(&answer);
        assert!(
            line["detail"].as_str().is_some_and(|reported| reported.contains(detail)),
            "{server}: {line}"
        );
        let label = format!("reason=\"{reason}\"");
        let failures = |labels: &[&str]| app(&gateway, "portcullis_upstream_connect_failures_total", labels);
        assert_eq!((failures(&[&label]), failures(&[])), (1.0, 1.0), "{server}");
    }
}

/// A lack of file descriptors is the gateway's fault, not the upstream's.
#[test]
fn a_gateway_without_files_does_not_blame_its_upstream() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.answer("200 OK", "connection: close\r\n", "fine");
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    // Open connections before the file descriptors run out.
    let mut client = Connection::open(gateway.http());
    let mut operator = Connection::open(gateway.admin());
    Request::get("/").over(&mut client).is(200);
    Request::get("/livez").over(&mut operator).is(200);
    let limit = |files: &str| {
        let pid = gateway.pid().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).status();
        let status = status.expect("prlimit is part of Debian's util-linux");
        assert!(status.success(), "prlimit {files}");
    };
    limit("3");
    let answer = Request::get("/").over(&mut client);
    answer.is_refusal(503, "overloaded");
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("out of resources")), "{line}");
    let text = Request::get("/metrics").over(&mut operator);
    assert_eq!(metric(&text, "portcullis_upstream_up", &[]), 1.0, "{}", text.text());
    assert_eq!(metric(&text, "portcullis_upstream_connect_failures_total", &["reason=\"own\""]), 1.0);
    limit("1000");
    Request::get("/").over(&mut client).is(200);
}

const TWO_ROUTES: &str = "
[[route]]
path     = \"/{*rest}\"
upstream = \"app\"
access   = \"public\"

[[route]]
path     = \"/hasty\"
upstream = \"app\"
access   = \"public\"
timeout  = \"500ms\"
";

fn sent(gateway: &Portcullis, target: &str) -> Connection {
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get(target).bytes());
    connection
}

#[test]
fn connections_to_a_server_are_bounded_and_requests_beyond_wait_their_turn() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let gateway = before(&[&upstream], "connections = 2", TWO_ROUTES);
    let mut first = [sent(&gateway, "/"), sent(&gateway, "/")];
    upstream.wait_for_requests(2);
    let mut waiting = [sent(&gateway, "/"), sent(&gateway, "/"), sent(&gateway, "/")];
    eventually("three wait", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 3.0);
    assert_eq!(app(&gateway, "portcullis_upstream_connections_open", &[]), 2.0);
    assert_eq!(metric(&metrics(&gateway), "portcullis_requests_in_progress", &[]), 5.0);

    // The request waits for its route's timeout, and no longer.
    let answer = Request::get("/hasty").to(gateway.http());
    answer.is_refusal(503, "overloaded");
    let line = gateway.access_line(&answer);
    assert!(
        line["detail"].as_str().is_some_and(|reported| reported.contains("upstream.app.connections")),
        "{line}"
    );

    gate.open();
    for connection in first.iter_mut().chain(&mut waiting) {
        let answer = connection.answer();
        assert_eq!(answer.is(200).text(), "late");
        // Waiting is not a fault, so the log line of a request that waited has no detail.
        assert_eq!(gateway.access_line(&answer).get("detail"), None);
    }
    assert_eq!(upstream.connections(), 2);
    eventually("nothing is in progress", || {
        metric(&metrics(&gateway), "portcullis_requests_in_progress", &[]) == 0.0
    });
    assert_eq!(app(&gateway, "portcullis_upstream_requests_waiting", &[]), 0.0);
}

/// RFC 9112 section 9.2: bytes that no request asked for are never the answer to the next request. The first read of the
/// gateway takes 8192 bytes, so the rest is still in the socket when the answer has ended.
#[test]
fn a_request_in_line_gets_no_connection_with_bytes_that_nobody_asked_for() {
    let gate = Gate::new();
    let opens = gate.clone();
    let upstream = Upstream::with(move |seen, wire| {
        if seen.target == "/first" {
            opens.wait();
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 8151\r\n\r\n";
            let stray = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";
            assert_eq!(head.len() + 8151, 8192);
            wire.send(format!("{head}{}{stray}", "a".repeat(8151)));
        } else {
            wire.answer("200 OK", "", "second");
        }
        After::Keep
    });
    let gateway = before(&[&upstream], "connections = 1", PUBLIC);
    let mut first = sent(&gateway, "/first");
    upstream.wait_for_requests(1);
    let mut second = sent(&gateway, "/second");
    eventually("one waits", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 1.0);
    gate.open();
    first.answer().is(200);
    assert_eq!(second.answer().is(200).text(), "second");
    assert_eq!(app(&gateway, "portcullis_upstream_unasked_bytes_total", &[]), 1.0);
}

/// A request that makes its server fail must not break one kept connection after another.
#[test]
fn a_request_in_line_is_repeated_on_new_connections_only() {
    let upstream = Upstream::with(|seen, wire| {
        wire.read_body();
        if seen.method == "DELETE" {
            return After::Close;
        }
        wire.answer("200 OK", "", "fine");
        After::Keep
    });
    let gateway = before(&[&upstream], "connections = 1", PUBLIC);
    let (address, is_over) = (gateway.http(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Connection::open(address);
                while !is_over.load(Ordering::SeqCst) {
                    Request::get("/").over(&mut client).is(200);
                }
            });
        }
        upstream.wait_for_requests(50);
        let status = Request::new("DELETE", "/").to(address).status;
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(status, 502);
    });
    let received = upstream.requests().iter().filter(|seen| seen.method == "DELETE").count();
    // Once over a kept connection, and then twice over new ones.
    assert!((2..=3).contains(&received), "{received}");
}

#[test]
fn a_connection_that_ends_makes_room_for_a_request_that_waits() {
    let gate = Gate::new();
    let closed = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.read_body();
        closed.wait();
        wire.answer("200 OK", "connection: close\r\n", "fine");
        After::Close
    });
    let gateway = before(&[&upstream], "connections = 1", PUBLIC);
    let mut first = sent(&gateway, "/");
    upstream.wait_for_requests(1);
    let left = sent(&gateway, "/");
    eventually("one waits", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 1.0);
    let mut second = sent(&gateway, "/");
    eventually("two wait", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 2.0);
    // A client that leaves the queue does not delay the others.
    drop(left);
    eventually("one has left", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 1.0);
    gate.open();
    first.answer().is(200);
    second.answer().is(200);
    assert_eq!(upstream.requests().len(), 2);
    eventually("no connection is open", || app(&gateway, "portcullis_upstream_connections_open", &[]) == 0.0);
}

#[test]
fn a_server_with_all_connections_in_use_is_passed_over() {
    let gate = Gate::new();
    let (busy, free) = (Upstream::held_by(&gate), Upstream::start());
    let gateway = before(&[&busy, &free], "connections = 1", PUBLIC);
    let mut held = sent(&gateway, "/");
    busy.wait_for_requests(1);
    for _ in 0..6 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!((busy.requests().len(), free.requests().len()), (1, 6));
    gate.open();
    held.answer().is(200);
}

#[test]
fn the_line_is_bounded_too() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let gateway = before(&[&upstream], "connections = 1", PUBLIC);
    let _held = sent(&gateway, "/");
    upstream.wait_for_requests(1);
    let line: Vec<_> = (0..1024).map(|_| sent(&gateway, "/")).collect();
    eventually("the line is full", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 1024.0);
    let answer = Request::get("/").to(gateway.http());
    answer.is_refusal(503, "overloaded");
    answer.header("retry-after").unwrap().parse::<u32>().expect("whole seconds");
    // Clients that left have made room in the queue.
    drop(line);
    eventually("the line is empty", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 0.0);
    let mut next = sent(&gateway, "/");
    eventually("one waits", || app(&gateway, "portcullis_upstream_requests_waiting", &[]) == 1.0);
    gate.open();
    next.answer().is(200);
}

#[test]
fn a_bound_of_no_connections_is_a_mistake() {
    let dir = Dir::new();
    let text =
        format!("{ISSUER}\n[upstream.app]\nservers = [\"http://127.0.0.1:9\"]\nconnections = 0\n{PUBLIC}");
    write_policy(&dir, &text);
    let checked = command(&dir, &["check", "--config", "gateway.toml"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.text().contains("upstream.app.connections"), "{checked:?}");
}

#[test]
fn the_time_to_an_answer_is_measured_by_upstream() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    for _ in 0..3 {
        Request::get("/").to(gateway.http()).is(200);
    }
    let count = |le: &str| {
        let le = format!("le=\"{le}\"");
        app(&gateway, "portcullis_upstream_duration_seconds_bucket", &[&le])
    };
    assert_eq!((count("300"), count("+Inf")), (3.0, 3.0), "bounds go past the default timeout of 30 s");
    assert!(app(&gateway, "portcullis_upstream_duration_seconds_sum", &[]) < 3.0 * PATIENCE.as_secs_f64());
    assert_eq!(app(&gateway, "portcullis_upstream_connections_total", &[]), 1.0);
}

#[test]
fn the_process_is_measured_under_the_usual_names() {
    let gateway = gateway(&Upstream::start(), PUBLIC);
    let now = metrics(&gateway);
    let value = |name: &str| metric(&now, name, &[]);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_open_fds") > 5.0 && value("process_max_fds") > value("process_open_fds"));
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..600.0).contains(&(unix - value("process_start_time_seconds"))));
}

#[test]
fn a_busy_server_gets_no_more_requests_than_the_others() {
    for balance in ["least_requests", "two_choices"] {
        let gate = Gate::new();
        let (slow, quick) = (Upstream::held_by(&gate), Upstream::start());
        // One core, because each core counts only its own requests.
        let more = format!("balance = \"{balance}\"\n[server]\nworkers = 1");
        let gateway = before(&[&slow, &quick], &more, PUBLIC);
        // Each request that the slow server gets stays in progress.
        let mut waiting = Vec::new();
        while slow.requests().is_empty() {
            let seen = quick.requests().len();
            waiting.push(sent(&gateway, "/"));
            eventually("the request arrives", || slow.requests().len() == 1 || quick.requests().len() > seen);
        }
        for _ in 0..20 {
            Request::get("/").to(gateway.http()).is(200);
        }
        assert_eq!(slow.requests().len(), 1, "{balance}");
        gate.open();
    }
}

#[test]
fn an_unknown_balance_is_a_mistake() {
    let dir = Dir::new();
    let text = format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"http://127.0.0.1:9\"]\nbalance = \"fastest\"\n{PUBLIC}"
    );
    write_policy(&dir, &text);
    let checked = command(&dir, &["check", "--config", "gateway.toml"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.text().contains("least_requests"), "{checked:?}");
}

#[test]
fn a_failing_upstream_gets_few_requests_twice() {
    let failing = dying();
    let more = "retry_floor = \"30/m\"\nretry_percent = 0\n[server]\nworkers = 1";
    let gateway = before(&[&failing], more, PUBLIC);
    for at in 0..20 {
        let answer = Request::get("/").to(gateway.http());
        answer.is_refusal(502, "upstream_failed");
        let detail = gateway.access_line(&answer)["detail"].to_string();
        assert_eq!(detail.contains("the retry budget is spent"), at >= 5, "{at}: {detail}");
    }
    assert_eq!(failing.requests().len(), 25, "30 a minute are five in ten seconds");
    assert_eq!(app(&gateway, "portcullis_upstream_retries_refused_total", &[]), 15.0);
    assert_eq!(app(&gateway, "portcullis_upstream_retries_total", &[]), 5.0);
}
