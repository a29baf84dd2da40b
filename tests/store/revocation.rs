//! Marks: read in order, by all, until they do not matter. And what is forgotten.

use crate::bed::{Bed, DAY, NOW, SECOND, SESSION, UNTIL, What, hash, on_both};
use portcullis::store::{Mark, StoreError};

#[test]
fn marks_are_read_on_from_the_last_one_while_they_matter() {
    on_both(async |bed: Bed| {
        for (jti, until) in [("a", NOW + 1), ("b", NOW + 2), ("c", NOW + 3)] {
            bed.store.revoke_token(jti, NOW, until).await.unwrap();
        }
        let read = async |after: i64, now: i64| {
            let marks = bed.store.marks(after, now).await.unwrap();
            marks.into_iter().map(|marked| (marked.seq, marked.mark, marked.until)).collect::<Vec<_>>()
        };
        let all = read(0, NOW).await;
        let token = |jti: &str| Mark::Token(jti.to_owned());
        assert_eq!(
            all.iter().map(|(_, mark, until)| (mark.clone(), *until)).collect::<Vec<_>>(),
            [(token("a"), NOW + 1), (token("b"), NOW + 2), (token("c"), NOW + 3)]
        );
        assert!(all.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(read(all[0].0, NOW).await, all[1..]);
        assert_eq!(read(all[2].0, NOW).await, []);
        assert_eq!(read(0, NOW + 2).await, all[2..]);
        let other = bed.another().await.unwrap();
        assert_eq!(other.marks(0, NOW).await.unwrap().len(), 3);
    });
}

#[test]
fn a_number_is_never_given_twice() {
    on_both(async |bed: Bed| {
        bed.store.revoke_token("a", NOW, NOW + 1).await.unwrap();
        let last = bed.store.marks(0, NOW).await.unwrap()[0].seq;
        bed.store.forget(NOW + 1).await.unwrap();
        assert_eq!(bed.number("SELECT COUNT(*) FROM marks").await, 0);
        bed.store.revoke_token("b", NOW, UNTIL).await.unwrap();
        assert_eq!(bed.store.marks(last, NOW).await.unwrap().len(), 1, "whoever read up to {last} sees it");
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
fn what_is_over_is_forgotten_a_day_later_and_nothing_before() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        for sid in ["lives", "ends"] {
            bed.begin("ada", sid, NOW).await;
            assert!(bed.rotate(&format!("{sid}/0"), NOW).await.is_rotated());
        }
        bed.store.end_session(None, "ends", "logout", NOW, NOW + SECOND).await.unwrap();
        let knows = async |token: &str| bed.store.session_of_token(&hash(token)).await.unwrap().is_some();
        bed.store.forget(NOW + DAY - 1).await.unwrap();
        assert_eq!(bed.number("SELECT COUNT(*) FROM marks").await, 0);
        assert!(knows("ends/0").await && knows("ends/1").await);
        bed.store.forget(NOW + DAY).await.unwrap();
        assert!(!knows("ends/0").await && !knows("ends/1").await);
        assert_eq!(bed.number("SELECT COUNT(*) FROM sessions").await, 1);
        assert_eq!(bed.rotate("ends/1", NOW).await, What::Unknown);
        // What was spent is known for as long as the session could go on, and a day more.
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
            "INSERT INTO marks (kind, value, generation, until, made) %
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
