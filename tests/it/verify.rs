//! `/auth/verify`: a trusted proxy gets the verdict that proxying would produce.
//!
//! `forward_auth` tests real proxies. These tests write the questions by hand, each with one fault.

use crate::ASKED_ROUTES;
use crate::kit::account::{self, AUTHORITY, PASSWORD, Pair, post, posting};
use crate::kit::client::HOST;
use crate::kit::forge::{self, Token};
use crate::kit::{Answer, ISSUER, Portcullis, Request, client, eventually, token};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Further routes, which only these tests use.
const ROUTES: &str = r#"
[upstream.app]
builtin = "echo"

[rate_limit.each]
by    = "subject"
rate  = "1/h"
burst = 2

[[route]]
name     = "mine"
path     = "/users/{user}"
upstream = "app"
claims   = { sub = "{user}" }

[[route]]
name     = "read"
path     = "/read"
upstream = "app"
scopes   = ["read"]

[[route]]
name        = "shared"
path        = "/shared"
upstream    = "app"
rate_limits = ["each"]
"#;

const TRUSTED: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";

fn gateway_with(server: &str, authority: &str) -> Portcullis {
    Portcullis::with(&format!("{ISSUER}{server}{ROUTES}{ASKED_ROUTES}{AUTHORITY}cookies = true\n{authority}"))
        .start()
}

fn gateway() -> Portcullis {
    gateway_with(TRUSTED, "")
}

fn clerk() -> Token {
    token("ada").role("clerk")
}

/// The set of header fields with which a proxy asks for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Traefik and Caddy.
    Forwarded,
    /// nginx with the documented configuration.
    Original,
    /// nginx as a Kubernetes ingress.
    Ingress,
    /// Envoy.
    Prefixed,
}

const FORMS: [Form; 4] = [Form::Forwarded, Form::Original, Form::Ingress, Form::Prefixed];

/// Returns the question about a request.
fn question(form: Form, method: &str, host: &str, target: &str) -> Request {
    let asked = Request::get("/auth/verify").host("portcullis.internal");
    match form {
        Form::Forwarded => asked
            .header("X-Forwarded-Method", method)
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Host", host)
            .header("X-Forwarded-Uri", target),
        Form::Original => asked
            .header("X-Original-Method", method)
            .header("X-Original-URI", target)
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Host", host),
        Form::Ingress => asked
            .header("X-Original-Method", method)
            .header("X-Original-URL", &format!("http://{host}{target}")),
        Form::Prefixed => Request::new(method, &format!("/auth/verify{target}"))
            .host(host)
            .header("X-Forwarded-Proto", "http"),
    }
}

/// The outcome of proxying a request, and of the verdict on it: status, code and identity fields.
type Outcome = (u16, String, Vec<(String, String)>);

fn proxied(answer: &Answer) -> Outcome {
    if answer.status != 200 {
        return (answer.status, answer.code(), Vec::new());
    }
    let seen: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let fields = seen["headers"].as_object().cloned().unwrap_or_default();
    let identity = fields.into_iter().filter(|(name, _)| name.starts_with("x-auth-"));
    let mut identity: Vec<_> = identity.map(|(name, v)| (name, v.as_str().unwrap().to_owned())).collect();
    identity.sort();
    (200, String::new(), identity)
}

fn reported(answer: &Answer) -> Outcome {
    let identity = answer.headers.iter().filter(|(name, _)| name.to_lowercase().starts_with("x-auth-"));
    let mut identity: Vec<_> = identity.map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    identity.sort();
    if answer.status == 200 {
        assert!(answer.body.is_empty(), "{answer:#?}");
    }
    (answer.status, answer.code(), identity)
}

/// Reduces the outcome to the statuses of a verdict, because proxies know few statuses.
fn as_verdict((status, code, identity): Outcome) -> Outcome {
    let status = match status {
        200 | 401 | 429 | 503 => status,
        _ => 403,
    };
    (status, code, identity)
}

/// Returns the bad tokens, each as a credential.
fn bad_credentials() -> Vec<Vec<(&'static str, String)>> {
    let bearer = |bad| vec![("Authorization", format!("Bearer {bad}"))];
    forge::every_bad_token().into_iter().map(|(_, bad, _)| bearer(bad)).collect()
}

/// Returns the credentials that a request may have.
fn credentials() -> Vec<Vec<(&'static str, String)>> {
    let bearer = |token: &Token| ("Authorization", format!("Bearer {token}"));
    let cookie = |token: &Token| ("Cookie", format!("x=y; __Host-portcullis={token}"));
    vec![
        vec![],
        vec![bearer(&clerk())],
        vec![bearer(&token("7"))],
        vec![bearer(&token("ada").role("admin").scope("read").scope("write"))],
        vec![bearer(&token("a,b").role("clerk").role("x,admin"))],
        vec![bearer(&clerk().expired())],
        vec![bearer(&clerk()), bearer(&clerk())],
        vec![("Authorization", "Basic dTpw".to_owned())],
        vec![("Authorization", format!("Bearer  {}", clerk()))],
        vec![cookie(&clerk())],
        vec![cookie(&clerk()), ("Origin", "http://evil.test".to_owned())],
        vec![cookie(&clerk()), bearer(&clerk())],
        vec![("X-Auth-Subject", "forged".to_owned()), ("X-Auth-Roles", "clerk".to_owned())],
    ]
}

const TARGETS: [&str; 40] = [
    "/",
    "/open/a",
    "/open/",
    "/open",
    "/open/a/b?c=d&e=%2f%2F..",
    "/open/caf%c3%a9",
    "/open/%7Euser",
    "/open/a;v=1",
    "/open/a%20b",
    "/open/{a}|b",
    "/maybe",
    "/maybe/",
    "/m%61ybe?",
    "/orders/1",
    "/orders/1?x",
    "/orders/%31",
    "/orders/1/",
    "/orders/",
    "/orders/..;",
    "/orders//1",
    "//orders/1",
    "//evil.test/orders/1",
    "/orders%2f1",
    "/orders%2F1",
    "/orders%5c1",
    "/orders\\1",
    "/orders/%00",
    "/orders/%zz",
    "/orders/%ff",
    "/orders/%c0%ae",
    "/open/..;/orders/1",
    "/open/%2e%2e;/orders/1",
    "/users/7",
    "/users/ada",
    "/users/a%2Cb",
    "/read",
    "/page",
    "/nowhere",
    "/openx/a",
    "/orders/1#/open/a",
];

/// Targets that the gateway rewrites when it proxies, but that another proxy would forward unchanged.
const DOTTED: [&str; 6] = [
    "/open/../orders/1",
    "/orders/./1",
    "/open/%2e%2e/orders/1",
    "/a/../open/b",
    "/open/a/..",
    "/orders/../open/b",
];

const HOSTS: [&str; 7] = [
    HOST,
    "gateway.test:8443",
    "internal.test",
    "INTERNAL.test.",
    "internal.test:1",
    "a..b",
    "user@gateway.test",
];

#[track_caller]
fn agree(gateway: &Portcullis, method: &str, host: &str, target: &str, fields: &[(&str, String)]) {
    let with =
        |request: Request| fields.iter().fold(request, |request, (name, value)| request.header(name, value));
    let direct =
        with(Request::new(method, target).host(host).header("X-Forwarded-Proto", "http")).to(gateway.http());
    let mut expected = as_verdict(proxied(&direct));
    for form in FORMS {
        let request = with(question(form, method, host, target));
        let mut verdict = reported(&request.to(gateway.http()));
        if method == "HEAD" || (direct.body.is_empty() && direct.status == 400) {
            // Without a body, the code and the identity at the upstream are unknown.
            (expected.1, expected.2) = (String::new(), Vec::new());
            (verdict.1, verdict.2) = (String::new(), Vec::new());
        }
        assert_eq!(verdict, expected, "{form:?} {method} {host} {target} {fields:?}: {direct:#?}");
    }
}

#[test]
fn proxying_and_the_verdict_agree_on_every_target_with_every_credential() {
    let (gateway, credentials, bad) = (gateway(), credentials(), bad_credentials());
    for (nth, target) in TARGETS.iter().enumerate() {
        // Combines every target with every credential, and rotates the methods, hosts and bad tokens.
        for (mth, fields) in credentials.iter().enumerate() {
            agree(&gateway, ["GET", "POST", "DELETE", "OPTIONS"][(nth + mth) % 4], HOST, target, fields);
        }
        for (mth, fields) in credentials.iter().take(4).enumerate() {
            agree(&gateway, "GET", HOSTS[(nth * 3 + mth) % HOSTS.len()], target, fields);
        }
        for mth in 0..3 {
            agree(&gateway, "GET", HOST, target, &bad[(nth * 3 + mth) % bad.len()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, ..ProptestConfig::default() })]

    #[test]
    fn proxying_and_the_verdict_agree_on_whatever_is_sent(
        requests in proptest::collection::vec(
            (
                prop_oneof![select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "BREW", "get"])],
                select(HOSTS.to_vec()),
                proptest::collection::vec(
                    select(vec![
                        "/", "/", "open", "orders", "maybe", "1", "a", "%2f", "%41", "%e9", "%C3%A9", ";", ";x=y", "%3b",
                        "\\", "*", "~", "%7e", ":", "@", "..a", "a..", "?", "&", "=",
                    ]),
                    0..7,
                ),
                select(credentials()),
            ),
            150,
        )
    ) {
        let gateway = gateway();
        for (method, host, parts, fields) in requests {
            agree(&gateway, method, host, &format!("/{}", parts.concat()), &fields);
        }
    }
}

#[test]
fn a_question_about_another_request_than_the_forwarded_one_is_refused() {
    let gateway = gateway();
    for form in FORMS {
        for target in DOTTED {
            let request = question(form, "GET", HOST, target).bearer(clerk());
            request.to(gateway.http()).is_refusal(403, "bad_request");
        }
        // The same targets without dots pass.
        for target in ["/open/b", "/orders/1"] {
            question(form, "GET", HOST, target).bearer(clerk()).to(gateway.http()).is(200);
        }
    }
    let merging = gateway_with(&format!("{TRUSTED}paths = \"merge\"\n"), "");
    Request::get("//open//a").to(merging.http()).is(200);
    for form in FORMS {
        let answer = question(form, "GET", HOST, "//open//a").to(merging.http());
        answer.is_refusal(403, "bad_request");
        let line = merging.access_line(&answer);
        assert!(line["detail"].as_str().unwrap().contains("empty segment"), "{line}");
    }
}

#[test]
fn a_question_that_climbs_out_of_the_endpoint_is_never_answered_by_a_route() {
    let gateway = gateway();
    for rest in [
        "/../open/a",
        "/../../open/a",
        "/../verify/../../open/a",
        "/%2e%2e/%2E%2e/open/a",
        "/..",
        "/../me",
        "/./../../open/a",
        "/open/../../../open/a",
        "/..%2f../open/a",
        "/..;/../open/a",
        "//../open/a",
    ] {
        for request in
            [question(Form::Prefixed, "GET", HOST, rest), question(Form::Forwarded, "GET", HOST, "/open/a")]
        {
            let asked = String::from_utf8(request.bytes()).unwrap().replacen(
                "/auth/verify ",
                &format!("/auth/verify{rest} "),
                1,
            );
            let answer = client::send(gateway.http(), asked);
            assert!((400..404).contains(&answer.status), "{rest}: {answer:#?}");
            assert_ne!(answer.text(), "", "a refusal says why");
        }
    }
    // Another spelling of the endpoint's own path is not accepted as a question.
    for path in ["/auth/%76erify", "/auth/./verify", "/x/../auth/verify", "/auth/verify/."] {
        let text = String::from_utf8(question(Form::Forwarded, "GET", HOST, "/open/a").bytes()).unwrap();
        let answer = client::send(gateway.http(), text.replacen("/auth/verify", path, 1));
        answer.is_refusal(403, "bad_request");
    }
}

#[test]
fn only_a_trusted_proxy_gets_a_verdict() {
    for server in ["", "[server]\ntrusted_proxies = [\"192.0.2.1\"]\n"] {
        let gateway = gateway_with(server, "");
        for form in FORMS {
            let request = question(form, "GET", HOST, "/open/a").header("X-Forwarded-For", "192.0.2.1");
            let answer = request.to(gateway.http());
            answer.is_refusal(403, "untrusted_proxy");
            let line = gateway.access_line(&answer);
            assert_eq!(
                (&line["route"], &line["verdict_for"]),
                (&json!("auth:verify"), &json!("127.0.0.1")),
                "{line}"
            );
            // A gRPC call, whose refusals usually have status 200, gets a 403 as well.
            let call = request.header("Content-Type", "application/grpc").to(gateway.http());
            call.is_refusal(403, "untrusted_proxy");
        }
    }
}

#[test]
fn a_refused_grpc_call_is_no_grant() {
    let gateway = gateway();
    for form in FORMS {
        for kind in ["application/grpc", "application/grpc-web+proto"] {
            let call = |target| question(form, "POST", HOST, target).header("Content-Type", kind);
            call("/orders/1").to(gateway.http()).is_refusal(401, "missing_token");
            call("/nowhere").to(gateway.http()).is_refusal(403, "no_route");
            call("/open/../orders/1").to(gateway.http()).is_refusal(403, "bad_request");
            call("/orders/1").bearer(clerk()).to(gateway.http()).is(200);
        }
    }
}

#[test]
fn a_request_that_is_not_named_once_and_in_one_way_is_refused() {
    let gateway = gateway();
    let fields = |form| -> &'static [&'static str] {
        match form {
            Form::Forwarded => {
                &["X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Uri"]
            }
            Form::Original => {
                &["X-Original-Method", "X-Original-URI", "X-Forwarded-Proto", "X-Forwarded-Host"]
            }
            Form::Ingress => &["X-Original-Method", "X-Original-URL"],
            Form::Prefixed => &["X-Forwarded-Proto"],
        }
    };
    for form in FORMS {
        let whole = question(form, "GET", HOST, "/open/a");
        whole.to(gateway.http()).is(200);
        let text = String::from_utf8(whole.bytes()).unwrap();
        for name in fields(form) {
            let line =
                text.split_inclusive("\r\n").find(|line| line.starts_with(&format!("{name}:"))).unwrap();
            // A question is refused if a field is missing, repeated, empty, a list or not ASCII. A target may be raw
            // UTF-8, as in a request line.
            let mut broken = vec![
                String::new(),
                format!("{line}{line}"),
                format!("{name}:\r\n"),
                line.replace("\r\n", ", x\r\n"),
            ];
            if !["X-Forwarded-Uri", "X-Original-URI", "X-Original-URL"].contains(name) {
                broken.push(line.replace("\r\n", "\u{e9}\r\n"));
            }
            for new in broken {
                let answer = client::send(gateway.http(), text.replace(line, &new));
                answer.is_refusal(403, "bad_request");
            }
        }
        // The client may have sent another field that names another request, or the same request.
        for (name, other, same) in [
            ("X-Forwarded-Method", "POST", "GET"),
            ("X-Original-Method", "POST", "GET"),
            ("X-Forwarded-Uri", "/orders/1", "/open/a"),
            ("X-Original-URI", "/orders/1", "/open/a"),
            ("X-Original-URI", "/open/a?", "/open/a"),
            ("X-Original-URI", "http://other.test/open/a", "http://gateway.test/open/a"),
            ("X-Original-URL", "https://gateway.test/open/a", "http://gateway.test/open/a"),
            ("X-Original-URL", "http://gateway.test/orders/1", "http://gateway.test/open/a"),
            ("X-Original-URL", "gateway.test", "http://gateway.test/open/a"),
            ("X-Original-URL", "ftp://gateway.test/open/a", "http://GATEWAY.test/open/a"),
            ("X-Forwarded-Uri", "/open/a#b", "/open/a"),
            ("X-Forwarded-Uri", "*", "/open/a"),
            ("X-Forwarded-Host", "other.test", "Gateway.test"),
            ("X-Forwarded-Proto", "https", "http"),
        ] {
            if fields(form).contains(&name) || (form == Form::Forwarded && name == "X-Forwarded-Proto") {
                continue;
            }
            whole.clone().header(name, same).to(gateway.http()).is(200);
            if form == Form::Prefixed && name == "X-Forwarded-Proto" {
                continue;
            }
            let answer = whole.clone().header(name, other).to(gateway.http());
            assert_eq!(
                (answer.status, &*answer.code()),
                (403, "bad_request"),
                "{form:?} {name}: {other}: {answer:#?}"
            );
        }
    }
    let answer = Request::get("/auth/verify").to(gateway.http());
    answer.is_refusal(403, "bad_request");
    let detail = gateway.access_line(&answer)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("docs/forward-auth.md"), "the detail names the page to read: {detail}");
}

#[test]
fn the_gateways_own_endpoints_are_nobody_elses() {
    let gateway = gateway();
    for path in ["/auth/login", "/auth/me", "/.well-known/jwks.json", "/auth/verify", "/auth/verify/open/a"] {
        for form in FORMS {
            let answer = question(form, "GET", HOST, path).bearer(clerk()).to(gateway.http());
            assert!(matches!(answer.status, 401 | 403), "{form:?} {path}: {answer:#?}");
        }
    }
    let answer = question(Form::Original, "GET", HOST, "/.well-known/jwks.json").to(gateway.http());
    answer.is_refusal(403, "no_route");
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().unwrap().contains("an endpoint of the gateway"), "{line}");
}

#[test]
fn a_browser_is_sent_to_the_login_page_of_the_host_that_it_asked() {
    let gateway = gateway();
    for form in FORMS {
        let page = |method| {
            let target = "/page?a=b&c=%2F";
            question(form, method, "gateway.test:8443", target).header("Accept", "text/html, */*;q=0.1")
        };
        let answer = page("GET").to(gateway.http());
        let there = "http://gateway.test:8443/auth/login?next=/page%3Fa%3Db%26c%3D%252F";
        match form {
            Form::Forwarded | Form::Prefixed => {
                assert_eq!((answer.status, answer.header("location")), (303, Some(there)), "{answer:#?}");
            }
            // nginx treats a redirect as an error, so the gateway sends it the redirect's target in a 401.
            Form::Original | Form::Ingress => {
                answer.is(401);
                assert_eq!(answer.header("location"), Some(there), "{answer:#?}");
                assert!(answer.header("www-authenticate").is_some(), "{answer:#?}");
            }
        }
        let post = page("POST").to(gateway.http());
        assert_eq!((post.status, post.header("location")), (401, None), "{post:#?}");
        let program = question(form, "GET", HOST, "/page").to(gateway.http());
        program.is_refusal(401, "missing_token");
        assert_eq!(program.header("location"), None);
        page("GET").bearer(clerk()).to(gateway.http()).is(200);
    }
}

#[test]
fn limits_count_the_client_and_not_the_proxy() {
    let gateway = gateway();
    let ask = |form, address: &str| {
        question(form, "GET", HOST, "/limited").header("X-Forwarded-For", address).to(gateway.http())
    };
    // All forms of a question and proxied requests share one budget.
    ask(Form::Forwarded, "192.0.2.7").is(200);
    Request::get("/limited").header("X-Forwarded-For", "192.0.2.7").to(gateway.http()).is(200);
    for form in FORMS {
        let refused = ask(form, "192.0.2.7");
        refused.is_refusal(429, "rate_limited");
        assert!(refused.header("retry-after").is_some_and(|wait| wait != "0"), "{refused:#?}");
    }
    ask(Form::Prefixed, "192.0.2.8").is(200);
    let shared =
        |subject| question(Form::Original, "GET", HOST, "/shared").bearer(token(subject)).to(gateway.http());
    shared("ada").is(200);
    Request::get("/shared").bearer(token("ada")).to(gateway.http()).is(200);
    shared("ada").is_refusal(429, "rate_limited");
    shared("bob").is(200);
}

#[test]
fn a_session_counts_by_the_original_method_and_until_it_is_ended() {
    let gateway = gateway();
    account::add(gateway.dir(), "ada", &["clerk"]);
    let login = posting("/auth/login", &json!({ "username": "ada", "password": PASSWORD }));
    let login = login.header("X-Forwarded-Proto", "https").to(gateway.http());
    login.is(200);
    let set = crate::kit::values(&login.headers, "set-cookie");
    let cookie = |name: &str| {
        let pair = set.iter().find_map(|field| field.strip_prefix(&format!("{name}="))).expect(name);
        pair.split(';').next().unwrap().to_owned()
    };
    let sent = format!("__Host-portcullis={}", cookie("__Host-portcullis"));
    for form in FORMS {
        let ask = |method| question(form, method, HOST, "/orders/1").header("Cookie", &sent);
        ask("GET").to(gateway.http()).is(200);
        ask("POST").to(gateway.http()).is_refusal(403, "csrf_missing");
        let csrf = cookie("__Host-portcullis-csrf");
        let answer = ask("POST").header("X-CSRF-Token", &csrf).to(gateway.http());
        assert_eq!(answer.is(200).header("x-auth-subject"), Some("ada"));
        let ours = ask("POST").header("X-CSRF-Token", &csrf).header("Origin", "http://gateway.test");
        ours.to(gateway.http()).is(200);
        let theirs = ask("POST").header("X-CSRF-Token", &csrf).header("Origin", "https://gateway.test");
        theirs.to(gateway.http()).is_refusal(403, "csrf_mismatch");
    }
    let login = json!({ "username": "ada", "password": PASSWORD, "deliver": "body" });
    let pair = Pair::of(&post(gateway.http(), "/auth/login", &login));
    let ask = || question(Form::Original, "GET", HOST, "/orders/1").bearer(&pair.access).to(gateway.http());
    ask().is(200);
    let out = posting("/auth/logout", &json!({ "refresh_token": pair.refresh })).to(gateway.http());
    assert!(out.status < 300, "{out:#?}");
    ask().is_refusal(401, "revoked_token");
}

#[test]
fn the_operator_finds_the_request_that_was_asked_about() {
    let gateway = gateway();
    let request = question(Form::Original, "POST", "gateway.test:8443", "/orders/7?q=s3cret").bearer(clerk());
    let answer = request.header("X-Forwarded-For", "192.0.2.7").to(gateway.http());
    answer.is(200);
    let line = gateway.access_line(&answer);
    for (field, value) in [
        ("method", json!("POST")),
        ("host", json!("gateway.test:8443")),
        ("path", json!("/orders/7")),
        ("route", json!("orders")),
        ("client", json!("192.0.2.7")),
        ("subject", json!("ada")),
        ("status", json!(200)),
        ("verdict_for", json!("127.0.0.1")),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(!gateway.log_text().contains("s3cret"));
    let answer = Request::get("/orders/7").bearer(clerk()).to(gateway.http());
    assert_eq!(gateway.access_line(&answer)["verdict_for"], Value::Null);
    question(Form::Prefixed, "GET", HOST, "/orders/7").to(gateway.http()).is_refusal(401, "missing_token");
    let ingress = question(Form::Ingress, "GET", HOST, "/page").header("Accept", "text/html");
    let text = String::from_utf8(ingress.bytes()).unwrap().replace("URL: http:", "URL: https:");
    let answer = client::send(gateway.http(), text);
    assert_eq!(gateway.access_line(&answer)["scheme"], "https");
    assert!(answer.is(401).header("location").unwrap().starts_with("https://gateway.test/"), "{answer:#?}");
    eventually("the verdicts are counted with their route", || {
        let text = Request::get("/metrics").to(gateway.admin()).text();
        let count = |labels: &str| {
            text.contains(&format!("portcullis_requests_total{{route=\"orders\",{labels}}} 1\n"))
        };
        count("outcome=\"permitted\",status=\"2xx\",reason=\"\"")
            && count("outcome=\"refused\",status=\"4xx\",reason=\"missing_token\"")
            && count("outcome=\"forwarded\",status=\"2xx\",reason=\"\"")
    });
}

#[test]
fn the_endpoint_is_where_the_policy_puts_it() {
    let moved = gateway_with(TRUSTED, "[authority.paths]\nverify = \"/check\"\n");
    let at = |request: Request, path: &str| {
        let text = String::from_utf8(request.bytes()).unwrap().replacen("/auth/verify", path, 1);
        client::send(moved.http(), text)
    };
    at(question(Form::Forwarded, "GET", HOST, "/open/a"), "/check").is(200);
    at(question(Form::Prefixed, "GET", HOST, "/open/a"), "/check").is(200);
    at(question(Form::Prefixed, "GET", HOST, "/orders/1"), "/check").is_refusal(401, "missing_token");
    at(question(Form::Forwarded, "GET", HOST, "/open/a"), "/check-in").is_refusal(404, "no_route");
    at(question(Form::Forwarded, "GET", HOST, "/open/a"), "/auth/verify").is_refusal(404, "no_route");
}
