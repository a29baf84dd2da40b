//! Sessions whose tokens are bound to a key. A request without a proof by the key changes nothing.

use crate::bed::{Bed, DAY, GRACE, NOW, SESSION, TOKEN, What, Window, hash, on_both, rotate_by};
use portcullis::authenticate::Thumbprint;
use portcullis::store::{Mark, StoreError};
use tokio::task::JoinSet;

const OWN: Option<Thumbprint> = Some(Thumbprint([1; 32]));
const OTHER: Option<Thumbprint> = Some(Thumbprint([2; 32]));

async fn begun(bed: &Bed) {
    bed.account("ada").await;
    bed.begin_bound("ada", "s", OWN, NOW).await;
}

/// Presents a token as a thief without the right key. Nothing may change.
async fn steal(bed: &Bed, token: &str, now: i64) {
    let rows = async || {
        let spent = bed.number("SELECT COUNT(*) FROM refresh_tokens WHERE spent IS NOT NULL").await;
        let tokens = bed.number("SELECT COUNT(*) FROM refresh_tokens").await;
        let ended = bed.number("SELECT COUNT(*) FROM sessions WHERE ended IS NOT NULL").await;
        (spent, tokens, ended, bed.marks().await)
    };
    let before = rows().await;
    for key in [None, OTHER] {
        assert_eq!(bed.rotate_by(key, token, now).await, What::Unproven, "{token} {key:?}");
    }
    assert_eq!(rows().await, before, "{token}");
}

#[test]
fn a_bound_token_is_spent_by_its_key_and_by_no_other() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        for number in 0..3 {
            let (token, now) = (format!("s/{number}"), NOW + number * DAY);
            steal(&bed, &token, now).await;
            let rotated = bed.rotate_by(OWN, &token, now).await;
            let What::Rotated(nonce, expires) = rotated else { panic!("{rotated:?}") };
            // Within the grace period, the owner gets the same answer, and a thief gets nothing.
            steal(&bed, &token, now + GRACE).await;
            assert_eq!(bed.rotate_by(OWN, &token, now + GRACE).await, What::Repeated(nonce, expires));
        }
        assert_eq!(bed.rotate_by(OTHER, "s/9", NOW).await, What::Unknown);
        assert_eq!(bed.rotate_by(None, "s/9", NOW).await, What::Unknown);
    });
}

#[test]
fn a_thief_without_the_key_does_not_end_the_session_with_a_spent_token() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        assert!(bed.rotate_by(OWN, "s/0", NOW).await.is_rotated());
        steal(&bed, "s/0", NOW + DAY).await;
        assert_eq!(bed.ended("s/0").await, None);
        assert!(bed.rotate_by(OWN, "s/1", NOW + DAY).await.is_rotated());
        // With the key, a second use is a reuse, because the key may be stolen too.
        assert_eq!(bed.rotate_by(OWN, "s/0", NOW + DAY).await, What::Reused);
        assert_eq!(bed.ended("s/0").await.as_deref(), Some("reuse"));
        assert_eq!(bed.marks().await, [Mark::Session("s".to_owned())]);
    });
}

#[test]
fn without_the_key_nobody_learns_the_state_of_a_token() {
    on_both(async |bed: Bed| {
        for (name, sid) in [("ada", "1"), ("bob", "2"), ("eve", "3")] {
            bed.account(name).await;
            bed.begin_bound(name, sid, OWN, NOW).await;
        }
        bed.store.end_session(None, "1", "logout", NOW).await.unwrap();
        bed.sql("UPDATE accounts SET disabled = 1 WHERE id = 'bob'").await;
        for (token, now, state) in [
            ("1/0", NOW, What::Ended),
            ("2/0", NOW, What::Disabled),
            ("3/0", NOW + TOKEN, What::Expired),
            ("3/0", NOW + SESSION, What::Expired),
        ] {
            steal(&bed, token, now).await;
            assert_eq!(bed.rotate_by(OWN, token, now).await, state, "{token}");
        }
    });
}

#[test]
fn a_proof_with_a_bearer_token_does_not_bind_it() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.begin("ada", "s", NOW).await;
        assert!(bed.rotate_by(OTHER, "s/0", NOW).await.is_rotated());
        assert_eq!(bed.store.session_of_token(&hash("s/1")).await.unwrap().unwrap().key, None);
        assert!(bed.rotate_by(None, "s/1", NOW).await.is_rotated());
    });
}

#[test]
fn the_key_of_a_session_is_reported_and_an_unreadable_one_is_no_missing_one() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        bed.begin("ada", "bearer", NOW).await;
        for (token, key) in [("s/0", OWN), ("bearer/0", None)] {
            assert_eq!(bed.store.session_of_token(&hash(token)).await.unwrap().unwrap().key, key);
            let (session, ..) = bed.store.token_state(&hash(token), NOW).await.unwrap().unwrap();
            assert_eq!(session.key, key);
        }
        let mut listed: Vec<_> = bed.store.sessions("ada", NOW).await.unwrap();
        listed.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(listed.iter().map(|session| session.key).collect::<Vec<_>>(), [None, OWN]);
        let text = Thumbprint([1; 32]).to_string();
        assert_eq!(bed.number(&format!("SELECT COUNT(*) FROM sessions WHERE jkt = '{text}'")).await, 1);
        for unreadable in ["", "x", &format!("{text}=")] {
            bed.sql(&format!("UPDATE sessions SET jkt = '{unreadable}' WHERE id = 's'")).await;
            let read = bed.store.session_of_token(&hash("s/0")).await;
            assert!(matches!(read, Err(StoreError::Broken(_))), "{unreadable}: {read:?}");
        }
    });
}

#[test]
fn thieves_who_present_a_token_at_the_same_time_do_not_disturb_its_owner() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        let stores = [bed.store.clone(), bed.another().await.unwrap()];
        for number in 0..6 {
            let mut tasks = JoinSet::new();
            for (store, key) in [(0, None), (1, OTHER), (0, OWN), (1, None), (0, OTHER)] {
                let (store, token): (_, String) = (stores[store].clone(), format!("s/{number}"));
                tasks.spawn(
                    async move { (key, rotate_by(&store, key, &token, NOW, Window::default()).await) },
                );
            }
            for (key, what) in tasks.join_all().await {
                assert_eq!(what.is_rotated(), key == OWN, "{key:?}: {what:?}");
                assert!(key == OWN || what == What::Unproven, "{key:?}: {what:?}");
            }
        }
        assert_eq!(bed.ended("s/0").await, None);
        assert!(bed.marks().await.is_empty());
    });
}
