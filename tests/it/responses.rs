//! The gateway's own answers: documents, pages, gRPC statuses, and the fields beside them.

use crate::gateway;
use crate::kit::{Answer, Request, Upstream, token};

const ROUTES: &str = r#"
[rate_limit.one]
by    = "route"
rate  = "1/m"
burst = 1

[[route]]
path     = "/guarded"
methods  = ["GET", "POST"]
upstream = "app"
roles    = ["clerk"]

[[route]]
path        = "/limited"
upstream    = "app"
access      = "public"
rate_limits = ["one"]
"#;

#[track_caller]
fn is_problem(answer: &Answer, status: u16, code: &str) {
    answer.is_refusal(status, code);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.header("cache-control").is_some_and(|value| value.contains("no-store")), "{answer:#?}");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    for member in ["type", "title", "code", "detail", "request_id"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
    }
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
}

#[test]
fn every_refusal_is_a_problem_document() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let get = |path: &str| Request::get(path);
    Request::get("/limited").to(gateway.http()).is(200);
    for (request, status, code) in [
        (get("/nothing"), 404, "no_route"),
        (Request::new("DELETE", "/guarded"), 405, "method_not_allowed"),
        (get("//"), 400, "bad_request"),
        (get("/guarded"), 401, "missing_token"),
        (get("/guarded").bearer("x"), 401, "malformed_token"),
        (get("/guarded").bearer(token("ada").expired()), 401, "expired_token"),
        (get("/guarded").bearer(token("ada")), 403, "insufficient_role"),
        (get("/limited"), 429, "rate_limited"),
    ] {
        let answer = request.to(gateway.http());
        is_problem(&answer, status, code);
        let line = gateway.access_line(&answer);
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &code.into()), "{line}");
    }
}

#[test]
fn a_browser_gets_a_page_and_nobody_else_does() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let answer = Request::get("/guarded").header("Accept", firefox).to(gateway.http());
    assert_eq!(answer.status, 401);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{answer:#?}");
    assert!(answer.text().contains(answer.header("x-request-id").unwrap()), "{}", answer.text());
    assert!(answer.text().contains("missing_token"), "{}", answer.text());
    assert!(answer.header("www-authenticate").is_some());
    assert!(answer.header("cache-control").is_some_and(|value| value.contains("no-store")));
    for accept in ["*/*", "application/json", "text/html;q=0, application/json", "application/problem+json"] {
        is_problem(
            &Request::get("/guarded").header("Accept", accept).to(gateway.http()),
            401,
            "missing_token",
        );
    }
}

#[test]
fn a_page_holds_nothing_that_the_client_sent() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let script = "/%3Cscript%3Ealert(1)%3C/script%3E?<script>".replace('<', "%3C").replace('>', "%3E");
    for accept in ["text/html", "*/*"] {
        let answer = Request::get(&script).header("Accept", accept).host("scripted.test").to(gateway.http());
        assert_eq!(answer.status, 404);
        for echo in ["script", "alert", "scripted.test"] {
            assert!(!answer.text().contains(echo), "{echo}: {}", answer.text());
        }
    }
}

#[test]
fn a_grpc_caller_gets_a_grpc_status() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let call = |path: &str| Request::post(path, "").header("Content-Type", "application/grpc+proto");
    Request::get("/limited").to(gateway.http()).is(200);
    for (request, status, code) in [
        (call("/guarded"), "16", "missing_token"),
        (call("/guarded").bearer(token("ada").expired()), "16", "expired_token"),
        (call("/guarded").bearer(token("ada")), "7", "insufficient_role"),
        (call("/limited"), "8", "rate_limited"),
    ] {
        let answer = request.to(gateway.http());
        assert_eq!(answer.status, 200, "{answer:#?}");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/grpc")));
        assert_eq!(answer.header("grpc-status"), Some(status), "{answer:#?}");
        assert!(answer.header("grpc-message").is_some_and(|message| message.contains(code)), "{answer:#?}");
        // The limit's next request is due in a minute, which is longer than a client should wait inside a call.
        let pushback = (status == "8").then_some("-1");
        assert_eq!(answer.header("grpc-retry-pushback-ms"), pushback, "{answer:#?}");
        let line = gateway.access_line(&answer);
        assert_eq!(line["reason"], code, "{line}");
    }
}

#[test]
fn every_request_has_an_id_that_is_its_own_everywhere() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let mut ids = Vec::new();
    for _ in 0..10 {
        let answer = Request::get("/guarded")
            .bearer(token("ada").role("clerk"))
            .header("X-Request-Id", "chosen-by-the-client")
            .to(gateway.http());
        answer.is(200);
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(upstream.last_request().header("x-request-id"), Some(&*id));
        assert_eq!(gateway.access_line(&answer)["request_id"], *id);
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10, "{ids:?}");
}

#[test]
fn an_upstreams_own_answers_pass_unchanged() {
    let upstream = Upstream::answering(
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"app\"\r\nx-request-id: of-the-upstream\r\n\
         content-length: 4\r\n\r\nmine",
    );
    let gateway = gateway(&upstream, ROUTES);
    let answer = Request::get("/limited").to(gateway.http());
    assert_eq!((answer.status, &*answer.text()), (401, "mine"));
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"app\""));
    assert_eq!(
        answer.header("x-request-id").map(str::len),
        Some(32),
        "but the request's id is the gateway's"
    );
    assert_eq!(gateway.access_line(&answer)["reason"], serde_json::Value::Null);
}
