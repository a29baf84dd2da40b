//! A gateway that cannot read the revocations of other processes reports the failure, and reads all of them after it
//! recovers.

use crate::kit::account::{self, AUTHORITY, login};
use crate::kit::portcullis::command;
use crate::kit::postgres::Postgres;
use crate::kit::{Portcullis, Request, eventually};
use sqlx::{AnyConnection, Connection, Executor};

fn policy(store: &str) -> String {
    format!(
        "{AUTHORITY}{store}\n[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/any\"\nupstream = \"echo\"\n"
    )
}

fn metric(gateway: &Portcullis, series: &str) -> u64 {
    let text = Request::get("/metrics").to(gateway.admin()).is(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}:\n{text}")).parse().unwrap()
}

/// A newer version may have changed the tables, or a database permission may be revoked. The gateway refuses tokens
/// after ten seconds, so metrics and `/readyz?verbose` must report the failure.
#[test]
fn a_store_whose_marks_cannot_be_read_is_reported_as_lost_and_once() {
    let gateway = Portcullis::with(&policy("")).start();
    let file = gateway.dir().path().join("state/portcullis.db");
    let sql = |statement: &'static str| {
        sqlx::any::install_default_drivers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = AnyConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
            connection.execute("PRAGMA busy_timeout = 5000").await.unwrap();
            connection.execute(statement).await.unwrap();
        });
    };
    sql("ALTER TABLE marks RENAME TO hidden");
    let broken = "portcullis_store_failures_total{reason=\"broken\"}";
    eventually("it was tried some times", || metric(&gateway, broken) >= 3);
    assert_eq!(metric(&gateway, "portcullis_store_up"), 0);
    let verbose = Request::get("/readyz?verbose").to(gateway.admin()).is(200).text();
    assert!(verbose.contains("(broken): ") && verbose.contains("no such table"), "{verbose}");
    sql("ALTER TABLE hidden RENAME TO marks");
    eventually("the store answers", || metric(&gateway, "portcullis_store_up") == 1);
    gateway.wait_log("the recovery", |line| line["message"] == "the store answers again");
    let reported = gateway.log().iter().filter(|line| line["message"] == "the store cannot be used").count();
    assert_eq!(reported, 1, "the first fault is logged, the others are counted");
}

/// A standby without the last commits takes over. It assigns numbers that the gateway has already read to new marks.
#[test]
fn after_a_server_took_over_that_lacked_the_last_marks_none_is_missed() {
    let url = Postgres::shared().database();
    let gateway = Portcullis::with(&policy(&format!("store = \"{url}\""))).start();
    for name in ["ada", "bob"] {
        account::add(gateway.dir(), name, &[]);
    }
    let (ada, bob) = (login(gateway.http(), "ada"), login(gateway.http(), "bob"));
    Request::post("/auth/logout-all", "").bearer(&ada.access).to(gateway.http()).is(204);
    let database = url.rsplit('/').next().unwrap();
    let last = || Postgres::shared().sql(database, "SELECT seq FROM marks").trim().to_owned();
    assert_eq!(last(), "1");
    // The gateway has read the first mark. A later mark of another process also takes effect.
    assert_eq!(command(gateway.dir(), &["user", "set-roles", "bob", "clerk"]).code, Some(0));
    let me = |access: &str| Request::get("/auth/me").bearer(access).to(gateway.http());
    eventually("the gateway has heard of it", || me(&bob.access).code() == "revoked_token");
    let bob = login(gateway.http(), "bob");
    Postgres::shared().sql(
        database,
        "DELETE FROM marks; ALTER TABLE marks ALTER COLUMN seq RESTART WITH 2;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    me(&bob.access).is(200);
    assert_eq!(command(gateway.dir(), &["user", "disable", "bob"]).code, Some(0));
    assert_eq!(last(), "2", "a number that the gateway knows");
    eventually("the gateway has heard of it", || me(&bob.access).code() == "revoked_token");
}
