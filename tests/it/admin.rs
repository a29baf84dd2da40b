//! The admin listener.

use crate::kit::upstream::Gate;
use crate::kit::{Answer, Connection, Portcullis, Request, Upstream, eventually, token};
use crate::{PUBLIC, gateway};

/// Returns the sum of a metric's samples whose line contains all of these labels.
pub(crate) fn metric(answer: &Answer, name: &str, labels: &[&str]) -> f64 {
    answer
        .text()
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

pub(crate) fn metrics(gateway: &Portcullis) -> Answer {
    Request::get("/metrics").to(gateway.admin())
}

#[test]
fn health_is_reported_to_operators() {
    let gateway = gateway(&Upstream::start(), PUBLIC);
    for path in ["/livez", "/readyz"] {
        let answer = Request::get(path).to(gateway.admin());
        assert_eq!(answer.status, 200, "{path}: {answer:#?}");
    }
    Request::get("/nothing").to(gateway.admin()).is(404);
    assert!(matches!(Request::new("DELETE", "/livez").to(gateway.admin()).status, 404 | 405));
}

#[test]
fn the_public_listener_knows_nothing_of_health_and_metrics() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "[[route]]\npath = \"/x\"\nupstream = \"app\"\n");
    for path in ["/livez", "/readyz", "/healthz", "/metrics", "/", "/admin"] {
        for agent in ["curl/8", "kube-probe/1.30", "ELB-HealthChecker/2.0"] {
            let answer = Request::get(path).header("User-Agent", agent).to(gateway.http());
            answer.is_refusal(404, "no_route");
        }
    }
    upstream.saw_nothing();
}

#[test]
fn the_operators_listener_forwards_nothing() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    for path in ["/x", "/livez/../x", "//x"] {
        assert!(matches!(Request::get(path).to(gateway.admin()).status, 400 | 404), "{path}");
    }
    upstream.saw_nothing();
}

#[test]
fn requests_and_refusals_are_counted_by_route_and_reason() {
    let upstream = Upstream::start();
    let guarded = "[[route]]\nname = \"guarded\"\npath = \"/guarded\"\nupstream = \"app\"\n";
    let gateway = gateway(&upstream, &format!("{PUBLIC}{guarded}"));
    for _ in 0..3 {
        Request::get("/open").to(gateway.http()).is(200);
    }
    for _ in 0..2 {
        Request::get("/guarded").to(gateway.http()).is_refusal(401, "missing_token");
    }
    let expired = Request::get("/guarded").bearer(token("ada").expired()).to(gateway.http());
    expired.is_refusal(401, "expired_token");
    Request::get("//").to(gateway.http()).is_refusal(400, "bad_request");
    Request::get("/open").header("X-Auth-Subject", "root").to(gateway.http()).is(200);
    eventually("all is counted", || {
        let now = metrics(&gateway);
        let requests = |labels: &[&str]| metric(&now, "portcullis_requests_total", labels);
        requests(&["route=\"public\""]) == 4.0
            && requests(&["route=\"guarded\"", "reason=\"missing_token\""]) == 2.0
            && requests(&["route=\"guarded\"", "reason=\"expired_token\""]) == 1.0
            && requests(&["reason=\"bad_request\""]) == 1.0
    });
    let now = metrics(&gateway);
    assert!(now.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{now:#?}");
    for line in now.text().lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("portcullis_") || line.starts_with("process_"), "{line}");
        assert!(line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok()), "{line}");
    }
    let dropped = metric(&now, "portcullis_identity_headers_dropped_total", &[]);
    assert_eq!(dropped, 1.0, "{}", now.text());
    assert!(!now.text().contains("/guarded"), "no path of a client's is a label: {}", now.text());
}

#[test]
fn a_gateway_that_drains_is_alive_but_not_ready() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let mut gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    upstream.wait_for_requests(1);
    gateway.signal("TERM");
    eventually("it is not ready any more", || Request::get("/readyz").to(gateway.admin()).status == 503);
    Request::get("/livez").to(gateway.admin()).is(200);
    gate.open();
    connection.answer().is(200);
    assert_eq!(gateway.exit_code(), Some(0));
}
