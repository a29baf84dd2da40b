//! Reading marks: a gateway reads all marks, from any copy of the database.

use crate::bed::{Bed, NOW, UNTIL, on_both};
use portcullis::authenticate::Revoked;
use portcullis::authority::apply_marks;

#[test]
fn more_marks_than_one_statement_reads_are_all_in_force() {
    on_both(async |bed: Bed| {
        bed.sql(&format!(
            "INSERT INTO marks (kind, value, generation, kept, made)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000)
             SELECT 'token', CAST(i AS TEXT), 0, {UNTIL}, {NOW} FROM n"
        ))
        .await;
        let (mut feed, revoked) = (bed.store.feed(), Revoked::default());
        assert_eq!(apply_marks(&mut feed, &revoked, 0).await.unwrap(), 25_000);
        assert_eq!(revoked.len(), 25_000);
    });
}

#[test]
fn a_copy_of_the_database_that_lacks_the_last_marks_hides_none_that_come_later() {
    // A standby may lack the last commits, and reuses their numbers for other marks (PostgreSQL's manual, 26.2.8:
    // asynchronous replication).
    on_both(async |bed: Bed| {
        let (mut feed, revoked) = (bed.store.feed(), Revoked::default());
        let revoke = async |jti: &str| bed.store.revoke_token(jti, NOW, UNTIL).await.unwrap();
        for jti in ["a", "b", "c"] {
            revoke(jti).await;
        }
        let last = apply_marks(&mut feed, &revoked, 0).await.unwrap();
        assert_eq!((last, revoked.len()), (3, 3));
        assert_eq!(apply_marks(&mut feed, &revoked, last).await.unwrap(), 3, "nothing new");
        bed.sql("DELETE FROM marks").await;
        bed.sql(if bed.url.starts_with("sqlite:") {
            "DELETE FROM sqlite_sequence WHERE name = 'marks'"
        } else {
            "ALTER TABLE marks ALTER COLUMN seq RESTART WITH 1"
        })
        .await;
        assert_eq!(apply_marks(&mut feed, &revoked, last).await.unwrap(), 0);
        revoke("d").await;
        for known in [last, 0] {
            assert_eq!(apply_marks(&mut feed, &revoked, known).await.unwrap(), 1, "behind {known}");
            assert_eq!(revoked.len(), 4);
        }
    });
}
