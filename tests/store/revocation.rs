//! Marks: every gateway reads them in order, and a sweep deletes them only when they no longer matter.

use crate::bed::{Bed, DAY, NOW, SECOND, SESSION, UNTIL, What, hash, on_both, on_file, on_server};
use portcullis::store::{AccountChange, Mark, Standing, StoreError};

#[test]
fn marks_are_read_on_from_the_last_one_while_they_are_there() {
    on_both(async |bed: Bed| {
        for (jti, expires) in [("a", NOW + 1), ("b", NOW + 2), ("c", NOW - 3)] {
            bed.store.revoke_token(jti, NOW, expires).await.unwrap();
        }
        let read = async |after: i64| {
            let marks = bed.store.marks(after).await.unwrap();
            marks.into_iter().map(|marked| (marked.seq, marked.mark, marked.kept)).collect::<Vec<_>>()
        };
        let all = read(0).await;
        let token = |jti: &str| Mark::Token(jti.to_owned());
        assert_eq!(
            all.iter().map(|(_, mark, kept)| (mark.clone(), *kept)).collect::<Vec<_>>(),
            [(token("a"), NOW + 1 + DAY), (token("b"), NOW + 2 + DAY), (token("c"), NOW + DAY)]
        );
        assert!(all.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(read(all[0].0).await, all[1..]);
        assert_eq!(read(all[2].0).await, []);
        let other = bed.another().await.unwrap();
        assert_eq!(other.marks(0).await.unwrap().len(), 3);
    });
}

#[test]
fn a_mark_is_kept_for_the_longest_life_on_record_and_a_day_from_the_last_use() {
    on_both(async |bed: Bed| {
        const HOUR: i64 = 3600 * SECOND;
        let last = async || bed.store.marks(0).await.unwrap().last().unwrap().kept;
        for name in ["ada", "bob"] {
            bed.account(name).await;
        }
        // No lifetime is recorded, so no token was issued.
        bed.begin("ada", "none", NOW).await;
        bed.store.end_session(None, "none", "logout", NOW).await.unwrap();
        assert_eq!(last().await, NOW + DAY);
        bed.store.record_life(HOUR).await.unwrap();
        assert_eq!(last().await, NOW + HOUR + DAY, "marks that are there are kept for longer too");
        // A gateway with a shorter token lifetime does not shorten the recorded lifetime.
        bed.store.record_life(60 * SECOND).await.unwrap();
        assert_eq!(bed.store.lives().await.unwrap().longest, HOUR);
        // The clock of the revoking gateway is an hour behind the issuing gateway's.
        bed.begin("ada", "s", NOW).await;
        bed.store.end_session(None, "s", "logout", NOW - HOUR).await.unwrap();
        assert_eq!(last().await, NOW + HOUR + DAY);
        bed.store.end_sessions("ada", "logout_all", NOW - HOUR).await.unwrap();
        assert_eq!(last().await, NOW + HOUR + DAY);
        // A command issued a token for a year, and then a token with a shorter life.
        bed.store.record_token("bob", NOW + 365 * DAY).await.unwrap();
        bed.store.record_token("bob", NOW + DAY).await.unwrap();
        let disabled = AccountChange { disabled: Some(true), ..AccountChange::default() };
        bed.store.change("bob", &disabled, NOW).await.unwrap();
        assert_eq!(last().await, NOW + 366 * DAY);
        bed.store.change("ada", &disabled, NOW).await.unwrap();
        assert_eq!(last().await, NOW + HOUR + DAY, "nobody else's marks are kept for that");
        // The record of a subject is deleted one day after the subject's longest token has expired, like a mark.
        bed.store.forget(NOW + 366 * DAY - 1).await.unwrap();
        assert_eq!(bed.store.lives().await.unwrap().subjects, [("bob".to_owned(), NOW + 365 * DAY)]);
        assert_eq!(bed.marks().await, [Mark::Account { id: "bob".to_owned(), generation: 1 }]);
        bed.store.forget(NOW + 366 * DAY).await.unwrap();
        assert!(bed.store.lives().await.unwrap().subjects.is_empty() && bed.marks().await.is_empty());
        assert_eq!(bed.store.lives().await.unwrap().longest, HOUR);
    });
}

#[test]
fn an_account_stands_as_it_does_for_whoever_makes_a_token_for_it() {
    on_both(async |bed: Bed| {
        for name in ["ada", "eve", "old"] {
            bed.account(name).await;
        }
        bed.store.end_sessions("ada", "logout_all", NOW).await.unwrap();
        let disabled = AccountChange { disabled: Some(true), ..AccountChange::default() };
        bed.store.change("eve", &disabled, NOW).await.unwrap();
        bed.store.remove("old", NOW).await.unwrap();
        let standing = |generation, disabled, removed| Some(Standing { generation, disabled, removed });
        for (id, expected) in [
            ("ada", standing(1, false, false)),
            ("eve", standing(1, true, false)),
            ("old", standing(1, true, true)),
            ("dev", None),
        ] {
            assert_eq!(bed.store.standing(id).await.unwrap(), expected, "{id}");
        }
    });
}

#[test]
fn a_number_is_never_given_twice() {
    on_both(async |bed: Bed| {
        bed.store.revoke_token("a", NOW, NOW + 1).await.unwrap();
        let last = bed.store.marks(0).await.unwrap()[0].seq;
        bed.store.forget(NOW + DAY + 1).await.unwrap();
        assert_eq!(bed.number("SELECT COUNT(*) FROM marks").await, 0);
        bed.store.revoke_token("b", NOW, UNTIL).await.unwrap();
        assert_eq!(bed.store.marks(last).await.unwrap().len(), 1, "whoever read up to {last} sees it");
    });
}

#[test]
fn an_id_that_is_none_of_ours_is_not_kept() {
    on_both(async |bed: Bed| {
        for jti in ["x".repeat(256), "a\0".to_owned()] {
            let refused = bed.store.revoke_token(&jti, NOW, UNTIL).await;
            assert!(matches!(refused, Err(StoreError::Unfit(_))), "{refused:?}");
        }
        bed.store.revoke_token(&"x".repeat(255), NOW, UNTIL).await.unwrap();
        assert_eq!(bed.marks().await.len(), 1);
    });
}

#[test]
fn an_ended_session_is_deleted_a_day_later_and_not_before() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        for sid in ["lives", "ends"] {
            bed.begin("ada", sid, NOW).await;
            assert!(bed.rotate(&format!("{sid}/0"), NOW).await.is_rotated());
        }
        bed.store.end_session(None, "ends", "logout", NOW).await.unwrap();
        let knows = async |token: &str| bed.store.session_of_token(&hash(token)).await.unwrap().is_some();
        bed.store.forget(NOW + DAY - 1).await.unwrap();
        assert_eq!(bed.number("SELECT COUNT(*) FROM marks").await, 1);
        assert!(knows("ends/0").await && knows("ends/1").await);
        bed.store.forget(NOW + DAY).await.unwrap();
        assert!(!knows("ends/0").await && !knows("ends/1").await);
        assert_eq!(bed.number("SELECT COUNT(*) FROM marks").await, 0);
        assert_eq!(bed.number("SELECT COUNT(*) FROM sessions").await, 1);
        assert_eq!(bed.rotate("ends/1", NOW).await, What::Unknown);
        // A spent token stays known until a day after the session's latest possible end.
        bed.store.forget(NOW + SESSION + DAY - 1).await.unwrap();
        assert!(knows("lives/0").await);
        assert_eq!(bed.number("SELECT COUNT(*) FROM refresh_tokens").await, 2);
        bed.store.forget(NOW + SESSION + DAY).await.unwrap();
        assert_eq!(bed.number("SELECT COUNT(*) FROM refresh_tokens").await, 0);
        assert_eq!(bed.number("SELECT COUNT(*) FROM sessions").await, 0);
        assert!(bed.store.account("ada").await.unwrap().is_some());
    });
}

#[test]
fn much_is_forgotten_in_bites_and_completely() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.begin("ada", "lives", NOW).await;
        let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1234)";
        for insert in [
            "INSERT INTO marks (kind, value, generation, kept, made) %
             SELECT 'token', 'x', 0, 1, 1 FROM n",
            "INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, over) %
             SELECT 'old' || i, 'ada', 1, 1, 1, 1, '', '', 1 FROM n",
            "INSERT INTO refresh_tokens (hash, session, number, issued, expires) %
             SELECT 'hash' || i, 'old' || i, 0, 1, 1 FROM n",
            "INSERT INTO addresses (account, address, seen) %
             SELECT 'ada', 'old' || i, 1 FROM n",
        ] {
            bed.sql(&insert.replace('%', many)).await;
        }
        bed.store.forget(NOW).await.unwrap();
        for (table, left) in [("marks", 0), ("sessions", 1), ("refresh_tokens", 1), ("addresses", 1)] {
            assert_eq!(bed.number(&format!("SELECT COUNT(*) FROM {table}")).await, left, "{table}");
        }
    });
}

#[test]
fn a_sweep_uses_the_earlier_of_the_clocks_of_the_gateway_and_of_the_server() {
    let real = || i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    on_server(async |bed: Bed| {
        let before = real();
        assert_eq!(bed.store.sweep_time(before - DAY).await.unwrap(), before - DAY);
        let ahead = bed.store.sweep_time(before + 365 * DAY).await.unwrap();
        assert!((before - SECOND..=real() + SECOND).contains(&ahead), "{ahead} at {before}");
    });
    on_file(async |bed: Bed| {
        assert_eq!(bed.store.sweep_time(real() + 365 * DAY).await.unwrap() / DAY, real() / DAY + 365);
    });
}

#[test]
fn the_last_moment_of_life_is_kept() {
    on_both(async |bed: Bed| {
        assert_eq!(bed.store.alive_at().await.unwrap(), 0);
        for now in [NOW, NOW + 1, NOW - 1] {
            bed.store.touch_alive(now).await.unwrap();
            assert_eq!(bed.store.alive_at().await.unwrap(), now);
        }
        assert_eq!(bed.another().await.unwrap().alive_at().await.unwrap(), NOW - 1);
        assert_eq!(bed.number("SELECT COUNT(*) FROM life").await, 1);
    });
}
