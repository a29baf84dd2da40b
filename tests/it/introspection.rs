//! Opaque tokens: the gateway asks their issuer (RFC 7662), keeps the answers for a while, and never accepts a token
//! without one.

use crate::kit::account::{self, AUTHORITY, login};
use crate::kit::client::Connection;
use crate::kit::dir::Dir;
use crate::kit::forge::{Token, base64url, now};
use crate::kit::key_server::{KeyServer, Signer, set_of};
use crate::kit::portcullis::{command, command_in, completed, write_policy};
use crate::kit::upstream::{After, ClosedPort, Gate, Wire};
use crate::kit::{Answer, Portcullis, Request, eventually, token};
use crate::reload::reload;
use crate::signals::SIGNALS;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The server may be on this machine.
const LOCAL: &str = "allow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\n";

const ROUTES: &str = r#"
[upstream.echo]
builtin = "echo"

[[route]]
path     = "/x"
upstream = "echo"

[[route]]
path     = "/write"
upstream = "echo"
scopes   = ["write"]
roles    = ["clerk"]
"#;

/// A policy whose issuer is asked at this server, with these further keys.
fn policy(server: impl std::fmt::Display, issuer: &str, introspection: &str) -> String {
    format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\n{LOCAL}{issuer}\n\
         [issuer.introspection]\nendpoint = \"{server}/introspect\"\nclient_id = \"gateway\"\n\
         secret = \"env:INTROSPECTION\"\n{introspection}\n{ROUTES}"
    )
}

fn start(text: &str) -> Portcullis {
    Portcullis::with(text).env("INTROSPECTION", "the secret/of the gateway").start()
}

fn ask(gateway: &Portcullis, token: &str) -> Answer {
    Request::get("/x").bearer(token).to(gateway.http())
}

/// Returns an answer about an active token.
fn active(subject: &str) -> Value {
    json!({ "active": true, "token_type": "Bearer", "iss": "https://id.test/", "aud": "orders", "sub": subject,
            "scope": "read write", "roles": ["clerk"], "iat": now(), "exp": now() + 600 })
}

/// Reads a question, and returns its token.
fn asked_about(wire: &mut Wire) -> String {
    assert!(wire.read_body());
    let form = String::from_utf8(wire.seen().body).unwrap();
    form.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap().to_owned()
}

fn answer(wire: &mut Wire, body: &str) -> After {
    assert!(wire.read_body());
    wire.answer("200 OK", "content-type: application/json\r\n", body);
    After::Keep
}

/// From now on, the server reads each question and answers with this status line, these fields and this body.
fn reply(server: &KeyServer, status: &'static str, fields: &str, body: &str) {
    let (fields, body) = (fields.to_owned(), body.to_owned());
    server.follow(move |_, wire| {
        wire.read_body();
        wire.answer(status, &fields, &body);
        After::Close
    });
}

/// A server that calls tokens beginning with `good` active, and others not.
fn server() -> KeyServer {
    let server = KeyServer::answering(String::new());
    server.follow(|_, wire| {
        let token = asked_about(wire);
        let body = if token.starts_with("good") { active(&token) } else { json!({ "active": false }) };
        answer(wire, &body.to_string())
    });
    server
}

fn outcomes(gateway: &Portcullis, outcome: &str) -> u64 {
    let sample =
        format!("portcullis_introspections_total{{issuer=\"https://id.test/\",outcome=\"{outcome}\"}}");
    gateway.metric(&sample).unwrap_or(0)
}

fn status(gateway: &Portcullis) -> String {
    Request::get("/readyz?verbose").to(gateway.admin()).text()
}

#[test]
fn an_active_token_is_a_caller_with_the_claims_of_the_answer_and_another_is_refused() {
    let server = server();
    let gateway = start(&policy(&server, "", ""));
    let answer = ask(&gateway, "good-1");
    answer.is(200);
    assert_eq!(answer.json()["headers"]["x-auth-subject"], json!("good-1"));
    Request::get("/write").bearer("good-1").to(gateway.http()).is(200);
    let refused = ask(&gateway, "stolen");
    refused.is_refusal(401, "inactive_token");
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer") && challenge.contains("invalid_token"), "{challenge}");

    let questions = server.upstream().requests();
    let seen = &questions[0];
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/introspect"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    let pair = seen.header("authorization").unwrap().strip_prefix("Basic ").unwrap().to_owned();
    assert_eq!(base64_decoded(&pair), "gateway:the%20secret%2Fof%20the%20gateway");
    assert_eq!(seen.body, b"token=good-1&token_type_hint=access_token");
    let log = gateway.log_text();
    assert!(!log.contains("stolen"), "no token is logged");
    assert!(!log.contains("the secret/of the gateway"));
}

fn base64_decoded(text: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

#[test]
fn an_answer_is_used_by_all_cores_until_it_is_too_old_and_a_burst_asks_once() {
    let server = server();
    let gateway = start(&policy(&server, "", "max_age = \"2s\"\nnegative_max_age = \"1s\""));
    let gate = Gate::new();
    let held = gate.clone();
    server.follow(move |_, wire| {
        held.wait();
        let token = asked_about(wire);
        answer(wire, &active(&token).to_string())
    });
    let mut burst: Vec<Connection> = (0..20).map(|_| Connection::open(gateway.http())).collect();
    for connection in &mut burst {
        connection.send(Request::get("/x").bearer("good-1").bytes());
    }
    eventually("the question is sent", || server.fetches() == 1);
    gate.open();
    for connection in &mut burst {
        connection.answer().is(200);
    }
    // Each new connection may be served by another core.
    for _ in 0..20 {
        ask(&gateway, "good-1").is(200);
    }
    assert_eq!(server.fetches(), 1);
    server.follow(|_, wire| answer(wire, "{\"active\":false}"));
    eventually("the issuer is asked again", || ask(&gateway, "good-1").status == 401);
    ask(&gateway, "good-1").is_refusal(401, "inactive_token");
    assert!(outcomes(&gateway, "active") == 1 && outcomes(&gateway, "inactive") >= 1);
    server.follow(|_, wire| {
        let token = asked_about(wire);
        answer(wire, &active(&token).to_string())
    });
    eventually("and again", || ask(&gateway, "good-1").status == 200);
}

#[test]
fn an_answer_is_not_used_after_the_tokens_end() {
    let server = KeyServer::answering(String::new());
    server.follow(|_, wire| {
        let mut claims = active(&asked_about(wire));
        claims["exp"] = json!(now() + 2);
        answer(wire, &claims.to_string())
    });
    let gateway = start(&policy(&server, "leeway = \"60s\"", ""));
    ask(&gateway, "good-1").is(200);
    eventually("the token has expired", || ask(&gateway, "good-1").status == 401);
    ask(&gateway, "good-1").is_refusal(401, "expired_token");
    assert_eq!(server.fetches(), 1);
}

/// The answers of a hostile or broken server. None of them makes a caller, or harms the tokens that are known.
#[test]
fn no_answer_of_an_introspection_server_lets_a_token_pass_by_mistake() {
    let server = server();
    let elsewhere = server_that_accepts_all();
    let gateway = start(&policy(&server, "", "timeout = \"1s\""));
    ask(&gateway, "good-known").is(200);
    let mut number = 0;
    let mut check = |what: &str, status: u16, code: &str| {
        number += 1;
        let answer = ask(&gateway, &format!("bad-{number}"));
        assert_eq!((answer.status, &*answer.code()), (status, code), "{what}");
        ask(&gateway, "good-known").is(200);
    };
    let json = "content-type: application/json\r\n";
    let huge = format!("{{\"active\":true,\"sub\":\"{}\"}}", "a".repeat(10 << 20));
    let good = active("ada").to_string();
    let with = |name: &str, value: Value| {
        let mut claims = active("ada");
        claims[name] = value;
        claims.to_string()
    };
    let deep = format!("{{\"active\":true,\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
    for (what, line, fields, body, code) in [
        ("an error", "500 Internal Server Error", json, &*good, "check_unavailable"),
        ("wrong credentials", "401 Unauthorized", json, &good, "check_unavailable"),
        ("no content", "204 No Content", "", "", "check_unavailable"),
        ("created", "201 Created", json, &good, "check_unavailable"),
        ("a page", "200 OK", "content-type: text/html\r\n", "<html>", "check_unavailable"),
        (
            "JSON that says that it is text",
            "200 OK",
            "content-type: text/plain\r\n",
            &good,
            "check_unavailable",
        ),
        ("JSON of no type", "200 OK", "", &good, "check_unavailable"),
        (
            "an unsigned answer as a signed one",
            "200 OK",
            "content-type: application/token-introspection+jwt\r\n",
            &good,
            "check_unavailable",
        ),
        ("no JSON", "200 OK", json, "active", "check_unavailable"),
        ("a list", "200 OK", json, "[{\"active\":true}]", "check_unavailable"),
        ("two statements", "200 OK", json, "{\"active\":false,\"active\":true}", "check_unavailable"),
        ("active as text", "200 OK", json, &with("active", json!("true")), "check_unavailable"),
        ("active as a number", "200 OK", json, &with("active", json!(1)), "check_unavailable"),
        ("no active", "200 OK", json, "{\"sub\":\"ada\"}", "check_unavailable"),
        ("ten megabytes", "200 OK", json, &huge, "check_unavailable"),
        ("a deep document", "200 OK", json, &deep, "check_unavailable"),
        (
            "compressed",
            "200 OK",
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            &good,
            "check_unavailable",
        ),
        ("another issuer", "200 OK", json, &with("iss", json!("https://other.test/")), "unknown_issuer"),
        ("another audience", "200 OK", json, &with("aud", json!("other")), "wrong_audience"),
        ("a huge exp", "200 OK", json, &with("exp", json!(1e300)), "missing_claim"),
        ("an exp as text", "200 OK", json, &with("exp", json!("9999999999")), "missing_claim"),
        ("a refresh token", "200 OK", json, &with("token_type", json!("refresh_token")), "wrong_type"),
        ("a token that needs a proof", "200 OK", json, &with("token_type", json!("DPoP")), "wrong_type"),
        ("no subject", "200 OK", json, &with("sub", Value::Null), "missing_claim"),
    ] {
        reply(&server, line, fields, body);
        check(what, if code == "check_unavailable" { 503 } else { 401 }, code);
    }
    reply(&server, "307 Temporary Redirect", &format!("location: {elsewhere}/introspect\r\n"), "");
    check("a redirect", 503, "check_unavailable");
    assert_eq!(elsewhere.fetches(), 0, "no token is sent to another server");
    server.follow(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"active\":true}");
        After::Close
    });
    check("a cut answer", 503, "check_unavailable");
    server.follow(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(15) && !wire.peer_left() {
            wire.send("{");
        }
        After::Close
    });
    check("an answer that drips", 503, "check_unavailable");
    assert!(status(&gateway).contains("the last question failed"), "{}", status(&gateway));
}

fn server_that_accepts_all() -> KeyServer {
    let server = KeyServer::answering(String::new());
    server.follow(|_, wire| answer(wire, &active("eve").to_string()));
    server
}

#[test]
fn while_the_endpoint_is_down_only_unknown_tokens_are_unavailable() {
    let signer = Signer::new("1");
    let port = ClosedPort::new();
    let other = "[[issuer]]\nissuer = \"https://jwt.test/\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\njwks = \"jwt.json\"\n";
    let text = format!("{}\n{other}", policy(&port, "", ""));
    let builder = Portcullis::with(&text).file("jwt.json", set_of(&[&signer]).to_string());
    let gateway = builder.env("INTROSPECTION", "a secret").start();
    ask(&gateway, "good-1").is_refusal(503, "check_unavailable");
    ask(&gateway, &signer.sign(token("ada").claim("iss", json!("https://jwt.test/")))).is(200);
    Request::get("/x").to(gateway.http()).is_refusal(401, "missing_token");
    gateway.wait_log("the failure is logged", |line| {
        line["message"].as_str().is_some_and(|event| event.starts_with("an issuer gives no usable answer"))
    });
    assert!(status(&gateway).contains("cannot connect"), "{}", status(&gateway));
    let keys = Request::get("/keys").to(gateway.admin()).json();
    let shown = keys["issuers"].as_array().unwrap().iter().find(|one| one["introspection"].is_object());
    let shown = shown.unwrap().to_string();
    assert!(shown.contains("cannot connect") && !shown.contains("a secret"), "{shown}");
    let line = gateway.wait_log("the refusal is logged with the issuer's fault", |line| {
        line["detail"].as_str().is_some_and(|detail| {
            detail.starts_with("the issuer gave no usable answer about the token: http://")
        })
    });
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("cannot connect") && !detail.contains("good-1"), "{detail}");
    let admin = gateway.admin().to_string();
    let environment = [("INTROSPECTION", "a secret"), ("PORTCULLIS_SERVER__ADMIN", &*admin)];
    let list = |arguments: &[&str]| command_in(gateway.dir(), arguments, &environment).text();
    let listed = list(&["key", "list", "--live"]);
    let endpoint =
        format!("  {port}/introspect: asked about tokens without a verifiable signature: 0 active");
    assert!(listed.contains(&endpoint) && listed.contains("the last question failed at"), "{listed}");
    let listed = list(&["key", "list"]);
    assert!(listed.contains("asked about tokens without a verifiable signature\n"), "{listed}");
}

/// Returns a statement of the issuer about a user's sessions.
fn statement(kind: &str, subject: &str, event: &str) -> Token {
    token(subject)
        .member("typ", json!(kind))
        .claim("aud", json!("https://gateway.test"))
        .claim("jti", json!(format!("{kind} about {subject}")))
        .claim("events", json!({ event: { "event_timestamp": now() } }))
}

#[test]
fn a_signal_revokes_a_known_opaque_token_at_once() {
    let signer = Signer::new("1");
    for (issuer, signals) in [
        ("algorithms = [\"ES256\"]\njwks = \"keys.json\"", ""),
        ("algorithms = [\"ES256\"]", "jwks = \"keys.json\"\n"),
    ] {
        let server = server();
        let text = format!("{}{SIGNALS}{signals}", policy(&server, issuer, ""));
        let keys = set_of(&[&signer]).to_string();
        let gateway =
            Portcullis::with(&text).file("keys.json", keys).env("INTROSPECTION", "a secret").start();
        for token in ["good-1", "good-2", "good-3"] {
            ask(&gateway, token).is(200);
        }
        let user = json!({ "format": "iss_sub", "iss": "https://id.test/", "sub": "good-1" });
        let ended = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
        let event = statement("secevent+jwt", "good-1", ended).without("sub").without("exp");
        Request::post("/signals/idp", signer.sign(event.claim("sub_id", user)))
            .header("content-type", "application/secevent+jwt")
            .to(gateway.http())
            .is(202);
        ask(&gateway, "good-1").is_refusal(401, "revoked_token");
        ask(&gateway, "good-2").is(200);
        let logout = statement("logout+jwt", "good-2", "http://schemas.openid.net/event/backchannel-logout");
        Request::post("/signals/idp/logout", format!("logout_token={}", signer.sign(logout)))
            .header("content-type", "application/x-www-form-urlencoded")
            .to(gateway.http())
            .is(200);
        ask(&gateway, "good-2").is_refusal(401, "revoked_token");
        ask(&gateway, "good-3").is(200);
        assert_eq!(server.fetches(), 3, "the issuer was not asked again");
    }
}

#[test]
fn signals_of_an_issuer_without_keys_need_keys_of_their_own() {
    let dir = Dir::new();
    dir.write("keys.json", set_of(&[&Signer::new("1")]).to_string());
    for (signals, why) in [
        ("", "not set, and the issuer has no keys"),
        ("jwks = \"keys.json\"\n", "set, but the issuer has no algorithms"),
    ] {
        let text = policy("https://id.test", "", "").replace("env:INTROSPECTION", "env:PATH");
        let text = text.replace(LOCAL, "");
        write_policy(&dir, &format!("{text}{SIGNALS}{signals}"));
        let checked = command(&dir, &["check"]);
        assert!(checked.code != Some(0) && checked.text().contains(why), "{checked:?}");
        assert!(checked.text().contains("signals.idp.jwks"), "{checked:?}");
    }
}

#[test]
fn a_flood_of_invented_tokens_meets_the_rate_and_known_tokens_do_not_notice() {
    let server = server();
    let gateway = start(&policy(&server, "", "rate = \"20/m\"\nmax_age = \"5m\""));
    ask(&gateway, "good-1").is(200);
    let codes: Vec<String> = (0..100).map(|n| ask(&gateway, &format!("bad-{n}")).code()).collect();
    let refused = codes.iter().filter(|code| *code == "check_unavailable").count();
    assert!(refused >= 75, "{refused}");
    assert!(server.fetches() <= 25, "{}", server.fetches());
    ask(&gateway, "good-1").is(200);
    let sample = "portcullis_introspections_not_asked_total{issuer=\"https://id.test/\",bound=\"rate\"}";
    assert_eq!(gateway.metric(sample), Some(refused as u64));
    ask(&gateway, "bad-0").is_refusal(401, "inactive_token");
}

#[test]
fn the_issuer_of_a_jwt_without_keys_is_asked_and_with_keys_only_if_always_is_set() {
    let signer = Signer::new("1");
    let server = server_that_accepts_all();
    let jwt = signer.sign(token("ada"));
    let gateway = start(&policy(&server, "", ""));
    assert_eq!(ask(&gateway, &jwt).json()["headers"]["x-auth-subject"], json!("eve"), "as the answer says");
    ask(&gateway, &signer.sign(token("ada").expired())).is_refusal(401, "expired_token");
    assert_eq!(server.fetches(), 1, "nobody is asked about a token that says that it has expired");

    let keys = set_of(&[&signer]).to_string();
    let issuer = "algorithms = [\"ES256\"]\njwks = \"keys.json\"";
    for (always, asks) in [("", false), ("always = true", true)] {
        let server = KeyServer::answering(String::new());
        server.follow(|_, wire| answer(wire, "{\"active\":false}"));
        let text = policy(&server, issuer, always);
        let gateway =
            Portcullis::with(&text).file("keys.json", &keys).env("INTROSPECTION", "a secret").start();
        match asks {
            true => drop(ask(&gateway, &jwt).is_refusal(401, "inactive_token")),
            false => drop(ask(&gateway, &jwt).is(200)),
        }
        ask(&gateway, &Signer::new("1").sign(token("eve"))).is_refusal(401, "bad_signature");
        assert_eq!(server.fetches(), usize::from(asks));
        server.follow(|_, wire| answer(wire, "{\"active\":true}"));
        let another = signer.sign(token("bob"));
        assert_eq!(ask(&gateway, &another).json()["headers"]["x-auth-subject"], json!("bob"));
        assert_eq!(server.fetches(), 2 * usize::from(asks));
    }
}

/// Returns a signed answer (RFC 9701).
fn signed(signer: &Signer, typ: &str, claims: Value) -> String {
    let mut made = token("ada").without("sub").without("exp").member("typ", json!(typ));
    for (name, value) in claims.as_object().unwrap() {
        made = made.claim(name, value.clone());
    }
    signer.sign(made)
}

#[test]
fn a_signed_answer_counts_only_with_the_issuers_signature() {
    const KIND: &str = "token-introspection+jwt";
    const FIELDS: &str = "content-type: application/token-introspection+jwt\r\n";
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let (server, keys) = (KeyServer::answering(String::new()), KeyServer::of(&[&one]));
    let issuer = format!("algorithms = [\"ES256\"]\njwks = \"{keys}/jwks\"\njwks_cooldown = \"100ms\"");
    let gateway = start(&policy(&server, &issuer, "jwt = true"));
    let about = |claims: Value| {
        let mut all = json!({ "iss": "https://id.test/", "aud": "gateway", "iat": now(),
                              "token_introspection": active("ada") });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    };
    let mut number = 0;
    let mut check = |what: &str, fields: &str, body: &str, status: u16| {
        number += 1;
        reply(&server, "200 OK", fields, body);
        let answer = ask(&gateway, &format!("token-{number}"));
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    };
    check("good", FIELDS, &signed(&one, KIND, about(json!({}))), 200);
    check(
        "not active",
        FIELDS,
        &signed(&one, KIND, about(json!({ "token_introspection": { "active": false } }))),
        401,
    );
    check("plain", "content-type: application/json\r\n", &active("ada").to_string(), 503);
    check("plain with the type", FIELDS, &active("ada").to_string(), 503);
    let unsigned =
        format!("{}.{}.", base64url("{\"alg\":\"none\"}"), base64url(about(json!({})).to_string()));
    check("unsigned", FIELDS, &unsigned, 503);
    check("signed by another", FIELDS, &signed(&Signer::new("1"), KIND, about(json!({}))), 503);
    check("an access token", FIELDS, &signed(&one, "at+jwt", about(json!({}))), 503);
    check("for another", FIELDS, &signed(&one, KIND, about(json!({ "aud": "other" }))), 503);
    check("of another", FIELDS, &signed(&one, KIND, about(json!({ "iss": "https://other.test/" }))), 503);
    check("an old one", FIELDS, &signed(&one, KIND, about(json!({ "iat": now() - 600 }))), 503);
    keys.publish(&[&one, &two]);
    check("by a key that is new", FIELDS, &signed(&two, KIND, about(json!({}))), 200);
    let accept = server.upstream().last_request();
    assert_eq!(accept.header("accept"), Some("application/token-introspection+jwt"));
}

#[test]
fn the_endpoint_is_found_by_the_issuers_metadata() {
    let signer = Signer::new("1");
    let server = KeyServer::answering(String::new());
    let (origin, keys) = (server.to_string(), set_of(&[&signer]).to_string());
    let issuer = origin.clone();
    server.follow(move |seen, wire| {
        match &*seen.target {
            "/keys" => wire.answer("200 OK", "", &keys),
            "/.well-known/openid-configuration" => {
                let metadata = json!({ "issuer": origin, "jwks_uri": format!("{origin}/keys"),
                                       "introspection_endpoint": format!("{origin}/ask") });
                wire.answer("200 OK", "", metadata.to_string());
            }
            "/ask" => {
                let mut claims = active(&asked_about(wire));
                claims["iss"] = json!(origin);
                return answer(wire, &claims.to_string());
            }
            _ => wire.answer("404 Not Found", "", ""),
        }
        After::Close
    });
    let text = policy(&server, "algorithms = [\"ES256\"]\ndiscovery = true", "")
        .replace(&format!("endpoint = \"{server}/introspect\"\n"), "")
        .replace("https://id.test/", &issuer);
    let gateway = start(&text);
    ask(&gateway, "good-1").is(200);
    ask(&gateway, &signer.sign(token("ada").claim("iss", json!(issuer)))).is(200);
    ask(&gateway, "good-2").is(200);
    let count =
        |target: &str| server.upstream().requests().iter().filter(|seen| seen.target == target).count();
    assert_eq!(count("/ask"), 2);
}

#[test]
fn a_reload_keeps_the_answers_unless_the_issuer_is_asked_otherwise() {
    let server = server();
    let text = policy(&server, "", "");
    let gateway = start(&text);
    ask(&gateway, "good-1").is(200);
    let reloaded = |text: &str| {
        gateway.dir().write("gateway.toml", completed(text));
        reload(&gateway).is(200);
    };
    reloaded(&format!("{text}\n[[route]]\npath = \"/more\"\nupstream = \"echo\"\n"));
    ask(&gateway, "good-1").is(200);
    assert_eq!(server.fetches(), 1);
    reloaded(&policy(&server, "", "max_age = \"30s\""));
    ask(&gateway, "good-1").is(200);
    assert_eq!(server.fetches(), 2);
    reloaded(&policy(&server, "", "prefixes = \"other_\""));
    ask(&gateway, "good-1").is_refusal(401, "malformed_token");
    ask(&gateway, "other_1").is_refusal(401, "inactive_token");
}

/// Another gateway is the issuer, and its logout takes effect within `max_age`.
#[test]
fn the_authority_of_another_gateway_answers() {
    let client =
        "[authority.client.edge]\nsecret = \"billing-secret-billing-secret-32\"\nintrospect = true\n";
    let issuer = Portcullis::with(&format!("{AUTHORITY}{client}{ROUTES}")).start();
    account::add(issuer.dir(), "ada", &["clerk"]);
    let pair = login(issuer.http(), "ada");
    let claims = pair.claims();
    let (name, audience) = (claims["iss"].as_str().unwrap(), &claims["aud"]);
    let text = policy(format!("http://{}", issuer.http()), "", "max_age = \"1s\"")
        .replace("https://id.test/", name)
        .replace("[\"orders\"]", &json!([audience]).to_string().replace("[[", "[").replace("]]", "]"))
        .replace("/introspect\"", "/auth/introspect\"")
        .replace("\"gateway\"", "\"edge\"");
    let gateway = Portcullis::with(&text).env("INTROSPECTION", "billing-secret-billing-secret-32").start();
    let answer = ask(&gateway, &pair.access);
    assert_eq!(answer.is(200).json()["headers"]["x-auth-subject"], claims["sub"]);
    let forged = format!("{}A", pair.access);
    ask(&gateway, &forged).is_refusal(401, "inactive_token");
    ask(&gateway, &pair.refresh).is_refusal(401, "wrong_type");
    Request::post("/auth/logout", "").bearer(&pair.access).to(issuer.http()).is(204);
    eventually("the logout takes effect", || ask(&gateway, &pair.access).status == 401);
    ask(&gateway, &pair.access).is_refusal(401, "inactive_token");
}

#[test]
fn faults_and_risks_of_introspection_are_reported_before_the_policy_is_served() {
    let dir = Dir::new();
    let base = "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\n";
    let url = "endpoint = \"https://id.test/i\"\n";
    let basic = format!("{url}client_id = \"g\"\nsecret = \"env:PATH\"\n");
    let second = "[[issuer]]\nissuer = \"https://b.test/\"\naudience = [\"orders\"]\n[issuer.introspection]\nauth = \"none\"\nendpoint = \"https://b.test/i\"\n";
    for (more, introspection, found) in [
        ("", "auth = \"none\"", "issuer[0].introspection.endpoint"),
        ("", url, "issuer[0].introspection.client_id"),
        ("", &format!("{url}client_id = \"g\""), "issuer[0].introspection.secret"),
        ("", &format!("{url}auth = \"bearer\""), "issuer[0].introspection.secret"),
        ("", &format!("{basic}auth = \"none\""), "issuer[0].introspection.auth"),
        ("", "endpoint = \"http://id.test/i\"\nauth = \"none\"", "could read tokens"),
        (
            "allow_http = true",
            "endpoint = \"http://id.test/i\"\nauth = \"none\"",
            "introspection_in_cleartext",
        ),
        ("", &format!("{basic}jwt = true"), "one_key_source"),
        ("", &format!("{basic}always = true"), "unused"),
        ("", &format!("{basic}max_age = \"2h\""), "issuer[0].introspection.max_age"),
        ("", &format!("{basic}max_age = \"30m\""), "late_revocation"),
        ("", &format!("{basic}negative_max_age = \"1h\""), "negative_max_age"),
        ("", &format!("{basic}timeout = \"1m\""), "introspection.timeout"),
        ("", &format!("{basic}concurrent = 1"), "introspection.concurrent"),
        ("", &format!("{basic}prefixes = [\"pck_x\"]"), "introspection.prefixes[0]"),
        ("", &format!("{basic}prefixes = [\"eyJh\"]"), "introspection.prefixes[0]"),
        ("", &format!("{basic}prefixes = [\"a\"]"), "introspection.prefixes[0]"),
        ("may_lack = [\"scope\"]", &basic, "issuer[0].may_lack[0]"),
        ("may_lack = [\"aud\"]", &basic, "any_audience"),
        ("private_networks = [\"0.0.0.0/0\"]", &basic, "metadata of cloud platforms"),
        ("", &format!("{basic}{second}"), "same_prefix"),
        ("", &format!("{basic}prefixes = [\"abc_\"]\n{second}prefixes = [\"abc_d\"]"), "same_prefix"),
    ] {
        write_policy(&dir, &format!("{base}{more}\n[issuer.introspection]\n{introspection}\n{ROUTES}"));
        let checked = command(&dir, &["check", "--strict"]);
        assert!(
            checked.code != Some(0) && checked.text().contains(found),
            "{more} {introspection}: {found}: {checked:?}"
        );
    }
    write_policy(
        &dir,
        &format!("{base}[issuer.introspection]\n{basic}prefixes = [\"abc_\"]\n{second}{ROUTES}"),
    );
    let checked = command(&dir, &["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let shown = command(&dir, &["config", "show"]);
    assert!(
        shown.text().contains("[issuer.introspection]") && shown.text().contains("env:PATH"),
        "{shown:?}"
    );
    dir.write("token", "x");
    let explained = command(&dir, &["explain", "https://api.test/x", "--token-file", "token"]);
    assert!(explained.text().contains("asks the issuer about the token"), "{explained:?}");
}
