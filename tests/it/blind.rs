//! A gateway that cannot read the revocations of other processes reports the failure, and reads all of them after it
//! recovers.

use crate::kit::account::{self, AUTHORITY, login};
use crate::kit::portcullis::{command, completed};
use crate::kit::postgres::Postgres;
use crate::kit::upstream::{After, Gate};
use crate::kit::{Connection as Client, Portcullis, Request, Upstream, eventually};
use crate::reload::reload;
use sqlx::{AnyConnection, Connection, Executor};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

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

/// Executes a statement in a database of SQLite.
fn sql(file: &Path, statement: &'static str) {
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = AnyConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
        connection.execute("PRAGMA busy_timeout = 5000").await.unwrap();
        connection.execute(statement).await.unwrap();
    });
}

/// A newer version may have changed the tables, or a database permission may be revoked. The gateway refuses tokens
/// after ten seconds, so metrics and `/readyz?verbose` must report the failure.
#[test]
fn a_store_whose_marks_cannot_be_read_is_reported_as_lost_and_once() {
    let gateway = Portcullis::with(&policy("")).start();
    let file = gateway.dir().path().join("state/portcullis.db");
    let sql = |statement: &'static str| sql(&file, statement);
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

const HIDE_MARKS: &str = "ALTER TABLE marks RENAME TO hidden";

/// A gateway whose reload has switched to the store `two`, while a request is open that began with the store `one`.
struct Moved {
    gateway: Portcullis,
    access: String,
    _open: Client,
}

impl Moved {
    fn begin(upstream: &Upstream) -> Self {
        let stream = format!(
            "[upstream.app]\nservers = [\"{upstream}\"]\n[[route]]\npath = \"/stream\"\nupstream = \"app\"\naccess = \"public\"\n"
        );
        let of =
            |store: &str| completed(&format!("{}{stream}", policy(&format!("store = \"sqlite:{store}\""))));
        let gateway = Portcullis::with(&of("one.db")).start();
        account::add(gateway.dir(), "ada", &[]);
        let access = login(gateway.http(), "ada").access;
        let mut open = Client::open(gateway.http());
        open.send(Request::get("/stream").bytes());
        eventually("the request is open", || metric(&gateway, "portcullis_requests_in_progress") == 1);
        gateway.dir().replace("gateway.toml", of("two.db"));
        assert_eq!(reload(&gateway).status, 200);
        assert_eq!(metric(&gateway, "portcullis_policies_before_in_use"), 1);
        Self { gateway, access, _open: open }
    }

    fn hide_marks(&self, store: &str) {
        sql(&self.gateway.dir().path().join(store), HIDE_MARKS);
    }

    fn status(&self) -> u16 {
        Request::get("/any").bearer(&self.access).to(self.gateway.http()).status
    }
}

#[test]
fn whether_revocations_are_known_depends_on_the_store_of_the_policy_in_force_alone() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        held.wait();
        After::Close
    });
    let (without_old, without_new) = (Moved::begin(&upstream), Moved::begin(&upstream));
    // The store that the policy in force has left may be gone. That of the policy in force may not.
    without_old.hide_marks("one.db");
    without_new.hide_marks("two.db");
    eventually("the gateway refuses tokens after ten seconds", || {
        assert_eq!(without_old.status(), 200);
        without_new.status() == 503
    });
    // Each reader of revocations reads twice a second.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!((without_old.status(), without_new.status()), (200, 503));
    }
    gate.open();
}

/// Reads from the database with another program, which closes it.
fn look(file: &Path) {
    const PROGRAM: &str = "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]); \
                           database.execute('SELECT count(*) FROM sessions').fetchall(); database.close()";
    let looked = Command::new("python3").args(["-c", PROGRAM]).arg(file).status();
    assert!(looked.expect("python3 is installed for the tests").success());
}

/// SQLite deletes the write-ahead log when the last program closes the database. A program knows by a lock that the gateway
/// has the database open.
#[test]
fn a_program_that_looks_into_the_database_does_not_separate_it_from_the_gateway() {
    let keys_in_store = policy("signing_keys = \"store\"\nsigning_keys_secret = \"file:seal\"");
    let respelled = policy("store = \"sqlite:./state/portcullis.db\"");
    for (what, first, second) in [
        ("the usual case", &policy(""), None),
        ("the signing keys are in the database, too", &keys_in_store, None),
        ("a reload opens it once more", &policy(""), Some(&respelled)),
    ] {
        let gateway =
            Portcullis::with(first).file("seal", "k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHcA1bC2dE3").start();
        account::add(gateway.dir(), "ada", &[]);
        if let Some(second) = second {
            gateway.dir().replace("gateway.toml", completed(second));
            assert_eq!(reload(&gateway).status, 200);
        }
        let state = gateway.dir().path().join("state");
        look(&state.join("portcullis.db"));
        assert!(state.join("portcullis.db-wal").exists(), "{what}: the gateway uses the log");
        let access = login(gateway.http(), "ada").access;
        let me = || Request::get("/auth/me").bearer(&access).to(gateway.http());
        me().is(200);
        assert_eq!(command(gateway.dir(), &["user", "disable", "ada"]).code, Some(0));
        eventually(what, || me().code() == "revoked_token");
    }
}

/// A backup is restored, or somebody cleans up, while the gateway runs.
#[test]
fn a_database_file_that_is_replaced_is_reported_and_no_token_is_accepted() {
    let gateway = Portcullis::with(&policy("")).start();
    account::add(gateway.dir(), "ada", &[]);
    let access = login(gateway.http(), "ada").access;
    let [file, kept, other] =
        ["portcullis.db", "kept", "other"].map(|name| gateway.dir().path().join("state").join(name));
    std::fs::hard_link(&file, &kept).unwrap();
    std::fs::copy(&file, &other).unwrap();
    std::fs::rename(&other, &file).unwrap();
    let line = gateway.wait_log("the fault", |line| line["message"] == "the store cannot be used");
    assert!(line["error"].as_str().unwrap().contains("portcullis.db was removed or replaced"), "{line}");
    assert_eq!(metric(&gateway, "portcullis_store_up"), 0);
    let status = || Request::get("/any").bearer(&access).to(gateway.http()).status;
    eventually("the gateway refuses tokens after ten seconds", || status() == 503);
    std::fs::rename(&kept, &file).unwrap();
    eventually("the file is back", || status() == 200);
    eventually("the store answers", || metric(&gateway, "portcullis_store_up") == 1);
}
