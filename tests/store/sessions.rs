//! Sessions: beginning, listing, limiting and ending them.

use crate::bed::{Bed, DAY, NOW, SECOND, SESSION, UNTIL, hash, on_both, password, session, try_begin};
use portcullis::store::{AccountChange, Mark, Session, SessionStart};

async fn listed(bed: &Bed, account: &str, now: i64) -> Vec<String> {
    bed.store.sessions(account, now).await.unwrap().into_iter().map(|session| session.id).collect()
}

fn ended(sid: &str) -> Mark {
    Mark::Session(sid.to_owned())
}

#[test]
fn a_session_comes_back_as_it_began() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        let begun = Session { csrf: Some([0xa5; 32]), authenticated: NOW - 5, ..session("ada", "s", NOW) };
        assert!(
            matches!(try_begin(&bed.store, &begun, 5, NOW).await, SessionStart::Started(marks) if marks.is_empty())
        );
        let found = bed.store.session_of_token(&hash("s/0")).await.unwrap().unwrap();
        assert_eq!(format!("{found:?}"), format!("{begun:?}"));
        assert!(bed.store.session_of_token(&hash("s/1")).await.unwrap().is_none());
    });
}

#[test]
fn nobody_begins_a_session_with_a_password_that_was_changed_meanwhile() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        let checked = bed.store.account("ada").await.unwrap().unwrap();
        let change = AccountChange { password: Some(password("$argon2id$new")), ..AccountChange::default() };
        bed.store.change("ada", &change, NOW).await.unwrap();
        let begin = async |generation| {
            let session = session("ada", "s", NOW);
            bed.store.begin_session(&session, generation, (&hash("s/0"), UNTIL), 5, NOW).await.unwrap()
        };
        assert!(matches!(begin(checked.generation).await, SessionStart::AccountChanged));
        assert_eq!(bed.number("SELECT COUNT(*) FROM sessions").await, 0);
        assert!(matches!(begin(checked.generation + 1).await, SessionStart::Started(_)));
    });
}

#[test]
fn text_of_a_client_is_truncated() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        let agent = format!("\u{1b}[31m\0{}", "\u{e4}".repeat(1000));
        try_begin(&bed.store, &Session { agent, ..session("ada", "s", NOW) }, 5, NOW).await;
        let found = bed.store.sessions("ada", NOW).await.unwrap();
        assert_eq!(found[0].agent, format!("[31m{}", "\u{e4}".repeat(196)));
    });
}

#[test]
fn nobody_begins_a_session_who_is_disabled_or_gone() {
    on_both(async |bed: Bed| {
        for name in ["ada", "eve", "old"] {
            bed.account(name).await;
        }
        let disabled = AccountChange { disabled: Some(true), ..AccountChange::default() };
        bed.store.change("eve", &disabled, NOW).await.unwrap();
        bed.store.remove("old", NOW).await.unwrap();
        let begin = async |name: &str| try_begin(&bed.store, &session(name, name, NOW), 5, NOW).await;
        assert!(matches!(begin("ada").await, SessionStart::Started(_)));
        assert!(matches!(begin("eve").await, SessionStart::AccountDisabled));
        assert!(matches!(begin("old").await, SessionStart::AccountGone));
        assert!(matches!(begin("never").await, SessionStart::AccountGone));
        assert_eq!(bed.number("SELECT COUNT(*) FROM sessions").await, 1);
        let enabled = AccountChange { disabled: Some(false), ..AccountChange::default() };
        bed.store.change("eve", &enabled, NOW).await.unwrap();
        assert!(matches!(begin("eve").await, SessionStart::Started(_)));
    });
}

#[test]
fn live_sessions_are_listed_newest_first() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.account("bob").await;
        for (sid, age) in [("old", 3), ("new", 1), ("middle", 2), ("ended", 0)] {
            bed.begin("ada", sid, NOW - age).await;
        }
        bed.begin("bob", "other", NOW).await;
        bed.begin("ada", "expired", NOW - SESSION).await;
        bed.store.end_session(None, "ended", "logout", NOW).await.unwrap();
        assert_eq!(listed(&bed, "ada", NOW).await, ["new", "middle", "old"]);
        assert_eq!(listed(&bed, "bob", NOW).await, ["other"]);
        assert_eq!(listed(&bed, "ad", NOW).await, Vec::<String>::new());
    });
}

#[test]
fn of_too_many_sessions_the_oldest_are_ended() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.account("bob").await;
        bed.begin("bob", "b", NOW - 10).await;
        assert_eq!(bed.begin_keeping("ada", "1", NOW - 2, 2).await, []);
        assert_eq!(bed.begin_keeping("ada", "2", NOW - 1, 2).await, []);
        assert_eq!(bed.begin_keeping("ada", "3", NOW, 2).await, [ended("1")]);
        assert_eq!(bed.ended("1/0").await.as_deref(), Some("too_many"));
        // The newest session is found even if the clock was set back or stands still.
        assert_eq!(bed.begin_keeping("ada", "4", NOW - 100, 2).await, [ended("2")]);
        assert_eq!(bed.begin_keeping("ada", "5", NOW, 1).await.len(), 2);
        assert_eq!(listed(&bed, "ada", NOW).await, ["5"]);
        assert_eq!(bed.marks().await.len(), 4);
        assert_eq!(bed.ended("b/0").await, None);
    });
}

#[test]
fn a_session_is_ended_once_and_by_its_owner() {
    on_both(async |bed: Bed| {
        for name in ["ada", "bob"] {
            bed.account(name).await;
            bed.begin(name, name, NOW).await;
        }
        let end = async |account: Option<&str>, sid: &str| {
            bed.store.end_session(account, sid, "logout", NOW).await.unwrap()
        };
        for (account, sid) in
            [(Some("bob"), "ada"), (Some(""), "ada"), (Some("ada"), "no"), (None, "a\0"), (None, "")]
        {
            assert!(!end(account, sid).await, "{account:?} {sid}");
        }
        assert!(bed.marks().await.is_empty());
        assert!(end(Some("ada"), "ada").await);
        assert!(!end(Some("ada"), "ada").await);
        assert!(end(None, "bob").await);
        assert_eq!(bed.marks().await, [ended("ada"), ended("bob")]);
        assert_eq!(bed.ended("ada/0").await.as_deref(), Some("logout"));
    });
}

#[test]
fn all_sessions_of_an_account_end_at_once() {
    on_both(async |bed: Bed| {
        for name in ["ada", "bob"] {
            bed.account(name).await;
        }
        for (name, sid) in [("ada", "1"), ("ada", "2"), ("bob", "3")] {
            bed.begin(name, sid, NOW).await;
        }
        bed.begin("ada", "over", NOW - SESSION).await;
        let end_all = async |account: &str| bed.store.end_sessions(account, "logout_all", NOW).await.unwrap();
        assert_eq!(end_all("ada").await, [Mark::Account { id: "ada".to_owned(), generation: 1 }]);
        assert_eq!(end_all("nobody").await, []);
        assert_eq!(end_all("a\0").await, []);
        assert_eq!(listed(&bed, "ada", NOW).await, Vec::<String>::new());
        assert_eq!(listed(&bed, "bob", NOW).await, ["3"]);
        assert_eq!(bed.ended("1/0").await.as_deref(), Some("logout_all"));
        assert_eq!(bed.ended("over/0").await, None, "what is over is left to whoever sweeps");
        assert_eq!(end_all("ada").await, [Mark::Account { id: "ada".to_owned(), generation: 2 }]);
        assert_eq!(bed.store.account("ada").await.unwrap().unwrap().generation, 2);
        assert_eq!(bed.marks().await.len(), 2);
    });
}

#[test]
fn an_address_is_known_to_whom_it_belongs_for_a_while() {
    on_both(async |bed: Bed| {
        for name in ["ada", "bob"] {
            bed.account(name).await;
        }
        let known =
            async |account: &str, address: &str| bed.store.known_address(account, address).await.unwrap();
        assert!(!known("ada", "192.0.2.1").await);
        bed.begin("ada", "s", NOW).await;
        assert!(known("ada", "192.0.2.1").await);
        for (account, address) in
            [("bob", "192.0.2.1"), ("ada", "192.0.2.2"), ("ada", "a\0"), ("a\0", "192.0.2.1")]
        {
            assert!(!known(account, address).await, "{account:?} {address:?}");
        }
        // Only the last 20 addresses count.
        for number in 1..=19 {
            let address = format!("2001:db8:0:{number}::1");
            let sid = format!("t{number}");
            try_begin(&bed.store, &Session { address, ..session("ada", &sid, NOW) }, 50, NOW + number).await;
        }
        assert!(known("ada", "192.0.2.1").await);
        let address = "2001:db8:0:20::1".to_owned();
        try_begin(&bed.store, &Session { address, ..session("ada", "last", NOW) }, 50, NOW + 20).await;
        assert!(!known("ada", "192.0.2.1").await && known("ada", "2001:db8:0:1::1").await);
        // An address is kept for 90 days.
        bed.store.forget(NOW + 90 * DAY).await.unwrap();
        assert!(known("ada", "2001:db8:0:1::1").await);
        bed.store.forget(NOW + 90 * DAY + SECOND).await.unwrap();
        assert!(!known("ada", "2001:db8:0:1::1").await);
    });
}
