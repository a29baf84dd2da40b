//! A pooler between the gateway and PostgreSQL. PgBouncer's manual, "Feature matrix for pooling modes":
//! in transaction mode, neither `SET` nor prepared statements outlive a transaction.

use crate::bed::{NOW, What, new, rotate, run, session, successor, try_begin};
use crate::pgbouncer::PgBouncer;
use crate::postgres::Postgres;
use portcullis::store::{Mark, SessionStart, Store, StoreError};
use std::path::Path;
use tokio::task::JoinSet;

const IGNORE: &str = "ignore_startup_parameters = extra_float_digits";

fn database(server: &Postgres) -> String {
    server.database().rsplit('/').next().unwrap().to_owned()
}

async fn open(url: &str) -> Result<Store, StoreError> {
    Store::open(url, Path::new("")).await
}

/// Runs all operations of a gateway concurrently on two stores, whose server connections are shared.
async fn works(url: &str) {
    let (one, two) = (open(url).await.unwrap(), open(url).await.unwrap());
    let names: Vec<_> = (0..8).map(|number| format!("u{number}")).collect();
    let accounts: Vec<_> = names.iter().map(|name| new(name)).collect();
    one.add(&accounts, NOW).await.unwrap();
    let mut feed = two.feed();
    assert!(feed.marks(0).await.unwrap().is_empty());
    let mut work = JoinSet::new();
    for (number, name) in names.iter().cloned().enumerate() {
        let store = if number % 2 == 0 { one.clone() } else { two.clone() };
        work.spawn(async move {
            let begun = try_begin(&store, &session(&name, &name, NOW), 10, NOW).await;
            assert!(matches!(begun, SessionStart::Started(_)), "{begun:?}");
            let mut token = format!("{name}/0");
            for step in 1..=10 {
                let spent = rotate(&store, &token, NOW + step, crate::bed::Window::default()).await;
                assert!(spent.is_rotated(), "{token}: {spent:?}");
                token = successor(&token);
                assert_eq!(store.sessions(&name, NOW + step).await.unwrap().len(), 1);
                assert!(store.known_address(&name, "192.0.2.1").await.unwrap());
            }
            assert_eq!(rotate(&store, "none/0", NOW, crate::bed::Window::default()).await, What::Unknown);
            assert!(store.end_session(None, &name, "logout", NOW + 20).await.unwrap());
            store.touch_alive(NOW).await.unwrap();
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let marks = feed.marks(0).await.unwrap();
    let mut ended: Vec<_> = marks
        .into_iter()
        .map(|marked| match marked.mark {
            Mark::Session(id) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    ended.sort();
    assert_eq!(ended, names);
    two.forget(NOW + 2000).await.unwrap();
    assert_eq!((one.replaced(), two.replaced()), (0, 0));
}

#[test]
fn with_transaction_pooling_the_store_works_where_the_url_says_so() {
    let server = Postgres::shared();
    let pooler = PgBouncer::start(server, "transaction", IGNORE);
    let name = database(server);
    run(works(&format!("{}?pool_mode=transaction", pooler.url(&name))));
    // No setting remains on a connection that another client gets next.
    let setting = "SELECT current_setting('lock_timeout')";
    assert_eq!(server.sql_at("127.0.0.1", pooler.port(), &name, setting).trim(), "0");
}

#[test]
fn with_session_pooling_the_store_works_as_without_a_pooler() {
    let server = Postgres::shared();
    let pooler = PgBouncer::start(server, "session", &format!("{IGNORE}\ndefault_pool_size = 40"));
    run(works(&pooler.url(&database(server))));
}

#[test]
fn without_a_pooler_the_url_may_say_so_too() {
    let url = Postgres::shared().database();
    run(works(&format!("{url}?pool_mode=transaction")));
}

#[test]
fn a_pooler_that_the_url_does_not_mention_is_named_with_the_remedy() {
    let server = Postgres::shared();
    let pooler = PgBouncer::start(server, "transaction", &format!("{IGNORE}\ndefault_pool_size = 1"));
    let error = run(open(&pooler.url(&database(server)))).unwrap_err().to_string();
    assert!(error.contains("?pool_mode=transaction"), "{error}");
    let pooler = PgBouncer::start(server, "session", "");
    let error = run(open(&pooler.url(&database(server)))).unwrap_err().to_string();
    assert!(error.contains("PgBouncer") && error.contains("ignore_startup_parameters"), "{error}");
}
