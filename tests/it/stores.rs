//! Gateways with a database server: the state that several gateways share, and their behaviour when the server is
//! unavailable.

use crate::kit::account::{self, AUTHORITY, Pair, login, post, refresh, try_refresh};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::postgres::Postgres;
use crate::kit::{Answer, Portcullis, Request, eventually};
use serde_json::json;
use std::net::SocketAddr;

const ROUTES: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/any\"
upstream = \"echo\"
";

fn policy(url: &str) -> String {
    format!("{AUTHORITY}store = \"{url}\"\n{ROUTES}")
}

fn me(address: SocketAddr, pair: &Pair) -> Answer {
    Request::get("/auth/me").bearer(&pair.access).to(address)
}

#[test]
fn gateways_at_one_database_share_sessions_and_revocations() {
    let policy = policy(&Postgres::shared().database());
    let one = Portcullis::with(&policy).start();
    account::add(one.dir(), "ada", &[]);
    let two = Portcullis::with(&policy).start();
    // Each gateway has its own keys and rejects the other gateway's access tokens. They share the session.
    let first = login(one.http(), "ada");
    let second = refresh(two.http(), &first.refresh);
    assert_eq!(
        refresh(one.http(), &first.refresh).refresh,
        second.refresh,
        "one successor, whoever is asked"
    );
    me(two.http(), &second).is(200);
    Request::post("/auth/logout-all", "").bearer(&first.access).to(one.http()).is(204);
    me(one.http(), &first).is_refusal(401, "revoked_token");
    eventually("the other gateway refuses it too", || me(two.http(), &second).code() == "revoked_token");
    try_refresh(two.http(), &second.refresh).is_refusal(401, "revoked_token");
    me(two.http(), &login(two.http(), "ada")).is(200);
}

/// Two requests end one session, as two tabs of a browser do. The second one must not be answered before the gateway that
/// answers it refuses the session's tokens.
#[test]
fn a_logout_holds_at_the_gateway_that_answers_it_even_if_another_one_was_first() {
    let policy = policy(&Postgres::shared().database());
    let (one, two) = (Portcullis::with(&policy).start(), Portcullis::with(&policy).start());
    account::add(one.dir(), "ada", &[]);
    for _ in 0..10 {
        let pair = refresh(two.http(), &login(one.http(), "ada").refresh);
        me(two.http(), &pair).is(200);
        for gateway in [&one, &two] {
            post(gateway.http(), "/auth/logout", &json!({ "refresh_token": pair.refresh })).is(204);
        }
        me(two.http(), &pair).is_refusal(401, "revoked_token");
    }
}

#[test]
fn a_gateway_outlives_its_connections_to_the_database() {
    let url = Postgres::shared().database();
    let gateway = Portcullis::with(&policy(&url)).start();
    account::add(gateway.dir(), "ada", &[]);
    let pair = login(gateway.http(), "ada");
    let database = url.rsplit('/').next().unwrap();
    let closed = Postgres::shared().sql(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    assert!(closed.contains('t'), "there were connections: {closed}");
    me(gateway.http(), &refresh(gateway.http(), &pair.refresh)).is(200);
}

#[test]
fn a_missing_database_is_reported_without_the_password() {
    let dir = Dir::new();
    write_policy(&dir, &policy("postgres://ada:hunter2@127.0.0.1:1/portcullis"));
    for arguments in [&["user", "list"][..], &["run"]] {
        let finished = command(&dir, arguments);
        assert_ne!(finished.code, Some(0), "{finished:?}");
        let reported = format!("{finished:?}");
        assert!(reported.contains("Connection refused") && !reported.contains("hunter2"), "{reported}");
    }
}

#[test]
fn an_option_of_the_url_that_would_have_no_effect_is_a_fault_of_the_policy() {
    let dir = Dir::new();
    write_policy(&dir, &policy("postgres://ada:hunter2@127.0.0.1:1/portcullis?channel_binding=require"));
    for arguments in [&["check"][..], &["run"]] {
        let finished = command(&dir, arguments);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let reported = format!("{finished:?}");
        assert!(reported.contains("authority.store") && !reported.contains("hunter2"), "{reported}");
        assert!(reported.contains("an option that would have no effect"), "{reported}");
    }
}
