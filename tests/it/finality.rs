//! Revocation is final, for tokens from commands, tokens with a client's own audience, and keys. The store's tests
//! cover the passage of time.

use crate::kit::account::{self, AUTHORITY, claims, login, refresh};
use crate::kit::dir::Dir;
use crate::kit::forge::now;
use crate::kit::portcullis::{Finished, command, write_policy};
use crate::kit::postgres::Postgres;
use crate::kit::{Answer, Portcullis, Request, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const CLIENTS: &str = "
[authority.client.billing]
secret     = \"billing-secret-billing-secret-32\"
audience   = [\"orders\"]
introspect = true

[authority.client.reports]
secret = \"reports-secret-reports-secret-32\"

[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/any\"
upstream = \"echo\"
";

fn start() -> Portcullis {
    Portcullis::with(&format!("{AUTHORITY}{CLIENTS}")).start()
}

fn any(address: SocketAddr, token: &str) -> Answer {
    Request::get("/any").bearer(token).to(address)
}

fn by(client: &str, path: &str, fields: &str) -> Request {
    let body = format!("client_id={client}&client_secret={client}-secret-{client}-secret-32&{fields}");
    Request::post(path, body).header("content-type", "application/x-www-form-urlencoded")
}

#[track_caller]
fn good(dir: &Dir, arguments: &[&str]) -> Finished {
    let finished = command(dir, arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished
}

fn mint(dir: &Dir, more: &[&str]) -> String {
    good(dir, &[&["token", "mint", "--sub", "ada"], more].concat()).stdout.trim().to_owned()
}

#[test]
fn a_token_that_a_command_made_ends_with_its_account_however_long_it_lives() {
    let gateway = start();
    let (address, dir) = (gateway.http(), gateway.dir().clone());
    account::add(&dir, "ada", &[]);
    let year = ["--expires-in", "8760h"];
    let (long, usual) = (mint(&dir, &year), mint(&dir, &[]));
    any(address, &long).is(200);
    let pair = login(address, "ada");
    Request::post("/auth/logout-all", "").bearer(&pair.access).to(address).is(204);
    for token in [&long, &usual] {
        any(address, token).is_refusal(401, "revoked_token");
    }
    // A token that is issued after the revocation has the account's new generation, so it is valid.
    let after = mint(&dir, &year);
    assert_eq!(claims(&after)["gen"], 1);
    any(address, &after).is(200);
    good(&dir, &["user", "disable", "ada"]);
    eventually("the gateway has heard of it", || any(address, &after).code() == "revoked_token");
    // No token is issued for a disabled or removed account.
    for (change, why) in [
        (&["user", "disable", "ada"][..], "is disabled"),
        (&["user", "remove", "ada", "--yes"], "a removed account"),
    ] {
        good(&dir, change);
        let refused = command(&dir, &["token", "mint", "--sub", "ada"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(why) && refused.stdout.is_empty(), "{refused:?}");
    }
    let dir = gateway.dir().clone();
    gateway.stop();
    let gateway = Portcullis::with(&format!("{AUTHORITY}{CLIENTS}")).within(dir).start();
    for token in [&long, &usual, &after, &pair.access] {
        any(gateway.http(), token).is_refusal(401, "revoked_token");
    }
}

#[test]
fn a_token_is_not_made_where_it_cannot_be_put_on_record() {
    let dir = Dir::new();
    let store = "store = \"postgres://ada:hunter2@127.0.0.1:1/portcullis\"\n";
    write_policy(&dir, &format!("{AUTHORITY}{store}{CLIENTS}"));
    let refused = command(&dir, &["token", "mint", "--expires-in", "1000h"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("[authority] store:") && refused.stdout.is_empty(), "{refused:?}");
    assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
}

#[test]
fn tokens_for_another_audience_are_described_and_revoked() {
    // RFC 7662 section 2.2, RFC 7009 section 2.1.
    let gateway = start();
    let address = gateway.http();
    let token = |client: &str| {
        let given = by(client, "/auth/token", "grant_type=client_credentials").to(address).is(200).json();
        given["access_token"].as_str().unwrap().to_owned()
    };
    let reported =
        |token: &str| by("billing", "/auth/introspect", &format!("token={token}")).to(address).is(200).json();
    let (own, other) = (token("billing"), token("reports"));
    assert_eq!((&reported(&own)["active"], &reported(&own)["aud"]), (&json!(true), &json!("orders")));
    assert_eq!(reported(&other)["active"], json!(true));
    any(address, &own).is_refusal(401, "wrong_audience");
    let revoke =
        |client: &str, token: &str| by(client, "/auth/revoke", &format!("token={token}")).to(address);
    revoke("reports", &own).is(403);
    assert_eq!(reported(&own)["active"], json!(true), "it is another's");
    revoke("billing", &own).is(200);
    assert_eq!(reported(&own), json!({ "active": false }));
    assert_eq!(reported(&other)["active"], json!(true));
}

#[test]
fn a_life_that_a_reload_shortens_leaves_tokens_and_what_revokes_them() {
    let policy = |life: &str| format!("{AUTHORITY}access_expires = \"{life}\"\n{CLIENTS}");
    let gateway = Portcullis::with(&policy("30m")).start();
    let address = gateway.http();
    account::add(gateway.dir(), "ada", &[]);
    let (kept, ended) = (login(address, "ada"), login(address, "ada"));
    write_policy(gateway.dir(), &policy("10s"));
    Request::post("/reload", "").host("localhost").to(gateway.admin()).is(200);
    Request::post("/auth/logout", "").bearer(&ended.access).to(address).is(204);
    any(address, &ended.access).is_refusal(401, "revoked_token");
    any(address, &kept.access).is(200);
    let next = claims(&refresh(address, &kept.refresh).access);
    assert_eq!(next["exp"].as_u64().unwrap() - next["iat"].as_u64().unwrap(), 10);
}

#[test]
fn a_published_key_signs_in_place_of_one_that_leaked() {
    // Services already know the published key.
    let gateway = start();
    let (address, dir) = (gateway.http(), gateway.dir().clone());
    account::add(&dir, "ada", &[]);
    let json = |finished: &Finished| serde_json::from_str::<Value>(&finished.stdout).unwrap();
    let keys = || Request::get("/.well-known/jwks.json").to(address).is(200).json();
    let kids = || -> Vec<String> {
        keys()["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let leaked = kids()[0].clone();
    let stolen = login(address, "ada").access;
    let next = json(&good(&dir, &["key", "rotate", "--format", "json"]))["kid"].as_str().unwrap().to_owned();
    eventually("the next key is published", || kids().contains(&next));
    let revoked = json(&good(&dir, &["key", "revoke", &leaked, "--format", "json"]));
    assert_eq!(revoked, json!({ "kid": leaked, "replaced_by": next }));
    eventually("the leaked key is gone", || kids() == [next.clone()]);
    any(address, &stolen).is_refusal(401, "unknown_key");
    let token = login(address, "ada").access;
    any(address, &token).is(200);
    // If all keys may have leaked, `--all` revokes every key and a new key signs.
    let all = json(&good(&dir, &["key", "revoke", "--all", "--format", "json"]));
    assert_eq!(all["revoked"], json!([next]));
    let new = all["replaced_by"].as_str().unwrap().to_owned();
    eventually("one key is left", || kids() == [new.clone()]);
    any(address, &token).is_refusal(401, "unknown_key");
    any(address, &login(address, "ada").access).is(200);
    let usage = command(&dir, &["key", "revoke"]);
    assert_eq!(usage.code, Some(2), "{usage:?}");
    assert_eq!(command(&dir, &["key", "revoke", &new, "--all"]).code, Some(2));
}

/// A gateway that starts with a wrong clock must not delete the sessions and the revocations of all gateways.
#[test]
fn nothing_is_deleted_before_it_is_over_by_the_clock_of_the_server_too() {
    let url = Postgres::shared().database();
    let database = url.rsplit('/').next().unwrap();
    let sql = |statement: &str| Postgres::shared().sql(database, statement).trim().to_owned();
    // For the server, it is a year ago.
    sql("CREATE SCHEMA late; CREATE FUNCTION late.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
         $$ SELECT pg_catalog.clock_timestamp() - interval '1 year' $$");
    sql(&format!("ALTER DATABASE {database} SET search_path = late, pg_catalog, public"));
    let gateway = Portcullis::with(&format!("{AUTHORITY}store = \"{url}\"\n{CLIENTS}")).start();
    account::add(gateway.dir(), "ada", &[]);
    login(gateway.http(), "ada");
    let ago = |days: i64| (now() - days * 86_400) * 1000;
    for (value, days) in [("over", 400), ("over by one clock", 30)] {
        sql(&format!(
            "INSERT INTO marks (kind, value, generation, kept, made) VALUES ('session', '{value}', 0, {}, 1)",
            ago(days)
        ));
    }
    for (id, days) in [("over", 400), ("over by one clock", 30)] {
        sql(&format!(
            "INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, over)
             SELECT '{id}', id, 1, 1, 1, 1, '', '', {} FROM accounts",
            ago(days)
        ));
    }
    let count = |table: &str, what: &str| sql(&format!("SELECT count(*) FROM {table} WHERE {what}"));
    // A sweep begins each minute. It deletes the sessions last.
    let deadline = Instant::now() + Duration::from_secs(120);
    while count("sessions", "id = 'over'") != "0" {
        assert!(Instant::now() < deadline, "no sweep");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(count("sessions", "id = 'over by one clock'"), "1");
    assert_eq!(
        (count("marks", "value = 'over'"), count("marks", "value = 'over by one clock'")),
        ("0".into(), "1".into())
    );
}
