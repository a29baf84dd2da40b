//! Tests what the log contains about requests, and that it contains no secrets.

use crate::kit::upstream::After;
use crate::kit::{Portcullis, Request, Upstream, forge, token};
use crate::{gateway, policy};
use serde_json::Value;

const ROUTES: &str = r#"
[[route]]
name     = "guarded"
path     = "/guarded/{*rest}"
upstream = "app"
roles    = ["clerk"]

[[route]]
name     = "open"
path     = "/open"
upstream = "app"
access   = "public"
"#;

#[test]
fn a_request_leaves_one_line_with_the_facts_that_matter() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let answer = Request::post("/guarded/a?q=secret-query", "12345")
        .bearer(token("ada").role("clerk"))
        .to(gateway.http());
    answer.is(200);
    let line = gateway.access_line(&answer);
    for (field, value) in [
        ("client", Value::from("127.0.0.1")),
        ("scheme", "http".into()),
        ("version", "HTTP/1.1".into()),
        ("method", "POST".into()),
        ("host", "gateway.test".into()),
        ("path", "/guarded/a".into()),
        ("route", "guarded".into()),
        ("status", 200.into()),
        ("subject", "ada".into()),
        ("issuer", "https://id.test/".into()),
        ("upstream", upstream.to_string().into()),
        ("bytes_in", 5.into()),
        ("bytes_out", 8.into()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["duration_us"].as_u64().is_some_and(|took| took > 0), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    assert_eq!(line.get("reason").unwrap_or(&Value::Null), &Value::Null, "{line}");
    let text = gateway.stop();
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(text.matches(id).count(), 1, "one line: {text}");
}

#[test]
fn a_log_never_holds_a_token_a_query_a_header_or_a_body() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.answer("200 OK", "set-cookie: session=s3cret-answer-cookie\r\n", "s3cret-answer-body");
        After::Keep
    });
    let gateway = Portcullis::with(&format!(
        "{}\n[[issuer]]\nissuer = \"https://other.test/\"\naudience = [\"o\"]\nalgorithms = [\"HS256\"]\n\
         secret = \"file:secret.txt\"\n",
        policy(&upstream, ROUTES)
    ))
    .start();
    let good = token("ada").role("clerk").sign();
    let mut tokens = vec![good.clone()];
    for (_, bad, _) in forge::every_bad_token() {
        Request::get("/guarded/x").bearer(&bad).to(gateway.http());
        tokens.push(bad);
    }
    let request = Request::post("/guarded/x?access_token=s3cret-query", "s3cret-body").bearer(&good);
    request
        .header("Cookie", "a=s3cret-cookie")
        .header("X-Api-Key", "s3cret-key")
        .header("X-Auth-Subject", "s3cret-forged")
        .to(gateway.http())
        .is(200);
    Request::get(&format!("/open?token={good}")).to(gateway.http()).is(200);
    Request::get("/guarded/x").header("Authorization", &format!("Basic {good}")).to(gateway.http());
    Request::get("/guarded/x").bearer(&good).header("Authorization", "Bearer s3cret").to(gateway.http());
    let log = gateway.stop();
    assert!(!log.contains("s3cret"), "{log}");
    assert!(!log.contains(forge::SECRET), "{log}");
    for token in tokens.iter().chain(&forge::every_token_made()) {
        for part in token.split('.').filter(|part| part.len() > 20) {
            assert!(!log.contains(part), "{part}: {log}");
        }
    }
}

#[test]
fn a_line_is_one_line_whatever_a_client_sends() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let forged = "ada\"}\n{\"message\":\"forged-line\"";
    let answer = Request::get("/guarded/%22%7D?x").bearer(token(forged).role("clerk")).to(gateway.http());
    answer.is(200);
    let line = gateway.access_line(&answer);
    assert_eq!(line["subject"], forged);
    let answer = Request::get("/guarded/x").bearer(token(forged).role(forged)).to(gateway.http());
    answer.is_refusal(403, "insufficient_role");
    gateway.access_line(&answer);
    assert!(!gateway.log().iter().any(|line| line["message"] == "forged-line"));
    for line in gateway.stop().lines().filter(|line| !line.starts_with("gateway.toml:")) {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn the_policy_says_which_requests_are_logged() {
    let upstream = Upstream::start();
    for (access, passed, refused) in [("on", 1, 1), ("refusals", 0, 1), ("off", 0, 0)] {
        let gateway =
            Portcullis::with(&format!("[log]\naccess = \"{access}\"\n{}", policy(&upstream, ROUTES))).start();
        let ids = [Request::get("/open"), Request::get("/guarded/x")].map(|request| {
            let answer = request.to(gateway.http());
            answer.header("x-request-id").unwrap().to_owned()
        });
        let log = gateway.stop();
        let lines = ids.map(|id| log.matches(&id).count());
        assert_eq!(lines, [passed, refused], "{access}: {log}");
    }
}
