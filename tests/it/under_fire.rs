//! Logins under attack. Nobody can use up the login attempts of an account's owner, and operators see the attacked
//! accounts.

use crate::ECHO;
use crate::kit::account::{self, AUTHORITY, PASSWORD, login, post, try_login};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::{Answer, Portcullis, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Returns a policy with these keys of `[authority]`, followed by further tables.
fn policy(keys: &str, more: &str) -> String {
    format!("{AUTHORITY}{keys}{more}{ECHO}")
}

/// Returns a login as a form, which a page of any site can make a browser send.
fn form(name: &str, password: &str, more: &str) -> Request {
    let body = format!("username={name}&password={}{more}", password.replace(' ', "+"));
    Request::post("/auth/login", body).header("content-type", "application/x-www-form-urlencoded")
}

/// Sends the form with the fields that a browser adds for a page of another site (Fetch, section 3.1; Fetch Metadata,
/// section 2.4).
fn from_another_site(address: SocketAddr, name: &str, more: &str) -> Answer {
    form(name, "x", more)
        .header("origin", "https://evil.example")
        .header("sec-fetch-site", "cross-site")
        .header("sec-fetch-mode", "no-cors")
        .to(address)
}

/// OWASP CSRF cheat sheet, "login CSRF" and "Fetch Metadata".
#[test]
fn a_page_of_another_site_spends_no_attempt_of_the_owner() {
    for cookies in ["", "cookies = true\n"] {
        let keys = format!("{cookies}rate_limits = [\"login\"]\n");
        let limit = "[rate_limit.login]\nby = \"client_ip\"\nrate = \"10/h\"\n";
        let gateway = Portcullis::with(&policy(&keys, limit)).start();
        account::add(gateway.dir(), "ada", &[]);
        let address = gateway.http();
        let owner = || form("ada", PASSWORD, "&deliver=body").to(address);
        // The address is now known to the account.
        owner().is(200);
        for number in 0..30 {
            // Half of the attempts name the account `ada`. The other attempts use its known address.
            let name = if number % 2 == 0 { "ada".to_owned() } else { format!("u{number}") };
            from_another_site(address, &name, "&deliver=body").is_refusal(403, "csrf_mismatch");
            let answer = form(&name, "x", "").header("sec-fetch-site", "cross-site").to(address);
            answer.is_refusal(403, "csrf_mismatch");
            let answer = form(&name, "x", "").header("origin", "null").to(address);
            answer.is_refusal(403, "csrf_mismatch");
        }
        owner().is(200);
        // A client other than a browser sends neither `Origin` nor `Sec-Fetch-Site`. Its attempts are counted as usual.
        form("ada", "wrong", "&deliver=body").to(address).is_refusal(401, "bad_credentials");
    }
}

#[test]
fn a_page_of_the_own_site_and_of_a_listed_one_may_log_in() {
    let gateway = Portcullis::with(&policy("origins = [\"https://app.example\"]\n", "")).start();
    account::add(gateway.dir(), "ada", &[]);
    let own = format!("http://{}", gateway.http());
    for (origin, site) in [(own.as_str(), "same-origin"), ("https://app.example", "cross-site")] {
        let request = form("ada", PASSWORD, "&deliver=body").header("sec-fetch-site", site);
        request.host(&gateway.http().to_string()).header("origin", origin).to(gateway.http()).is(200);
    }
}

/// RFC 8981 section 3.4, SP 800-63B section 5.2.2.
#[test]
fn an_owner_with_temporary_addresses_is_in_a_usual_place() {
    let proxies = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let gateway = Portcullis::with(&policy("", proxies)).start();
    account::add(gateway.dir(), "ada", &[]);
    let attempt = |from: &str, password: &str| {
        form("ada", password, "&deliver=body").header("x-forwarded-for", from).to(gateway.http())
    };
    attempt("2001:db8:1:1::1", PASSWORD).is(200);
    // Strangers, each from a different network, guess until the account is delayed for all of them. On a busy machine a
    // delay may end before the next attempt, so they make it longer.
    let mut strangers = (0..200).map(|number| format!("2001:db8:ffff:{number}::1"));
    let is_delayed = (2..10).any(|network| {
        assert!(strangers.by_ref().any(|from| attempt(&from, "x").status == 429));
        attempt("2001:db8:1:1:aaaa::2", PASSWORD).is(200);
        attempt(&format!("2001:db8:1:{network}::1"), PASSWORD).status == 429
    });
    assert!(is_delayed, "another network is not the owner's place");
}

/// ASVS 16.3.1.
#[test]
fn a_failed_login_is_logged_with_the_account_if_there_is_one() {
    let gateway = Portcullis::with(&policy("", "")).start();
    account::add(gateway.dir(), "ada", &[]);
    let failed = |answer: &Answer| {
        let id = answer.header("x-request-id").unwrap().to_owned();
        gateway.access_line(answer);
        let log = gateway.log();
        log.into_iter().find(|line| line["message"] == "a login failed" && line["request_id"] == *id)
    };
    // The event has the canonical name, although the attempt used full-width and upper-case letters.
    let line = failed(&try_login(gateway.http(), "\u{ff21}DA", "hunter2-wrong")).expect("an event");
    assert_eq!(line["account"], "ada", "{line}");
    assert_eq!(line["client"], "127.0.0.1", "{line}");
    assert_eq!(line["why"], "bad_credentials", "{line}");
    assert!(line["subject"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
    let unknown = try_login(gateway.http(), "correct-horse-typed-as-name", "hunter2-wrong");
    assert!(failed(&unknown).is_none());
    // On a slow machine, the throttle recovers between two attempts.
    let mut attempts = (0..20).map(|_| try_login(gateway.http(), "ada", "hunter2-wrong"));
    let throttled = attempts.find(|answer| answer.status == 429).expect("the throttle refuses");
    throttled.is_refusal(429, "too_many_attempts");
    assert_eq!(failed(&throttled).expect("an event")["why"], "too_many_attempts");
    let text = gateway.stop();
    assert!(
        !text.contains("hunter2") && !text.contains("correct-horse"),
        "neither password nor unknown name"
    );
}

/// Returns the names of each endpoint's limits, as `routes` prints them.
fn limits_of(dir: &Dir) -> BTreeMap<String, Vec<String>> {
    let listed = command(dir, &["routes", "--config", "gateway.toml", "--format", "json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let routes: Value = serde_json::from_str(&listed.stdout).unwrap();
    let routes =
        routes.as_array().or_else(|| routes["routes"].as_array()).unwrap_or_else(|| panic!("{routes}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let limits = |route: &Value| route["limits"].as_array().unwrap().iter().map(text).collect();
    let endpoint =
        |route: &Value| Some((text(&route["name"]).strip_prefix("auth:")?.to_owned(), limits(route)));
    routes.iter().filter_map(endpoint).collect()
}

/// Each endpoint has a limit by default, and the policy can replace or remove it.
#[test]
fn every_endpoint_can_have_a_limit_and_most_have_one() {
    let dir = Dir::new();
    let found = |keys: &str, more: &str| {
        write_policy(&dir, &policy(&format!("cookies = true\n{keys}"), more));
        limits_of(&dir)
    };
    let default = found("", "");
    for (endpoint, limit) in [
        ("login", "auth_login"),
        ("login_page", "auth_session"),
        ("refresh", "auth_session"),
        ("logout", "auth_session"),
        ("logout_all", "auth_session"),
        ("sessions", "auth_session"),
        ("end_session", "auth_session"),
        ("me", "auth_service"),
        ("token", "auth_service"),
        ("revoke", "auth_service"),
        ("introspect", "auth_service"),
    ] {
        assert_eq!(default[endpoint], [limit], "{endpoint}");
    }
    for endpoint in ["jwks", "metadata", "verify"] {
        assert!(default[endpoint].is_empty(), "{endpoint}");
    }
    assert_eq!(default.len(), 14);
    let own = "[rate_limit.mine]\nrate = \"1/m\"\n";
    let each = default.keys().map(|endpoint| format!("{endpoint} = \"mine\"")).collect::<Vec<_>>().join(", ");
    let all = found(&format!("limits = {{ {each} }}\n"), own);
    assert!(all.values().all(|limits| limits == &["mine"]), "{all:?}");
    let shared = found("rate_limits = \"mine\"\nlimits = { token = [], refresh = [] }\n", own);
    assert_eq!(
        (&shared["login"][..], &shared["introspect"][..]),
        (&["mine".to_owned()][..], &["mine".to_owned()][..])
    );
    assert!(shared["token"].is_empty() && shared["refresh"].is_empty(), "{shared:?}");
    assert_eq!(shared["logout"], ["auth_session"]);
    assert!(found("rate_limits = []\n", "")["login"].is_empty());
    // An unknown endpoint, and an unknown limit.
    for (keys, key) in [
        ("limits = { logins = [] }\n", "authority.limits.logins"),
        ("limits = { login = [\"none\"] }\n", "authority.limits.login[0]"),
    ] {
        write_policy(&dir, &policy(keys, ""));
        let checked = command(&dir, &["check", "--config", "gateway.toml"]);
        assert!(checked.code != Some(0) && checked.text().contains(key), "{checked:?}");
    }
}

#[test]
fn the_default_limit_of_an_endpoint_refuses_and_says_so() {
    let gateway = Portcullis::with(&policy("", "[rate_limit.auth_session]\nrate = \"3/h\"\n")).start();
    let refresh = || post(gateway.http(), "/auth/refresh", &json!({ "refresh_token": "pcr_none" }));
    for _ in 0..3 {
        let answer = refresh();
        assert_eq!(answer.status, 401, "{answer:#?}");
        assert!(answer.header("ratelimit-policy").unwrap().contains("auth_session"), "{answer:#?}");
    }
    refresh().is_refusal(429, "rate_limited");
    // Each limit counts separately.
    try_login(gateway.http(), "ada", "x").is_refusal(401, "bad_credentials");
    let text = Request::get("/metrics").to(gateway.admin()).text();
    assert!(text.contains("portcullis_rate_limited_total{limit=\"auth_session\"} 1"), "{text}");
}

/// A successful login is not counted or logged as a failure.
#[test]
fn a_login_that_succeeds_is_no_failure() {
    let gateway = Portcullis::with(&policy("", "")).start();
    account::add(gateway.dir(), "ada", &[]);
    login(gateway.http(), "ada");
    gateway.wait_log("the login", |line| line["message"] == "logged in");
    assert!(gateway.log().iter().all(|line| line["message"] != "a login failed"));
}
