//! Temporary trouble: a full disk, an I/O error, a lock, a server that closes its connections. Once the cause is gone,
//! the same store works again without a restart.

use crate::bed::{Bed, NOW, UNTIL, What, on_both, on_file, on_server, run, session, try_begin};
use crate::dir::Dir;
use crate::postgres::Postgres;
use portcullis::store::{SessionStart, Store, StoreError};
use sqlx::{AnyConnection, Connection, Executor};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Opens a connection beside the store's, as another process would.
async fn stranger(bed: &Bed) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let url = match bed.url.strip_prefix("sqlite:") {
        Some(path) => format!("sqlite:{}", bed.dir.path().join(path).display()),
        None => bed.url.clone(),
    };
    AnyConnection::connect(&url).await.unwrap()
}

async fn begins(bed: &Bed, sid: &str) -> Result<SessionStart, StoreError> {
    let new = session("ada", sid, NOW);
    bed.store.begin_session(&new, 0, (&crate::bed::hash(&format!("{sid}/0")), UNTIL), 100, NOW).await
}

/// SQLite rolls back a transaction by itself if the disk is full, or after an I/O error or a lack of memory
/// (https://sqlite.org/lang_transaction.html, section 3). The driver's record of the transaction is then wrong. A
/// trigger causes the same here.
#[test]
fn a_transaction_that_sqlite_undid_by_itself_spoils_no_later_one() {
    on_file(async |bed: Bed| {
        bed.account("ada").await;
        bed.sql(
            "CREATE TRIGGER trouble BEFORE INSERT ON sessions BEGIN SELECT RAISE(ROLLBACK, 'no room'); END",
        )
        .await;
        for sid in ["one", "two"] {
            let error = begins(&bed, sid).await.unwrap_err();
            assert!(error.to_string().contains("no room"), "the cause, each time: {error}");
        }
        assert_eq!(bed.store.replaced(), 2);
        bed.sql("DROP TRIGGER trouble").await;
        assert!(matches!(begins(&bed, "three").await, Ok(SessionStart::Started(_))));
        assert_eq!(bed.store.replaced(), 2);
    });
}

#[test]
fn a_statement_that_the_server_refused_for_lack_of_room_spoils_no_later_one() {
    on_server(async |bed: Bed| {
        bed.account("ada").await;
        bed.sql(
            "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'no room' USING ERRCODE = '53100'; END $$",
        )
        .await;
        bed.sql("CREATE TRIGGER trouble BEFORE INSERT ON sessions EXECUTE FUNCTION trouble()").await;
        for number in 0..20 {
            let error = begins(&bed, &format!("s{number}")).await.unwrap_err();
            assert_eq!(error.reason(), "full", "{error}");
        }
        bed.sql("DROP TRIGGER trouble ON sessions").await;
        assert!(matches!(begins(&bed, "later").await, Ok(SessionStart::Started(_))));
    });
}

/// A client that disconnects may stop its request between two statements.
#[test]
fn a_transaction_that_was_abandoned_is_undone_and_spoils_no_later_one() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        for (number, micros) in [0, 50, 100, 200, 400, 800, 1600, 3200].into_iter().enumerate() {
            let sid = format!("s{number}");
            let _ = tokio::time::timeout(Duration::from_micros(micros), begins(&bed, &sid)).await;
        }
        assert!(matches!(begins(&bed, "last").await, Ok(SessionStart::Started(_))));
        let sessions = bed.number("SELECT COUNT(*) FROM sessions").await;
        let tokens = bed.number("SELECT COUNT(*) FROM refresh_tokens").await;
        assert_eq!(sessions, tokens, "each transaction was done as a whole or not at all");
    });
}

#[test]
fn a_lock_of_another_process_is_waited_for_and_spoils_no_later_work() {
    on_file(async |bed: Bed| {
        bed.account("ada").await;
        let mut other = stranger(&bed).await;
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        let error = begins(&bed, "one").await.unwrap_err();
        assert_eq!(error.reason(), "locked", "{error}");
        other.execute("ROLLBACK").await.unwrap();
        assert!(matches!(begins(&bed, "two").await, Ok(SessionStart::Started(_))));
    });
}

/// An unknown token needs no write, so it does not wait for the lock that all logins need (RFC 9700).
#[test]
fn an_unknown_refresh_token_waits_for_no_writer() {
    on_file(async |bed: Bed| {
        bed.account("ada").await;
        let mut other = stranger(&bed).await;
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        let began = Instant::now();
        assert_eq!(bed.rotate("unknown/0", NOW).await, What::Unknown);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        other.execute("ROLLBACK").await.unwrap();
    });
}

/// All connections for requests are in use, and more requests wait for them.
#[test]
fn marks_are_read_however_many_wait_for_the_stores_connections() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.begin("ada", "one", NOW).await;
        let mut other = stranger(&bed).await;
        other.execute("BEGIN").await.unwrap();
        // The lock blocks writers and readers of sessions; on SQLite it blocks only writers.
        let lock = if bed.url.starts_with("sqlite") {
            "UPDATE sessions SET used = used"
        } else {
            "LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE"
        };
        other.execute(lock).await.unwrap();
        let mut waiting = JoinSet::new();
        for _ in 0..40 {
            let store = bed.store.clone();
            waiting.spawn(async move { store.end_session(None, "one", "logout", NOW).await });
        }
        tokio::time::timeout(Duration::from_millis(300), waiting.join_next()).await.unwrap_err();
        let mut feed = bed.store.feed();
        for _ in 0..3 {
            let read = tokio::time::timeout(Duration::from_secs(2), feed.marks(0)).await;
            assert_eq!(read.expect("a connection of its own").unwrap().len(), 0);
        }
        other.execute("ROLLBACK").await.unwrap();
        let ended = waiting.join_all().await;
        assert_eq!(ended.iter().filter(|ended| matches!(ended, Ok(true))).count(), 1, "{ended:?}");
        assert_eq!(feed.marks(0).await.unwrap().len(), 1);
    });
}

#[test]
fn a_server_that_was_restarted_is_used_again() {
    let server = Postgres::start();
    let url = server.database();
    run(async {
        let store = Store::open(&url, Path::new("")).await.unwrap();
        store.add(&[crate::bed::new("ada")], NOW).await.unwrap();
        let mut feed = store.feed();
        feed.marks(0).await.unwrap();
        server.stop();
        let error = feed.marks(0).await.unwrap_err();
        assert_eq!(error.reason(), "unreachable", "{error}");
        let error = try_begin_error(&store).await;
        assert!(["unreachable", "no_connection"].contains(&error.reason()), "{error}");
        server.resume();
        assert!(matches!(
            try_begin(&store, &session("ada", "one", NOW), 100, NOW).await,
            SessionStart::Started(_)
        ));
        feed.marks(0).await.unwrap();
    });
}

async fn try_begin_error(store: &Store) -> StoreError {
    store.end_sessions("ada", "logout_all", NOW).await.unwrap_err()
}

/// SQLite is locked by another process: the error names the file and a remedy.
#[test]
fn a_file_that_is_locked_at_the_start_is_named_with_the_remedy() {
    run(async {
        let dir = Dir::new();
        let bed_url = format!("sqlite:{}", dir.path().join("p.db").display());
        drop(Store::open("sqlite:p.db", dir.path()).await.unwrap());
        let mut other = AnyConnection::connect(&bed_url).await.unwrap();
        other.execute("BEGIN EXCLUSIVE").await.unwrap();
        let error = Store::open("sqlite:p.db", dir.path()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("p.db") && text.contains("lock") && text.contains("fuser"), "{text}");
        assert_eq!(error.reason(), "locked");
    });
}

#[test]
fn a_server_that_cannot_be_reached_is_named_with_its_port() {
    let opened = run(Store::open("postgres://ada:hunter2@127.0.0.1:1/portcullis", Path::new("")));
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("127.0.0.1:1/portcullis") && !text.contains("hunter2"), "{text}");
}

/// RFC 8981 section 3.4: a host changes its address within its network every day.
#[test]
fn an_ipv6_address_is_known_by_its_network() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        let mut new = session("ada", "one", NOW);
        new.address = "2001:db8:1:1::1".to_owned();
        try_begin(&bed.store, &new, 100, NOW).await;
        for (address, known) in [
            ("2001:db8:1:1::1", true),
            ("2001:db8:1:1:ffff::2", true),
            ("2001:db8:1:2::1", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(bed.store.known_address("ada", address).await.unwrap(), known, "{address}");
        }
        assert_eq!(bed.store.sessions("ada", NOW).await.unwrap()[0].address, "2001:db8:1:1::1");
        // A row from a version that stored the whole address.
        bed.sql("INSERT INTO addresses (account, address, seen) VALUES ('ada', '2001:db8:9:9::9', 1)").await;
        assert!(bed.store.known_address("ada", "2001:db8:9:9::9").await.unwrap());
    });
}
