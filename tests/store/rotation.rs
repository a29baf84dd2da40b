//! Refresh tokens: a token has at most one successor, and a reuse ends its session.

use crate::bed::{Bed, DAY, GRACE, NOW, SECOND, SESSION, TOKEN, What, Window, hash, on_both};
use portcullis::store::{AccountChange, Mark};

async fn begun(bed: &Bed) {
    bed.account("ada").await;
    bed.begin("ada", "s", NOW).await;
}

#[test]
fn each_token_follows_from_the_one_before() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        for number in 0..4 {
            let now = NOW + number * DAY;
            let rotated = bed.rotate(&format!("s/{number}"), now).await;
            assert!(matches!(rotated, What::Rotated(_, expires) if expires == now + TOKEN), "{rotated:?}");
        }
        assert_eq!(bed.rotate("s/9", NOW).await, What::Unknown);
        assert_eq!(bed.rotate("t/0", NOW).await, What::Unknown);
        assert_eq!(bed.ended("s/0").await, None);
        assert!(bed.marks().await.is_empty());
    });
}

#[test]
fn a_spent_token_is_answered_alike_within_the_grace_and_ends_the_family_behind_it() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        let What::Rotated(nonce, expires) = bed.rotate("s/0", NOW).await else { panic!("not rotated") };
        for now in [NOW, NOW + 1, NOW + GRACE] {
            assert_eq!(bed.rotate("s/0", now).await, What::Repeated(nonce, expires));
        }
        assert!(bed.marks().await.is_empty());
        assert_eq!(bed.rotate("s/0", NOW + GRACE + 1).await, What::Reused);
        assert_eq!(bed.marks().await, [Mark::Session("s".to_owned())]);
        assert_eq!(bed.ended("s/0").await.as_deref(), Some("reuse"));
        assert_eq!(bed.rotate("s/1", NOW).await, What::Ended, "the family has ended");
        assert_eq!(bed.rotate("s/0", NOW + DAY).await, What::Reused);
        assert_eq!(bed.marks().await.len(), 1, "there is nothing more to end");
    });
}

#[test]
fn a_clock_that_is_set_back_does_not_lengthen_the_grace() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        // Of two concurrent requests at two gateways, the request with the later clock may arrive first.
        for (sid, now, repeats) in
            [("near", NOW - 1, true), ("grace", NOW - GRACE, true), ("far", NOW - GRACE - 1, false)]
        {
            bed.begin("ada", sid, NOW - DAY).await;
            let token = format!("{sid}/0");
            assert!(bed.rotate(&token, NOW).await.is_rotated());
            let again = bed.rotate(&token, now).await;
            assert_eq!(again.is_repeated(), repeats, "{sid}: {again:?}");
            assert!(repeats || again == What::Reused, "{sid}: {again:?}");
        }
    });
}

#[test]
fn only_the_direct_predecessor_has_a_grace() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        assert!(bed.rotate("s/0", NOW).await.is_rotated());
        assert!(bed.rotate("s/1", NOW).await.is_rotated());
        assert!(bed.rotate("s/1", NOW).await.is_repeated());
        assert_eq!(bed.rotate("s/0", NOW).await, What::Reused);
        assert_eq!(bed.rotate("s/2", NOW).await, What::Ended);
    });
}

#[test]
fn without_a_grace_a_second_use_is_a_reuse() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        let none = Window { grace: 0, ..Window::default() };
        assert!(bed.rotate_in("s/0", NOW, none).await.is_rotated());
        assert_eq!(bed.rotate_in("s/0", NOW, none).await, What::Reused);
    });
}

#[test]
fn the_time_in_which_nobody_answered_is_no_part_of_the_grace() {
    // A token was spent at NOW. Columns: when the earlier process last ran, when the next process began, and when the
    // token is presented again.
    let cases = [
        (NOW, NOW + DAY, NOW + DAY, true),
        (NOW, NOW + DAY, NOW + DAY + GRACE, true),
        (NOW, NOW + DAY, NOW + DAY + GRACE + 1, false),
        // The earlier process ran until the grace period was over, so clients had time to retry.
        (NOW + GRACE - 1, NOW + DAY, NOW + DAY, true),
        (NOW + GRACE, NOW + DAY, NOW + DAY, false),
        // The token was spent while the current process was running.
        (NOW - DAY, NOW, NOW + GRACE, true),
        (NOW - DAY, NOW - 1, NOW + GRACE, true),
        (NOW - DAY, NOW - 1, NOW + GRACE + 1, false),
    ];
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        for (number, (alive_before_boot, boot, now, repeats)) in cases.into_iter().enumerate() {
            let (sid, token) = (format!("s{number}"), format!("s{number}/0"));
            bed.begin("ada", &sid, NOW).await;
            assert!(bed.rotate(&token, NOW).await.is_rotated());
            let again = bed.rotate_in(&token, now, Window { grace: GRACE, boot, alive_before_boot }).await;
            assert_eq!(again.is_repeated(), repeats, "case {number}: {again:?}");
            assert!(repeats || again == What::Reused, "case {number}: {again:?}");
        }
    });
}

#[test]
fn a_token_ends_with_its_time_and_with_its_session() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        for (sid, now, expected) in
            [("1", NOW + TOKEN - 1, true), ("2", NOW + TOKEN, false), ("3", NOW + SESSION, false)]
        {
            bed.begin("ada", sid, NOW).await;
            let rotated = bed.rotate(&format!("{sid}/0"), now).await;
            assert_eq!(rotated.is_rotated(), expected, "{rotated:?}");
            assert!(expected || rotated == What::Expired, "{rotated:?}");
        }
        // A session ends at its limit, however often it is refreshed.
        bed.begin("ada", "s", NOW).await;
        let mut now = NOW;
        let mut token = 0;
        while now + TOKEN < NOW + SESSION {
            now += 6 * DAY;
            let What::Rotated(_, expires) = bed.rotate(&format!("s/{token}"), now).await else { panic!() };
            assert_eq!(expires, (now + TOKEN).min(NOW + SESSION));
            token += 1;
        }
        assert_eq!(bed.rotate(&format!("s/{token}"), NOW + SESSION).await, What::Expired);
        assert!(bed.marks().await.is_empty(), "to come late is no theft");
    });
}

#[test]
fn a_token_of_a_session_or_an_account_that_ended_is_refused_by_name() {
    on_both(async |bed: Bed| {
        for (name, sid) in [("ada", "1"), ("bob", "2"), ("eve", "3")] {
            bed.account(name).await;
            bed.begin(name, sid, NOW).await;
            assert!(bed.rotate(&format!("{sid}/0"), NOW).await.is_rotated());
        }
        bed.store.end_session(None, "1", "logout", NOW).await.unwrap();
        bed.store.remove("bob", NOW).await.unwrap();
        // Normally, disabling an account ends its sessions. Here another program disables the account, so its session
        // continues.
        bed.sql("UPDATE accounts SET disabled = 1 WHERE id = 'eve'").await;
        let marks = bed.marks().await;
        for (sid, expected) in [("1", What::Ended), ("2", What::Ended), ("3", What::Disabled)] {
            assert_eq!(bed.rotate(&format!("{sid}/1"), NOW).await, expected);
            // A second tab that presents a spent token of an ended session is not treated as a thief.
            assert_eq!(bed.rotate(&format!("{sid}/0"), NOW).await, expected);
        }
        assert_eq!(bed.marks().await, marks);
        // After the grace, a spent token counts as reused. The session has already ended.
        assert_eq!(bed.rotate("1/0", NOW + DAY).await, What::Reused);
        assert_eq!(bed.ended("1/0").await.as_deref(), Some("logout"));
        assert_eq!(bed.marks().await, marks);
    });
}

#[test]
fn the_state_of_a_token_is_known_until_it_expires() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        let state = async |token: &str, now: i64| {
            let state = bed.store.token_state(&hash(token), now).await.unwrap();
            state.map(|(session, account, issued, expires)| {
                assert_eq!((&*session.id, &*account.id), ("s", "ada"));
                (issued, expires)
            })
        };
        assert_eq!(state("s/0", NOW).await, Some((NOW, NOW + TOKEN)));
        assert_eq!(state("s/0", NOW + TOKEN).await, None);
        assert_eq!(state("s/1", NOW).await, None);
        assert!(bed.rotate("s/0", NOW + SECOND).await.is_rotated());
        assert_eq!(state("s/0", NOW + SECOND).await, None);
        assert_eq!(state("s/1", NOW + SECOND).await, Some((NOW + SECOND, NOW + SECOND + TOKEN)));
        bed.sql("UPDATE accounts SET disabled = 1").await;
        assert_eq!(state("s/1", NOW + SECOND).await, None);
        let enabled = AccountChange { disabled: Some(false), ..AccountChange::default() };
        bed.store.change("ada", &enabled, NOW).await.unwrap();
        assert!(state("s/1", NOW + SECOND).await.is_some());
        bed.store.end_session(None, "s", "logout", NOW).await.unwrap();
        assert_eq!(state("s/1", NOW + SECOND).await, None);
    });
}

#[test]
fn of_a_long_session_the_last_thousand_tokens_are_known() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        assert!(bed.rotate("s/0", NOW).await.is_rotated());
        assert!(bed.rotate("s/1", NOW).await.is_rotated());
        // Simulates 996 refreshes in between, after which the clock was set back.
        bed.sql("UPDATE refresh_tokens SET number = 998, issued = issued + 86400000 WHERE spent IS NULL")
            .await;
        assert!(bed.rotate("s/2", NOW).await.is_rotated());
        assert_eq!(bed.number("SELECT COUNT(*) FROM refresh_tokens").await, 4);
        assert!(bed.rotate("s/3", NOW).await.is_rotated());
        assert_eq!(bed.number("SELECT COUNT(*) FROM refresh_tokens").await, 4);
        assert_eq!(bed.rotate("s/0", NOW).await, What::Unknown);
        assert_eq!(bed.ended("s/4").await, None);
        assert_eq!(bed.rotate("s/1", NOW).await, What::Reused);
    });
}

#[test]
fn no_token_is_in_the_store() {
    on_both(async |bed: Bed| {
        begun(&bed).await;
        let What::Rotated(nonce, _) = bed.rotate("s/0", NOW).await else { panic!("not rotated") };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let first = hex(&hash("s/0"));
        let kept = format!(
            "SELECT COUNT(*) FROM refresh_tokens WHERE hash = '{first}' AND nonce = '{}'",
            hex(&nonce)
        );
        assert_eq!(bed.number(&kept).await, 1, "of a spent token its hash and the nonce, in hex");
        assert_eq!(bed.number("SELECT COUNT(*) FROM refresh_tokens WHERE nonce IS NULL").await, 1);
    });
}
