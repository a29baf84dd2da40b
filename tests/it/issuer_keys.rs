//! The keys of `[[issuer]]` for unusual tokens: their faults, their effect on `explain` and `token inspect`, and a
//! reload.

use crate::ECHO_ROOT;
use crate::kit::dir::Dir;
use crate::kit::forge::{base64url, now};
use crate::kit::portcullis::{command, write_policy};
use crate::kit::{Portcullis, Request};
use crate::reload::reload;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const SECRET: &[u8; 48] = b"k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc-dE_gAiSoPfKlMxC";

/// Returns a policy with one issuer, whose secret is in base64 in a file.
fn policy(issuer: &str) -> String {
    format!(
        "[[issuer]]\naudience = \"orders\"\nalgorithms = \"HS256\"\nsecret = \"file:issuer.secret\"\n\
         secret_encoding = \"base64\"\n{issuer}\n{ECHO_ROOT}"
    )
}

fn started(issuer: &str) -> Portcullis {
    Portcullis::with(&policy(issuer)).file("issuer.secret", STANDARD.encode(SECRET)).start()
}

/// Signs a token with a secret.
fn signed(secret: &[u8], claims: Value) -> String {
    let message =
        format!("{}.{}", base64url(r#"{"alg":"HS256","typ":"JWT"}"#), base64url(claims.to_string()));
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", base64url(mac))
}

fn claims(more: Value) -> Value {
    let mut claims =
        json!({ "iss": "https://id.test/", "aud": "orders", "sub": "ada", "iat": now(), "exp": now() + 300 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

#[test]
fn a_secret_in_base64_is_the_bytes_that_it_encodes() {
    let gateway = started("issuer = \"https://id.test/\"");
    let ask = |secret: &[u8]| Request::get("/").bearer(signed(secret, claims(json!({})))).to(gateway.http());
    ask(SECRET).is(200);
    ask(STANDARD.encode(SECRET).as_bytes()).is_refusal(401, "bad_signature");
    // With the secret as text, the results are swapped.
    let text = policy("issuer = \"https://id.test/\"").replace("secret_encoding = \"base64\"\n", "");
    let gateway = Portcullis::with(&text).file("issuer.secret", STANDARD.encode(SECRET)).start();
    let ask = |secret: &[u8]| Request::get("/").bearer(signed(secret, claims(json!({})))).to(gateway.http());
    ask(STANDARD.encode(SECRET).as_bytes()).is(200);
    ask(SECRET).is_refusal(401, "bad_signature");
}

#[test]
fn each_mistake_in_the_keys_of_an_issuer_is_reported() {
    let tenants = "issuer = \"https://a.test/{tenant}/v2\"\n";
    let usual = "issuer = \"https://id.test/\"\n";
    let public = "jwks = \"keys.json\"";
    for (issuer, id, key) in [
        (format!("{usual}subject = \"a..b\""), "bad_claim_path", "issuer[0].subject"),
        (format!("{usual}audience_claim = \"\""), "bad_claim_path", "issuer[0].audience_claim"),
        (
            format!("{usual}required_claims = [\"a\", \".\"]"),
            "bad_claim_path",
            "issuer[0].required_claims[1]",
        ),
        (format!("{usual}claims = {{ plan = [] }}"), "bad_value", "issuer[0].claims.plan"),
        (format!("{usual}claims = {{ plan = \"{{tenant}}\" }}"), "bad_value", "issuer[0].claims.plan"),
        (format!("{usual}max_lifetime = \"0s\""), "bad_value", "issuer[0].max_lifetime"),
        (format!("{usual}may_lack = [\"exp\"]"), "bad_value", "issuer[0].may_lack[0]"),
        (format!("{usual}trust_domain = \"spiffe://a.test\""), "bad_value", "issuer[0].trust_domain"),
        (format!("{usual}trust_domain = \"A.test\""), "bad_value", "issuer[0].trust_domain"),
        (format!("{usual}tenants = [\"t1\"]"), "bad_value", "issuer[0].tenants"),
        (tenants.to_owned(), "missing_key", "issuer[0].tenants"),
        (format!("{tenants}tenants = [\"a/b\"]"), "bad_value", "issuer[0].tenants"),
        (format!("{tenants}tenants = [\"t1\", \"*\"]"), "bad_value", "issuer[0].tenants"),
        (
            "issuer = \"https://{tenant}.a.test/\"\ntenants = \"t1\"".to_owned(),
            "bad_value",
            "issuer[0].issuer",
        ),
        (
            "issuer = \"https://a.test/{tenant}/{tenant}\"\ntenants = \"t1\"".to_owned(),
            "bad_value",
            "issuer[0].issuer",
        ),
        (format!("{tenants}tenants = [\"*\"]"), "any_tenant", "issuer[0].tenants"),
        (format!("{usual}{public}\nmay_lack = \"aud\""), "any_audience", "issuer[0].may_lack"),
        (
            format!(
                "{tenants}tenants = \"t1\"\n[[issuer]]\nissuer = \"https://a.test/t1/v2\"\n{public}\naudience = \"a\"\nalgorithms = \"ES256\""
            ),
            "same_issuer",
            "issuer[1].issuer",
        ),
        (
            format!(
                "{usual}may_lack = \"iss\"\n[[issuer]]\nissuer = \"https://b.test\"\n{public}\naudience = \"a\"\nalgorithms = \"ES256\"\nmay_lack = \"iss\""
            ),
            "same_issuer",
            "issuer[1].may_lack",
        ),
        (
            format!(
                "{usual}trust_domain = \"a\"\n[[issuer]]\nissuer = \"https://b.test\"\n{public}\naudience = \"a\"\nalgorithms = \"ES256\"\ntrust_domain = \"a\""
            ),
            "same_issuer",
            "issuer[1].trust_domain",
        ),
    ] {
        let dir = Dir::new();
        crate::kit::forge::write_keys(&dir);
        let mut text = policy(&issuer);
        if issuer.contains(public) && !issuer.contains("[[issuer]]") {
            text = text.replace("secret = \"file:issuer.secret\"\nsecret_encoding = \"base64\"\n", "");
            text = text.replace("HS256", "ES256");
        }
        write_policy(&dir, &text.replace("keys.json", "jwks.json"));
        dir.write("issuer.secret", STANDARD.encode(SECRET));
        let checked = command(&dir, &["check", "--format", "json"]);
        let report: Value =
            serde_json::from_str(&checked.stdout).unwrap_or_else(|_| panic!("{}", checked.text()));
        let found = report["diagnostics"].as_array().unwrap();
        let is_there = |one: &Value| one["id"] == id && one["key"] == key;
        assert!(found.iter().any(is_there), "{id} {key}: {found:#?}");
    }
    for (encoding, secret) in [
        ("base64", "k7Qz1k8Wv3!Jq0ZpLmX2v5T9rY4uB6nHc-dE"),
        ("base64url", "k7Qz1k8Wv3+Jq0ZpLmX2v5T9rY4uB6nHc/dE"),
    ] {
        let dir = Dir::new();
        let text = policy(usual).replace("\"base64\"", &format!("{encoding:?}"));
        write_policy(&dir, &text);
        dir.write("issuer.secret", secret);
        let checked = command(&dir, &["check"]);
        assert!(checked.text().contains("not written in this encoding"), "{}", checked.text());
        assert!(!checked.text().contains(secret), "the secret is not shown");
    }
}

#[test]
fn explain_gives_a_described_caller_what_the_issuers_tokens_have() {
    let dir = Dir::new();
    let issuer = "issuer = \"https://a.test/{tenant}/v2\"\ntenants = [\"t1\", \"t2\"]\nsubject = \"oid\"\n\
                  audience_claim = \"client_id\"\nmax_lifetime = \"1h\"\nrequired_claims = [\"sid\"]\n\
                  claims = { token_use = \"access\", plan = [\"gold\", \"silver\"] }";
    write_policy(&dir, &policy(issuer));
    dir.write("issuer.secret", STANDARD.encode(SECRET));
    let explained = |claims: &str| {
        let finished =
            command(&dir, &["--format", "json", "explain", "http://gateway.test/", "--claims", claims]);
        serde_json::from_str::<Value>(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.text()))
    };
    let caller = |claims: &str| explained(claims)["caller"].clone();
    let first = caller(r#"{"sub":"ada"}"#);
    assert_eq!(
        (&first["subject"], &first["issuer"]),
        (&json!("ada"), &json!("https://a.test/t1/v2")),
        "{first}"
    );
    let second = caller(r#"{"sub":"ada","iss":"https://a.test/t2/v2"}"#);
    assert_eq!(second["issuer"], "https://a.test/t2/v2");
    // `explain` does not replace claims that the command line states.
    for (claims, code) in [
        (r#"{"sub":"ada","token_use":"id"}"#, "wrong_type"),
        (r#"{"sub":"ada","plan":"lead"}"#, "missing_claim"),
        (r#"{"sub":"ada","client_id":"x"}"#, "wrong_audience"),
        (r#"{"sub":"ada","iss":"https://a.test/t3/v2"}"#, "unknown_issuer"),
    ] {
        let text = explained(claims).to_string();
        assert!(text.contains(code), "{claims}: {text}");
    }
}

#[test]
fn inspecting_a_token_says_which_of_the_issuers_demands_it_misses() {
    let dir = Dir::new();
    let issuer = "issuer = \"https://id.test/\"\nmax_lifetime = \"2m\"\nclaims = { plan = \"gold\" }";
    write_policy(&dir, &policy(issuer));
    dir.write("issuer.secret", STANDARD.encode(SECRET));
    for (more, words) in [
        (json!({ "plan": "gold" }), "max_lifetime is 120 s"),
        (json!({ "exp": now() + 60, "plan": "lead" }), "plan is 'lead'; wanted: 'gold'"),
        (json!({ "exp": now() + 60, "plan": "gold" }), "accepted: issued by https://id.test/ for ada"),
    ] {
        let inspected = command(&dir, &["token", "inspect", &signed(SECRET, claims(more))]);
        assert!(inspected.text().contains(words), "{words}: {}", inspected.text());
    }
}

#[test]
fn a_reload_takes_away_what_an_issuer_may_lack() {
    let issuer = "issuer = \"https://id.test/\"\nmay_lack = \"iss\"";
    let gateway = started(issuer);
    let mut bare = claims(json!({}));
    bare.as_object_mut().unwrap().remove("iss");
    let token = signed(SECRET, bare);
    Request::get("/").bearer(&token).to(gateway.http()).is(200);
    write_policy(gateway.dir(), &policy(issuer).replace("may_lack = \"iss\"", ""));
    reload(&gateway);
    Request::get("/").bearer(&token).to(gateway.http()).is_refusal(401, "missing_claim");
}
