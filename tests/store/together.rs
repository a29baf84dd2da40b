//! Revocations that wait at the same time share a transaction, and each caller gets its own answer.

use crate::bed::{Bed, DAY, NOW, UNTIL, on_both, on_server, pool};
use portcullis::authenticate::SignalMark;
use portcullis::store::{Mark, Store, StoreError};
use sqlx::{Any, Executor, Transaction};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// Takes the lock that a transaction needs for marks, as another gateway does.
async fn holder(bed: &Bed) -> Transaction<'static, Any> {
    let pool = pool(bed).await;
    if bed.url.starts_with("sqlite:") {
        return pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    }
    let mut holder = pool.begin().await.unwrap();
    holder.execute("SELECT pg_advisory_xact_lock(8098271343)").await.unwrap();
    holder
}

/// Calls that were started and wait.
struct Calls<T> {
    tasks: JoinSet<(usize, T)>,
    begun: Arc<AtomicUsize>,
}

impl<T: Send + 'static> Calls<T> {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), begun: Arc::default() }
    }

    /// Starts a call, and returns once it waits.
    async fn start(&mut self, number: usize, call: impl Future<Output = T> + Send + 'static) {
        let begun = self.begun.clone();
        self.tasks.spawn(async move {
            begun.fetch_add(1, Ordering::Relaxed);
            (number, call.await)
        });
        let count = self.tasks.len();
        while self.begun.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    }

    async fn results(self) -> Vec<T> {
        let mut all = self.tasks.join_all().await;
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, result)| result).collect()
    }
}

/// Returns the number of transactions that have written marks.
async fn commits(bed: &Bed) -> usize {
    if !bed.url.starts_with("sqlite:") {
        return usize::try_from(bed.number("SELECT COUNT(DISTINCT CAST(xmin AS text)) FROM marks").await)
            .unwrap();
    }
    // https://sqlite.org/fileformat2.html, section 4.1: the last page of a commit has the size of the database.
    let log = std::fs::read(bed.dir.path().join("state/portcullis.db-wal")).unwrap();
    let page = usize::try_from(u32::from_be_bytes(log[8..12].try_into().unwrap())).unwrap();
    let frames = log[32..].chunks_exact(24 + page);
    frames.filter(|frame| frame[8..16] == log[16..24] && frame[4..8] != [0; 4]).count()
}

fn token(store: &Store, jti: &str) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
    let (store, jti) = (store.clone(), jti.to_owned());
    async move { store.revoke_token(&jti, NOW, UNTIL).await }
}

#[test]
fn revocations_that_wait_share_a_commit_and_keep_their_order() {
    on_both(async |bed: Bed| {
        bed.store.revoke_token("before", NOW, UNTIL).await.unwrap();
        let before = commits(&bed).await;
        let holder = holder(&bed).await;
        let mut calls = Calls::new();
        for number in 0..40 {
            calls.start(number, token(&bed.store, &format!("t{number}"))).await;
        }
        let store = bed.store.clone();
        let signal = |byte| SignalMark { digest: [byte; 16], before: 7, until: 4_000_000_000 };
        let signals = async move { store.record_signals(&[signal(1), signal(2)], NOW).await };
        calls.start(40, signals).await;
        holder.commit().await.unwrap();
        for result in calls.results().await {
            result.unwrap();
        }
        let made = commits(&bed).await - before;
        assert!(made <= 2, "{made} commits");
        let marks = bed.marks().await;
        let names: Vec<String> = (0..40).map(|number| format!("t{number}")).collect();
        let tokens: Vec<Mark> = names.into_iter().map(Mark::Token).collect();
        assert_eq!(marks[1..41], tokens);
        assert_eq!(marks.len(), 43);
        let kept: Vec<i64> = bed.store.marks(0).await.unwrap().iter().map(|marked| marked.kept).collect();
        assert_eq!((kept[1], kept[41]), (UNTIL + DAY, 4_000_000_000_000));
    });
}

#[test]
fn a_transaction_has_a_bounded_number_of_revocations() {
    on_server(async |bed: Bed| {
        let holder = holder(&bed).await;
        let mut calls = Calls::new();
        for number in 0..300 {
            calls.start(number, token(&bed.store, &format!("t{number}"))).await;
        }
        holder.commit().await.unwrap();
        assert!(calls.results().await.iter().all(Result::is_ok));
        let largest =
            "SELECT MAX(count) FROM (SELECT COUNT(*) AS count FROM marks GROUP BY CAST(xmin AS text)) AS t";
        assert_eq!((bed.number(largest).await, bed.marks().await.len()), (128, 300));
    });
}

/// The database refuses one revocation of many.
#[test]
fn a_refused_revocation_fails_alone() {
    on_both(async |bed: Bed| {
        if bed.url.starts_with("sqlite:") {
            bed.sql(
                "CREATE TRIGGER trouble BEFORE INSERT ON marks WHEN NEW.value = 't7'
                 BEGIN SELECT RAISE(ABORT, 'not this one'); END",
            )
            .await;
        } else {
            bed.sql(
                "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN IF NEW.value = 't7' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$",
            )
            .await;
            bed.sql("CREATE TRIGGER trouble BEFORE INSERT ON marks FOR EACH ROW EXECUTE FUNCTION trouble()")
                .await;
        }
        let holder = holder(&bed).await;
        let mut calls = Calls::new();
        for number in 0..20 {
            calls.start(number, token(&bed.store, &format!("t{number}"))).await;
        }
        holder.commit().await.unwrap();
        for (number, result) in calls.results().await.into_iter().enumerate() {
            match result {
                Ok(()) => assert_ne!(number, 7),
                Err(error) => {
                    assert!(number == 7 && error.to_string().contains("not this one"), "{number}: {error}")
                }
            }
        }
        assert_eq!(bed.marks().await.len(), 19);
        assert!(!bed.marks().await.contains(&Mark::Token("t7".to_owned())));
    });
}

/// A fault that passes concerns all of them. Nobody gets an answer that is not true.
#[test]
fn a_fault_that_passes_is_reported_to_each_caller_and_spoils_no_later_revocation() {
    on_server(async |bed: Bed| {
        bed.sql(
            "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'no room' USING ERRCODE = '53100'; END $$",
        )
        .await;
        bed.sql("CREATE TRIGGER trouble BEFORE INSERT ON marks EXECUTE FUNCTION trouble()").await;
        let holder = holder(&bed).await;
        let mut calls = Calls::new();
        for number in 0..20 {
            calls.start(number, token(&bed.store, &format!("t{number}"))).await;
        }
        holder.commit().await.unwrap();
        for result in calls.results().await {
            assert_eq!(result.unwrap_err().reason(), "full");
        }
        assert!(bed.marks().await.is_empty());
        bed.sql("DROP TRIGGER trouble ON marks").await;
        bed.store.revoke_token("later", NOW, UNTIL).await.unwrap();
        assert_eq!(bed.marks().await.len(), 1);
    });
}

/// The first caller, whose call began the transaction, is among those that are cancelled.
#[test]
fn a_cancelled_caller_delays_and_fails_nobody() {
    on_both(async |bed: Bed| {
        let holder = holder(&bed).await;
        let first = tokio::spawn(token(&bed.store, "first"));
        tokio::task::yield_now().await;
        let mut calls = Calls::new();
        for number in 0..10 {
            calls.start(number, token(&bed.store, &format!("t{number}"))).await;
        }
        let last = tokio::spawn(token(&bed.store, "last"));
        tokio::task::yield_now().await;
        for cancelled in [first, last] {
            cancelled.abort();
            assert!(cancelled.await.unwrap_err().is_cancelled());
        }
        holder.commit().await.unwrap();
        assert!(calls.results().await.iter().all(Result::is_ok));
        let marks = bed.marks().await;
        // The first one was in the transaction already. The last one waited, and nobody waits for its answer.
        assert!(
            (10..=11).contains(&marks.len()) && !marks.contains(&Mark::Token("last".to_owned())),
            "{marks:?}"
        );
        bed.store.revoke_token("later", NOW, UNTIL).await.unwrap();
    });
}

#[test]
fn revocations_that_wait_too_long_fail_and_are_not_stored_later() {
    on_server(async |bed: Bed| {
        let holder = holder(&bed).await;
        let mut calls = Calls::new();
        for number in 0..10 {
            calls.start(number, token(&bed.store, &format!("t{number}"))).await;
        }
        // The server ends the wait for the lock after five seconds.
        let reasons: Vec<_> =
            calls.results().await.into_iter().map(|result| result.unwrap_err().reason()).collect();
        let is_late = |reason: &&str| ["locked", "timeout", "no_connection"].contains(reason);
        assert!(reasons.iter().all(is_late) && reasons[0] != "no_connection", "{reasons:?}");
        holder.commit().await.unwrap();
        bed.store.revoke_token("later", NOW, UNTIL).await.unwrap();
        assert_eq!(bed.marks().await, [Mark::Token("later".to_owned())]);
    });
}

fn end(store: &Store, account: &'static str, sid: &str) -> impl Future<Output = bool> + Send + 'static {
    let (store, sid) = (store.clone(), sid.to_owned());
    async move { store.end_session(Some(account), &sid, "logout", NOW).await.unwrap() }
}

#[test]
fn sessions_that_end_at_the_same_time_share_a_commit() {
    on_both(async |bed: Bed| {
        for name in ["ada", "eve"] {
            bed.account(name).await;
        }
        bed.store.record_life(3_600_000).await.unwrap();
        for number in 0..10 {
            bed.begin("ada", &format!("s{number}"), NOW + number).await;
        }
        bed.store.end_session(None, "s0", "before", NOW).await.unwrap();
        let before = commits(&bed).await;
        let holder = holder(&bed).await;
        let mut calls = Calls::new();
        for number in 0..10 {
            calls.start(number, end(&bed.store, "ada", &format!("s{number}"))).await;
        }
        calls.start(10, end(&bed.store, "eve", "s5")).await;
        calls.start(11, end(&bed.store, "ada", "unknown")).await;
        holder.commit().await.unwrap();
        let ended = calls.results().await;
        assert_eq!(ended, (0..12).map(|number| (1..10).contains(&number)).collect::<Vec<_>>());
        let made = commits(&bed).await - before;
        assert!(made <= 3, "{made} commits");
        let mut kept: Vec<(Mark, i64)> =
            bed.store.marks(0).await.unwrap().into_iter().map(|marked| (marked.mark, marked.kept)).collect();
        kept.sort_by_key(|(_, kept)| *kept);
        let expected =
            (0..10).map(|number| (Mark::Session(format!("s{number}")), NOW + number + 3_600_000 + DAY));
        assert_eq!(kept, expected.collect::<Vec<_>>());
        assert_eq!(bed.ended("s0/0").await.as_deref(), Some("before"));
        assert_eq!(bed.ended("s9/0").await.as_deref(), Some("logout"));
        assert!(bed.store.sessions("ada", NOW).await.unwrap().is_empty());
    });
}

/// A refresh, for example, holds the row of its session.
#[test]
fn a_session_that_another_transaction_holds_delays_only_its_own_caller() {
    on_server(async |bed: Bed| {
        bed.account("ada").await;
        for number in 0..10 {
            bed.begin("ada", &format!("s{number}"), NOW).await;
        }
        let mut other = pool(&bed).await.begin().await.unwrap();
        other.execute("SELECT 1 FROM sessions WHERE id = 's3' FOR UPDATE").await.unwrap();
        let mut calls = Calls::new();
        for number in 0..10 {
            calls.start(number, end(&bed.store, "ada", &format!("s{number}"))).await;
        }
        let mut done = 0;
        while done < 9 {
            let (number, is_ended) = calls.tasks.join_next().await.unwrap().unwrap();
            assert!(is_ended && number != 3, "{number}");
            done += 1;
        }
        assert_eq!(bed.marks().await.len(), 9);
        other.commit().await.unwrap();
        assert_eq!(calls.results().await, [true]);
        assert_eq!(bed.marks().await.len(), 10);
    });
}
