//! Upstream servers with names, at a real nameserver.

use crate::PUBLIC;
use crate::admin::{metric, metrics};
use crate::kit::dir::Dir;
use crate::kit::dns::{Nameserver, Query, Reply};
use crate::kit::portcullis::{command, completed, write_policy};
use crate::kit::upstream::{After, Gate};
use crate::kit::{ISSUER, Portcullis, Request, Upstream, eventually};
use crate::reload::reload;
use std::net::SocketAddr;

/// Starts upstreams at these addresses of one port.
fn at(addresses: &[&str]) -> (u16, Vec<Upstream>) {
    let start = |address: &str, port: u16| {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let listener = std::net::TcpListener::bind(address).ok()?;
        Some(Upstream::on(listener, |_, wire| {
            wire.read_body();
            wire.answer("200 OK", "", "served");
            After::Keep
        }))
    };
    loop {
        let first = start(addresses[0], 0).unwrap();
        let port = first.port();
        let others = addresses[1..].iter().map(|address| start(address, port));
        if let Some(all) = std::iter::once(Some(first)).chain(others).collect() {
            return (port, all);
        }
    }
}

fn policy(nameserver: &Nameserver, server: &str, more: &str) -> String {
    let key = nameserver.key();
    format!("{ISSUER}\n[upstream.app]\nservers = [\"{server}\"]\n{key}\n{more}\n{PUBLIC}")
}

fn verbose(gateway: &Portcullis) -> String {
    Request::get("/readyz?verbose").to(gateway.admin()).is(200).text()
}

/// Waits until the name of the upstream has this number of addresses.
fn wait_for_addresses(gateway: &Portcullis, count: usize) {
    eventually("the addresses are known", || verbose(gateway).contains(&format!(": {count} addresses\n")));
}

fn ask(gateway: &Portcullis, count: usize) {
    for _ in 0..count {
        Request::get("/").to(gateway.http()).is(200);
    }
}

fn counts(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(|upstream| upstream.requests().len()).collect()
}

fn lookups(gateway: &Portcullis, outcome: &str) -> f64 {
    let outcome = format!("outcome=\"{outcome}\"");
    metric(&metrics(gateway), "portcullis_upstream_lookups_total", &["name=\"app.test\"", &outcome])
}

#[test]
fn each_address_of_a_name_is_a_server_and_the_servers_follow_the_name() {
    let (port, upstreams) = at(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    let nameserver = Nameserver::start();
    nameserver.set_addresses("app.test", &["127.0.0.2", "127.0.0.1"]);
    let health = "[upstream.app.health]\npath = \"/health\"\ninterval = \"10s\"";
    let server = format!("http://app.test:{port}");
    let gateway = Portcullis::with(&policy(&nameserver, &server, health)).start();
    wait_for_addresses(&gateway, 2);
    let served = |upstream: &Upstream| upstream.requests().iter().filter(|seen| seen.target == "/").count();
    ask(&gateway, 10);
    assert_eq!(upstreams.iter().map(served).collect::<Vec<_>>(), [5, 5, 0]);

    nameserver.set_addresses("app.test", &["127.0.0.2", "127.0.0.3"]);
    let line = gateway.wait_log("a change", |line| {
        line["message"] == "the addresses of an upstream server changed" && line["removed"] != ""
    });
    assert_eq!(
        (&line["added"], &line["removed"]),
        (&format!("127.0.0.3:{port}").into(), &format!("127.0.0.1:{port}").into())
    );
    assert_eq!((&line["upstream"], &line["name"]), (&"app".into(), &"app.test".into()));
    ask(&gateway, 10);
    assert_eq!(upstreams.iter().map(served).collect::<Vec<_>>(), [5, 10, 5]);
    let check = |upstream: &Upstream| {
        let seen = upstream.requests().into_iter().find(|seen| seen.target == "/health");
        seen.and_then(|seen| seen.header("host").map(str::to_owned))
    };
    eventually("the new address is checked", || check(&upstreams[2]).is_some());
    assert_eq!(check(&upstreams[2]), Some(format!("app.test:{port}")));

    let now = metrics(&gateway);
    let up = |address: &str| {
        let label = format!("server=\"{server} ({address})\"");
        metric(&now, "portcullis_upstream_up", &[&label])
    };
    assert!(up("127.0.0.2") + up("127.0.0.3") > 1.5, "{now:#?}");
    assert!(!now.text().contains("(127.0.0.1)"), "{now:#?}");
    assert!(metric(&now, "portcullis_upstream_addresses", &["name=\"app.test\""]) > 1.5);
    assert!(lookups(&gateway, "answered") >= 2.0);
}

/// The nameserver of Podman gives the addresses of containers a lifetime of a day (findings/podman-names-last-a-day.sh).
#[test]
fn a_server_that_moves_is_found_before_its_address_expires() {
    let (port, upstreams) = at(&["127.0.0.1"]);
    let nameserver = Nameserver::start();
    let lasts_a_day = |address: &str| Reply::Addresses(86_400, vec![address.parse().unwrap()]);
    nameserver.set("app.test", lasts_a_day("127.0.0.2"));
    let gateway = Portcullis::with(&policy(&nameserver, &format!("http://app.test:{port}"), "")).start();
    wait_for_addresses(&gateway, 1);
    Request::get("/").to(gateway.http()).is(503);
    nameserver.set("app.test", lasts_a_day("127.0.0.1"));
    eventually("the new address is in use", || Request::get("/").to(gateway.http()).status == 200);
    assert_eq!(upstreams[0].requests().len(), 1);
}

#[test]
fn a_request_at_an_address_that_is_gone_ends_in_peace() {
    let gate = Gate::new();
    let held = Upstream::held_by(&gate);
    let port = held.port();
    let nameserver = Nameserver::start();
    nameserver.set_addresses("app.test", &["127.0.0.1"]);
    let server = format!("http://app.test:{port}");
    let gateway = Portcullis::with(&policy(&nameserver, &server, "")).start();
    wait_for_addresses(&gateway, 1);
    let address = gateway.http();
    let waiting = std::thread::spawn(move || Request::get("/").to(address));
    held.wait_for_requests(1);
    nameserver.set_addresses("app.test", &["127.0.0.9"]);
    gateway.wait_log("a change", |line| line["removed"] == format!("127.0.0.1:{port}"));
    Request::get("/").to(gateway.http()).is_refusal(503, "upstream_unavailable");
    gate.open();
    assert_eq!(waiting.join().unwrap().is(200).text(), "late");
    assert_eq!(held.requests().len(), 1);
}

#[test]
fn the_last_addresses_stay_while_names_cannot_be_resolved() {
    let (port, upstreams) = at(&["127.0.0.1", "127.0.0.2"]);
    let nameserver = Nameserver::start();
    let bad = [
        ("failure.test", Reply::Failure, ""),
        ("missing.test", Reply::NoSuchName, "the name has no address"),
        ("empty.test", Reply::Addresses(1, Vec::new()), "the name has no address"),
        // A filter's answer to a blocked name.
        ("blocked.test", Reply::Addresses(1, vec!["0.0.0.0".parse().unwrap()]), "the name has no address"),
        // The other family must not replace the addresses while only one kind of query fails.
        ("half.test", Reply::HalfFailure(vec!["::1".parse().unwrap()]), ""),
    ];
    for (name, _, _) in &bad {
        nameserver.set_addresses(name, &["127.0.0.1", "127.0.0.2"]);
    }
    let servers = bad.iter().map(|(name, _, _)| format!("http://{name}:{port}")).collect::<Vec<_>>();
    let gateway = Portcullis::with(&policy(&nameserver, &servers.join("\", \""), "")).start();
    let is_known = |name: &str| verbose(&gateway).contains(&format!("name {name}: 2 addresses\n"));
    eventually("the addresses are known", || bad.iter().all(|(name, _, _)| is_known(name)));
    for (name, reply, _) in &bad {
        nameserver.set(name, reply.clone());
    }
    for (name, _, why) in &bad {
        let line = format!("name {name}: cannot be resolved, so its last 2 addresses stay: {why}");
        eventually(&line, || verbose(&gateway).contains(&line));
    }
    ask(&gateway, 20);
    assert_eq!(counts(&upstreams), [10, 10]);
    for (name, _, _) in &bad {
        nameserver.set_addresses(name, &["127.0.0.1", "127.0.0.2"]);
    }
    eventually("the addresses are known", || bad.iter().all(|(name, _, _)| is_known(name)));
    let logged = |text: &str| gateway.log().iter().filter(|line| line["message"] == text).count();
    let failed = "the name of an upstream server cannot be resolved; its last addresses stay in use";
    eventually("each failure is logged", || logged(failed) == 5);
    let resolved = "the name of an upstream server can be resolved again";
    eventually("each recovery is logged", || logged(resolved) == 5);
    let now = metrics(&gateway);
    let labels = ["name=\"half.test\"", "outcome=\"failed\""];
    assert!(metric(&now, "portcullis_upstream_lookups_total", &labels) > 0.5, "{now:#?}");
}

#[test]
fn long_answers_come_over_tcp_and_ipv6_is_for_names_without_ipv4() {
    let (port, upstreams) = at(&["127.0.0.1"]);
    let nameserver = Nameserver::start();
    nameserver.set_addresses("app.test", &["127.0.0.1", "::1"]);
    nameserver.truncate();
    let server = format!("http://app.test:{port}");
    let gateway = Portcullis::with(&policy(&nameserver, &server, "")).start();
    wait_for_addresses(&gateway, 1);
    ask(&gateway, 2);
    assert_eq!(counts(&upstreams), [2]);
    let queries = nameserver.queries();
    let asked = |is_tcp| Query { name: "app.test".to_owned(), is_ipv6: false, is_tcp };
    assert!(queries.contains(&asked(false)) && queries.contains(&asked(true)), "{queries:?}");
    assert!(queries.iter().all(|query| !query.is_ipv6), "{queries:?}");

    let (port, upstreams) = at(&["::1"]);
    nameserver.set_addresses("six.test", &["::1"]);
    let gateway = Portcullis::with(&policy(&nameserver, &format!("http://six.test:{port}"), "")).start();
    wait_for_addresses(&gateway, 1);
    ask(&gateway, 2);
    assert_eq!(counts(&upstreams), [2]);
}

#[test]
fn addresses_outlive_a_reload_and_a_name_can_be_resolved_for_each_connection() {
    let (port, upstreams) = at(&["127.0.0.1", "127.0.0.2"]);
    let nameserver = Nameserver::start();
    nameserver.set_addresses("app.test", &["127.0.0.1", "127.0.0.2"]);
    let server = format!("http://app.test:{port}");
    let gateway = Portcullis::with(&policy(&nameserver, &server, "")).start();
    wait_for_addresses(&gateway, 2);
    ask(&gateway, 4);
    let connections =
        |upstreams: &[Upstream]| upstreams.iter().map(Upstream::connections).collect::<Vec<_>>();
    let before = connections(&upstreams);
    nameserver.set("app.test", Reply::Silence);
    gateway.dir().write("gateway.toml", completed(&policy(&nameserver, &server, "slow_start = \"1ms\"")));
    reload(&gateway).is(200);
    ask(&gateway, 4);
    assert_eq!(counts(&upstreams), [4, 4]);
    assert_eq!(connections(&upstreams), before, "kept connections are used");

    nameserver.set_addresses("app.test", &["127.0.0.1"]);
    let each = "resolve = \"per_connection\"";
    gateway.dir().write("gateway.toml", completed(&policy(&nameserver, &server, each)));
    reload(&gateway).is(200);
    ask(&gateway, 2);
    assert_eq!(counts(&upstreams), [6, 4]);
    assert!(!verbose(&gateway).contains("addresses"), "{}", verbose(&gateway));
    let label = format!("server=\"{server}\"");
    assert!(metric(&metrics(&gateway), "portcullis_upstream_up", &[&label]) > 0.5);
}

#[test]
fn without_an_answer_each_connection_tries_the_name() {
    let (port, upstreams) = at(&["127.0.0.1"]);
    let nameserver = Nameserver::start();
    nameserver.set("app.test", Reply::Failure);
    let gateway = Portcullis::with(&policy(&nameserver, &format!("http://app.test:{port}"), "")).start();
    eventually("the failure is known", || verbose(&gateway).contains("so each connection tries it"));
    Request::get("/").to(gateway.http()).is_refusal(503, "upstream_unavailable");
    nameserver.set_addresses("app.test", &["127.0.0.1"]);
    eventually("a request is answered", || Request::get("/").to(gateway.http()).status == 200);
    assert!(counts(&upstreams)[0] > 0);
}

#[test]
fn the_records_of_a_service_have_its_hosts_ports_and_weights() {
    let (first, second, spare) = (Upstream::start(), Upstream::start(), Upstream::start());
    let nameserver = Nameserver::start();
    nameserver.set_addresses("one.test", &["127.0.0.1"]);
    let service = |records| nameserver.set("_http._tcp.app.test", Reply::Service(records));
    service(vec![
        (10, 60, first.port(), "one.test"),
        (10, 20, second.port(), "one.test"),
        (20, 99, spare.port(), "one.test"),
        (10, 99, 9, "gone.test"),
    ]);
    let server = "srv+http://_http._tcp.app.test";
    let gateway = Portcullis::with(&policy(&nameserver, server, "")).start();
    let without = ": 2 addresses, without those of gone.test. (the name has no address)\n";
    eventually("the addresses are known", || verbose(&gateway).contains(without));
    ask(&gateway, 8);
    let counts = || [&first, &second, &spare].map(|upstream| upstream.requests().len());
    assert_eq!(counts(), [6, 2, 0]);
    let label = format!("server=\"{server} (127.0.0.1:{})\"", first.port());
    assert!(metric(&metrics(&gateway), "portcullis_upstream_up", &[&label]) > 0.5);

    service(vec![(20, 0, spare.port(), "one.test")]);
    wait_for_addresses(&gateway, 1);
    ask(&gateway, 2);
    assert_eq!(counts(), [6, 2, 2]);
}

#[test]
fn a_host_of_a_service_without_an_answer_leaves_the_others() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let nameserver = Nameserver::start();
    nameserver.set_addresses("one.test", &["127.0.0.1"]);
    nameserver.set("two.test", Reply::Silence);
    let records = vec![(1, 1, first.port(), "one.test"), (1, 1, second.port(), "two.test")];
    nameserver.set("app.test", Reply::Service(records));
    let gateway = Portcullis::with(&policy(&nameserver, "srv+http://app.test", "")).start();
    // A connection does not wait for the silent host.
    ask(&gateway, 2);
    let text = "hosts of an upstream service cannot be resolved; the others are in use";
    let line = gateway.wait_log("the silent host", |line| line["message"] == text);
    assert!(line["hosts"].as_str().unwrap().starts_with("two.test. ("), "{line}");
    ask(&gateway, 2);
    assert_eq!([&first, &second].map(|upstream| upstream.requests().len()), [4, 0]);
    nameserver.set_addresses("two.test", &["127.0.0.1"]);
    wait_for_addresses(&gateway, 2);
    ask(&gateway, 4);
    assert_eq!([&first, &second].map(|upstream| upstream.requests().len()), [6, 2]);
    assert_eq!(gateway.log().iter().filter(|line| line["message"] == text).count(), 1);
}

#[test]
fn a_name_that_was_never_resolved_is_logged_once_with_its_nameserver() {
    let nameserver = Nameserver::start();
    nameserver.set("app.test", Reply::Failure);
    let gateway = Portcullis::with(&policy(&nameserver, "http://app.test:9", "")).start();
    eventually("several failures", || lookups(&gateway, "failed") > 1.5);
    let text = "the name of an upstream server cannot be resolved, and it has no known address";
    let lines: Vec<_> = gateway.log().into_iter().filter(|line| line["message"] == text).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["upstream"], &lines[0]["name"]), (&"app".into(), &"app.test".into()));
    assert!(nameserver.key().contains(lines[0]["nameservers"].as_str().unwrap()), "{lines:?}");
    assert!(!lines[0]["error"].as_str().unwrap().is_empty(), "{lines:?}");
    assert_eq!(lines[0]["next_try_in"], "1s");
}

#[test]
fn mistakes_in_nameservers_are_named() {
    let dir = Dir::new();
    for (server, key, finding, place) in [
        ("http://app.test", "resolver = \"ns.test\"", "bad_value", "upstream.app.resolver[0]"),
        (
            "http://app.test",
            "resolver = [\"10.0.0.1\", \"10.0.0.2:0\"]",
            "bad_value",
            "upstream.app.resolver[1]",
        ),
        ("http://127.0.0.1:9", "resolver = \"10.0.0.1\"", "unused", "upstream.app.resolver"),
        ("http://app.test", "resolve = \"always\"", "bad_value", "upstream.app.resolve"),
    ] {
        write_policy(&dir, &format!("{ISSUER}\n[upstream.app]\nservers = [\"{server}\"]\n{key}\n{PUBLIC}"));
        let text = command(&dir, &["check", "--config", "gateway.toml"]).text();
        assert!(text.contains(finding) && text.contains(place), "{key}: {text}");
    }
    write_policy(
        &dir,
        &format!(
            "{ISSUER}\n[upstream.app]\nservers = \"http://app.test\"\nresolver = [\"10.0.0.1\", \"[::1]:5353\"]\n{PUBLIC}"
        ),
    );
    let text = command(&dir, &["check", "--config", "gateway.toml"]).text();
    assert!(!text.contains("upstream.app.resolver"), "{text}");
}
