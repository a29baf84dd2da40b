//! The choice of a server: weights, and keys that select the server.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::upstream::ClosedPort;
use crate::kit::{ISSUER, Portcullis, Request, Upstream, eventually, token};
use serde_json::{Value, json};
use std::fmt::Display;

const ROUTES: &str = "
[[route]]
path = \"/private\"
upstream = \"app\"

[[route]]
path = \"/\"
upstream = \"app\"
access = \"public\"
";

fn policy(servers: &[&dyn Display], more: &str) -> String {
    let servers = servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ");
    format!("{ISSUER}\n[upstream.app]\nservers = [{servers}]\n{more}\n{ROUTES}")
}

fn started(count: usize) -> Vec<Upstream> {
    (0..count).map(|_| Upstream::start()).collect()
}

fn displays(upstreams: &[Upstream]) -> Vec<&dyn Display> {
    upstreams.iter().map(|upstream| upstream as &dyn Display).collect()
}

fn counts(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(|upstream| upstream.requests().len()).collect()
}

/// Returns the index of the server that answered the request.
#[track_caller]
fn asked(upstreams: &[Upstream], gateway: &Portcullis, request: Request) -> usize {
    let before = counts(upstreams);
    request.to(gateway.http()).is(200);
    let after = counts(upstreams);
    before.iter().zip(&after).position(|(before, after)| before < after).expect("one server was asked")
}

#[test]
fn servers_get_requests_by_their_weight() {
    let servers = started(3);
    let gateway = Portcullis::with(&policy(&displays(&servers), "weights = [1, 5, 4]")).start();
    for _ in 0..40 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(counts(&servers), [4, 20, 16]);
}

#[test]
fn a_caller_is_served_by_the_same_server_also_after_a_restart_and_in_another_order() {
    let servers = started(4);
    let more = "balance = \"hash\"\nhash_by = [\"subject\", \"header:x-tenant\"]";
    let gateway = Portcullis::with(&policy(&displays(&servers), more)).start();
    let by_subject = |n: usize| Request::get("/private").bearer(token(&format!("u{n}")));
    let by_tenant = |n: usize| Request::get("/").header("X-Tenant", &format!("t{n}"));
    let homes: Vec<_> = (0..24)
        .map(|n| (asked(&servers, &gateway, by_subject(n)), asked(&servers, &gateway, by_tenant(n))))
        .collect();
    for at in 0..4 {
        assert!(homes.iter().any(|(home, _)| *home == at), "server {at} has callers: {homes:?}");
        assert!(homes.iter().any(|(_, home)| *home == at), "server {at} has tenants: {homes:?}");
    }
    let mut reversed = displays(&servers);
    reversed.reverse();
    let another = Portcullis::with(&policy(&reversed, more)).start();
    for gateway in [&gateway, &another] {
        for (n, home) in homes.iter().enumerate() {
            let now = (asked(&servers, gateway, by_subject(n)), asked(&servers, gateway, by_tenant(n)));
            assert_eq!(now, *home, "request {n}");
        }
    }
    // Requests without a key take turns.
    let before = counts(&servers);
    for _ in 0..8 {
        Request::get("/").to(gateway.http()).is(200);
    }
    let gained: Vec<_> = counts(&servers).iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(gained, [2, 2, 2, 2]);
}

#[test]
fn the_keys_of_a_server_that_is_down_spread_and_return() {
    // The ports are other ones each time. A quarter of so many keys is almost never outside of the bounds below.
    const KEYS: usize = 120;
    let port = ClosedPort::new();
    let others = started(3);
    let all = [&[&port as &dyn Display][..], &displays(&others)].concat();
    let gateway =
        Portcullis::with(&policy(&all, "balance = \"hash\"\nhash_by = \"header:x-tenant\"")).start();
    let by_tenant = |n: usize| Request::get("/").header("X-Tenant", &format!("t{n}"));
    let homes: Vec<_> = (0..KEYS).map(|n| asked(&others, &gateway, by_tenant(n))).collect();
    let back = port.listen();
    let mut returned = Vec::new();
    eventually("the server gets requests again", || {
        by_tenant(returned.len() % KEYS).to(gateway.http()).is(200);
        returned.push(());
        !back.requests().is_empty()
    });
    let moved: Vec<_> = (0..KEYS)
        .filter(|n| {
            let before = back.requests().len();
            by_tenant(*n).to(gateway.http()).is(200);
            back.requests().len() > before
        })
        .collect();
    assert!((10..55).contains(&moved.len()), "a quarter of the keys: {moved:?}");
    for (n, home) in homes.iter().enumerate().filter(|(n, _)| !moved.contains(n)) {
        assert_eq!(asked(&others, &gateway, by_tenant(n)), *home, "the other keys stay");
    }
    let refuges: std::collections::BTreeSet<_> = moved.iter().map(|n| homes[*n]).collect();
    assert!(refuges.len() > 1, "its keys did not all go to one server");
}

#[test]
fn an_explanation_has_the_servers_in_the_order_of_the_request() {
    let servers = started(4);
    let more = "balance = \"hash\"\nhash_by = [\"claim:tenant\"]";
    let gateway = Portcullis::with(&policy(&displays(&servers), more)).start();
    for n in 0..8 {
        let token = token("u1").claim("tenant", json!(format!("t{n}"))).sign();
        let at = asked(&servers, &gateway, Request::get("/private").bearer(&token));
        let url = format!("http://{}/private", gateway.http());
        let arguments = ["--format", "json", "explain", "GET", &url, "--token", &token];
        let reported: Value = serde_json::from_str(&command(gateway.dir(), &arguments).stdout).unwrap();
        let named = &reported["outgoing"]["servers"];
        assert_eq!(named[0], servers[at].to_string(), "{reported:#}");
        assert_eq!(named.as_array().map(Vec::len), Some(4));
    }
}

#[test]
fn mistakes_in_weights_and_keys_are_named() {
    let dir = Dir::new();
    for (more, finding, key) in [
        ("weights = [1]", "bad_upstream", "upstream.app.weights"),
        ("weights = [1, 2, 3]", "bad_upstream", "upstream.app.weights"),
        ("weights = [1, 0]", "bad_value", "upstream.app.weights[1]"),
        ("weights = [101, 1]", "bad_value", "upstream.app.weights[0]"),
        ("balance = \"hash\"", "missing_key", "upstream.app.hash_by"),
        ("hash_by = \"subject\"", "bad_upstream", "upstream.app.hash_by"),
        ("balance = \"hash\"\nhash_by = \"route\"", "bad_value", "upstream.app.hash_by[0]"),
        ("balance = \"hash\"\nhash_by = \"header:a b\"", "bad_value", "upstream.app.hash_by[0]"),
        ("balance = \"hash\"\nhash_by = \"cookie:a;b\"", "bad_value", "upstream.app.hash_by[0]"),
        (
            "balance = \"hash\"\nhash_by = [\"subject\", \"claim:a..b\"]",
            "bad_claim_path",
            "upstream.app.hash_by[1]",
        ),
    ] {
        write_policy(&dir, &policy(&[&"http://127.0.0.1:9", &"http://127.0.0.2:9"], more));
        let checked = command(&dir, &["check", "--config", "gateway.toml"]);
        assert_eq!(checked.code, Some(1), "{more}: {checked:?}");
        let text = checked.text();
        assert!(text.contains(finding) && text.contains(key), "{more}: {text}");
    }
}
