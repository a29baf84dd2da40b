//! PostgreSQL's plans for the statements of the store. The server's `auto_explain` logs the plan of every statement that
//! the store executes here.

use crate::bed::{Bed, DAY, NOW, SESSION, Window, hash, new, rotate, run, session, successor, try_begin};
use crate::dir::Dir;
use crate::postgres::Postgres;
use portcullis::store::{AccountChange, Store};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The tables that grow with the number of users.
const LARGE: [&str; 5] = ["accounts", "sessions", "refresh_tokens", "marks", "addresses"];

/// Sessions of which a small part is over. Each has a token, a mark and an address.
const FILL: &str = "
    INSERT INTO accounts (id, name, password, roles, scopes, attributes, disabled, generation, created, scheme)
        SELECT 'a' || n, 'a' || n, '', '[]', '[]', '{}', 0, 0, 0, 'argon2id' FROM generate_series(1, 20000) n;
    INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, over)
        SELECT 's' || n, 'a' || (n % 20000 + 1), 1, 1, at, 1, '192.0.2.1', repeat('agent', 12), at
        FROM generate_series(1, 60000) n, LATERAL (SELECT 1800000000000 + (n - 1500) * 43200::bigint AS at) t;
    INSERT INTO refresh_tokens (hash, session, number, issued, expires)
        SELECT encode(convert_to(rpad('s' || n || '/0', 32, '.'), 'UTF8'), 'hex'), 's' || n, 0, 1, 1900000000000
        FROM generate_series(1, 60000) n;
    INSERT INTO marks (kind, value, generation, kept, made)
        SELECT 'session', 's' || n, 0, 1800000000000 + (n - 1500) * 1000::bigint, 1 FROM generate_series(1, 60000) n;
    INSERT INTO addresses (account, address, seen)
        SELECT 'a' || (n % 20000 + 1), '198.51.100.' || n / 20000, 1800000000000 - 7776000000 + (n - 1500) * 1000::bigint
        FROM generate_series(1, 60000) n;
    ANALYZE";

struct Explained {
    server: &'static Postgres,
    database: String,
    url: String,
    /// The length of the server's log before the first statement.
    from: usize,
}

impl Explained {
    /// Fills a database, and lets the server log the plans of its statements. Random reads cost what they cost on a
    /// solid-state disk.
    fn filled() -> Self {
        let server = Postgres::shared();
        let url = server.database();
        let database = url.rsplit('/').next().unwrap().to_owned();
        run(async {
            let store = Store::open(&url, Path::new("")).await.unwrap();
            // A longer life changes all marks, once.
            store.record_life(900_000).await.unwrap();
        });
        server.sql(&database, FILL);
        for setting in [
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_format = 'json'",
            "auto_explain.log_nested_statements = on",
            "random_page_cost = 1.1",
        ] {
            server.sql("postgres", &format!("ALTER DATABASE {database} SET {setting}"));
        }
        let from = log(server).len();
        Self { server, database, url, from }
    }

    fn set(&self, setting: &str) {
        self.server.sql("postgres", &format!("ALTER DATABASE {} SET {setting}", self.database));
    }

    /// Returns the plans that were logged so far.
    fn plans(&self) -> Vec<Value> {
        let log = log(self.server);
        let entries = log[self.from..].split("  plan:\n").skip(1);
        entries
            .map(|entry| {
                let lines = entry.lines().take_while(|line| line.starts_with('\t'));
                let text: String = lines.collect();
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
            })
            .collect()
    }
}

fn log(server: &Postgres) -> String {
    String::from_utf8_lossy(&std::fs::read(server.dir().join("log")).unwrap()).into_owned()
}

/// Returns the statements whose plan reads a whole large table.
fn scans(plans: &[Value]) -> BTreeSet<String> {
    fn is_scan(node: &Value, is_limited: bool) -> bool {
        let kind = node["Node Type"].as_str().unwrap_or_default();
        let is_large = node["Relation Name"].as_str().is_some_and(|name| LARGE.contains(&name));
        let is_whole = kind == "Seq Scan"
            || kind.starts_with("Index") && node.get("Index Cond").is_none() && !is_limited;
        // A limit reaches through the nodes that read their input row by row, in its order.
        let passes = matches!(kind, "Limit" | "Nested Loop" | "Subquery Scan" | "LockRows" | "Result");
        let is_limited = kind == "Limit" || is_limited && passes;
        let below = node["Plans"].as_array().into_iter().flatten();
        is_large && is_whole || below.into_iter().any(|node| is_scan(node, is_limited))
    }
    let found = plans.iter().filter(|logged| is_scan(&logged["Plan"], false));
    found.map(|logged| logged["Query Text"].as_str().unwrap().to_owned()).collect()
}

/// Calls all operations of a gateway that serves, more often than PostgreSQL plans a prepared statement anew.
async fn serve(store: &Store, round: i64) {
    let mut feed = store.feed();
    for step in 0..7 {
        let now = NOW + 10 * round + step;
        let (number, sid) = (30_000 + 100 * round + step, format!("new{round}/{step}").replace('/', "-"));
        let (name, token) = (format!("a{}", number % 20_000), format!("s{number}/0"));
        let account = store.account_by_name(&name).await.unwrap().unwrap();
        assert!(!store.known_address(&account.id, "203.0.113.9").await.unwrap());
        try_begin(store, &session(&account.id, &sid, now), 3, now).await;
        assert!(rotate(store, &token, now, Window::default()).await.is_rotated());
        assert!(rotate(store, &successor(&token), now + 1, Window::default()).await.is_rotated());
        // A token that was spent before the last one.
        rotate(store, &token, now + 2, Window::default()).await;
        store.token_state(&hash(&token), now).await.unwrap();
        store.session_of_token(&hash(&token)).await.unwrap();
        store.sessions(&account.id, now).await.unwrap();
        store.end_session(Some(&account.id), &sid, "logout", now).await.unwrap();
        store.end_sessions(&account.id, "logout", now).await.unwrap();
        store.revoke_token(&sid, now, now + DAY).await.unwrap();
        store.standing(&account.id).await.unwrap();
        store.accounts(&name, 10).await.unwrap();
        store.schemes().await.unwrap();
        store.record_life(900_000).await.unwrap();
        store.touch_alive(now).await.unwrap();
        store.signing_keys("ES256", 100).await.unwrap();
        let marks = feed.marks(60_000).await.unwrap();
        assert!(!marks.is_empty());
        feed.lives().await.unwrap();
        let added = format!("b{round}-{step}");
        store.add(&[new(&added)], now).await.unwrap();
        let change = AccountChange { roles: Some(vec!["boss".to_owned()]), ..AccountChange::default() };
        store.change(&added, &change, now).await.unwrap();
        store.remove(&added, now).await.unwrap();
    }
    store.forget(NOW + DAY + round * DAY / 2).await.unwrap();
}

#[test]
fn no_statement_reads_a_whole_large_table() {
    let explained = Explained::filled();
    // The plan for these parameters, and the plan for any parameters, which PostgreSQL may choose after five executions.
    for (round, mode) in [(1, "force_custom_plan"), (2, "force_generic_plan")] {
        explained.set(&format!("plan_cache_mode = {mode}"));
        run(async {
            let store = Store::open(&explained.url, Path::new("")).await.unwrap();
            serve(&store, round).await;
        });
    }
    let plans = explained.plans();
    let statements: BTreeSet<_> = plans.iter().map(|logged| logged["Query Text"].to_string()).collect();
    assert!(statements.len() > 35, "{}: {statements:#?}", statements.len());
    let scans = scans(&plans);
    assert!(scans.is_empty(), "{scans:#?}");

    // The test notices a missing index.
    explained.server.sql(&explained.database, "DROP INDEX sessions_by_end; DROP INDEX sessions_of_account");
    run(async {
        let store = Store::open(&explained.url, Path::new("")).await.unwrap();
        store.sessions("a7", NOW).await.unwrap();
        store.forget(NOW + 2 * DAY).await.unwrap();
    });
    let scans = self::scans(&explained.plans());
    for start in ["DELETE FROM refresh_tokens", "SELECT s.id, s.account"] {
        assert!(scans.iter().any(|text| text.starts_with(start)), "{start}: {scans:#?}");
    }
}

#[test]
fn a_sweep_deletes_the_sessions_that_are_over_with_their_tokens_and_no_others() {
    let server = Postgres::shared();
    let url = server.database();
    run(async {
        let bed =
            Bed { store: Store::open(&url, Path::new("")).await.unwrap(), url: url.clone(), dir: Dir::new() };
        bed.store.add(&[new("ada")], NOW).await.unwrap();
        // More sessions than one batch, each with more than one token.
        let fill =
            "INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, over)
             SELECT 'old' || n, 'ada', 1, 1, 2, 1, '', '', 2 FROM generate_series(1, 1200) n";
        bed.sql(fill).await;
        let tokens = "INSERT INTO refresh_tokens (hash, session, number, issued, expires)
             SELECT md5(n || '/' || k), 'old' || n, k, 1, 2 FROM generate_series(1, 1200) n, generate_series(0, 2) k";
        bed.sql(tokens).await;
        try_begin(&bed.store, &session("ada", "new", NOW), 5000, NOW).await;
        bed.store.forget(NOW + SESSION).await.unwrap();
        assert_eq!(bed.number("SELECT count(*) FROM sessions").await, 1);
        assert_eq!(bed.number("SELECT count(*) FROM refresh_tokens").await, 1);
    });
}
