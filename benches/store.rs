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

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
    let a_second = took.len() as u64 / SECONDS;
    println!("{what}: {a_second}/s; median {:.2?}, p99 {:.2?}, p99.9 {:.2?}", at(500), at(990), at(999));
}
