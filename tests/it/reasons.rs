//! The log of a refusal states what arrived and what was expected. The client gets only the code and one sentence.

use crate::kit::client::send;
use crate::kit::forge::{self, now};
use crate::kit::portcullis::command;
use crate::kit::{Portcullis, Request, Upstream, token};
use crate::{gateway, policy};
use serde_json::{Value, json};

const ROUTES: &str = r#"
[rate_limit.hourly]
by    = "client_ip"
rate  = "1000/h"
burst = 2

[[route]]
name     = "guarded"
path     = "/guarded"
upstream = "app"
roles    = ["admin"]

[[route]]
name     = "open"
path     = "/open"
upstream = "app"
access   = "public"

[[route]]
name        = "limited"
path        = "/limited"
upstream    = "app"
access      = "public"
rate_limits = ["hourly"]
"#;

/// Returns rejected tokens, each with its code and the operator's text. N replaces each number of seconds.
fn refused() -> Vec<(String, &'static str, &'static str)> {
    let good = || token("ada").role("admin");
    let client = "aud is missing; client_id is there";
    let milliseconds = good().claim("exp", json!(1_795_000_000_000_u64));
    vec![
        (
            good().claim("iss", json!("https://id.test")).sign(),
            "unknown_issuer",
            "iss is 'https://id.test'; known: 'https://id.test/' (they differ by a trailing slash or by case)",
        ),
        (good().claim("aud", json!("other")).sign(), "wrong_audience", "aud is 'other'; wanted: 'orders'"),
        (
            good().claim("iss", json!(["https://id.test/"])).sign(),
            "missing_claim",
            "iss is ['https://id.test/']",
        ),
        (
            good().claim("aud", json!(["other", "else"])).sign(),
            "wrong_audience",
            "aud is ['other', 'else']; wanted: 'orders'",
        ),
        (
            good().member("kid", json!("new")).sign(),
            "unknown_key",
            "kid is 'new'; the issuer's keys: 'es256'",
        ),
        (
            good().member("alg", json!("PS256")).sign(),
            "unsupported_algorithm",
            "alg is 'PS256'; the issuer's algorithms: ES256",
        ),
        (good().sign_as_the_stranger(), "bad_signature", "not by the key 'es256' (ES256)"),
        (good().claim("exp", json!(now() - 100)).sign(), "expired_token", "exp is N, N s ago; leeway is N s"),
        (good().claim("exp", json!(-1)).sign(), "expired_token", "exp is -N, before N"),
        (
            good().claim("nbf", json!(now() + 100)).sign(),
            "token_not_yet_valid",
            "nbf is N, N s ahead; leeway is N s",
        ),
        (milliseconds.sign(), "missing_claim", "exp is N, out of range (milliseconds?)"),
        (good().without("sub").sign(), "missing_claim", "sub is missing"),
        (good().without("aud").claim("client_id", json!("orders")).sign(), "missing_claim", client),
        (
            good().claim("token_use", json!("id")).sign(),
            "wrong_type",
            "not an access token: token_use is 'id'",
        ),
        (good().claim("typ", json!("ID")).sign(), "wrong_type", "not an access token: typ is 'ID'"),
        (
            good().member("typ", json!("id+jwt")).sign(),
            "wrong_type",
            "the header's typ is 'id+jwt'; accepted: 'at+jwt', 'jwt', '(no typ)'",
        ),
        (
            good().claim("scope", json!(["a admin"])).sign(),
            "malformed_token",
            "scope contains a scope with white space: 'a admin'",
        ),
        (
            good().claim("roles", json!({ "admin": {} })).sign(),
            "insufficient_role",
            "the route asks for any role of admin; the caller's roles: [] (the claim is an object, and its names are ignored)",
        ),
        (
            good().claim("roles", json!("user admin")).sign(),
            "insufficient_role",
            "the route asks for any role of admin; the caller's roles: [user admin] (the claim is text, which is one role, \
             whole)",
        ),
        (
            good().claim("x", json!("y".repeat(16_000))).sign(),
            "malformed_token",
            "the token has N bytes, and at most N are read",
        ),
    ]
}

/// Replaces each number of seconds in the text by N. Digits within words stay.
fn numbers_out(words: &str) -> String {
    let plain = |word: &str| {
        let digits = word.trim_start_matches('-').trim_end_matches([',', ';']);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            word.replace(digits, "N")
        } else {
            word.to_owned()
        }
    };
    words.split(' ').map(plain).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_log_explain_and_inspect_say_what_came_and_what_was_expected() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (index, (token, code, words)) in refused().into_iter().enumerate() {
        let answer = Request::get("/guarded").bearer(&token).to(gateway.http());
        let status = if code == "insufficient_role" { 403 } else { 401 };
        answer.is_refusal(status, code);
        let line = gateway.access_line(&answer);
        let detail = line["detail"].as_str().unwrap_or_else(|| panic!("{line}"));
        assert_eq!(numbers_out(detail), words, "{line}");
        let shown = answer.text();
        assert!(
            !shown.contains("known: ") && !shown.contains("wanted: "),
            "the client reads none of it: {shown}"
        );
        // `explain` and `token inspect` use the same words. A few cases of each kind of refusal suffice.
        if index % 4 == 0 || status == 403 {
            let url = "http://gateway.test/guarded";
            let arguments = ["--format", "json", "explain", "GET", url, "--token", &token];
            let reported: Value = serde_json::from_str(&command(gateway.dir(), &arguments).stdout).unwrap();
            assert_eq!(numbers_out(reported["reason"].as_str().unwrap_or_default()), words, "{reported}");
            // Sends the query of `explain --live`.
            let asked = json!({ "request": format!("GET {url}"), "token": token }).to_string();
            let live = Request::post("/explain", asked)
                .host("127.0.0.1")
                .header("Content-Type", "application/json")
                .to(gateway.admin())
                .json();
            assert_eq!(numbers_out(live["reason"].as_str().unwrap_or_default()), words, "{live}");
        }
        if index % 4 == 0 && status == 401 {
            let reported = command(gateway.dir(), &["--format", "json", "token", "inspect", &token]);
            let reported: Value = serde_json::from_str(&reported.stdout).unwrap();
            assert_eq!(numbers_out(reported["reason"].as_str().unwrap_or_default()), words, "{reported}");
            assert_eq!(reported["code"], code);
        }
    }
}

#[test]
fn a_missing_token_says_what_came_in_its_place() {
    // A 401 for another scheme, and for none.
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let bare = token("ada").sign();
    for (field, words) in [
        ("Token s3cret", json!("Authorization has the scheme Token, not Bearer")),
        ("Basic czNjcmV0", json!("Authorization has the scheme Basic, not Bearer")),
        (&bare, json!("Authorization has a bare token without \"Bearer \" before it")),
        ("s3cret", json!("Authorization has one word of 6 bytes and no scheme")),
    ] {
        let answer = Request::get("/guarded").header("Authorization", field).to(gateway.http());
        answer.is_refusal(401, "missing_token");
        assert_eq!(gateway.access_line(&answer)["detail"], words, "{field}");
    }
    let answer = Request::get("/guarded?access_token=s3cret&a=b").to(gateway.http());
    answer.is_refusal(401, "missing_token");
    let words = json!("the query has access_token, and the route takes no token from there (sources)");
    assert_eq!(gateway.access_line(&answer)["detail"], words);
    let answer = Request::get("/guarded").to(gateway.http());
    assert_eq!(gateway.access_line(&answer)["detail"], Value::Null);
    assert!(!gateway.stop().contains("s3cret"));
}

#[test]
fn credentials_that_cannot_be_used_are_reported_with_their_places() {
    let routes = r#"
[api_keys]

[[route]]
path     = "/places"
upstream = "app"
sources  = ["header", { header = "X-Api-Token", prefix = "Token " }, { cookie = "CF_Authorization" }, "websocket", "api_key", "query"]
"#;
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, routes);
    let get = || Request::get("/places");
    for (request, words) in [
        (get().bearer("s3cret").bearer("s3cret"), "more than one credential: Authorization twice"),
        (
            get().bearer("s3cret").header("X-Api-Token", "Token s3cret"),
            "more than one credential: Authorization, x-api-token",
        ),
        (
            get().header("Cookie", "CF_Authorization=s3cret").header("X-Api-Key", "s3cret"),
            "more than one credential: the cookie CF_Authorization, x-api-key (or Authorization: ApiKey)",
        ),
        (
            Request::get("/places?access_token=s3cret&access_token=s3cret").bearer("s3cret"),
            "more than one credential: Authorization, the query field access_token twice",
        ),
        (
            get().header("Cookie", "CF_Authorization=s3cret; CF_Authorization=s3cret"),
            "more than one credential: the cookie CF_Authorization twice",
        ),
        (
            get().header("X-Api-Key", "s3cret").header("Authorization", "ApiKey s3cret"),
            "more than one credential: x-api-key (or Authorization: ApiKey) twice",
        ),
        (
            get().header("Sec-WebSocket-Protocol", "bearer, s3cret").header("X-Api-Token", "Token s3cret"),
            "more than one credential: x-api-token, Sec-WebSocket-Protocol after bearer",
        ),
    ] {
        let answer = request.to(gateway.http());
        answer.is_refusal(400, "ambiguous_credentials");
        assert_eq!(gateway.access_line(&answer)["detail"], words);
    }
    // One credential without the form of its place.
    for (request, words) in [
        (get().bearer("s3 cret"), "Authorization is not one scheme, one space, one token"),
        (
            get().header("Authorization", "Bearer\ts3cret"),
            "Authorization is not one scheme, one space, one token",
        ),
        (get().header("Authorization", "ApiKey  s3cret"), "the API key does not begin with pck_"),
        (get().header("X-Api-Token", "Bearer s3cret"), "x-api-token does not begin with \"Token \""),
        (
            get().header("X-Api-Token", "token s3,cret"),
            "x-api-token contains a character that no token contains",
        ),
        (
            get().header("Cookie", "CF_Authorization=\"s3cret\""),
            "the cookie CF_Authorization contains a character that no token contains",
        ),
        (Request::get("/places?access_token="), "the query field access_token is empty"),
        (
            get().header("Sec-WebSocket-Protocol", "bearer"),
            "Sec-WebSocket-Protocol has no token after bearer",
        ),
    ] {
        let answer = request.to(gateway.http());
        answer.is_refusal(401, "malformed_token");
        assert_eq!(gateway.access_line(&answer)["detail"], words);
    }
    assert!(!gateway.stop().contains("s3cret"));
    upstream.saw_nothing();
}

#[test]
fn text_of_a_token_is_escaped_and_cut_in_the_log() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let issuer = format!("https://x/\n\u{202e}'\" level=error {}", "z".repeat(2000));
    let token = token("ada").claim("iss", json!(issuer)).claim("aud", json!(vec!["w".repeat(900); 3]));
    let answer = Request::get("/guarded").bearer(&token).to(gateway.http());
    answer.is_refusal(401, "unknown_issuer");
    let line = gateway.access_line(&answer);
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.starts_with("iss is 'https://x/\\n\\u{202e}\\'\" level=error zzz"), "{detail}");
    assert!(detail.contains("…'; known: 'https://id.test/'") && detail.len() < 200, "{detail}");
}

#[test]
fn a_test_of_the_policy_that_fails_says_why_the_token_is_refused() {
    let test = r#"
[[test]]
name    = "clerks come in"
request = "GET http://gateway.test/guarded"
claims  = { sub = "u1", aud = "other", roles = ["admin"] }
expect  = { allow = true }
"#;
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let text = policy(&upstream, &format!("{ROUTES}{test}"));
    crate::kit::portcullis::write_policy(gateway.dir(), &text);
    let reported = command(gateway.dir(), &["check"]);
    assert!(
        reported.text().contains("+ deny \"wrong_audience\"")
            && reported.text().contains("because aud is 'other'; wanted: 'orders'"),
        "{}",
        reported.text()
    );
}

#[test]
fn an_excess_is_reported_with_its_size_and_its_bound() {
    // The refusals 413, 429 and 431.
    let upstream = Upstream::start();
    let bounds = "[server.bounds]\nbody_size = \"1KiB\"\nheader_size = \"4KiB\"\nheaders = 20\n";
    let gateway = gateway(&upstream, &format!("{bounds}{ROUTES}"));
    let detail = |answer: &crate::kit::Answer| gateway.access_line(answer)["detail"].clone();

    let answer = Request::post("/open", "x".repeat(2000)).to(gateway.http());
    answer.is_refusal(413, "body_too_large");
    assert_eq!(detail(&answer), "a body of 2000 bytes, and body_size in [server.bounds] is 1024");

    let chunked = format!(
        "POST /open HTTP/1.1\r\nhost: gateway.test\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n",
        "x".repeat(2000)
    );
    let answer = send(gateway.http(), chunked);
    answer.is_refusal(413, "body_too_large");
    assert_eq!(detail(&answer), "the body has more bytes than body_size in [server.bounds], which is 1024");

    let mut request = Request::get("/open");
    for number in 0..20 {
        request = request.header(&format!("X-{number}"), "v");
    }
    let answer = request.to(gateway.http());
    answer.is_refusal(431, "headers_too_large");
    let text = detail(&answer);
    assert!(
        text.as_str().unwrap().ends_with("header fields, and headers in [server.bounds] is 20"),
        "{text}"
    );

    for _ in 0..2 {
        Request::get("/limited").to(gateway.http()).is(200);
    }
    let answer = Request::get("/limited").to(gateway.http());
    answer.is_refusal(429, "rate_limited");
    assert_eq!(detail(&answer), "the limit hourly has no request left: 2 at once, then one each 3.6s");
    // draft-ietf-httpapi-ratelimit-headers-10, section 4.1: `t` is the time until one more request is available.
    assert_eq!(answer.header("ratelimit"), Some("\"hourly\";r=0;t=4"));
    assert_eq!(answer.header("retry-after"), Some("4"));
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn the_line_has_the_trace_of_the_request_and_the_id_of_a_trusted_proxy() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let ask = |fields: &[(&str, &str)], gateway: &Portcullis| {
        let request =
            fields.iter().fold(Request::get("/open"), |request, (name, value)| request.header(name, value));
        let answer = request.to(gateway.http());
        answer.is(200);
        let parent = upstream.requests().last().unwrap().header("traceparent").unwrap().to_owned();
        (gateway.access_line(&answer), parent)
    };
    let (line, parent) = ask(&[("traceparent", PARENT)], &gateway);
    assert_eq!((&line["trace_id"], &*parent), (&json!(TRACE), PARENT));
    assert_ne!(line["request_id"], TRACE);
    for bad in ["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "x\" level=error"] {
        let (line, parent) = ask(&[("traceparent", bad), ("x-request-id", "not-trusted")], &gateway);
        assert_eq!(line["trace_id"], Value::Null, "the request's id is the trace's: {line}");
        assert_eq!(line["request_id"], parent.split('-').nth(1).unwrap());
    }
    let trusting = format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{}", policy(&upstream, ROUTES));
    let gateway = Portcullis::with(&trusting).start();
    let (line, parent) = ask(&[("x-request-id", "proxy-7"), ("traceparent", PARENT)], &gateway);
    assert_eq!(
        (&line["request_id"], &line["trace_id"], &*parent),
        (&json!("proxy-7"), &json!(TRACE), PARENT)
    );
    let (line, parent) = ask(&[("x-request-id", "proxy-8")], &gateway);
    assert_eq!(line["request_id"], "proxy-8");
    assert_eq!(line["trace_id"], parent.split('-').nth(1).unwrap(), "a trace that began here");
}

/// Starts a gateway whose issuer has this key set.
fn with_keys(upstream: &Upstream, algorithms: &str, keys: &Value) -> Portcullis {
    let routes = "[[route]]\npath = \"/guarded\"\nupstream = \"app\"\n";
    let text = format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = {algorithms}\n\
         jwks = \"own.json\"\n[upstream.app]\nservers = [\"{upstream}\"]\n{routes}"
    );
    Portcullis::with(&text).file("own.json", keys.to_string()).start()
}

#[test]
fn keys_as_issuers_publish_them_verify_their_tokens() {
    // RFC 7517 sections 4.2 and 4.5, RFC 9864.
    let upstream = Upstream::start();
    let set = forge::jwks();
    let (es, ed, rsa) = (&set["keys"][0], &set["keys"][1], &set["keys"][2]);
    let with = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        match value {
            Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
            value => key[name] = value,
        }
        key
    };
    let stranger = &forge::jwks_of_the_stranger()["keys"][0];
    let es_token = || token("ada").sign();
    let ed_token =
        |alg: &str| token("ada").algorithm(forge::Algorithm::EdDsa).member("alg", json!(alg)).sign();

    let twin = with(&with(rsa, "use", json!("enc")), "alg", json!("RSA-OAEP"));
    let rs_token = token("ada").algorithm(forge::Algorithm::Rs256).sign();
    let gateway = with_keys(&upstream, "[\"RS256\"]", &json!({ "keys": [twin, rsa] }));
    Request::get("/guarded").bearer(&rs_token).to(gateway.http()).is(200);
    let reported = command(gateway.dir(), &["check", "--strict"]);
    assert!(!reported.text().contains("skipped_key"), "{}", reported.text());

    let bare = [with(stranger, "kid", Value::Null), with(es, "kid", Value::Null)];
    let gateway = with_keys(&upstream, "[\"ES256\"]", &json!({ "keys": bare }));
    for token in
        [es_token(), token("ada").member("kid", Value::Null).sign(), token("ada").sign_as_the_stranger()]
    {
        Request::get("/guarded").bearer(&token).to(gateway.http()).is(200);
    }
    let two = [with(stranger, "kid", json!("old")), es.clone()];
    let gateway = with_keys(&upstream, "[\"ES256\"]", &json!({ "keys": two }));
    Request::get("/guarded")
        .bearer(token("ada").member("kid", Value::Null).sign())
        .to(gateway.http())
        .is(200);
    let wrong = token("ada").member("kid", json!("old")).sign();
    Request::get("/guarded").bearer(&wrong).to(gateway.http()).is_refusal(401, "bad_signature");

    for (algorithms, alg) in [("[\"EdDSA\"]", "Ed25519"), ("[\"Ed25519\"]", "EdDSA")] {
        let keys = json!({ "keys": [with(ed, "alg", json!(alg))] });
        let gateway = with_keys(&upstream, algorithms, &keys);
        for named in ["EdDSA", "Ed25519"] {
            Request::get("/guarded").bearer(ed_token(named)).to(gateway.http()).is(200);
        }
        Request::get("/guarded")
            .bearer(ed_token("Ed448"))
            .to(gateway.http())
            .is_refusal(401, "unsupported_algorithm");
    }
}
