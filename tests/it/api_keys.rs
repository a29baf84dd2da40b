//! API keys: commands create and revoke them while gateways run. Routes check them like tokens.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, command_with, completed, write_policy};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually, token};
use crate::policy;
use crate::reload::reload;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const ROUTES: &str = r#"
[api_keys]

[identity]
claims = { X-Tenant = "tenant" }

[rate_limit.each]
by    = "subject"
rate  = "1/h"
burst = 2

[[route]]
path     = "/any"
upstream = "app"

[[route]]
path     = "/reports"
upstream = "app"
roles    = ["reports"]

[[route]]
path     = "/tenants/{tenant}"
upstream = "app"
claims   = { tenant = "{tenant}" }

[[route]]
path     = "/tokens"
upstream = "app"
sources  = ["header"]

[[route]]
path     = "/keys"
upstream = "app"
sources  = ["api_key"]

[[route]]
path     = "/optional"
upstream = "app"
access   = "optional"

[[route]]
path     = "/fresh"
upstream = "app"
fresh    = true

[[route]]
path        = "/limited"
upstream    = "app"
rate_limits = ["each"]

[[test]]
name    = "a key is described"
request = "GET https://gateway.test/reports"
claims  = { iss = "urn:portcullis:api-key", sub = "apikey:ci", roles = ["reports"] }
expect  = { allow = true, headers = { X-Auth-Subject = "apikey:ci", X-API-Key = "" } }

[[test]]
name    = "a key without the role is described"
request = "GET https://gateway.test/reports"
claims  = { iss = "urn:portcullis:api-key", sub = "apikey:ci", roles = ["other"] }
expect  = { deny = "insufficient_role" }

[[test]]
name    = "a key is described where none is accepted"
request = "GET https://gateway.test/tokens"
claims  = { iss = "urn:portcullis:api-key" }
expect  = { deny = "missing_token" }

[[test]]
name    = "a token is described where none is accepted"
request = "GET https://gateway.test/keys"
claims  = { sub = "ada" }
expect  = { deny = "missing_token" }
"#;

#[track_caller]
fn good(dir: &Dir, arguments: &[&str]) -> Finished {
    let finished = command(dir, arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished
}

#[track_caller]
fn create(dir: &Dir, arguments: &[&str]) -> String {
    let created = good(dir, &[&["apikey", "create"], arguments].concat());
    created.stdout.trim().to_owned()
}

fn in_dir(upstream: &Upstream) -> Dir {
    let dir = Dir::new();
    write_policy(&dir, &policy(upstream, ROUTES));
    dir
}

fn with_keys(upstream: &Upstream) -> (Rc<Dir>, Portcullis) {
    let dir = Rc::new(in_dir(upstream));
    let gateway = Portcullis::with(&policy(upstream, ROUTES)).within(dir.clone()).start();
    (dir, gateway)
}

fn keyed(path: &str, key: &str) -> Request {
    Request::get(path).header("X-API-Key", key)
}

#[test]
fn a_key_works_from_its_creation_to_its_revocation_on_open_connections_too() {
    let upstream = Upstream::start();
    let (dir, gateway) = with_keys(&upstream);
    let stranger = create(&in_dir(&upstream), &["other"]);
    keyed("/any", &stranger).to(gateway.http()).is_refusal(401, "unknown_api_key");

    let key = create(&dir, &["ci", "--role", "reports", "--scope", "a:b", "--claim", "tenant=acme"]);
    eventually("the key works", || keyed("/any", &key).to(gateway.http()).status == 200);
    let mut connection = crate::kit::client::Connection::open(gateway.http());
    for request in [
        keyed("/any", &key),
        keyed("/reports", &key),
        keyed("/keys", &key),
        keyed("/optional", &key),
        keyed("/tenants/acme", &key),
        Request::get("/any").header("Authorization", &format!("ApiKey {key}")),
        Request::get("/any").header("Authorization", &format!("apikey {key}")),
    ] {
        request.over(&mut connection).is(200);
        let seen = upstream.last_request();
        let reported = format!("{seen:?}");
        assert!(!reported.contains(&key), "{reported}");
        for (name, value) in [
            ("x-auth-subject", "apikey:ci"),
            ("x-auth-issuer", "urn:portcullis:api-key"),
            ("x-auth-roles", "reports"),
            ("x-auth-scopes", "a:b"),
            ("x-tenant", "acme"),
        ] {
            assert_eq!(seen.header(name), Some(value), "{reported}");
        }
    }
    assert!(!gateway.log_text().contains(&key), "the log holds no key");
    let file = fs::read_to_string(dir.path().join("state/api-keys.json")).unwrap();
    assert!(!file.contains(&key), "{file}");

    good(&dir, &["apikey", "revoke", "ci"]);
    let answer = || keyed("/any", &key).to(gateway.http());
    eventually("the key is refused", || answer().status == 401);
    answer().is_refusal(401, "unknown_api_key");
    keyed("/any", &key).over(&mut connection).is_refusal(401, "unknown_api_key");
    keyed("/optional", &key).to(gateway.http()).is_refusal(401, "unknown_api_key");
    assert_eq!(command(&dir, &["apikey", "revoke", "ci"]).code, Some(1));
}

/// The file of keys has hashes so that its readers cannot use the keys.
#[test]
fn the_facts_of_a_key_are_no_credential() {
    let upstream = Upstream::start();
    let dir = Rc::new(in_dir(&upstream));
    let key = create(&dir, &["ci", "--role", "reports"]);
    let tables = format!("[server]\nworkers = 1\n{ROUTES}");
    let gateway = Portcullis::with(&policy(&upstream, &tables)).within(dir.clone()).start();
    // The gateway now remembers the caller.
    keyed("/any", &key).to(gateway.http()).is(200);
    let file = fs::read_to_string(dir.path().join("state/api-keys.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let row = &file["keys"][0];
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    let hash = text("hash").trim_start_matches("sha256:").to_owned();
    let digest: Vec<u8> =
        (0..hash.len() / 2).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()).collect();
    let seconds = |name: &str| OffsetDateTime::parse(&text(name), &Rfc3339).unwrap().unix_timestamp();
    let (created, expires) = (seconds("created"), seconds("expires"));
    let facts = format!(
        "ApiKeyFacts {{ name: \"ci\", digest: {digest:?}, hint: {:?}, roles: [\"reports\"], scopes: [], claims: {{}}, \
         created: {created}, expires: Some({expires}) }}",
        text("hint")
    );
    for credential in [format!("api key {facts}"), facts, hash] {
        for path in ["/any", "/reports", "/tokens"] {
            let request = Request::get(path).header("Authorization", &format!("Bearer {credential}"));
            request.to(gateway.http()).is_refusal(401, "malformed_token");
        }
        keyed("/any", &credential).to(gateway.http()).is_refusal(401, "malformed_token");
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_key_that_is_not_good_enough_is_refused_with_the_reason() {
    let upstream = Upstream::start();
    let dir = Rc::new(in_dir(&upstream));
    let key = create(&dir, &["ci", "--role", "clerk", "--claim", "tenant=acme"]);
    let gateway = Portcullis::with(&policy(&upstream, ROUTES)).within(dir.clone()).start();
    let good = token("ada").to_string();
    let lost = &key[..key.len() - 1];
    for (request, status, code) in [
        (keyed("/reports", &key), 403, "insufficient_role"),
        (keyed("/tenants/other", &key), 403, "claim_mismatch"),
        (keyed("/fresh", &key), 401, "fresh_token_required"),
        (keyed("/tokens", &key), 401, "missing_token"),
        (Request::get("/keys").bearer(&good), 401, "missing_token"),
        (Request::get("/any").bearer(&key), 401, "wrong_type"),
        (keyed("/any", &good), 401, "malformed_token"),
        (keyed("/any", lost), 401, "malformed_token"),
        (keyed("/any", &format!("{key} ")), 200, ""),
        (keyed("/any", &format!("ApiKey {key}")), 401, "malformed_token"),
        (keyed("/any", &key).bearer(&good), 400, "ambiguous_credentials"),
        (keyed("/any", &key).header("X-API-Key", &key), 400, "ambiguous_credentials"),
        (keyed("/any", &key).header("Authorization", &format!("ApiKey {key}")), 400, "ambiguous_credentials"),
        (Request::get("/any").bearer(token("apikey:ci")), 401, "malformed_token"),
    ] {
        let answer = request.to(gateway.http());
        match status {
            // White space around a field's value is not part of the value (RFC 9110 section 5.5).
            200 => answer.is(200),
            _ => answer.is_refusal(status, code),
        };
    }
    let answer = keyed("/any", lost).to(gateway.http());
    assert!(gateway.access_line(&answer)["detail"].as_str().unwrap().contains("has 41 bytes"));
    // A token and a key are different subjects, so each has its own limit.
    for (request, statuses) in [
        (keyed("/limited", &key), [200, 200, 429]),
        (Request::get("/limited").bearer(&good), [200, 200, 429]),
    ] {
        assert_eq!(statuses.map(|_| request.to(gateway.http()).status), statuses);
    }
}

#[test]
fn a_key_expires_and_the_list_says_so_and_when_it_was_used() {
    let upstream = Upstream::start();
    let dir = Rc::new(in_dir(&upstream));
    let short = create(&dir, &["short", "--expires-in", "1s"]);
    create(&dir, &["long", "--never-expires"]);
    let gateway = Portcullis::with(&policy(&upstream, ROUTES)).within(dir.clone()).start();
    eventually("the key has expired", || keyed("/any", &short).to(gateway.http()).status == 401);
    keyed("/any", &short).to(gateway.http()).is_refusal(401, "expired_token");
    assert_eq!(gateway.metric("portcullis_api_keys{state=\"expired\"}"), Some(1));
    assert_eq!(gateway.metric("portcullis_api_keys{state=\"valid\"}"), Some(1));
    let listed = good(&dir, &["apikey", "list", "--format", "json"]).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let facts: Vec<_> =
        listed.as_array().unwrap().iter().map(|key| (&key["name"], &key["expired"])).collect();
    assert_eq!(facts, [(&"long".into(), &false.into()), (&"short".into(), &true.into())]);
    let text = good(&dir, &["apikey", "list"]).stdout;
    assert!(text.contains(&short[..8]) && !text.contains(&short), "{text}");
    let again = command(&dir, &["apikey", "create", "long"]);
    assert!(again.code == Some(1) && again.text().contains("already"), "{again:?}");
    let bad = command(&dir, &["apikey", "create", "a b"]);
    assert!(bad.code == Some(1) && bad.text().contains("a name has"), "{bad:?}");
}

#[test]
fn a_file_that_cannot_be_read_revokes_nothing_and_starts_nothing() {
    let upstream = Upstream::start();
    let (dir, gateway) = with_keys(&upstream);
    let key = create(&dir, &["ci"]);
    eventually("the key works", || keyed("/any", &key).to(gateway.http()).status == 200);
    let path = dir.path().join("state/api-keys.json");
    let good_file = fs::read(&path).unwrap();
    fs::write(&path, "{").unwrap();
    gateway.wait_log("the fault", |line| {
        line["message"] == "cannot read the API keys; continuing with the last good set"
    });
    keyed("/any", &key).to(gateway.http()).is(200);
    let checked = command(&dir, &["check"]);
    assert!(checked.code == Some(1) && checked.text().contains("bad_api_keys"), "{checked:?}");
    fs::write(&path, good_file).unwrap();
    gateway.wait_log("the repair", |line| line["message"] == "the API keys can be read again");
    fs::remove_file(&path).unwrap();
    eventually("all keys are revoked", || keyed("/any", &key).to(gateway.http()).status == 401);
}

#[test]
fn explain_shows_the_caller_of_a_key() {
    let upstream = Upstream::start();
    let dir = in_dir(&upstream);
    let key = create(&dir, &["ci", "--role", "reports"]);
    let request = ["explain", "GET", "http://gateway.test/reports", "--token-file", "-", "--format", "json"];
    let explained = command_with(&dir, &request, &key);
    let explained: Value =
        serde_json::from_str(&explained.stdout).unwrap_or_else(|_| panic!("{explained:?}"));
    assert_eq!(explained["caller"]["subject"], "apikey:ci", "{explained:#}");
    assert!(!explained.to_string().contains(&key), "{explained:#}");
}

/// RFC 9110 section 11.6.1: the challenge names the schemes that the route accepts.
#[test]
fn a_refusal_offers_the_credentials_that_its_route_accepts() {
    let upstream = Upstream::start();
    let (dir, gateway) = with_keys(&upstream);
    let offers = |request: Request| {
        let answer = request.to(gateway.http());
        let values = crate::kit::values(&answer.headers, "www-authenticate");
        values.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (bearer, api_key) = ("Bearer realm=\"portcullis\"", "ApiKey realm=\"portcullis\"");
    assert_eq!(offers(Request::get("/tokens")), [bearer]);
    assert_eq!(offers(Request::get("/keys")), [api_key]);
    assert_eq!(offers(Request::get("/keys").bearer(token("ada"))), [api_key]);
    assert_eq!(offers(Request::get("/any")), [bearer, api_key]);
    let refused = offers(keyed("/keys", "pck_x"));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with(&format!("{api_key}, error=\"invalid_token\"")), "{refused:?}");
    // The challenge of a 403 names only the scheme that the caller used.
    let forbidden = offers(Request::get("/reports").bearer(token("ada")));
    assert!(forbidden.len() == 1 && forbidden[0].starts_with(bearer), "{forbidden:?}");
    let outcome =
        |name: &str| gateway.metric(&format!("portcullis_api_key_requests_total{{outcome=\"{name}\"}}"));
    eventually("the malformed key is counted", || outcome("malformed") == Some(1));
    assert_eq!(outcome("accepted"), Some(0));
    let explained = command(&dir, &["explain", "GET", "https://gateway.test/keys"]);
    assert!(explained.stdout.contains("challenge ApiKey\n"), "{explained:?}");
    let explained = command(&dir, &["explain", "GET", "https://gateway.test/any"]);
    assert!(explained.stdout.contains("challenge Bearer, ApiKey\n"), "{explained:?}");
}

/// API keys reserve subjects that tokens may have had before.
#[test]
fn a_token_with_the_subject_of_a_key_is_refused_from_the_reload_that_adds_keys() {
    let upstream = Upstream::start();
    let without = "[[route]]\npath = \"/any\"\nupstream = \"app\"\n";
    let gateway = Portcullis::with(&policy(&upstream, without)).start();
    let own = token("apikey:ci").to_string();
    let ask = || Request::get("/any").bearer(&own).to(gateway.http());
    ask().is(200);
    gateway.dir().replace("gateway.toml", completed(&policy(&upstream, &format!("[api_keys]\n{without}"))));
    reload(&gateway).is(200);
    ask().is_refusal(401, "malformed_token");
}

#[test]
fn a_key_that_is_revoked_while_its_file_cannot_be_opened_is_refused_once_it_can() {
    let upstream = Upstream::start();
    let (dir, gateway) = with_keys(&upstream);
    let key = create(&dir, &["ci"]);
    let mut connection = Connection::open(gateway.http());
    eventually("the key works", || keyed("/any", &key).over(&mut connection).status == 200);
    let limit = |files: &str| {
        let pid = gateway.pid().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).status();
        assert!(status.expect("prlimit is part of Debian's util-linux").success(), "prlimit {files}");
    };
    limit("3");
    good(&dir, &["apikey", "revoke", "ci"]);
    gateway.wait_log("the fault", |line| {
        line["message"] == "cannot read the API keys; continuing with the last good set"
            && line["why"].as_str().is_some_and(|why| why.contains("Too many open files"))
    });
    keyed("/any", &key).over(&mut connection).is(200);
    // The file does not change any more.
    limit("1024");
    eventually("the key is refused", || keyed("/any", &key).over(&mut connection).status == 401);
    gateway.wait_log("the recovery", |line| line["message"] == "the API keys can be read again");
}

#[test]
fn a_key_that_is_revoked_during_a_reload_stays_refused_after_it() {
    let upstream = Upstream::start();
    let (dir, gateway) = with_keys(&upstream);
    let key = create(&dir, &["ci"]);
    eventually("the key works", || keyed("/any", &key).to(gateway.http()).status == 200);
    // Nothing accepts the connection, so the reload waits for the revocations of other gateways.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = format!(
        "[shared]\nurl = \"redis://{}\"\nconnect_timeout = \"5s\"\n[shared.on_error]\nrevocation = \"deny\"\n",
        silent.local_addr().unwrap()
    );
    dir.replace("gateway.toml", completed(&format!("{}{shared}", policy(&upstream, ROUTES))));
    thread::scope(|scope| {
        let admin = gateway.admin();
        let reloading =
            scope.spawn(move || Request::post("/reload", "").host("localhost").to(admin).is(200).status);
        gateway.wait_log("the keys have been read", |line| {
            line["message"] == "the start waits for the revocations of other gateways"
        });
        good(&dir, &["apikey", "revoke", "ci"]);
        eventually("the key is refused", || keyed("/any", &key).to(gateway.http()).status == 401);
        let mut after = 0;
        // A watch that begins with the new policy reads the file within a second.
        while after < 200 {
            after += u32::from(reloading.is_finished());
            keyed("/any", &key).to(gateway.http()).is_refusal(401, "unknown_api_key");
        }
        assert_eq!(reloading.join().unwrap(), 200);
    });
}
