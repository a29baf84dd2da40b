//! Requests that the admin listener accepts or rejects.

use crate::kit::client::Connection;
use crate::kit::portcullis::command;
use crate::kit::{Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway};

const GETS: [&str; 6] = ["/livez", "/readyz", "/readyz?verbose", "/metrics", "/decisions", "/nothing"];

#[test]
fn no_web_page_reaches_the_operators_listener() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let address = gateway.admin();
    let here = address.to_string();
    let requests = || {
        let gets = GETS.iter().map(|path| Request::get(path));
        let posts = ["/reload", "/explain"].iter().map(|path| {
            Request::post(path, r#"{"request":"GET https://h/"}"#).header("Content-Type", "application/json")
        });
        gets.chain(posts).collect::<Vec<_>>()
    };
    for (index, request) in requests().into_iter().enumerate() {
        for (name, value) in [
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Origin", "https://evil.example"),
            ("Origin", &*format!("http://{here}")),
        ] {
            let refused = request.clone().host(&here).header(name, value).to(address);
            assert_eq!(refused.status, 403, "{index} {name}: {value}: {refused:#?}");
        }
        let rebound = request.clone().host("rebound.example:9900").to(address);
        assert_eq!(rebound.status, 403, "{index}: {rebound:#?}");
        assert!(rebound.text().contains("admin_hosts"), "{rebound:#?}");
        let answer = request.host(&here).header("Sec-Fetch-Site", "none").to(address);
        assert!(matches!(answer.status, 200 | 404), "{index}: {answer:#?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:#?}");
    }
}

#[test]
fn operators_scrapers_and_probes_ask_by_the_names_that_they_have() {
    let upstream = Upstream::start();
    let policy = crate::policy(&upstream, PUBLIC);
    let named = Portcullis::with(&policy).env("PORTCULLIS_SERVER__ADMIN_HOSTS", "[\"Gateway.internal\"]");
    let gateway = named.start();
    let address = gateway.admin();
    let port = address.port();
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("gateway.internal:{port}")]
    {
        for path in ["/livez", "/readyz", "/metrics", "/decisions"] {
            Request::get(path).host(&host).to(address).is(200);
        }
        Request::post("/reload", "").host(&host).to(address).is(200);
    }
    // The name of a container or service is accepted for health and metrics only.
    let service = format!("portcullis:{port}");
    for (path, status) in [("/livez", 200), ("/readyz?verbose", 200), ("/metrics", 200), ("/decisions", 403)]
    {
        assert_eq!(Request::get(path).host(&service).to(address).status, status, "{path}");
    }
}

#[test]
fn a_name_of_the_listener_is_a_host() {
    let gateway = gateway(&Upstream::start(), PUBLIC);
    for wrong in ["http://gateway.internal", "gateway.internal:9900", "*.internal", ""] {
        gateway.dir().write("wrong.toml", format!("[server]\nadmin_hosts = [\"{wrong}\"]\n"));
        let checked = command(gateway.dir(), &["check", "--config", "wrong.toml"]);
        assert_eq!(checked.code, Some(1), "{wrong}: {checked:?}");
        assert!(checked.text().contains("server.admin_hosts[0]"), "{wrong}: {checked:?}");
    }
}

/// The listener has 64 connections, which suspended scrapers must not keep from the probes of an orchestrator.
#[test]
fn a_client_that_does_not_read_its_answers_loses_its_connection() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let request = Request::get("/metrics").host(&gateway.admin().to_string());
    let page = request.to(gateway.admin()).body.len();
    // More answers than the buffers of the two sockets hold.
    let (mut suspended, count) = (Connection::open(gateway.admin()), (16 << 20) / page);
    suspended.send(request.bytes().repeat(count));
    eventually("the connection ends", || suspended.try_send("\r\n").is_err());
    let mut reader = Connection::open(gateway.admin());
    reader.send(request.bytes().repeat(20));
    for _ in 0..20 {
        reader.answer().is(200);
    }
}
