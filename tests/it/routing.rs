//! The route that matches a request. The gateway forwards exactly the target that it matched.

use crate::kit::{Answer, Portcullis, Request, Upstream, token};
use crate::{PUBLIC, gateway};

const ROUTES: &str = r#"
[[route]]
name     = "orders"
path     = "/orders"
methods  = ["GET", "POST"]
upstream = "app"
access   = "public"

[[route]]
name     = "order"
path     = "/orders/{id}"
methods  = ["GET"]
upstream = "app"
access   = "public"

[[route]]
name     = "latest"
path     = "/orders/latest"
upstream = "app"
access   = "public"

[[route]]
name     = "files"
path     = "/files/{*rest}"
upstream = "app"
access   = "public"

[[route]]
name     = "guarded"
path     = "/files/private/{*rest}"
upstream = "app"

[[route]]
name     = "reports"
path     = "/reports"
upstream = "app"
access   = "public"
host     = "api.example.com"

[[route]]
name     = "anybody's reports"
path     = "/reports"
upstream = "app"
access   = "public"
host     = "*.example.com"
"#;

fn route_of(gateway: &Portcullis, answer: &Answer) -> String {
    gateway.access_line(answer)["route"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_most_specific_route_wins_whatever_the_order_of_the_file() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (path, route) in [
        ("/orders", "orders"),
        ("/orders/7", "order"),
        ("/orders/latest", "latest"),
        ("/files/a", "files"),
        ("/files/a/b/c", "files"),
        ("/files/privateer", "files"),
    ] {
        let answer = Request::get(path).to(gateway.http());
        answer.is(200);
        assert_eq!(route_of(&gateway, &answer), route, "{path}");
    }
    let seen = upstream.requests().len();
    let answer = Request::get("/files/private/x").to(gateway.http());
    answer.is_refusal(401, "missing_token");
    assert_eq!(route_of(&gateway, &answer), "guarded");
    assert_eq!(upstream.requests().len(), seen);
}

#[test]
fn a_path_without_a_route_is_not_found_and_reaches_nobody() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for path in
        ["/", "/nothing", "/orders/", "/orders/7/", "/orders/7/lines", "/Orders", "/order", "/ordersx"]
    {
        Request::get(path).to(gateway.http()).is_refusal(404, "no_route");
    }
    upstream.saw_nothing();
}

#[test]
fn a_method_that_no_route_has_is_refused_with_those_that_one_has() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let answer = Request::new("DELETE", "/orders").to(gateway.http());
    answer.is_refusal(405, "method_not_allowed");
    let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
    allowed.sort_unstable();
    allowed.retain(|method| *method != "HEAD" && *method != "OPTIONS");
    assert_eq!(allowed, ["GET", "POST"]);
    Request::new("get", "/orders").to(gateway.http()).is_refusal(405, "method_not_allowed");
    upstream.saw_nothing();
}

#[test]
fn a_host_selects_its_routes_and_a_wildcard_takes_one_label_or_more_but_not_none() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (host, route) in [
        ("api.example.com", Some("reports")),
        ("API.Example.COM", Some("reports")),
        ("api.example.com:8443", Some("reports")),
        ("api.example.com.", Some("reports")),
        ("web.example.com", Some("anybody's reports")),
        ("example.com", None),
        ("api.example.com.evil.test", None),
        ("evilexample.com", None),
        ("example.org", None),
    ] {
        let answer = Request::get("/reports").host(host).to(gateway.http());
        match route {
            Some(route) => {
                answer.is(200);
                assert_eq!(route_of(&gateway, &answer), route, "{host}");
            }
            None => {
                answer.is_refusal(404, "no_route");
            }
        }
    }
}

#[test]
fn a_spelling_with_two_readings_is_refused_and_never_reaches_the_upstream() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for path in [
        "/files/a%2fb",
        "/files/a%2Fb",
        "/files/private%2fx",
        "/files%2fprivate/x",
        "/files/a%5cb",
        "/files/a\\b",
        "/files/%00",
        "/files/a%0ab",
        "/files/a%7fb",
        "/files/%2e%2e/%2e%2e/etc",
        "/files/..;/private/x",
        "/files/.;/private/x",
        "/files/..;a=b/private/x",
        "/files/%2e%2e;/x",
        "/files//private/x",
        "//files/private/x",
        "/files/%",
        "/files/%4",
        "/files/%zz",
        "/files/%u002e",
        "/files/%ff",
        "/files/%c0%ae%c0%ae/x",
        "/files/x#/../private/x",
        "/../files/x",
        "/files/../../x",
    ] {
        Request::get(path).to(gateway.http()).is_refusal(400, "bad_request");
    }
    upstream.saw_nothing();
}

#[test]
fn every_spelling_of_a_guarded_path_is_guarded() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for path in [
        "/files/private/x",
        "/files/%70rivate/x",
        "/files/./private/x",
        "/files/public/../private/x",
        "/%66iles/private/x",
        "/files/private/./x",
        "/files/private/",
        "/orders/../files/private/x",
    ] {
        Request::get(path).to(gateway.http()).is_refusal(401, "missing_token");
    }
    for path in ["/files/%2e%2e/files/private/x", "/files/a/%2e%2e/private/x", "/files/%2e/private/x"] {
        let answer = Request::get(path).to(gateway.http());
        assert!(matches!(answer.status, 400 | 401), "{path}: {answer:#?}");
    }
    upstream.saw_nothing();
    Request::get("/files/%70rivate/x").bearer(token("ada")).to(gateway.http()).is(200);
    assert_eq!(upstream.only_request().target, "/files/private/x");
}

#[test]
fn the_path_that_was_matched_is_the_path_that_is_forwarded() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    for (sent, forwarded) in [
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/x/../b", "/a/b"),
        ("/%61/b", "/a/b"),
        ("/a%7Eb", "/a~b"),
        ("/a/b/", "/a/b/"),
        ("/a%20b", "/a%20b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/a+b", "/a+b"),
    ] {
        Request::get(sent).to(gateway.http()).is(200);
        let target = upstream.last_request().target;
        assert!(target.eq_ignore_ascii_case(forwarded), "{sent} becomes {forwarded}, not {target}");
    }
}

#[test]
fn the_query_passes_untouched_and_takes_no_part_in_matching() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for target in [
        "/orders?path=/files/private/x",
        "/orders?a=%2f%2e%2e%5c&b=//&c=..;/",
        "/orders?",
        "/orders??a?b",
        "/orders?x=%zz&y=%",
        "/orders?a=b;c=d",
        "/orders?%61=%62",
    ] {
        Request::get(target).to(gateway.http()).is(200);
        assert_eq!(upstream.last_request().target, target);
    }
    // A query does not complete a path.
    Request::get("/order?s").to(gateway.http()).is_refusal(404, "no_route");
}

#[test]
fn a_prefix_is_taken_off_after_the_match() {
    let upstream = Upstream::start();
    let gateway = gateway(
        &upstream,
        r#"
        [[route]]
        path         = "/api/{*rest}"
        upstream     = "app"
        access       = "public"
        strip_prefix = "/api"
        "#,
    );
    for (sent, forwarded) in [
        ("/api/orders?x=1", "/orders?x=1"),
        ("/api/api/orders", "/api/orders"),
        ("/api/x/../orders", "/orders"),
        ("/%61pi/orders", "/orders"),
    ] {
        Request::get(sent).to(gateway.http()).is(200);
        assert_eq!(upstream.last_request().target, forwarded, "{sent}");
    }
    Request::get("/apiorders").to(gateway.http()).is_refusal(404, "no_route");
}

#[test]
fn empty_segments_are_merged_only_where_the_policy_says_so() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server]\npaths = \"merge\"\n{ROUTES}"));
    Request::get("/files//a///b").to(gateway.http()).is(200);
    assert_eq!(upstream.only_request().target, "/files/a/b");
    Request::get("//files//private//x").to(gateway.http()).is_refusal(401, "missing_token");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_route_is_guarded_unless_its_policy_says_otherwise() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "[[route]]\npath = \"/{*rest}\"\nupstream = \"app\"\n");
    Request::get("/x").to(gateway.http()).is_refusal(401, "missing_token");
    upstream.saw_nothing();
    Request::get("/x").bearer(token("ada")).to(gateway.http()).is(200);
}

#[test]
fn no_header_can_choose_the_route() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (name, value) in [
        ("X-Forwarded-Uri", "/orders"),
        ("X-Original-URL", "/orders"),
        ("X-Rewrite-URL", "/orders"),
        ("X-Forwarded-Host", "api.example.com"),
        ("X-Forwarded-Method", "GET"),
        ("X-HTTP-Method-Override", "GET"),
        ("Forwarded", "host=api.example.com"),
        ("User-Agent", "kube-probe/1.30"),
        ("User-Agent", "GoogleHC/1.0"),
    ] {
        let get = |path: &str| Request::get(path).header(name, value).to(gateway.http());
        get("/files/private/x").is_refusal(401, "missing_token");
        get("/reports").is_refusal(404, "no_route");
        let delete = Request::new("DELETE", "/orders").header(name, value).to(gateway.http());
        delete.is_refusal(405, "method_not_allowed");
    }
    upstream.saw_nothing();
}
