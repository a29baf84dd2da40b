//! Active checks of upstream servers.

use crate::PUBLIC;
use crate::admin::{metric, metrics};
use crate::grpc::{Running, script};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, completed, write_policy};
use crate::kit::upstream::{After, ClosedPort, Gate};
use crate::kit::{ISSUER, Portcullis, Request, Upstream, eventually};
use crate::reload::reload;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

fn policy(servers: &[&dyn Display], more: &str) -> String {
    let servers = servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ");
    format!("{ISSUER}\n[upstream.app]\nservers = [{servers}]\n{more}\n{PUBLIC}")
}

const HTTP: &str = "[upstream.app.health]\npath = \"/health?deep=1\"\ninterval = \"100ms\"\nunhealthy_after = 2\nhealthy_after = 2";

/// Starts a server that answers checks with a status that the test sets, and all other requests with 200.
fn checked() -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let shown = status.clone();
    let upstream = Upstream::with(move |seen, wire| {
        wire.read_body();
        if seen.target.starts_with("/health") {
            wire.answer(&format!("{} Status", shown.load(Ordering::SeqCst)), "", "");
        } else {
            wire.answer("200 OK", "", "served");
        }
        After::Keep
    });
    (upstream, status)
}

fn served(upstream: &Upstream) -> usize {
    upstream.requests().iter().filter(|seen| !seen.target.starts_with("/health")).count()
}

fn up(gateway: &Portcullis, server: &dyn Display) -> bool {
    let label = format!("server=\"{server}\"");
    metric(&metrics(gateway), "portcullis_upstream_up", &[&label]) > 0.5
}

fn verbose(gateway: &Portcullis) -> String {
    Request::get("/readyz?verbose").to(gateway.admin()).is(200).text()
}

#[test]
fn a_server_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    let ((sick, status), good) = (checked(), Upstream::start());
    let gateway = Portcullis::with(&policy(&[&sick, &good], HTTP)).start();
    eventually("checks arrive", || !sick.requests().is_empty());
    let check = sick.requests().remove(0);
    assert_eq!((&*check.method, &*check.target), ("GET", "/health?deep=1"));
    assert_eq!(check.header("host").map(|host| format!("http://{host}")), Some(sick.to_string()));
    assert_eq!(check.header("user-agent"), Some("portcullis-check"));
    assert!(verbose(&gateway).contains("upstream app: 2 of 2 servers up\n"), "{}", verbose(&gateway));

    status.store(503, Ordering::SeqCst);
    eventually("the server is down", || !up(&gateway, &sick));
    let before = served(&sick);
    for _ in 0..10 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(served(&sick), before, "it gets no requests");
    let down =
        gateway.wait_log("a server that is down", |line| line["message"] == "an upstream server is down");
    assert_eq!((&down["server"], &down["error"]), (&sick.to_string().into(), &"check: status 503".into()));
    let lines = verbose(&gateway);
    assert!(lines.contains("upstream app: 1 of 2 servers up\n"), "{lines}");
    assert!(lines.contains(&format!("upstream app: {sick} is down: check: status 503\n")), "{lines}");
    assert_eq!(Request::get("/readyz").to(gateway.admin()).status, 200, "the gateway itself is ready");

    status.store(204, Ordering::SeqCst);
    eventually("the server is up again", || up(&gateway, &sick));
    for _ in 0..10 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(served(&sick), before + 5);
    gateway.wait_log("a server that is up", |line| line["message"] == "an upstream server is up again");
    let now = metrics(&gateway);
    let count = |outcome: &str| {
        let labels = [&format!("outcome=\"{outcome}\"")[..], &format!("server=\"{sick}\"")];
        metric(&now, "portcullis_upstream_checks_total", &labels)
    };
    assert!(count("passed") >= 3.0 && count("failed") >= 2.0, "{now:#?}");
}

#[test]
fn a_process_with_several_cores_checks_once() {
    let (upstream, _) = checked();
    let health = "[server]\nworkers = 4\n[upstream.app.health]\npath = \"/health\"\ninterval = \"10s\"";
    let gateway = Portcullis::with(&policy(&[&upstream], health)).start();
    eventually("the first check comes within a tenth of the interval", || !upstream.requests().is_empty());
    for _ in 0..20 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(upstream.requests().len() - served(&upstream), 1);
}

#[test]
fn a_check_of_connections_finds_a_server_that_is_down_before_a_request_does() {
    let (port, good) = (ClosedPort::new(), Upstream::start());
    let origin = port.to_string();
    let health = "[upstream.app.health]\ncheck = \"tcp\"\ninterval = \"100ms\"";
    let gateway = Portcullis::with(&policy(&[&port, &good], health)).start();
    eventually("the server is down", || !up(&gateway, &origin));
    assert!(verbose(&gateway).contains("is down: check: connection refused"), "{}", verbose(&gateway));
    let back = port.listen();
    eventually("the server is up again", || up(&gateway, &origin));
    Request::get("/").to(gateway.http()).is(200);
    Request::get("/").to(gateway.http()).is(200);
    assert_eq!(back.requests().len(), 1);
}

#[test]
fn a_check_that_gets_no_answer_fails_in_time() {
    let gate = Gate::new();
    let closed = gate.clone();
    let stuck = Upstream::with(move |_, wire| {
        closed.wait();
        wire.answer("200 OK", "", "late");
        After::Close
    });
    let health = "[upstream.app.health]\npath = \"/health\"\nhost = \"orders.test\"\ninterval = \"100ms\"\ntimeout = \"200ms\"";
    let gateway = Portcullis::with(&policy(&[&stuck], health)).start();
    eventually("the server is down", || !up(&gateway, &stuck));
    assert!(verbose(&gateway).contains("is down: check: no result within 200ms"), "{}", verbose(&gateway));
    assert_eq!(stuck.requests()[0].header("host"), Some("orders.test"));
    gate.open();
    eventually("the server is up again", || up(&gateway, &stuck));
}

#[test]
fn a_reload_changes_and_ends_checks() {
    let ((one, status), (other, _)) = (checked(), checked());
    let gateway = Portcullis::with(&policy(&[&one, &other], HTTP)).start();
    status.store(404, Ordering::SeqCst);
    eventually("the server is down", || !up(&gateway, &one));
    let reloaded = |health: &str| {
        gateway.dir().write("gateway.toml", completed(&policy(&[&one, &other], health)));
        reload(&gateway).is(200);
    };
    reloaded(&format!("balance = \"two_choices\"\n{HTTP}"));
    assert!(!up(&gateway, &one), "the same checks go on");
    reloaded(&format!("{HTTP}\nstatus = [\"200\", \"400-499\"]"));
    eventually("404 passes now", || up(&gateway, &one));
    reloaded(HTTP);
    eventually("404 fails again", || !up(&gateway, &one));
    reloaded("");
    eventually("without checks, the server is used", || up(&gateway, &one));
    assert!(!verbose(&gateway).contains("upstream"), "{}", verbose(&gateway));
}

#[test]
fn few_servers_left_are_not_left_alone() {
    let ((one, status), (two, same), last) = (checked(), checked(), checked().0);
    let gateway =
        Portcullis::with(&policy(&[&one, &two, &last], &format!("panic_below = 50\n{HTTP}"))).start();
    let is_panic = || metric(&metrics(&gateway), "portcullis_upstream_panic", &["upstream=\"app\""]) > 0.5;
    status.store(500, Ordering::SeqCst);
    eventually("one server is down", || !up(&gateway, &one));
    assert!(!is_panic());
    same.store(500, Ordering::SeqCst);
    eventually("two servers are down", || !up(&gateway, &two));
    assert!(is_panic());
    let before = [served(&one), served(&two), served(&last)];
    for _ in 0..9 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!([served(&one), served(&two), served(&last)], before.map(|count| count + 3));
}

#[test]
fn mistakes_in_checks_are_named() {
    let dir = Dir::new();
    for (more, finding, key) in [
        ("interval = \"1s\"", "missing_key", "path"),
        ("path = \"health\"", "bad_value", "path"),
        ("path = \"/a b\"", "bad_value", "path"),
        ("path = \"/h\"\nhost = \"a b\"", "bad_value", "host"),
        ("path = \"/h\"\nhost = \"user@a\"", "bad_value", "host"),
        ("path = \"/h\"\nstatus = [\"200\", \"2xx\"]", "bad_value", "status[1]"),
        ("path = \"/h\"\nstatus = []", "bad_value", "status"),
        ("path = \"/h\"\ninterval = \"10ms\"", "bad_value", "interval"),
        ("path = \"/h\"\ntimeout = \"0s\"", "bad_value", "timeout"),
        ("path = \"/h\"\nhealthy_after = 0", "bad_value", "healthy_after"),
        ("path = \"/h\"\nunhealthy_after = 0", "bad_value", "unhealthy_after"),
        ("check = \"tcp\"\npath = \"/h\"", "bad_upstream", "path"),
        ("path = \"/h\"\nservice = \"a.B\"", "bad_upstream", "service"),
    ] {
        write_policy(&dir, &policy(&[&"http://127.0.0.1:9"], &format!("[upstream.app.health]\n{more}")));
        let text = command(&dir, &["check", "--config", "gateway.toml"]).text();
        assert!(
            text.contains(finding) && text.contains(&format!("upstream.app.health.{key}")),
            "{more}: {text}"
        );
    }
    let grpc = "[upstream.app.health]\ncheck = \"grpc\"";
    write_policy(&dir, &policy(&[&"http://127.0.0.1:9"], grpc));
    assert!(
        command(&dir, &["check", "--config", "gateway.toml"]).text().contains("upstream.app.health.check")
    );
    let path = format!("protocol = \"http2\"\n{grpc}\npath = \"/h\"");
    write_policy(&dir, &policy(&[&"http://127.0.0.1:9"], &path));
    assert!(
        command(&dir, &["check", "--config", "gateway.toml"]).text().contains("upstream.app.health.path")
    );
    write_policy(&dir, &policy(&[&"http://127.0.0.1:9"], "panic_below = 101"));
    assert!(
        command(&dir, &["check", "--config", "gateway.toml"]).text().contains("upstream.app.panic_below")
    );
}

/// The gateway's calls are understood by the health service of grpcio, and its answers by the gateway.
#[test]
fn the_health_service_of_grpc_decides_whether_a_server_is_used() {
    let mut server = Running::start(script("health.py"));
    let port = server.line();
    let mut set = |status: &str| {
        server.tell(status);
        assert_eq!(server.line(), "ok");
    };
    set("test.Calls SERVING");
    let origin = format!("http://127.0.0.1:{port}");
    let health = |service: &str| {
        format!(
            "protocol = \"http2\"\n[upstream.app.health]\ncheck = \"grpc\"\nservice = \"{service}\"\n\
             interval = \"100ms\"\nunhealthy_after = 1\nhealthy_after = 1"
        )
    };
    let gateway = Portcullis::with(&policy(&[&origin], &health("test.Calls"))).start();
    let passed = |gateway: &Portcullis| {
        metric(&metrics(gateway), "portcullis_upstream_checks_total", &["outcome=\"passed\""]) > 0.5
    };
    eventually("a check passes", || passed(&gateway));
    assert!(up(&gateway, &origin));
    set("test.Calls NOT_SERVING");
    eventually("the service is down", || !up(&gateway, &origin));
    let lines = verbose(&gateway);
    assert!(lines.contains("is down: check: the service is NOT_SERVING"), "{lines}");
    set("test.Calls SERVING");
    eventually("the service is up again", || up(&gateway, &origin));

    let whole = Portcullis::with(&policy(&[&origin], &health(""))).start();
    eventually("the whole server is asked", || passed(&whole));
    let unknown = Portcullis::with(&policy(&[&origin], &health("test.Other"))).start();
    eventually("an unknown service is down", || !up(&unknown, &origin));
    assert!(verbose(&unknown).contains("is down: check: grpc-status 5"), "{}", verbose(&unknown));
}

#[test]
fn servers_of_http2_are_checked_over_http2() {
    let status = Arc::new(AtomicU16::new(200));
    let shown = status.clone();
    let server = crate::http2_upstreams::serve(move |_, (request, mut respond)| {
        let status = match request.uri().path() {
            "/health" if request.method() == "GET" => shown.load(Ordering::SeqCst),
            // No other answer of a server without the health service is a pass.
            _ => 200,
        };
        Box::pin(async move {
            let answer = http::Response::builder().status(status).body(()).unwrap();
            let _ = respond.send_response(answer, true);
        })
    });
    let more = "protocol = \"http2\"\n[upstream.app.health]\ninterval = \"100ms\"\nunhealthy_after = 1\nhealthy_after = 1";
    let http = format!("{more}\npath = \"/health\"");
    let gateway = Portcullis::with(&policy(&[&server], &http)).start();
    eventually("a check passes", || {
        metric(&metrics(&gateway), "portcullis_upstream_checks_total", &["outcome=\"passed\""]) > 0.5
    });
    status.store(503, Ordering::SeqCst);
    eventually("the server is down", || !up(&gateway, &server));
    assert!(verbose(&gateway).contains("is down: check: status 503"), "{}", verbose(&gateway));
    status.store(204, Ordering::SeqCst);
    eventually("the server is up again", || up(&gateway, &server));

    let gateway = Portcullis::with(&policy(&[&server], &format!("{more}\ncheck = \"grpc\""))).start();
    eventually("it is no gRPC server", || !up(&gateway, &server));
    assert!(verbose(&gateway).contains("is down: check: the answer is not gRPC"), "{}", verbose(&gateway));
}
