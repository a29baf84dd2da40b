//! Copies of requests for another upstream.

use crate::admin::{metric, metrics};
use crate::kit::client::Connection;
use crate::kit::upstream::{ClosedPort, Gate};
use crate::kit::{ISSUER, Portcullis, Request, Upstream, eventually, token};
use std::fmt::Display;

fn gateway(app: &Upstream, copies: &dyn Display, more: &str) -> Portcullis {
    let text = format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"{app}\"]\n[upstream.test]\nservers = [\"{copies}\"]\n\
         [[route]]\npath = \"/{{*rest}}\"\nupstream = \"app\"\nmirror = \"test\"\n{more}"
    );
    Portcullis::with(&text).start()
}

fn count(gateway: &Portcullis, outcome: &str) -> usize {
    let labels = ["upstream=\"test\"", &format!("outcome=\"{outcome}\"")];
    metric(&metrics(gateway), "portcullis_upstream_mirrored_requests_total", &labels) as usize
}

#[test]
fn a_copy_has_the_identity_and_a_mark_and_no_credential() {
    let (app, copies) = (Upstream::start(), Upstream::start());
    let gateway = gateway(&app, &copies, "mirror_body = \"1KiB\"\n");
    let request = Request::get("/a?x=1").bearer(token("ada")).header("X-Auth-Mirror", "f0rged");
    request.header("Cookie", "a=1").to(gateway.http()).is(200);
    copies.wait_for_requests(1);
    let (seen, copy) = (app.last_request(), copies.last_request());
    assert_eq!((&*copy.method, &*copy.target), ("GET", "/a?x=1"));
    assert_eq!((seen.header("x-auth-mirror"), copy.header("x-auth-mirror")), (None, Some("1")));
    for name in ["x-auth-subject", "x-request-id", "traceparent", "cookie", "host", "x-forwarded-for"] {
        assert_eq!(copy.header(name), seen.header(name), "{name}");
        assert!(copy.header(name).is_some(), "{name}");
    }
    assert_eq!(copy.header("authorization"), None, "{copy:#?}");
    // Bodies: with a length, in chunks, and larger than the bound.
    Request::post("/b", "small").bearer(token("ada")).to(gateway.http()).is(200);
    copies.wait_for_requests(2);
    let copy = copies.last_request();
    assert_eq!((&copy.body[..], copy.header("content-length")), (&b"small"[..], Some("5")), "{copy:#?}");
    let mut client = Connection::open(gateway.http());
    let chunked = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    client.send(format!(
        "POST /c HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n{chunked}",
        token("ada").sign()
    ));
    client.answer().is(200);
    copies.wait_for_requests(3);
    let copy = copies.last_request();
    assert_eq!((&copy.body[..], copy.header("content-length")), (&b"abcdefg"[..], Some("7")), "{copy:#?}");
    assert_eq!(copy.header("transfer-encoding"), None, "{copy:#?}");
    Request::post("/d", "x".repeat(1025)).bearer(token("ada")).to(gateway.http()).is(200);
    Request::get("/refused").to(gateway.http()).is(401);
    Request::get("/e").bearer(token("ada")).to(gateway.http()).is(200);
    copies.wait_for_requests(4);
    assert_eq!(copies.last_request().target, "/e");
    eventually("four answers", || count(&gateway, "answered") == 4);
    assert_eq!((count(&gateway, "failed"), count(&gateway, "dropped")), (0, 0));
}

#[test]
fn requests_do_not_wait_for_copies_and_copies_in_flight_are_bounded() {
    let gate = Gate::new();
    let (app, copies) = (Upstream::start(), Upstream::held_by(&gate));
    let held = gateway(&app, &copies, "");
    let token = token("ada").sign();
    let mut client = Connection::open(held.http());
    for _ in 0..150 {
        Request::get("/a").bearer(&token).over(&mut client).is(200);
    }
    assert_eq!(count(&held, "dropped"), 50);
    Request::post("/b", "x").bearer(&token).over(&mut client).is(200);
    assert_eq!(count(&held, "dropped"), 50, "a POST is not copied without mirror_body");
    gate.open();
    eventually("the answers", || count(&held, "answered") == 100);
    let broken = gateway(&app, &ClosedPort::new(), "");
    Request::get("/a").bearer(&token).to(broken.http()).is(200);
    eventually("the failure", || count(&broken, "failed") == 1);
    let none = gateway(&app, &copies, "mirror_percent = 0\n");
    let before = copies.requests().len();
    Request::get("/a").bearer(&token).to(none.http()).is(200);
    assert_eq!((count(&none, "answered"), copies.requests().len()), (0, before));
}

#[test]
fn slow_uploads_keep_no_copy_from_its_place_and_bodies_have_a_bound() {
    let (app, copies) = (Upstream::start(), Upstream::start());
    let gateway = gateway(&app, &copies, "mirror_body = \"1MiB\"\n");
    let token = token("ada").sign();
    let upload = |length: usize, sent: usize| {
        let mut client = Connection::open(gateway.http());
        client.send(format!(
            "POST /slow HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
        ));
        client.send("x".repeat(sent));
        client
    };
    let slow: Vec<Connection> = (0..110).map(|_| upload(1000, 1)).collect();
    app.wait_for_requests(110);
    for number in 1..=10 {
        Request::get("/a").bearer(&token).to(gateway.http()).is(200);
        eventually("a copy", || count(&gateway, "answered") == number);
    }
    assert_eq!((count(&gateway, "dropped"), count(&gateway, "failed")), (0, 0));
    // An upload that its client gives up ends its copy.
    drop(slow);
    eventually("the ends", || count(&gateway, "failed") == 110);
    let large: Vec<Connection> = (0..20).map(|_| upload(1 << 20, (1 << 20) - 1)).collect();
    eventually("a bound on the bodies", || count(&gateway, "dropped") == 5);
    Request::get("/a").bearer(&token).to(gateway.http()).is(200);
    for mut client in large {
        client.send("x");
        client.answer().is(200);
    }
    eventually("the others are sent", || count(&gateway, "answered") == 26);
    assert_eq!((count(&gateway, "dropped"), count(&gateway, "failed")), (5, 110));
}
