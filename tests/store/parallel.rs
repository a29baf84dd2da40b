//! Concurrency: several tasks of one gateway, and two gateways with one database.

use crate::bed::{Bed, NOW, UNTIL, What, Window, new, on_both, on_server, rotate, session, sql, try_begin};
use portcullis::store::{AccountChange, Added, Mark, SessionStart};
use std::time::Duration;
use tokio::task::JoinSet;

/// Counts the results that match.
fn count(all: &[What], is: impl Fn(&What) -> bool) -> usize {
    all.iter().filter(|what| is(what)).count()
}

#[test]
fn of_twelve_who_present_one_token_one_spends_it_and_all_get_the_same() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        let stores = [bed.store.clone(), bed.another().await.unwrap()];
        for round in 0..4 {
            let sid = format!("s{round}");
            bed.begin("ada", &sid, NOW).await;
            let mut tasks = JoinSet::new();
            for number in 0..12 {
                let (store, token) = (stores[number % 2].clone(), format!("{sid}/0"));
                tasks.spawn(async move { rotate(&store, &token, NOW, Window::default()).await });
            }
            let all = tasks.join_all().await;
            let nonces: Vec<[u8; 32]> = all
                .iter()
                .map(|what| match what {
                    What::Rotated(nonce, _) | What::Repeated(nonce, _) => *nonce,
                    refused => panic!("{refused:?}"),
                })
                .collect();
            assert_eq!(count(&all, What::is_rotated), 1, "{all:?}");
            assert!(nonces.iter().all(|nonce| *nonce == nonces[0]), "{all:?}");
        }
        assert!(bed.marks().await.is_empty());
    });
}

#[test]
fn of_twelve_without_a_grace_one_spends_it_and_the_family_ends_once() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.begin("ada", "s", NOW).await;
        let none = Window { grace: 0, ..Window::default() };
        let stores = [bed.store.clone(), bed.another().await.unwrap()];
        let mut tasks = JoinSet::new();
        for number in 0..12 {
            let store = stores[number % 2].clone();
            tasks.spawn(async move { rotate(&store, "s/0", NOW, none).await });
        }
        let all = tasks.join_all().await;
        assert_eq!(count(&all, What::is_rotated), 1, "{all:?}");
        assert_eq!(count(&all, |what| *what == What::Reused), 11, "{all:?}");
        assert_eq!(bed.marks().await, [Mark::Session("s".to_owned())]);
        assert_eq!(bed.rotate("s/1", NOW).await, What::Ended);
    });
}

#[test]
fn of_those_who_end_one_session_one_does() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.begin("ada", "s", NOW).await;
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let store = bed.store.clone();
            tasks.spawn(async move { store.end_session(Some("ada"), "s", "logout", NOW).await.unwrap() });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|ended| *ended).count(), 1);
        assert_eq!(bed.marks().await.len(), 1);
    });
}

#[test]
fn of_those_who_make_one_account_one_does() {
    on_both(async |bed: Bed| {
        let stores = [bed.store.clone(), bed.another().await.unwrap()];
        let mut tasks = JoinSet::new();
        for number in 0..8 {
            let store = stores[number % 2].clone();
            tasks.spawn(async move { store.add(&[new("ada")], NOW).await.unwrap()[0] });
        }
        let all = tasks.join_all().await;
        assert_eq!(all.iter().filter(|added| **added == Added::Added).count(), 1, "{all:?}");
        assert_eq!(all.iter().filter(|added| **added == Added::NameTaken).count(), 7, "{all:?}");
    });
}

#[test]
fn no_session_survives_that_begins_while_its_account_is_disabled() {
    on_both(async |bed: Bed| {
        for round in 0..4 {
            let name = format!("u{round}");
            bed.account(&name).await;
            let mut tasks = JoinSet::new();
            for number in 0..6 {
                let (store, session) = (bed.store.clone(), session(&name, &format!("{name}-{number}"), NOW));
                tasks.spawn(async move {
                    let begun = try_begin(&store, &session, 100, NOW).await;
                    assert!(!matches!(begun, SessionStart::AccountGone));
                });
                let (store, name) = (bed.store.clone(), name.clone());
                tasks.spawn(async move {
                    let change = AccountChange { disabled: Some(true), ..AccountChange::default() };
                    if number == 3 {
                        store.change(&name, &change, NOW).await.unwrap().unwrap();
                    }
                });
            }
            tasks.join_all().await;
            assert!(bed.store.sessions(&name, NOW).await.unwrap().is_empty());
        }
    });
}

#[test]
fn a_reader_misses_no_mark_of_many_writers() {
    on_both(async |bed: Bed| {
        let stores = [bed.store.clone(), bed.another().await.unwrap()];
        let mut writers = JoinSet::new();
        for writer in 0..6 {
            let store = stores[writer % 2].clone();
            writers.spawn(async move {
                for number in 0..15 {
                    store.revoke_token(&format!("{writer}-{number}"), NOW, UNTIL).await.unwrap();
                }
            });
        }
        let (mut last, mut seen) = (0, 0);
        loop {
            let done = writers.is_empty();
            for marked in bed.store.marks(last).await.unwrap() {
                assert!(marked.seq > last);
                (last, seen) = (marked.seq, seen + 1);
            }
            if done {
                break;
            }
            while writers.try_join_next().is_some() {}
        }
        assert_eq!(seen, 6 * 15);
    });
}

#[test]
fn a_mark_waits_for_one_that_has_a_number_already() {
    on_server(async |bed: Bed| {
        let pool = sqlx::AnyPool::connect(&bed.url).await.unwrap();
        let mut other = pool.begin().await.unwrap();
        sqlx::query("SELECT pg_advisory_xact_lock(8098271343)").execute(&mut *other).await.unwrap();
        let first =
            "INSERT INTO marks (kind, value, generation, kept, made) VALUES ('token', 'first', 0, $1, 0)";
        sqlx::query(first).bind(UNTIL).execute(&mut *other).await.unwrap();
        let store = bed.store.clone();
        let mut second = tokio::spawn(async move { store.revoke_token("second", NOW, UNTIL).await });
        let waited = tokio::time::timeout(Duration::from_millis(150), &mut second).await;
        assert!(waited.is_err(), "it has a number that others may read past");
        assert!(bed.marks().await.is_empty());
        other.commit().await.unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(bed.marks().await, ["first", "second"].map(|jti| Mark::Token(jti.to_owned())));
    });
}

#[test]
fn readers_do_not_wait_for_a_writer() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        let url = match bed.url.strip_prefix("sqlite:") {
            Some(path) => format!("sqlite:{}", bed.dir.path().join(path).display()),
            None => bed.url.clone(),
        };
        let pool = sqlx::AnyPool::connect(&url).await.unwrap();
        let mut writer = pool.begin_with("BEGIN").await.unwrap();
        sqlx::query("UPDATE accounts SET generation = 7").execute(&mut *writer).await.unwrap();
        let account = bed.store.account("ada").await.unwrap().unwrap();
        assert_eq!(account.generation, 0, "not committed yet");
        writer.commit().await.unwrap();
        assert_eq!(bed.store.account("ada").await.unwrap().unwrap().generation, 7);
    });
}

/// Runs all operations at once on few accounts from two gateways. The database must not report a deadlock.
#[test]
fn nobody_waits_for_each_other_in_a_circle() {
    on_both(async |bed: Bed| {
        let stores = [bed.store.clone(), bed.another().await.unwrap()];
        for name in ["u0", "u1"] {
            bed.account(name).await;
        }
        // Sessions that may be swept while they are being ended.
        sql(
            &bed.url,
            &bed.dir,
            "INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, over)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             SELECT 'old' || i, 'u' || (i % 2), 1, 1, 1, 1, '', '', 1 FROM n",
        )
        .await;
        let mut tasks = JoinSet::new();
        for worker in 0..8_u32 {
            let store = stores[usize::try_from(worker % 2).unwrap()].clone();
            tasks.spawn(async move {
                for step in 0..12_u32 {
                    let (name, sid) = (format!("u{}", step % 2), format!("w{worker}-{step}"));
                    match (worker + step) % 6 {
                        0 => drop(store.end_sessions(&name, "logout_all", NOW).await.unwrap()),
                        1 => store.forget(NOW).await.unwrap(),
                        2 => {
                            let change = AccountChange { end_sessions: true, ..AccountChange::default() };
                            store.change(&name, &change, NOW).await.unwrap().unwrap();
                        }
                        _ => {
                            let begun = try_begin(&store, &session(&name, &sid, NOW), 3, NOW).await;
                            match begun {
                                SessionStart::Started(_) => {}
                                // The account changed after its generation was read.
                                SessionStart::AccountChanged => continue,
                                SessionStart::AccountGone | SessionStart::AccountDisabled => {
                                    panic!("{begun:?}")
                                }
                            }
                            let rotated = rotate(&store, &format!("{sid}/0"), NOW, Window::default()).await;
                            assert!(rotated.is_rotated() || rotated == What::Ended, "{rotated:?}");
                            store.end_session(None, &sid, "logout", NOW).await.unwrap();
                        }
                    }
                }
            });
        }
        tasks.join_all().await;
    });
}
