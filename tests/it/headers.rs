//! Routes that header fields select.

use crate::gateway;
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::{Request, Upstream, token};
use serde_json::{Value, json};

const ROUTES: &str = r#"
[[route]]
name     = "first"
path     = "/api"
upstream = "app"
roles    = ["clerk"]

[[route]]
name     = "second"
path     = "/api"
headers  = { "X-Api-Version" = "2" }
methods  = ["GET"]
upstream = "app"
roles    = ["admin"]

[[route]]
name     = "beta"
path     = "/api"
headers  = { "X-Api-Version" = "2", "X-Beta" = "on" }
upstream = "app"
roles    = ["tester"]

[[route]]
name     = "only"
path     = "/only"
headers  = { "X-Api-Version" = "2" }
upstream = "app"
roles    = ["clerk"]

[[route]]
name     = "all"
path     = "/{*rest}"
upstream = "app"
access   = "public"
"#;

#[test]
fn the_header_selects_the_route_and_its_rule() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let version = ("X-Api-Version", "2");
    for (method, path, fields, role, status, code) in [
        ("GET", "/api", &[][..], "clerk", 200, ""),
        ("GET", "/api", &[("X-Api-Version", "1")], "clerk", 200, ""),
        ("GET", "/api", &[("X-Beta", "on")], "clerk", 200, ""),
        ("GET", "/api", &[version], "clerk", 403, "insufficient_role"),
        ("GET", "/api", &[version], "admin", 200, ""),
        ("GET", "/api", &[version, ("X-Beta", "on")], "admin", 403, "insufficient_role"),
        ("GET", "/api", &[version, ("X-Beta", "on")], "tester", 200, ""),
        ("GET", "/api", &[version, ("X-Beta", "off")], "admin", 200, ""),
        // A method does not select another route.
        ("DELETE", "/api", &[version], "clerk", 405, "method_not_allowed"),
        ("DELETE", "/api", &[], "clerk", 200, ""),
        // A request must not fall through to the wider, public route.
        ("GET", "/only", &[version], "clerk", 200, ""),
        ("GET", "/only", &[], "clerk", 404, "no_route"),
        ("GET", "/only", &[("X-Api-Version", "3")], "clerk", 404, "no_route"),
        // Header fields that two parsers could read differently.
        ("GET", "/api", &[version, version], "admin", 400, "bad_request"),
        ("GET", "/api", &[version, ("X-Api-Version", "1")], "clerk", 400, "bad_request"),
        ("GET", "/api", &[("X_Api_Version", "2")], "clerk", 400, "bad_request"),
        ("GET", "/api", &[version, ("X_Api_Version", "1")], "admin", 400, "bad_request"),
        ("GET", "/api", &[("X-Api-Version", "1, 2")], "clerk", 400, "bad_request"),
        ("GET", "/api", &[("X-Api-Version", "2;a=b")], "clerk", 400, "bad_request"),
        ("GET", "/api", &[version, ("Connection", "X-Api-Version")], "admin", 400, "bad_request"),
        ("GET", "/api", &[version, ("X-Beta", "ON")], "admin", 400, "bad_request"),
    ] {
        let before = upstream.requests().len();
        let request = Request::new(method, path).bearer(token("ada").role(role));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = request.to(gateway.http());
        assert_eq!(
            (answer.status, &*answer.code()),
            (status, code),
            "{method} {path} {fields:?} {role}: {answer:#?}"
        );
        assert_eq!(upstream.requests().len() - before, usize::from(status == 200), "{fields:?}");
    }
    let odd =
        Request::get("/api").header("X-Api-Version", "2").header("x-api-version", "2").to(gateway.http());
    let detail = gateway.access_line(&odd)["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("a header that selects the route is repeated"), "{detail}");
    Request::get("/elsewhere")
        .header("X-Api-Version", "2")
        .header("X-Api-Version", "2")
        .to(gateway.http())
        .is(200);
}

#[test]
fn a_reload_adds_and_removes_a_header_route() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let ask = || Request::get("/only").bearer(token("ada").role("clerk")).to(gateway.http()).status;
    assert_eq!(ask(), 404);
    let without = ROUTES.replace(
        "headers  = { \"X-Api-Version\" = \"2\" }\nupstream = \"app\"\nroles    = [\"clerk\"]",
        "upstream = \"app\"\nroles    = [\"clerk\"]",
    );
    assert_ne!(without, ROUTES);
    write_policy(gateway.dir(), &crate::policy(&upstream, &without));
    crate::reload::reload(&gateway);
    assert_eq!(ask(), 200);
}

fn in_dir(routes: &str) -> Dir {
    let dir = Dir::new();
    crate::kit::forge::write_keys(&dir);
    let upstream = Upstream::start();
    write_policy(&dir, &crate::policy(&upstream, routes));
    dir
}

#[test]
fn explain_routes_tests_and_check_know_the_header() {
    let test = "[[test]]\nname = \"v2\"\nrequest = \"GET https://h/api\"\nheaders = { \"X-Api-Version\" = \"2\" }\n\
        claims = { sub = \"ada\", roles = [\"admin\"] }\nexpect = { allow = true, route = \"second\", headers = { \"X-Api-Version\" = \"2\" } }\n";
    let dir = in_dir(&format!("{ROUTES}{test}"));
    let claims = json!({ "sub": "ada", "roles": ["admin"] }).to_string();
    let explain = |more: &[&str]| {
        let arguments = [&["explain", "GET", "https://h/api", "--claims", &claims][..], more].concat();
        command(&dir, &arguments).stdout
    };
    let text = explain(&["-H", "X-Api-Version: 2"]);
    assert!(text.contains("route     second: matches GET,HEAD /api\n            x-api-version: 2"), "{text}");
    assert!(
        text.contains(
            "not       beta (/api with x-api-version: 2 and x-beta: on): does not match the header fields"
        ),
        "{text}"
    );
    assert!(text.contains("not       first (/api): matches too, but is less specific"), "{text}");
    let json: Value =
        serde_json::from_str(&explain(&["-H", "X-Api-Version: 2", "--format", "json"])).unwrap();
    assert_eq!(json["route"]["headers"], json!([["x-api-version", "2"]]));
    let routes = command(&dir, &["routes"]).stdout;
    let places: Vec<_> =
        ["/api with x-api-version: 2 with x-beta: on", "/api with x-api-version: 2  ", "/api  "]
            .iter()
            .map(|place| routes.find(place).unwrap_or_else(|| panic!("{place}: {routes}")))
            .collect();
    assert!(places.is_sorted(), "in matching order: {routes}");
    let matrix = command(&dir, &["routes", "--matrix"]).stdout;
    assert!(matrix.contains("/api with x-api-version: 2"), "{matrix}");
    let checked = command(&dir, &["check", "--format", "json"]);
    let report: Value = serde_json::from_str(&checked.stdout).unwrap();
    let found = report["diagnostics"].as_array().unwrap();
    let is_around = |one: &&Value| one["id"] == "open_by_another_header";
    let around: Vec<&Value> = found.iter().filter(is_around).collect();
    assert!(!around.is_empty(), "{report:#}");
    assert!(around.iter().all(|one| one["severity"] == "warning"), "{around:#?}");
    assert!(!found.iter().any(|one| one["id"] == "failed_test"), "{report:#}");
}

#[test]
fn two_header_routes_that_a_request_may_both_fit_are_a_fault() {
    let route = |name: &str, headers: &str| {
        format!("[[route]]\nname = \"{name}\"\npath = \"/x\"\nupstream = \"app\"\nheaders = {headers}\n")
    };
    for (one, other, id, words) in [
        ("{ X-A = \"1\" }", "{ X-B = \"1\" }", "same_route", "neither route is more specific"),
        ("{ X-A = \"1\" }", "{ x-a = \"1\" }", "same_route", "matches the same host, path and method"),
        ("{ X-A = \"1\" }", "{ X-A = \"1,2\" }", "bad_value", "one word"),
        ("{ X-A = \"1\" }", "{ X-A = \"\" }", "bad_value", "one word"),
        ("{ X-A = \"1\" }", "{ X-Auth-A = \"1\" }", "bad_header", "removes or rewrites"),
        ("{ X-A = \"1\" }", "{ Host = \"a\" }", "bad_header", "removes or rewrites"),
        ("{ X-A = \"1\" }", "{ Connection = \"a\" }", "bad_header", "removes or rewrites"),
        ("{ X-A = \"1\" }", "{ \"X A\" = \"1\" }", "bad_header", "not a header name"),
    ] {
        let dir = in_dir(&(route("one", one) + &route("other", other)));
        let text = command(&dir, &["check"]).text();
        assert!(text.contains(id) && text.contains(words), "{other}: {text}");
    }
    for other in ["{ X-A = \"2\" }", "{ X-A = \"1\", X-B = \"1\" }", "{}"] {
        let dir = in_dir(&(route("one", "{ X-A = \"1\" }") + &route("other", other)));
        let text = command(&dir, &["check"]).text();
        assert!(!text.contains("same_route"), "{other}: {text}");
    }
    let login = "[authority]\nissuer = \"https://localhost:8443\"\naudience = \"a\"\n[[route]]\npath = \"/auth/login\"\nupstream = \"app\"\nheaders = { X-A = \"1\" }\n";
    let text = command(&in_dir(login), &["check"]).text();
    assert!(text.contains("matches an endpoint of the gateway"), "{text}");
}
