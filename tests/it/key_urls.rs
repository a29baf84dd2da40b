//! Keys that the gateway fetches from an issuer's URL or by discovery.

use crate::kit::client::Connection;
use crate::kit::dir::Dir;
use crate::kit::key_server::{KeyServer, Signer, set_of};
use crate::kit::portcullis::{command, completed, write_policy};
use crate::kit::tls::Server;
use crate::kit::upstream::{After, ClosedPort};
use crate::kit::{Answer, Portcullis, Request, eventually, token};
use crate::reload::reload;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The keys of `[[issuer]]` that permit a key server on this machine.
pub(crate) const LOCAL: &str =
    "allow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\njwks_cooldown = \"100ms\"\n";

pub(crate) const ROUTE: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/x\"
upstream = \"echo\"
";

/// Returns a policy whose issuer has these keys.
pub(crate) fn policy(keys: &str) -> String {
    format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\n{keys}\n{ROUTE}"
    )
}

pub(crate) fn by_url(server: impl std::fmt::Display) -> String {
    policy(&format!("jwks = \"{server}/jwks\"\n{LOCAL}"))
}

pub(crate) fn ask(gateway: &Portcullis, token: &str) -> Answer {
    Request::get("/x").bearer(token).to(gateway.http())
}

#[track_caller]
fn accepted_soon(gateway: &Portcullis, token: &str) {
    eventually("the token is accepted", || ask(gateway, token).status == 200);
}

fn status(gateway: &Portcullis) -> String {
    Request::get("/readyz?verbose").to(gateway.admin()).text()
}

#[track_caller]
fn reloaded(gateway: &Portcullis, policy: &str) {
    gateway.dir().write("gateway.toml", completed(policy));
    reload(gateway).is(200);
}

/// Returns the first issuer with keys by URL, as the gateway reports it.
fn reported(gateway: &Portcullis) -> Value {
    let keys = Request::get("/keys").to(gateway.admin()).json();
    let issuers = keys["issuers"].as_array().unwrap().clone();
    issuers.into_iter().find(|issuer| issuer["source"].is_object()).unwrap()
}

#[test]
fn the_first_request_waits_for_the_keys_and_so_does_the_first_after_a_rotation() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    ask(&gateway, &Signer::new("3").sign(token("eve"))).is_refusal(401, "unknown_key");

    server.publish(&[&one, &two]);
    ask(&gateway, &two.sign(token("ada"))).is(200);
    ask(&gateway, &Signer::new("2").sign(token("eve"))).is_refusal(401, "bad_signature");
    ask(&gateway, &one.sign(token("ada"))).is(200);
}

#[test]
fn a_token_that_could_not_be_accepted_anyway_waits_for_nothing() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    let fetches = server.fetches();
    ask(&gateway, &two.sign(token("ada").expired())).is_refusal(401, "unknown_key");
    ask(&gateway, &two.sign(token("ada").claim("iss", json!("https://other.test/"))))
        .is_refusal(401, "unknown_issuer");
    assert_eq!(server.fetches(), fetches);
}

#[test]
fn while_the_key_server_is_down_only_its_issuer_is_unavailable() {
    let (one, other) = (Signer::new("1"), Signer::new("other"));
    let port = ClosedPort::new();
    let more = "[[issuer]]\nissuer = \"https://other.test/\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\njwks = \"other.json\"\n";
    let text = format!("{}\n{more}", by_url(&port));
    let gateway = Portcullis::with(&text).file("other.json", set_of(&[&other]).to_string()).start();
    ask(&gateway, &one.sign(token("ada"))).is_refusal(503, "check_unavailable");
    ask(&gateway, &other.sign(token("ada").claim("iss", json!("https://other.test/")))).is(200);
    Request::get("/readyz").to(gateway.admin()).is(200);
    let status = status(&gateway);
    assert!(status.contains("keys: https://id.test/: none") && status.contains("cannot connect"), "{status}");
    gateway.wait_log("the failure is logged", |line| {
        line["message"] == "cannot fetch the keys of an issuer; there are none yet, so its tokens are refused"
            && line["level"] == "error"
    });
}

#[test]
fn keys_are_found_by_the_metadata_of_either_kind() {
    let one = Signer::new("1");
    for (path, well_known) in [
        ("/realms/a", "/realms/a/.well-known/openid-configuration"),
        ("", "/.well-known/openid-configuration"),
        ("/realms/a", "/.well-known/oauth-authorization-server/realms/a"),
        ("", "/.well-known/oauth-authorization-server"),
    ] {
        let (server, keys) = (KeyServer::answering(String::new()), set_of(&[&one]).to_string());
        let (origin, issuer) = (server.to_string(), format!("{server}{path}"));
        let metadata = json!({ "issuer": issuer, "jwks_uri": format!("{origin}/keys") }).to_string();
        server.follow(move |seen, wire| {
            match &*seen.target {
                "/keys" => wire.answer("200 OK", "", &keys),
                target if target == well_known => wire.answer("200 OK", "", &metadata),
                _ => wire.answer("404 Not Found", "", "not here"),
            }
            After::Close
        });
        let text = policy(&format!("discovery = true\n{LOCAL}")).replace("https://id.test/", &issuer);
        let gateway = Portcullis::with(&text).start();
        let good = one.sign(token("ada").claim("iss", json!(issuer)));
        ask(&gateway, &good).is(200);
        // The metadata is not fetched again with each fetch of the keys.
        let before = server.fetches();
        ask(&gateway, &Signer::new("2").sign(token("ada").claim("iss", json!(issuer)))).is(401);
        assert_eq!(server.fetches(), before + 1, "{well_known}");
    }
}

#[test]
fn metadata_of_another_issuer_name_no_keys() {
    let one = Signer::new("1");
    let (server, keys) = (KeyServer::answering(String::new()), set_of(&[&one]).to_string());
    let (origin, issuer) = (server.to_string(), format!("{server}/a"));
    let metadata =
        json!({ "issuer": format!("{origin}/b"), "jwks_uri": format!("{origin}/keys") }).to_string();
    server.follow(move |seen, wire| {
        wire.answer("200 OK", "", if seen.target == "/keys" { &keys } else { &metadata });
        After::Close
    });
    let text = policy(&format!("discovery = true\n{LOCAL}")).replace("https://id.test/", &issuer);
    let gateway = Portcullis::with(&text).start();
    ask(&gateway, &one.sign(token("ada").claim("iss", json!(issuer)))).is_refusal(503, "check_unavailable");
    assert!(status(&gateway).contains("not of"), "{}", status(&gateway));
}

/// Hostile or broken answers of a key server must not replace the working keys or stop the gateway.
#[test]
fn no_answer_of_a_key_server_harms_the_keys_that_work() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let elsewhere = KeyServer::of(&[&two]);
    let text = by_url(&server).replace("jwks_cooldown", "jwks_refresh = \"1s\"\njwks_cooldown");
    let gateway = Portcullis::with(&text).start();
    let good = one.sign(token("ada"));
    ask(&gateway, &good).is(200);
    let mut connection = Connection::open(gateway.http());
    let mut check = |what: &str, code: &str| {
        let failed = gateway.metric(&failures(code)).unwrap_or(0);
        eventually(what, || {
            assert_eq!(Request::get("/x").bearer(&good).over(&mut connection).status, 200, "{what}");
            gateway.metric(&failures(code)).unwrap_or(0) > failed
        });
        let forged = two.sign(token("eve"));
        let refused = ask(&gateway, &forged);
        assert!(
            matches!((refused.status, &*refused.code()), (401, "unknown_key") | (503, "check_unavailable")),
            "{what}: {refused:?}"
        );
    };
    let huge = format!("{{\"keys\":[],\"more\":\"{}\"}}", "a".repeat(10 << 20));
    for (what, status, fields, body, code) in [
        ("an error", "500 Internal Server Error", "", "", "status"),
        ("no keys", "200 OK", "", "{\"keys\":[]}", "content"),
        ("no JSON", "200 OK", "", "<html>", "content"),
        (
            "keys of other kinds only",
            "200 OK",
            "",
            "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQ\",\"e\":\"AQAB\"}]}",
            "content",
        ),
        ("ten megabytes", "200 OK", "", &huge, "too_large"),
        ("compressed", "200 OK", "content-encoding: gzip\r\n", "{}", "protocol"),
        ("not modified, unasked", "304 Not Modified", "", "", "status"),
        ("no content", "204 No Content", "", "", "status"),
    ] {
        server.answer(status, fields, body);
        check(what, code);
    }
    // A page for people is the most common mistake.
    gateway.wait_log("the page is named", |line| {
        line["message"] == "cannot fetch the keys of an issuer; continuing with the last good set"
            && line["why"].as_str().is_some_and(|why| why.contains("HTML or XML, not JSON"))
    });
    server.answer("302 Found", &format!("location: {elsewhere}/jwks\r\n"), "");
    check("a redirect to other keys", "redirect");
    assert_eq!(elsewhere.fetches(), 0);
    server.follow(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{");
        After::Close
    });
    check("a cut answer", "protocol");
    server.follow(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1 << 20)));
        After::Close
    });
    check("an endless head", "protocol");
    server.publish(&[&one, &two]);
    accepted_soon(&gateway, &two.sign(token("ada")));
}

fn failures(outcome: &str) -> String {
    format!("portcullis_issuer_key_fetches_total{{issuer=\"https://id.test/\",outcome=\"{outcome}\"}}")
}

#[test]
fn a_key_server_that_drips_is_given_up_and_the_gateway_serves_meanwhile() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    let good = one.sign(token("ada"));
    ask(&gateway, &good).is(200);
    server.follow(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(15) && !wire.peer_left() {
            wire.send("{");
        }
        After::Close
    });
    let mut waiting = Connection::open(gateway.http());
    waiting.send(Request::get("/x").bearer(two.sign(token("ada"))).bytes());
    eventually("the request waits", || {
        gateway.metric("portcullis_issuer_key_waiting{issuer=\"https://id.test/\"}") == Some(1)
    });
    let begun = Instant::now();
    for _ in 0..50 {
        ask(&gateway, &good).is(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    waiting.answer().is_refusal(503, "check_unavailable");
}

#[test]
fn one_unusable_key_is_skipped_and_counted() {
    let one = Signer::new("1");
    let mut set = set_of(&[&one]);
    let keys = set["keys"].as_array_mut().unwrap();
    keys.push(json!({ "kty": "EC", "crv": "P-256", "kid": "bent", "x": "AA", "y": "AA" }));
    keys.push(json!("not a key"));
    let server = KeyServer::answering(set.to_string());
    let gateway = Portcullis::with(&by_url(&server)).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    assert_eq!(gateway.metric("portcullis_issuer_keys_not_used{issuer=\"https://id.test/\"}"), Some(2));
    assert_eq!(gateway.metric("portcullis_issuer_keys{issuer=\"https://id.test/\"}"), Some(1));
    gateway.wait_log("the key is named", |line| line["why"].as_str().is_some_and(|why| why.contains("bent")));
}

#[test]
fn a_private_address_is_reached_only_if_the_policy_allows_it() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    for networks in ["[]", "[\"10.0.0.0/8\"]"] {
        let text = by_url(&server).replace("[\"127.0.0.0/8\"]", networks);
        let gateway = Portcullis::with(&text).start();
        ask(&gateway, &one.sign(token("ada"))).is_refusal(503, "check_unavailable");
        assert!(status(&gateway).contains("not a public address"), "{}", status(&gateway));
    }
    assert_eq!(server.upstream().connections(), 0);
}

#[test]
fn the_last_good_set_outlives_a_restart_but_not_its_maximum_age() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let text = by_url(&server);
    let gateway = Portcullis::with(&text).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    let dir: Rc<Dir> = gateway.dir().clone();
    let copies = dir.path().join("state/issuer-keys");
    eventually("the copy is written", || std::fs::read_dir(&copies).is_ok_and(|files| files.count() == 1));
    gateway.stop();
    server.upstream().stop();

    let gateway = Portcullis::with(&text).within(dir.clone()).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    assert!(status(&gateway).contains("from the copy on disk"), "{}", status(&gateway));
    assert_eq!(reported(&gateway)["source"]["from_disk"], true);
    gateway.stop();

    let listed = command(&dir, &["key", "list"]);
    assert!(
        listed.stdout.contains("1  ES256  first seen ") && listed.stdout.contains("from the copy on disk"),
        "{listed:?}"
    );

    let file = std::fs::read_dir(&copies).unwrap().next().unwrap().unwrap().path();
    let copy: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let fetched = copy["fetched"].as_u64().unwrap();
    for (what, changed) in [
        ("too old", json!({ "fetched": fetched - 86_400 })),
        ("from the future", json!({ "fetched": fetched + 86_400 })),
        ("of another issuer", json!({ "issuer": "https://other.test/" })),
        ("from another place", json!({ "location": "http://other.test/jwks" })),
        ("damaged", json!({ "body": 7 })),
        ("without keys", json!({ "body": "{\"keys\":[]}" })),
    ] {
        let mut altered = copy.clone();
        altered.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        std::fs::write(&file, altered.to_string()).unwrap();
        let gateway = Portcullis::with(&text).within(dir.clone()).start();
        let answer = ask(&gateway, &one.sign(token("ada")));
        assert_eq!((answer.status, &*answer.code()), (503, "check_unavailable"), "{what}");
    }
}

#[test]
fn keys_that_become_too_old_in_a_running_gateway_are_dropped() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let text = by_url(&server)
        .replace("jwks_cooldown", "jwks_refresh = \"1s\"\njwks_max_age = \"2s\"\njwks_cooldown");
    let gateway = Portcullis::with(&text).start();
    let good = one.sign(token("ada"));
    ask(&gateway, &good).is(200);
    server.answer("500 Internal Server Error", "", "");
    eventually("the keys are too old", || ask(&gateway, &good).status == 503);
    gateway.wait_log("it is logged", |line| {
        line["message"].as_str().is_some_and(|event| event.contains("have become too old"))
    });
    server.publish(&[&one]);
    accepted_soon(&gateway, &good);
}

#[test]
fn a_key_that_the_issuer_withdraws_is_no_longer_accepted_after_the_next_fetch() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let text = by_url(&server).replace("jwks_cooldown", "jwks_refresh = \"1s\"\njwks_cooldown");
    let gateway = Portcullis::with(&text).start();
    let good = one.sign(token("ada"));
    ask(&gateway, &good).is(200);
    server.publish(&[&two]);
    eventually("the token is refused, though it was cached", || ask(&gateway, &good).status == 401);
}

#[test]
fn a_set_that_did_not_change_is_confirmed_and_not_sent_again() {
    let one = Signer::new("1");
    let server = KeyServer::answering(String::new());
    let keys = set_of(&[&one]).to_string();
    server.follow(move |seen, wire| {
        match seen.header("if-none-match") {
            Some("\"a\"") => wire.answer("304 Not Modified", "etag: \"a\"\r\n", ""),
            _ => wire.answer("200 OK", "etag: \"a\"\r\n", &keys),
        }
        After::Close
    });
    let text = by_url(&server)
        .replace("jwks_cooldown", "jwks_refresh = \"1s\"\njwks_max_age = \"3s\"\njwks_cooldown");
    let gateway = Portcullis::with(&text).start();
    let good = one.sign(token("ada"));
    ask(&gateway, &good).is(200);
    let begun = Instant::now();
    eventually("the set is older than its maximum age since it was sent", || {
        ask(&gateway, &good).is(200);
        begun.elapsed() > Duration::from_secs(4)
    });
    let asked = server.upstream().requests();
    assert!(asked.iter().skip(1).all(|seen| seen.header("if-none-match") == Some("\"a\"")), "{asked:?}");
}

#[test]
fn a_reload_keeps_the_keys_and_fetches_nothing() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    let good = one.sign(token("ada"));
    ask(&gateway, &good).is(200);
    let first_seen = reported(&gateway)["keys"][0]["first_seen"].clone();
    assert!(reported(&gateway)["keys"][0]["last_used"].is_string());
    server.answer("500 Internal Server Error", "", "");
    let fetches = server.fetches();
    // The same key source, and the same source with a different refresh time.
    for text in
        [by_url(&server), by_url(&server).replace("jwks_cooldown", "jwks_refresh = \"1h\"\njwks_cooldown")]
    {
        reloaded(&gateway, &text);
        ask(&gateway, &good).is(200);
        ask(&gateway, &one.sign(token("grace"))).is(200);
        assert_eq!(reported(&gateway)["keys"][0]["first_seen"], first_seen);
    }
    assert_eq!(server.fetches(), fetches);
    // Another URL may have other keys.
    let other = KeyServer::of(&[&Signer::new("1")]);
    reloaded(&gateway, &by_url(&other));
    ask(&gateway, &good).is_refusal(401, "bad_signature");
}

#[test]
fn the_running_gateway_lists_its_keys() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    let reported = reported(&gateway);
    assert_eq!(
        (&reported["keys"][0]["kid"], &reported["keys"][0]["algorithm"]),
        (&json!("1"), &json!("ES256"))
    );
    for time in ["fetched", "expires", "next_fetch"] {
        assert!(reported["source"][time].is_string(), "{time}: {reported}");
    }
    assert_eq!(reported["source"]["url"], format!("{server}/jwks"));
    server.answer("500 Internal Server Error", "", "");
    ask(&gateway, &Signer::new("2").sign(token("ada"))).is_refusal(503, "check_unavailable");
    let reported = self::reported(&gateway);
    assert!(reported["source"]["last_error"]["why"].as_str().unwrap().contains("status 500"), "{reported}");
}

#[test]
fn an_explanation_does_not_wait_and_says_that_the_gateway_would() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    let fetches = server.fetches();
    let question = json!({ "request": "GET http://h/x", "token": two.sign(token("ada")) });
    let asked = Request::post("/explain", question.to_string()).header("content-type", "application/json");
    let explained = asked.to(gateway.admin()).json();
    assert!(explained.to_string().contains("fetches the issuer's keys and decides again"), "{explained}");
    assert_eq!(server.fetches(), fetches);
}

#[test]
fn a_risky_url_is_reported_before_the_policy_is_served() {
    let dir = Dir::new();
    for (keys, found) in [
        ("jwks = \"http://id.test/jwks\"", "issuer[0].jwks"),
        ("jwks = \"https://user:pw@id.test/jwks\"", "has a user name"),
        ("jwks = \"https://id.test/jwks\"\ndiscovery = true", "one_key_source"),
        (
            "jwks = \"https://id.test/jwks\"\nprivate_networks = [\"0.0.0.0/0\"]",
            "metadata of cloud platforms",
        ),
        ("jwks = \"https://id.test/jwks\"\njwks_refresh = \"1ms\"", "jwks_refresh"),
        ("jwks = \"https://id.test/jwks\"\njwks_max_age = \"90d\"", "jwks_max_age"),
        ("jwks = \"https://id.test/jwks\"\njwks_cooldown = \"1h\"", "jwks_cooldown"),
        ("jwks = \"http://id.test/jwks\"\nallow_http = true", "keys_in_cleartext"),
        ("jwks = \"jwks.json\"\nallow_http = true", "unused"),
        ("jwks = \"https://id.test/jwks\"\nca = \"missing.pem\"", "missing.pem"),
    ] {
        write_policy(&dir, &policy(keys));
        let checked = command(&dir, &["check", "--strict"]);
        assert!(checked.code != Some(0) && checked.text().contains(found), "{keys}: {checked:?}");
    }
    let secret = policy("jwks = \"https://id.test/jwks\"").replace("ES256", "HS256");
    write_policy(&dir, &secret);
    let checked = command(&dir, &["check"]);
    assert!(checked.code != Some(0) && checked.text().contains("mixed_keys"), "{checked:?}");
}

/// The metadata of Entra ID for all tenants has a placeholder in its issuer.
#[test]
fn the_metadata_of_all_tenants_are_those_of_an_issuer_with_tenants() {
    let one = Signer::new("1");
    let (server, keys) = (KeyServer::answering(String::new()), set_of(&[&one]).to_string());
    let origin = server.to_string();
    let text = policy(&format!("tenants = [\"t1\", \"t2\"]\ndiscovery = true\n{LOCAL}"))
        .replace("https://id.test/", &format!("{origin}/{{tenant}}/v2.0"));
    for (named, is_good) in [
        (format!("{origin}/{{tenantid}}/v2.0"), true),
        (format!("{origin}/{{tenant}}/v2.0"), true),
        (format!("{origin}/common/v2.0"), false),
        (format!("{origin}/t1/v2.0"), false),
        (format!("{origin}/{{tenantid}}/v1.0"), false),
        ("https://other.test/{tenantid}/v2.0".to_owned(), false),
    ] {
        let metadata = json!({ "issuer": named, "jwks_uri": format!("{origin}/keys") }).to_string();
        let keys = keys.clone();
        server.follow(move |seen, wire| {
            match &*seen.target {
                "/keys" => wire.answer("200 OK", "", &keys),
                "/common/v2.0/.well-known/openid-configuration" => wire.answer("200 OK", "", &metadata),
                _ => wire.answer("404 Not Found", "", "not here"),
            }
            After::Close
        });
        let gateway = Portcullis::with(&text).start();
        let of = |tenant: &str| {
            let iss = format!("{origin}/{tenant}/v2.0");
            ask(&gateway, &one.sign(token("ada").claim("iss", json!(iss)).claim("tid", json!(tenant))))
        };
        if is_good {
            of("t1").is(200);
            of("t2").is(200);
            of("t3").is_refusal(401, "unknown_issuer");
        } else {
            of("t1").is_refusal(503, "check_unavailable");
        }
    }
}

#[test]
fn an_https_issuer_is_verified_by_a_private_authority() {
    let one = Signer::new("1");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = |name: &str| {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.self_signed(&key).unwrap()
    };
    let (ours, other) = (certificate("localhost"), certificate("other.test"));
    let set = set_of(&[&one]).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}", set.len());
    let answer: &'static str = answer.leak();
    let start = |server: &Server, ca: &str| {
        let keys = format!(
            "jwks = \"https://localhost:{}/jwks\"\nprivate_networks = [\"127.0.0.0/8\", \"::1/128\"]\njwks_cooldown = \"100ms\"\n{ca}",
            server.port()
        );
        Portcullis::with(&policy(&keys)).file("ca.pem", ours.pem()).start()
    };
    let server = Server::answering(ours.der(), &key, answer, true);
    let gateway = start(&server, "ca = \"ca.pem\"\n");
    ask(&gateway, &one.sign(token("ada"))).is(200);
    assert!(server.requests() > 0);
    // A certificate by another authority or for another name is rejected.
    let stranger = Server::answering(other.der(), &key, answer, true);
    for (server, ca) in [(&server, ""), (&stranger, "ca = \"ca.pem\"\n")] {
        let before = server.requests();
        let gateway = start(server, ca);
        ask(&gateway, &one.sign(token("ada"))).is_refusal(503, "check_unavailable");
        assert_eq!(server.requests(), before);
        assert_eq!(
            gateway.metric(&failures("tls")).map(|count| count > 0),
            Some(true),
            "{}",
            status(&gateway)
        );
    }
}

#[test]
fn copies_that_nobody_can_use_are_deleted() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    let dir: Rc<Dir> = gateway.dir().clone();
    let copies = dir.path().join("state/issuer-keys");
    let count = || std::fs::read_dir(&copies).map_or(0, Iterator::count);
    eventually("the copy is written", || count() == 1);
    gateway.stop();
    let ours = std::fs::read_dir(&copies).unwrap().next().unwrap().unwrap().path();
    let mut old: Value = serde_json::from_slice(&std::fs::read(&ours).unwrap()).unwrap();
    old["issuer"] = json!("https://gone.test/");
    let young = copies.join(format!("{}.json", "a".repeat(32)));
    std::fs::write(&young, old.to_string()).unwrap();
    old["fetched"] = json!(old["fetched"].as_u64().unwrap() - 86_400);
    let gone = copies.join(format!("{}.json", "b".repeat(32)));
    std::fs::write(&gone, old.to_string()).unwrap();

    let gateway = Portcullis::with(&by_url(&server)).within(dir.clone()).start();
    eventually("the old copy is deleted", || !gone.exists());
    assert!(young.exists() && ours.exists());
    gateway.wait_log("it is logged", |line| line["copies"] == 1);
}
