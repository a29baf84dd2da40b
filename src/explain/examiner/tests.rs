use super::super::{explain, verdict};
use super::*;
use crate::config;
use crate::keyring::MissingKey;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const POLICY: &str = r#"
    [server]
    plain = "redirect"
    trusted_proxies = ["10.0.0.0/8"]
    [authority]
    issuer = "https://a"
    audience = ["x"]
    cookies = true
    [identity]
    assertion = "X-Auth-Assertion"
    [upstream.echo]
    builtin = "echo"
    [rate_limit.each]
    by = "client_ip"
    rate = "1/s"
    [[route]]
    name = "cookie"
    path = "/cookie"
    upstream = "echo"
    sources = ["cookie"]
    rate_limits = ["each"]
    [[route]]
    name = "named"
    path = "/named"
    upstream = "echo"
    sources = [{ header = "X-Token" }]
    [[route]]
    name = "query"
    path = "/query"
    upstream = "echo"
    sources = ["query"]
    [[route]]
    name = "fresh"
    path = "/fresh"
    upstream = "echo"
    fresh = true
    [[route]]
    name = "bound"
    path = "/bound"
    upstream = "echo"
    rule = "sender"
    [rule.sender]
    require_bound = true
    [[route]]
    name = "shadow"
    path = "/shadow"
    upstream = "echo"
    roles = ["clerk"]
    mode = "shadow"
"#;

fn policy() -> Policy {
    let loaded = config::load_text("gateway.toml", POLICY.to_owned(), PathBuf::from("/nowhere"), Vec::new());
    crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral).unwrap().policy
}

fn claims(claims: Value) -> Map<String, Value> {
    claims.as_object().unwrap().clone()
}

fn ada() -> Map<String, Value> {
    claims(json!({ "sub": "ada", "roles": ["clerk"] }))
}

#[test]
fn a_described_caller_shows_a_token_wherever_the_route_looks_for_one() {
    let policy = policy();
    let examiner = Examiner::new(&policy);
    for (path, absent) in [
        ("/cookie", "cookie"),
        ("/named", "x-token"),
        ("/query", "authorization"),
        ("/shadow", "authorization"),
    ] {
        // A request with an unsafe method carries its CSRF token, as a request from the gateway's page does.
        let question = Question::new("POST", &format!("https://h{path}?a=1")).unwrap().claims(ada());
        let text = examiner.explain(&question);
        assert_eq!(text.outcome, Outcome::Passed, "{text}");
        assert_eq!(text.caller.as_ref().unwrap().subject, "ada", "{text}");
        let outgoing = text.outgoing.unwrap();
        assert_eq!(outgoing.path, format!("{path}?a=1"), "the token does not pass");
        assert!(outgoing.headers.iter().all(|(name, _)| name != absent), "{outgoing:#?}");
        assert_eq!(examiner.verdict(&question).outcome, Outcome::Passed);
    }
}

#[test]
fn only_missing_claims_of_a_described_caller_are_filled_in() {
    let policy = policy();
    let ask = |path: &str, given: Value| {
        let question = Question::parse(&format!("https://h{path}")).unwrap().claims(claims(given));
        verdict(&policy, &question).outcome.word()
    };
    assert_eq!(ask("/named", json!({ "sub": "ada" })), "passed");
    assert_eq!(ask("/named", json!({})), "missing_claim");
    assert_eq!(ask("/named", json!({ "sub": "ada", "exp": 1 })), "expired_token");
    assert_eq!(ask("/named", json!({ "sub": "ada", "iss": "https://b" })), "unknown_issuer");
    assert_eq!(ask("/fresh", json!({ "sub": "ada" })), "fresh_token_required");
    assert_eq!(ask("/fresh", json!({ "sub": "ada", "fresh": true })), "passed");
}

#[test]
fn a_described_caller_with_a_bound_token_is_assumed_to_prove_its_key() {
    let policy = policy();
    let ask = |path: &str, given: Value| {
        let question = Question::parse(&format!("https://h{path}")).unwrap().claims(claims(given));
        verdict(&policy, &question).outcome.word()
    };
    let cnf = json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" });
    let bound = || json!({ "sub": "ada", "cnf": cnf });
    assert_eq!(ask("/bound", bound()), "passed");
    assert_eq!(ask("/bound", json!({ "sub": "ada" })), "unbound_token");
    assert_eq!(ask("/bound", json!({ "sub": "ada", "cnf": { "x5t#S256": "a" } })), "wrong_type");
    // Outside of `Authorization`, the gateway accepts no bound token.
    assert_eq!(ask("/cookie", bound()), "bound_token");
    assert_eq!(ask("/named", bound()), "bound_token");
}

#[test]
fn a_described_caller_is_nobody_to_what_serves() {
    let policy = policy();
    let examiner = Examiner::new(&policy);
    let question = Question::parse("https://h/fresh").unwrap();
    let (token, _) = examiner.token_of(claims(json!({ "sub": "ada", "fresh": true })), question.now);
    // The examiner creates such a token for a described caller. A token in a question is instead verified with the
    // policy's keys.
    assert!(!examiner.verdict(&question.token(token)).outcome.passes());
}

#[test]
fn a_shadow_rule_logs_the_refusal_and_the_request_passes() {
    let policy = policy();
    let question = Question::parse("https://h/shadow").unwrap().claims(claims(json!({ "sub": "ada" })));
    let text = explain(&policy, &question);
    assert_eq!((text.outcome.word(), text.shadow), ("insufficient_role", true));
    let outgoing = text.outgoing.expect("shadow mode forwards it");
    assert!(outgoing.headers.contains(&("x-auth-subject".to_owned(), "ada".to_owned())));
    assert!(verdict(&policy, &question).reaches());
}

#[test]
fn cleartext_is_redirected_and_a_trusted_proxy_names_the_client() {
    let policy = policy();
    let question = Question::parse("http://h/cookie").unwrap();
    assert_eq!(explain(&policy, &question).outcome, Outcome::Redirected);
    let question = Question::parse("https://h/cookie").unwrap();
    let question = question.header("X-Forwarded-For", "203.0.113.7").unwrap();
    let text = explain(&policy, &question.clone().client("10.0.0.1".parse().unwrap()));
    assert_eq!(text.limits[0].by, "client address 203.0.113.7");
    let text = explain(&policy, &question.client("198.51.100.1".parse().unwrap()));
    assert_eq!(text.limits[0].by, "client address 198.51.100.1");
}

#[test]
fn no_proof_that_holds_is_in_an_answer() {
    let policy = policy();
    let text = explain(&policy, &Question::parse("https://h/named").unwrap().claims(ada()));
    let headers = text.outgoing.unwrap().headers;
    let (_, value) = headers.iter().find(|(name, _)| name == "x-auth-assertion").unwrap();
    assert!(value.starts_with('<'), "{value}");
}

#[test]
fn an_explanation_is_read_again_as_it_was_written() {
    let policy = policy();
    for line in ["https://h/shadow", "https://h/nowhere", "http://h/", "https://h/%00"] {
        let text = explain(&policy, &Question::parse(line).unwrap());
        let written = serde_json::to_string(&text).unwrap();
        let read: Explanation = serde_json::from_str(&written).unwrap();
        assert_eq!(read.to_string(), text.to_string(), "{line}");
    }
}

proptest! {
    /// The verdict and the explanation always agree.
    #[test]
    fn verdict_and_explanation_agree(
        path in "/(cookie|named|query|fresh|shadow|%[0-9a-f]{2}|\\.\\.|;x|/|x){0,3}",
        method in "GET|POST|DELETE",
        scheme in "https?",
        roles in prop::collection::vec("clerk|admin", 0..3),
        token in prop::option::of("[a-z.]{0,8}"),
    ) {
        let policy = policy();
        let question = Question::new(&method, &format!("{scheme}://h{path}")).unwrap();
        let question = match token {
            Some(token) => question.token(token),
            None => question.claims(claims(json!({ "sub": "ada", "roles": roles }))),
        };
        let (short, long) = (verdict(&policy, &question), explain(&policy, &question));
        let route = short.route.map(|route| policy.routes[route].name.to_string());
        prop_assert_eq!(route, long.route.as_ref().map(|route| route.name.clone()));
        prop_assert_eq!(&short.outcome, &long.outcome);
        prop_assert_eq!(short.shadow, long.shadow);
        prop_assert_eq!(long.outgoing.is_some(), short.reaches());
        let (verdict, sent) = Examiner::new(&policy).verdict_and_request(&question);
        prop_assert_eq!(verdict, short);
        prop_assert_eq!(serde_json::to_value(&sent).unwrap(), serde_json::to_value(&long.outgoing).unwrap());
    }
}

#[test]
fn scripts_of_listed_origins_may_send_and_read_what_cors_allows() {
    let text = r#"
        [authority]
        issuer = "https://a"
        audience = ["x"]
        origins = ["https://own.test"]
        [upstream.echo]
        builtin = "echo"
        [cors.app]
        origins = ["https://a.test"]
        [[route]]
        name = "shared"
        path = "/a"
        methods = ["GET", "PUT"]
        upstream = "echo"
        cors = "app"
        [[route]]
        path = "/b"
        upstream = "echo"
        access = "public"
        [[route]]
        path = "/c"
        redirect = "/a"
        access = "public"
    "#;
    let loaded = config::load_text("gateway.toml", text.to_owned(), PathBuf::from("."), Vec::new()).unwrap();
    let policy = crate::policy::compile(&loaded, MissingKey::Ephemeral).unwrap().policy;
    let examiner = Examiner::new(&policy);
    let asked = |request: &str, fields: &[(&str, &str)]| {
        let question = Question::parse(request).unwrap();
        let question =
            fields.iter().fold(question, |question, (name, value)| question.header(name, value).unwrap());
        let verdict = examiner.verdict(&question);
        let short = examiner.cross_origin(&question, &verdict);
        let long = examiner.explain(&question);
        assert_eq!(short, long.cross_origin);
        (verdict, short, long)
    };
    let (a, b) = (("Origin", "https://a.test"), ("Origin", "https://b.test"));
    let allowed = |request: &str, fields: &[(&str, &str)]| asked(request, fields).1.unwrap().is_allowed;
    assert_eq!(allowed("GET https://h/a", &[a]), Some(true), "the refusal without a token");
    assert_eq!(allowed("GET https://h/a", &[b]), Some(false));
    assert_eq!(allowed("GET https://h/b", &[a]), None, "the upstream decides");
    assert_eq!(allowed("GET https://h/c", &[a]), Some(false), "the gateway's redirect has no such field");
    assert_eq!(allowed("GET https://h/auth/me", &[("Origin", "https://own.test")]), Some(true));
    assert_eq!(allowed("GET https://h/auth/me", &[a]), Some(false));
    assert!(asked("GET https://h/a", &[]).1.is_none());
    assert!(asked("GET https://h/a", &[a, a]).1.is_none(), "several origins are none");

    let method = |method| ("Access-Control-Request-Method", method);
    let fields = |names| ("Access-Control-Request-Headers", names);
    let options = "OPTIONS https://h/a";
    for (request, is_allowed) in [
        (vec![a, method("PUT")], true),
        (vec![a, method("PUT"), fields("authorization,content-type")], true),
        (vec![a, method("PUT"), fields("")], true),
        (vec![a, method("PUT"), fields("authorization,x-trace")], false),
        (vec![a, method("DELETE")], false),
        (vec![a, method("GET"), ("Access-Control-Request-Private-Network", "true")], false),
        (vec![b, method("PUT")], false),
    ] {
        let (verdict, found, long) = asked(options, &request);
        let shown = long.to_string();
        match verdict.route.map(|route| &*policy.routes[route].name) {
            Some("shared") => {
                let found = found.unwrap();
                assert_eq!((found.is_preflight, found.is_allowed), (true, Some(is_allowed)), "{request:?}");
                assert_eq!(verdict.outcome, Outcome::Passed);
                let outgoing = long.outgoing.unwrap();
                assert_eq!(outgoing.responder, crate::explain::Responder::Preflight);
                assert!(shown.contains("the preflight is answered with "), "{shown}");
                assert_eq!(shown.contains("verdict: passes: "), is_allowed, "{shown}");
                assert!(long.checks.is_empty(), "{shown}");
            }
            // No route covers the method.
            _ => assert!(!is_allowed, "{shown}"),
        }
    }
    let (verdict, ..) = asked(options, &[a]);
    assert_eq!(verdict.outcome.word(), "method_not_allowed", "a request without a method to ask about");
}

#[test]
fn the_tls_settings_the_coding_and_the_streams_of_a_request_are_explained() {
    let text = r#"
        [[issuer]]
        issuer = "https://a"
        audience = ["x"]
        algorithms = ["HS256"]
        secret = "0123456789abcdef0123456789abcdef"
        [upstream.app]
        servers = ["https://10.0.0.1"]
        tls = { pinned_names = ["orders.test"], pinned_keys = ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] }
        [[route]]
        path = "/a"
        upstream = "app"
        streams = "open"
        compress = ["br", "gzip"]
        compress_with_credentials = true
        [[route]]
        path = "/b"
        upstream = "app"
        access = "public"
        compress = "gzip"
    "#;
    let loaded = config::load_text("gateway.toml", text.to_owned(), PathBuf::from("."), Vec::new()).unwrap();
    let policy = crate::policy::compile(&loaded, MissingKey::Ephemeral).unwrap().policy;
    let asked = |path: &str, coding: &str, has_token: bool| {
        let mut question = Question::parse(&format!("GET https://h{path}")).unwrap();
        question.parts.headers.insert(header::ACCEPT_ENCODING, coding.parse().unwrap());
        let claims = Map::from_iter([("sub".to_owned(), json!("ada"))]);
        let question = if has_token { question.claims(claims) } else { question };
        explain(&policy, &question)
    };
    let explanation = asked("/a", "gzip, br;q=0.5", true);
    let outgoing = explanation.outgoing.as_ref().unwrap();
    let tls = "verifies the authorities of the system, one of the names orders.test, a pinned key";
    assert_eq!(outgoing.tls.as_deref(), Some(tls));
    assert_eq!((outgoing.compress.as_deref(), outgoing.streams.as_deref()), (Some("gzip"), Some("open")));
    let shown = explanation.to_string();
    for line in [&format!("over TLS: {tls}\n"), "answer compressed by gzip, ", "streams outlive the token"] {
        assert!(shown.contains(line), "{shown}");
    }
    let public = asked("/b", "gzip", false).outgoing.unwrap();
    assert_eq!((public.compress.as_deref(), public.streams), (Some("gzip"), None));
    assert_eq!(asked("/b", "br", false).outgoing.unwrap().compress, None);
}
