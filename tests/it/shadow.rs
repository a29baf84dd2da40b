//! Routes in shadow mode: a request that would have been refused passes, and the log reports the refusal.

use crate::gateway;
use crate::kit::portcullis::command;
use crate::kit::{Request, Upstream, eventually, token};
use serde_json::Value;

const ROUTES: &str = r#"
[rate_limit.one]
by = "route"
rate = "1/h"

[[route]]
name = "watched"
path = "/watched"
upstream = "app"
roles = ["clerk"]
mode = "shadow"

[[route]]
name = "limited"
path = "/limited"
upstream = "app"
access = "public"
rate_limits = ["one"]
mode = "shadow"

[[route]]
name = "enforced"
path = "/enforced"
upstream = "app"
roles = ["clerk"]
"#;

#[test]
fn a_shadowed_refusal_forwards_only_the_proven_identity() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let forged = token("mallory").role("clerk").expired().sign();
    for (request, code, subject) in [
        (Request::get("/watched"), "missing_token", None),
        (Request::get("/watched").bearer(forged), "expired_token", None),
        (Request::get("/watched").bearer(token("ada").role("guest")), "insufficient_role", Some("ada")),
    ] {
        let answer = request.header("X-Auth-Subject", "root").to(gateway.http());
        answer.is(200);
        let seen = upstream.requests().pop().expect("it was forwarded");
        assert_eq!(seen.header("X-Auth-Subject"), subject, "{code}: {seen:#?}");
        assert_eq!(seen.header("Authorization"), None, "{code}");
        let line = gateway.access_line(&answer);
        assert_eq!((&line["shadow"], &line["status"]), (&code.into(), &200.into()), "{line:#}");
        assert!(line.get("reason").is_none(), "it was not refused: {line:#}");
    }
    let answer = Request::get("/watched").bearer(token("ada").role("clerk")).to(gateway.http());
    assert!(gateway.access_line(&answer).get("shadow").is_none(), "what passes anyway is no news");
    Request::get("/enforced").to(gateway.http()).is_refusal(401, "missing_token");
    Request::get("/limited").to(gateway.http()).is(200);
    let answer = Request::get("/limited").to(gateway.http());
    assert_eq!(gateway.access_line(answer.is(200))["shadow"], "rate_limited");
    eventually("the shadow's refusals are counted", || {
        let text = Request::get("/metrics").to(gateway.admin()).text();
        ["missing_token", "expired_token", "insufficient_role"].iter().all(|code| {
            let sample = format!("portcullis_shadow_refusals_total{{route=\"watched\",reason=\"{code}\"}} 1");
            text.contains(&sample)
        }) && text.contains("portcullis_shadow_refusals_total{route=\"limited\",reason=\"rate_limited\"} 1")
    });
}

#[test]
fn refusals_without_a_rule_apply_in_shadow_mode_too() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[policy]\nmode = \"shadow\"\n{ROUTES}"));
    Request::get("/enforced").to(gateway.http()).is(200);
    Request::get("/nothing").to(gateway.http()).is_refusal(404, "no_route");
    Request::get("/watched%2Fx").to(gateway.http()).is_refusal(400, "bad_request");
    Request::get("/watched")
        .header("Content-Length", "99999999999")
        .to(gateway.http())
        .is_refusal(413, "body_too_large");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_token_in_the_query_does_not_pass_though_it_is_bad() {
    let upstream = Upstream::start();
    let route = "[[route]]\nname = \"q\"\npath = \"/q\"\nupstream = \"app\"\nsources = [\"query\"]\nmode = \"shadow\"\n";
    let gateway = gateway(&upstream, route);
    Request::get("/q?a=1&access_token=spent&b=2").to(gateway.http()).is(200);
    assert_eq!(upstream.requests().pop().expect("it was forwarded").target, "/q?a=1&b=2");
}

#[test]
fn a_refusal_after_a_shadowed_one_is_reported_with_its_own_reason() {
    let upstream = Upstream::start();
    let both = "[[route]]\nname = \"both\"\npath = \"/both\"\nupstream = \"app\"\nroles = [\"clerk\"]\nrate_limits = [\"one\"]\n\
                mode = \"shadow\"\n";
    let gateway = gateway(&upstream, &format!("{ROUTES}{both}"));
    let guest = token("ada").role("guest").sign();
    let handshake = "a WebSocket handshake; the route lacks websocket = true";

    // The rule is in shadow mode, and the handshake is refused anyway.
    let answer =
        Request::get("/watched").bearer(&guest).header("Sec-WebSocket-Version", "13").to(gateway.http());
    let line = gateway.access_line(answer.is_refusal(400, "bad_request"));
    assert_eq!(
        (&line["shadow"], &line["reason"]),
        (&"insufficient_role".into(), &"bad_request".into()),
        "{line:#}"
    );
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.starts_with("the route asks for any role of clerk"), "{detail}");
    assert!(detail.ends_with(&format!("; then {handshake}")), "{detail}");
    let url = "http://h.test/watched";
    let arguments =
        ["--format", "json", "explain", url, "--token", &guest, "-H", "Sec-WebSocket-Version: 13"];
    let explained: Value = serde_json::from_str(&command(gateway.dir(), &arguments).stdout).unwrap();
    assert_eq!((&explained["outcome"], &explained["reason"]), (&"bad_request".into(), &handshake.into()));

    // Both refusals are shadowed. `shadow` has the code of the first, whose reason is the first one.
    Request::get("/both").bearer(&guest).to(gateway.http()).is(200);
    let answer = Request::get("/both").bearer(&guest).to(gateway.http());
    let line = gateway.access_line(answer.is(200));
    assert_eq!(line["shadow"], "rate_limited");
    let detail = line["detail"].as_str().unwrap();
    let (first, second) = detail.split_once("; then ").unwrap_or_else(|| panic!("{detail}"));
    assert!(first.contains("one") && second.starts_with("the route asks for any role of clerk"), "{detail}");
}
