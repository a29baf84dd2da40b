//! Tests the answers that a script of another origin can read, with and without an entry in the policy's `origins`.

use crate::kit::account::{self, AUTHORITY, PASSWORD};
use crate::kit::browser::{Browser, Scripts};
use crate::kit::portcullis::command;
use crate::kit::{Answer, Portcullis, Request, Upstream, token, values};
use serde_json::{Value, json};

const APP: &str = "https://app.shop.test";

const ROUTES: &str = "
[rate_limit.one]
by    = \"route\"
rate  = \"1/m\"
burst = 1

[[route]]
name     = \"api\"
host     = \"shop.test\"
path     = \"/api/{*rest}\"
upstream = \"app\"
roles    = [\"admin\"]

[[route]]
name        = \"limited\"
host        = \"shop.test\"
path        = \"/limited\"
upstream    = \"app\"
access      = \"public\"
rate_limits = [\"one\"]
";

fn gateway(upstream: &Upstream, origin: &str, more: &str) -> Portcullis {
    let policy = crate::policy(upstream, ROUTES);
    let policy =
        format!("{AUTHORITY}origins = [\"{origin}\"]\n{more}\n[server]\nhttps = \"127.0.0.1:0\"\n{policy}");
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &[]);
    gateway
}

fn shared(answer: &Answer) -> Vec<(String, String)> {
    let fields = answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    fields.filter(|(name, _)| name.starts_with("access-control-")).collect()
}

fn varies_by_origin(answer: &Answer) -> bool {
    values(&answer.headers, "vary").iter().any(|value| value.split(',').any(|name| name.trim() == "origin"))
}

/// Fetch Standard, section 3.2.
#[test]
fn a_listed_origin_reads_what_the_gateway_itself_answers_and_no_other_does() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, APP, "cookies = true");
    let get = |path: &str| Request::get(path).host("shop.test");
    get("/limited").to(gateway.http()).is(200);
    let login = || account::posting("/auth/login", &json!({ "username": "ada", "password": "wrong" }));
    for (request, status) in [
        (get("/api/x"), 401),
        (get("/limited"), 429),
        (get("/nothing"), 404),
        (get("//"), 400),
        (get("/auth/me"), 401),
        (get("/.well-known/jwks.json"), 200),
        (login().host("localhost").header("Sec-Fetch-Site", "same-site"), 401),
    ] {
        let answer = request.clone().header("Origin", APP).to(gateway.http());
        assert_eq!(answer.status, status, "{answer:#?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP), "{answer:#?}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{answer:#?}");
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in
            ["www-authenticate", "retry-after", "ratelimit", "x-request-id", "grpc-status", "grpc-message"]
        {
            assert!(exposed.split(", ").any(|known| known == name), "{name}: {exposed}");
        }
        assert!(varies_by_origin(&answer), "{answer:#?}");
        for origin in
            ["https://evil.test", "https://app.shop.test.evil.test", "http://app.shop.test", "null", "*"]
        {
            let answer = request.clone().header("Origin", origin).to(gateway.http());
            assert_eq!(shared(&answer), [], "{origin}: {answer:#?}");
            assert!(varies_by_origin(&answer), "{origin}: {answer:#?}");
        }
        let answer = request.to(gateway.http());
        assert_eq!((shared(&answer).len(), varies_by_origin(&answer)), (0, true), "{answer:#?}");
    }
    // The login page and the endpoint for services send no CORS fields, even to a listed origin.
    for request in [get("/auth/login"), Request::post("/auth/token", "").host("shop.test")] {
        let answer = request.header("Origin", APP).to(gateway.http());
        assert_eq!(shared(&answer), [], "{answer:#?}");
    }
}

#[test]
fn an_upstreams_answer_is_the_upstreams_to_share() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: https://third.test\r\ncontent-length: 0\r\n\r\n",
    );
    let gateway = gateway(&upstream, APP, "cookies = true");
    let answer = Request::get("/limited").host("shop.test").header("Origin", APP).to(gateway.http());
    assert_eq!(
        shared(answer.is(200)),
        [("access-control-allow-origin".to_owned(), "https://third.test".to_owned())]
    );
}

#[test]
fn without_cookies_or_listed_origins_nothing_is_promised() {
    let upstream = Upstream::start();
    let bearer = gateway(&upstream, APP, "");
    let answer = Request::get("/api/x").host("shop.test").header("Origin", APP).to(bearer.http());
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let none =
        Portcullis::with(&format!("{AUTHORITY}cookies = true\n{}", crate::policy(&upstream, ROUTES))).start();
    let answer = Request::get("/api/x").host("shop.test").header("Origin", APP).to(none.http());
    assert_eq!((shared(&answer).len(), varies_by_origin(&answer)), (0, false), "{answer:#?}");
}

/// Fetch Standard, section 4.8.
#[test]
fn a_preflight_of_an_endpoint_is_answered_to_a_listed_origin_alone() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, APP, "cookies = true");
    let ask = |path: &str, method: &str, origin: &str| {
        let request = Request::new("OPTIONS", path).host("shop.test").header("Origin", origin);
        request.header("Access-Control-Request-Method", method).to(gateway.http())
    };
    for (path, method) in [
        ("/auth/login", "POST"),
        ("/auth/refresh", "POST"),
        ("/auth/logout", "POST"),
        ("/auth/logout-all", "POST"),
        ("/auth/me", "GET"),
        ("/auth/sessions", "GET"),
        ("/auth/sessions/x", "DELETE"),
    ] {
        let answer = ask(path, method, APP);
        assert_eq!(answer.status, 204, "{path}: {answer:#?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-allow-methods"), Some(method));
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("authorization, content-type, dpop, x-csrf-token")
        );
        assert!(answer.header("access-control-max-age").is_some() && varies_by_origin(&answer));
        for origin in ["https://evil.test", "null"] {
            let answer = ask(path, method, origin);
            assert!(answer.status >= 400 && shared(&answer).is_empty(), "{path} {origin}: {answer:#?}");
        }
        assert!(ask(path, "PATCH", APP).status >= 400, "a method that the endpoint does not have");
    }
    for (path, method) in [("/auth/token", "POST"), ("/auth/introspect", "POST"), ("/auth/login", "GET")] {
        let answer = ask(path, method, APP);
        assert_eq!(answer.header("access-control-allow-methods"), None, "{path}: {answer:#?}");
    }
    // The service answers the preflights of its routes, so the gateway requires a token for a preflight too.
    let answer = ask("/api/x", "PUT", APP);
    answer.is_refusal(401, "missing_token");
    assert_eq!(answer.header("access-control-allow-methods"), None, "{answer:#?}");
    upstream.saw_nothing();
}

const SHARED: &str = "
[cors.app]
origins     = [\"https://app.shop.test\", \"https://*.preview.shop.test\"]
methods     = [\"GET\", \"PUT\"]
headers     = [\"Authorization\", \"X-Version\"]
expose      = [\"ETag\"]
credentials = true
max_age     = \"1h\"
private_network = true

[cors.all]
origins = \"*\"

[rate_limit.one]
by    = \"route\"
rate  = \"1/m\"
burst = 1

[[route]]
path     = \"/api/{*rest}\"
upstream = \"app\"
cors     = \"app\"

[[route]]
path        = \"/limited\"
upstream    = \"app\"
access      = \"public\"
rate_limits = [\"one\"]
cors        = \"app\"

[[route]]
path     = \"/open\"
upstream = \"app\"
access   = \"public\"
cors     = \"all\"

[[route]]
path     = \"/theirs\"
upstream = \"app\"
access   = \"public\"
";

fn sharing() -> (Upstream, Portcullis) {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: https://third.test\r\n\
         access-control-allow-credentials: true\r\naccess-control-expose-headers: x-secret\r\n\
         vary: accept\r\ncontent-length: 0\r\n\r\n",
    );
    let gateway = Portcullis::with(&crate::policy(&upstream, SHARED)).start();
    (upstream, gateway)
}

fn preflight(path: &str, method: &str, origin: &str) -> Request {
    let request = Request::new("OPTIONS", path).header("Origin", origin);
    request.header("Access-Control-Request-Method", method)
}

#[test]
fn a_route_with_cors_answers_preflights_before_authentication() {
    let (upstream, gateway) = sharing();
    for origin in [APP, "https://pr-7.preview.shop.test", "https://a.b.preview.shop.test"] {
        let answer = preflight("/api/x", "PUT", origin).to(gateway.http());
        assert_eq!(answer.status, 204, "{answer:#?}");
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-headers", "authorization, x-version"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "3600"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{answer:#?}");
        }
        assert!(varies_by_origin(&answer), "{answer:#?}");
        assert_eq!(answer.header("access-control-allow-private-network"), None, "it was not asked for");
    }
    let local = preflight("/api/x", "GET", APP).header("Access-Control-Request-Private-Network", "true");
    let answer = local.to(gateway.http());
    assert_eq!(answer.header("access-control-allow-private-network"), Some("true"), "{answer:#?}");
    // A browser sends GET, HEAD and POST unless the status refuses them.
    for (method, origin) in [
        ("POST", APP),
        ("DELETE", APP),
        ("PUT", "https://evil.test"),
        ("PUT", "https://preview.shop.test"),
        ("PUT", "https://evil.test/.preview.shop.test"),
        ("PUT", "http://app.shop.test"),
        ("PUT", "https://app.shop.test.evil.test"),
        ("PUT", "null"),
    ] {
        let answer = preflight("/api/x", method, origin).to(gateway.http());
        assert_eq!(answer.status, 403, "{method} {origin}: {answer:#?}");
        assert_eq!(answer.header("access-control-allow-methods"), None, "{answer:#?}");
        assert!(varies_by_origin(&answer), "{answer:#?}");
        let unlisted = if origin == APP { format!("method {method}") } else { format!("origin {origin}") };
        let line = gateway.access_line(&answer);
        assert!(line["detail"].as_str().is_some_and(|it| it.ends_with(&*unlisted)), "{unlisted}: {line}");
    }
    let answer = preflight("/open", "PATCH", "https://any.test").to(gateway.http());
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")));
    upstream.saw_nothing();
    // These are not preflights, so they need a token.
    let plain = Request::new("OPTIONS", "/api/x");
    plain.clone().header("Origin", APP).to(gateway.http()).is_refusal(401, "missing_token");
    plain.header("Access-Control-Request-Method", "PUT").to(gateway.http()).is_refusal(401, "missing_token");
}

/// `explain` prints the fields that a browser gets, and decides as a browser does.
#[test]
fn an_explanation_has_the_cors_fields_of_the_answer() {
    let (_upstream, gateway) = sharing();
    let asked = [("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-version")];
    let other = [("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-other")];
    for (method, path, origin, fields, is_allowed) in [
        ("OPTIONS", "/api/x", APP, &asked[..], json!(true)),
        ("OPTIONS", "/api/x", APP, &other[..], json!(false)),
        ("OPTIONS", "/api/x", "https://evil.test", &asked[..], json!(false)),
        ("OPTIONS", "/open", "https://any.test", &asked[..1], json!(true)),
        ("GET", "/api/x", APP, &[], json!(true)),
        ("GET", "/api/x", "https://evil.test", &[], json!(false)),
        ("GET", "/open", "https://any.test", &[], json!(true)),
        ("GET", "/none", APP, &[], json!(false)),
    ] {
        let request = Request::new(method, path).header("Origin", origin);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = request.to(gateway.http());
        let url = format!("http://localhost{path}");
        let headers: Vec<String> = [("Origin", origin)]
            .iter()
            .chain(fields)
            .flat_map(|(name, value)| ["-H".to_owned(), format!("{name}: {value}")])
            .collect();
        let mut arguments = vec!["--format", "json", "explain", method, &url];
        arguments.extend(headers.iter().map(String::as_str));
        let run = command(gateway.dir(), &arguments);
        let explained: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}", run.text()));
        let found = &explained["cross_origin"];
        let mut shown: Vec<(String, String)> = serde_json::from_value(found["fields"].clone()).unwrap();
        let mut sent = shared(&answer);
        shown.sort();
        sent.sort();
        assert_eq!(shown, sent, "{method} {path} {origin}: {answer:#?}");
        assert_eq!((&found["is_allowed"], &found["origin"]), (&is_allowed, &json!(origin)), "{found}");
        if method == "OPTIONS" {
            assert_eq!(run.code, Some(i32::from(is_allowed != json!(true))), "{}", run.text());
        }
    }
}

#[test]
fn every_answer_of_a_route_with_cors_is_shared_by_its_rule_alone() {
    let (_upstream, gateway) = sharing();
    for (request, status, is_repeatable) in [
        (Request::get("/api/x").bearer(token("ada")), 200, true),
        (Request::get("/api/x"), 401, true),
        (Request::get("/limited"), 200, false),
        (Request::get("/limited"), 429, true),
    ] {
        let answer = request.clone().header("Origin", APP).to(gateway.http());
        assert_eq!(answer.status, status, "{answer:#?}");
        assert_eq!(values(&answer.headers, "access-control-allow-origin"), [APP], "{answer:#?}");
        assert_eq!(values(&answer.headers, "access-control-allow-credentials"), ["true"]);
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("retry-after") && exposed.ends_with(", etag"), "{exposed}");
        assert!(varies_by_origin(&answer), "{answer:#?}");
        if is_repeatable {
            for origin in ["https://third.test", "https://evil.test", "null"] {
                let answer = request.clone().header("Origin", origin).to(gateway.http());
                assert_eq!((shared(&answer), varies_by_origin(&answer)), (vec![], true), "{answer:#?}");
            }
            let answer = request.to(gateway.http());
            assert_eq!((shared(&answer), varies_by_origin(&answer)), (vec![], true), "{answer:#?}");
        }
    }
    let answer = Request::get("/open").header("Origin", "https://any.test").to(gateway.http());
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:#?}");
    assert_eq!(answer.header("access-control-allow-credentials"), None, "{answer:#?}");
    let answer = Request::get("/theirs").header("Origin", APP).to(gateway.http());
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://third.test"), "{answer:#?}");
}

/// The two routes of docs/browsers.md: only a preflight reaches the service without a token.
#[test]
fn the_documented_routes_let_a_preflight_through_to_a_service() {
    let guide = include_str!("../../docs/browsers.md");
    let (_, rest) = guide.split_once("answers with its own CORS fields:").unwrap();
    let routes = rest.split("```").nth(1).unwrap().trim_start_matches("toml").replace("\n  ", "\n");
    let upstream = Upstream::answering(
        "HTTP/1.1 204 No Content\r\naccess-control-allow-origin: https://app.shop.test\r\n\r\n",
    );
    let routes = routes.replace("upstream = \"orders\"", "upstream = \"app\"");
    let gateway = Portcullis::with(&crate::policy(&upstream, &routes)).start();
    let ask = |method: &str| Request::new(method, "/orders/7").header("Origin", APP);
    let answer = ask("OPTIONS").header("Access-Control-Request-Method", "PUT").to(gateway.http());
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, Some(APP)),
        "{answer:#?}"
    );
    ask("PUT").to(gateway.http()).is_refusal(401, "missing_token");
    assert_eq!(upstream.only_request().method, "OPTIONS");
}

/// Returns what a script learns from one request: the status, the code and `Retry-After`, or `blocked` if the browser
/// blocks it.
fn fetched(browser: &Browser, address: &str, options: &str) -> Value {
    browser.script(&format!(
        "fetch('{address}', {options}).then(
             async answer => arguments[0]({{ status: answer.status, wait: answer.headers.get('retry-after'),
                 challenge: answer.headers.get('www-authenticate') !== null,
                 body: await answer.json().catch(() => null) }}),
             () => arguments[0]('blocked'))"
    ))
}

#[test]
fn in_a_browser_a_listed_origin_logs_in_refreshes_and_reads_refusals() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 22\r\n\r\n<!doctype html><p>page",
    );
    // Another gateway serves the pages over TLS.
    let pages = Portcullis::with(&format!(
        "{AUTHORITY}[server]\nhttps = \"127.0.0.1:0\"\n{}",
        crate::policy(&upstream, crate::PUBLIC)
    ))
    .start();
    let at = |host: &str| format!("https://{host}:{}", pages.https().port());
    let listed = at("app.shop.test");
    let gateway = gateway(&upstream, &listed, "cookies = true");
    let shop = |path: &str| format!("https://shop.test:{}{path}", gateway.https().port());
    let credentials = "{ credentials: 'include' }";
    let login = format!(
        "{{ method: 'POST', credentials: 'include', headers: {{ 'Content-Type': 'application/json' }},
            body: JSON.stringify({{ username: 'ada', password: '{PASSWORD}' }}) }}"
    );
    let browser = Browser::start(Scripts::On);

    for other in [at("evil.shop.test"), at("evil.test")] {
        browser.go(&format!("{other}/"));
        for (path, options) in [
            ("/api/x", credentials),
            ("/auth/me", credentials),
            ("/nothing", "{}"),
            ("/auth/login", &login),
            ("/auth/refresh", "{ method: 'POST', credentials: 'include', headers: { 'X-CSRF-Token': 'x' } }"),
        ] {
            assert_eq!(fetched(&browser, &shop(path), options), "blocked", "{other} {path}");
        }
    }

    browser.go(&format!("{listed}/"));
    let refused = fetched(&browser, &shop("/api/x"), credentials);
    assert_eq!(
        (&refused["status"], &refused["body"]["code"]),
        (&json!(401), &json!("missing_token")),
        "{refused}"
    );
    assert_eq!(refused["challenge"], true, "{refused}");
    let entered = fetched(&browser, &shop("/auth/login"), &login);
    let csrf = entered["body"]["csrf_token"].as_str().unwrap_or_else(|| panic!("{entered}"));
    let me = fetched(&browser, &shop("/auth/me"), credentials);
    assert_eq!((&me["status"], &me["body"]["sub"]), (&json!(200), &json!("ada")), "{me}");
    let refused = fetched(&browser, &shop("/api/x"), credentials);
    assert_eq!((&refused["status"], &refused["body"]["code"]), (&json!(403), &json!("insufficient_role")));
    let with_token =
        format!("{{ method: 'POST', credentials: 'include', headers: {{ 'X-CSRF-Token': '{csrf}' }} }}");
    assert_eq!(fetched(&browser, &shop("/auth/refresh"), &with_token)["status"], 200);
    fetched(&browser, &shop("/limited"), "{}");
    let limited = fetched(&browser, &shop("/limited"), "{}");
    assert_eq!((&limited["status"], limited["wait"].is_string()), (&json!(429), true), "{limited}");
    assert_eq!(fetched(&browser, &shop("/auth/logout"), &with_token)["status"], 204);
    assert_eq!(fetched(&browser, &shop("/auth/me"), credentials)["status"], 401);

    // A sibling host cannot use the session of a listed origin.
    browser.go(&format!("{}/", at("evil.shop.test")));
    assert_eq!(fetched(&browser, &shop("/auth/refresh"), &with_token), "blocked");
}
