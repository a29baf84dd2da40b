//! The throughput of the store: rotations of refresh tokens, sequential and concurrent, and account lookups at the same
//! time.
//!
//! `cargo bench --bench store` uses a new SQLite file in the target folder, or the empty database in
//! `PORTCULLIS_BENCH_STORE` (`postgres://...`). The flush to disk takes most of the measured time.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that prints figures"
)]

use portcullis::store::{NewAccount, Rotation, RotationRequest, Session, SessionStart, Store};
use sqlx::Row;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const SECONDS: u64 = 4;
const SESSIONS: usize = 16;
const ACCOUNTS: usize = 10_000;
const NOW: i64 = 1_800_000_000_000;
const LATER: i64 = NOW + 86_400_000;

fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (url, base) = location();
        let store = Store::open(&url, &base).await.unwrap();
        match std::env::var("PORTCULLIS_BENCH_SIZE").as_deref() {
            // `benches/store-at-size.sh` fills the tables in between.
            Ok("schema") => return,
            Ok("explain") => return at_size(&store, &url, 7).await,
            Ok(_) => return at_size(&store, &url, 2000).await,
            Err(_) => {}
        }
        let began = Instant::now();
        let accounts: Vec<NewAccount> = (0..ACCOUNTS).map(account).collect();
        store.add(&accounts, NOW).await.unwrap();
        println!("{ACCOUNTS} accounts made in one transaction: {:.2?}", began.elapsed());
        for session in 0..SESSIONS {
            begin(&store, session).await;
        }
        report("one session, one rotation after the other", rotations(&store, 0..1).await);
        report(&format!("{SESSIONS} sessions at once"), rotations(&store, 0..SESSIONS).await);
        let looking = tokio::spawn(look_up(store.clone()));
        let quiet = looking.await.unwrap();
        report("accounts looked up by name", quiet);
        let looking = tokio::spawn(look_up(store.clone()));
        rotations(&store, 0..SESSIONS).await;
        report("the same while 16 sessions are refreshed", looking.await.unwrap());
    });
}

fn location() -> (String, PathBuf) {
    if let Ok(url) = std::env::var("PORTCULLIS_BENCH_STORE") {
        return (url, PathBuf::new());
    }
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(base.join(format!("bench.db{end}")));
    }
    ("sqlite:bench.db".to_owned(), base)
}

fn account(number: usize) -> NewAccount {
    let name = format!("user{number:06}");
    NewAccount { id: name.clone(), name, roles: vec!["clerk".to_owned()], ..NewAccount::default() }
}

fn token(session: usize, number: u64) -> [u8; 32] {
    let mut token = [0; 32];
    token[..8].copy_from_slice(&session.to_be_bytes());
    token[8..16].copy_from_slice(&number.to_be_bytes());
    token
}

async fn begin(store: &Store, number: usize) {
    let session = Session {
        id: format!("session{number}"),
        account: account(number).id,
        created: NOW,
        used: NOW,
        expires: LATER,
        authenticated: NOW,
        address: "192.0.2.1".to_owned(),
        agent: "bench".to_owned(),
        csrf: None,
        key: None,
        ended: None,
    };
    let begun = store.begin_session(&session, 0, (&token(number, 0), LATER), 10, NOW).await.unwrap();
    assert!(matches!(begun, SessionStart::Started(_)));
}

/// Spends the tokens of these sessions for some seconds, one after another within each session. Returns the duration of
/// each rotation.
async fn rotations(store: &Store, sessions: std::ops::Range<usize>) -> Vec<Duration> {
    static ROUND: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    let round = ROUND.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut tasks = JoinSet::new();
    for number in sessions {
        let number = round * 1000 + number;
        begin(store, number).await;
        let store = store.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            let end = Instant::now() + Duration::from_secs(SECONDS);
            for step in 0.. {
                let began = Instant::now();
                if began > end {
                    break;
                }
                let next = token(number, step + 1);
                let spend = RotationRequest {
                    token: &token(number, step),
                    key: None,
                    nonce: [1; 32],
                    successor: &|_| next,
                    now: NOW,
                    expires: LATER,
                    grace: 10_000,
                    outage_over: 0,
                    alive_before_outage: 0,
                };
                assert!(matches!(store.rotate(&spend).await.unwrap(), Rotation::Rotated(_)));
                took.push(began.elapsed());
            }
            took
        });
    }
    tasks.join_all().await.concat()
}

async fn look_up(store: Store) -> Vec<Duration> {
    let mut took = Vec::new();
    let end = Instant::now() + Duration::from_secs(SECONDS);
    for number in 0.. {
        let began = Instant::now();
        if began > end {
            break;
        }
        let name = account(number * 7919 % ACCOUNTS).name;
        assert!(store.account_by_name(&name).await.unwrap().is_some());
        took.push(began.elapsed());
    }
    took
}

/// A session in the filled database.
#[derive(Clone)]
struct Filled {
    account: String,
    name: String,
    session: String,
    token: [u8; 32],
}

/// Returns random sessions that are alive.
async fn filled(url: &str, count: usize) -> Vec<Filled> {
    let pool = sqlx::AnyPool::connect(url).await.unwrap();
    let statement = "SELECT md5('a' || n) AS account, 'user' || n AS name, id AS session,
            md5('t' || id) || md5('u' || id) AS token
        FROM (SELECT n, md5('s' || n || '/2') AS id FROM
            (SELECT 1 + (random() * (SELECT reltuples - 1 FROM pg_class WHERE relname = 'accounts'))::bigint AS n
             FROM generate_series(1, $1)) random) picked";
    let rows = sqlx::query(statement).bind(count as i64).fetch_all(&pool).await.unwrap();
    let text = |row: &sqlx::any::AnyRow, name: &str| row.try_get::<String, _>(name).unwrap();
    rows.iter()
        .map(|row| {
            let (hex, mut token) = (text(row, "token"), [0; 32]);
            for (byte, at) in token.iter_mut().zip((0..64).step_by(2)) {
                *byte = u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            }
            Filled {
                account: text(row, "account"),
                name: text(row, "name"),
                session: text(row, "session"),
                token,
            }
        })
        .collect()
}

/// Measures what a gateway does, on the database that `benches/store-at-size.sh` filled.
async fn at_size(store: &Store, url: &str, count: usize) {
    for clients in [1, 8] {
        let lookups = each(store, filled(url, count).await, clients, async |store: &Store, one: &Filled| {
            let account = store.account_by_name(&one.name).await.unwrap().unwrap();
            store.known_address(&account.id, "192.0.2.1").await.unwrap();
        });
        shown(&format!("account looked up for a login, {clients} at a time"), lookups.await);
        let logins = each(store, filled(url, count).await, clients, async |store: &Store, one: &Filled| {
            let account = store.account_by_name(&one.name).await.unwrap().unwrap();
            let id = unique();
            let mut token = [0; 32];
            token[..16].copy_from_slice(&id.to_be_bytes());
            let session = Session { id: format!("{id:032x}"), account: account.id, ..session_of_bench() };
            let begun = store.begin_session(&session, account.generation, (&token, LATER), 100, NOW).await;
            assert!(matches!(begun.unwrap(), SessionStart::Started(_) | SessionStart::AccountChanged));
        });
        shown(&format!("session begun by a login, {clients} at a time"), logins.await);
        let refreshes = each(store, filled(url, count).await, clients, refresh_one);
        shown(&format!("refresh, {clients} at a time"), refreshes.await);
        let ends = each(store, filled(url, count / 2).await, clients, async |store: &Store, one: &Filled| {
            store.end_session(None, &one.session, "logout", NOW).await.unwrap();
        });
        shown(&format!("end of a session, {clients} at a time"), ends.await);
        let ends = each(store, filled(url, count / 2).await, clients, async |store: &Store, one: &Filled| {
            store.end_sessions(&one.account, "logout", NOW).await.unwrap();
        });
        shown(&format!("end of all sessions of an account, {clients} at a time"), ends.await);
        let revocations =
            each(store, filled(url, count).await, clients, async |store: &Store, _: &Filled| {
                store.revoke_token(&format!("{:032x}", unique()), NOW, LATER).await.unwrap();
            });
        shown(&format!("access token revoked, {clients} at a time"), revocations.await);
    }
    let quiet = each(store, filled(url, count).await, 4, refresh_one).await;
    shown("refresh, 4 at a time, before the sweep", quiet);
    let sweeping = tokio::spawn({
        // The server logs the duration of each batch, which `benches/store-at-size.sh` reads.
        let logged = format!("{url}?options=-c%20log_min_duration_statement%3D0");
        let store = Store::open(&logged, std::path::Path::new("")).await.unwrap();
        async move {
            let mut took = Vec::new();
            for _ in 0..3 {
                let began = Instant::now();
                store.forget(NOW).await.unwrap();
                took.push(began.elapsed());
            }
            took
        }
    });
    let mut during = Vec::new();
    loop {
        during.extend(each(store, filled(url, count.min(100)).await, 4, refresh_one).await);
        if sweeping.is_finished() {
            break;
        }
    }
    shown("refresh, 4 at a time, during a sweep", during);
    println!("sweeps of up to 200 batches of 500 rows: {:.2?}", sweeping.await.unwrap());
}

async fn refresh_one(store: &Store, one: &Filled) {
    let mut next = one.token;
    next.rotate_left(7);
    let spend = RotationRequest {
        token: &one.token,
        key: None,
        nonce: [1; 32],
        successor: &|_| next,
        now: NOW,
        expires: LATER,
        grace: 10_000,
        outage_over: 0,
        alive_before_outage: 0,
    };
    // A session may have been chosen before, and ended or refreshed. It is then not refreshed again.
    store.rotate(&spend).await.unwrap();
}

/// Returns a number that no run on this database has used.
fn unique() -> u128 {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let began = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    (began << 32) | u128::from(COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

fn session_of_bench() -> Session {
    Session {
        id: String::new(),
        account: String::new(),
        created: NOW,
        used: NOW,
        expires: LATER,
        authenticated: NOW,
        address: "192.0.2.1".to_owned(),
        agent: "bench".to_owned(),
        csrf: None,
        key: None,
        ended: None,
    }
}

/// Does something to each session, `clients` at a time. Returns the duration of each.
async fn each<W>(store: &Store, all: Vec<Filled>, clients: usize, work: W) -> Vec<Duration>
where
    W: AsyncFn(&Store, &Filled),
{
    let took = std::sync::Mutex::new(Vec::new());
    let left = std::sync::Mutex::new(all.into_iter());
    let (taken, remaining, work) = (&took, &left, &work);
    let client = || async move {
        loop {
            let next = remaining.lock().unwrap().next();
            let Some(one) = next else { return };
            let began = Instant::now();
            work(store, &one).await;
            taken.lock().unwrap().push(began.elapsed());
        }
    };
    futures(clients, client).await;
    took.into_inner().unwrap()
}

/// Runs several futures on this thread until all have ended.
async fn futures<F: Future<Output = ()>>(count: usize, make: impl Fn() -> F) {
    let mut running: Vec<_> = (0..count).map(|_| Some(Box::pin(make()))).collect();
    std::future::poll_fn(|cx| {
        for slot in &mut running {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(cx).is_ready()) {
                *slot = None;
            }
        }
        match running.iter().all(Option::is_none) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

fn shown(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    println!("{what}: {} times; p50 {:.2?}, p99 {:.2?}, maximum {:.2?}", took.len(), at(50), at(99), at(100));
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
    let a_second = took.len() as u64 / SECONDS;
    println!("{what}: {a_second}/s; median {:.2?}, p99 {:.2?}, p99.9 {:.2?}", at(500), at(990), at(999));
}
