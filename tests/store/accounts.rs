//! Accounts: adding, changing, removing and listing.

use crate::bed::{Bed, NOW, What, hash, new, on_both, password};
use portcullis::store::{AccountChange, Added, Mark, NewAccount, StoreError};
use serde_json::{Map, Value, json};

const PBKDF2: &str =
    "pbkdf2:sha256:1000$U3exqtfb86dmrYjV$a1471e2e0fb74de92553e8f6a3ddf36e0a9dfa31e7427db132c2c28aa13b0220";
const BCRYPT: &str = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn an_account_comes_back_as_it_was_made() {
    on_both(async |bed: Bed| {
        let made = NewAccount {
            id: "4711'; DROP TABLE accounts; --".to_owned(),
            name: "j\u{fc}rgen \"o'neil\" $1 \u{1f600}".to_owned(),
            password: password(PBKDF2),
            roles: vec!["b".to_owned(), "a\\".to_owned(), "\"".to_owned()],
            scopes: vec!["orders:read".to_owned()],
            attributes: map(json!({"plan": {"tier": [1, 2.5, null, true]}, "nul": "a\u{0}b"})),
            disabled: true,
        };
        assert_eq!(bed.store.add(std::slice::from_ref(&made), NOW).await.unwrap(), [Added::Added]);
        let found = bed.store.account(&made.id).await.unwrap().unwrap();
        let by_name = bed.store.account_by_name(&made.name).await.unwrap().unwrap();
        for account in [found, by_name] {
            assert_eq!((&account.id, &account.name), (&made.id, &made.name));
            assert_eq!((&account.roles, &account.scopes), (&made.roles, &made.scopes));
            assert_eq!((&account.attributes, &account.password), (&made.attributes, &made.password.encoded));
            assert_eq!((account.disabled, account.generation, account.created), (true, 0, NOW));
        }
        for unknown in ["", "4711", "j\u{fc}rgen", "a\0b", "' OR 1=1 --"] {
            assert!(bed.store.account(unknown).await.unwrap().is_none(), "{unknown}");
            assert!(bed.store.account_by_name(unknown).await.unwrap().is_none(), "{unknown}");
        }
    });
}

#[test]
fn one_that_cannot_be_made_stops_no_other() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        bed.account("old").await;
        bed.store.remove("old", NOW).await.unwrap().unwrap();
        let named = |id: &str, name: &str| NewAccount { id: id.to_owned(), ..new(name) };
        let all = [
            named("ada", "ada"),
            named("ada", "other"),
            named("other", "ada"),
            named("old", "old"),
            named("new", "old"),
            named("bob", "bob"),
            named("bob", "bob"),
        ];
        let outcomes = bed.store.add(&all, NOW).await.unwrap();
        let expected = [
            Added::NameTaken,
            Added::IdTaken,
            Added::NameTaken,
            Added::IdRetired,
            // A name that is free again may be used for another account.
            Added::Added,
            Added::Added,
            Added::NameTaken,
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(bed.store.account_by_name("old").await.unwrap().unwrap().id, "new");
    });
}

#[test]
fn an_account_that_is_too_large_is_refused_with_its_whole_batch() {
    on_both(async |bed: Bed| {
        let long = |bytes: usize| "x".repeat(bytes);
        let unfit = [
            NewAccount { id: long(256), ..new("b") },
            NewAccount { name: long(256), ..new("b") },
            NewAccount { name: "a\0".to_owned(), ..new("b") },
            NewAccount { password: password(&long(1025)), ..new("b") },
            NewAccount { roles: vec![long(8190)], ..new("b") },
            NewAccount { scopes: vec![long(8190)], ..new("b") },
            NewAccount { attributes: map(json!({ "a": long(16 * 1024) })), ..new("b") },
        ];
        for account in unfit {
            let error = bed.store.add(&[new("a"), account], NOW).await.unwrap_err();
            assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
            assert!(bed.store.accounts("", 10).await.unwrap().is_empty());
        }
        let fits = NewAccount {
            id: long(255),
            name: long(255),
            password: password(&long(1024)),
            roles: vec![long(8188)],
            attributes: map(json!({ "a": long(16 * 1024 - 8) })),
            ..new("b")
        };
        assert_eq!(bed.store.add(&[fits], NOW).await.unwrap(), [Added::Added]);
    });
}

#[test]
fn accounts_are_listed_page_by_page_in_the_order_of_their_bytes() {
    on_both(async |bed: Bed| {
        let mut names = ["zoe", "Zed", "ada", "ad-a", "\u{e4}nne", "_x", "bob"];
        for name in names {
            bed.account(name).await;
        }
        bed.account("gone").await;
        bed.store.remove("gone", NOW).await.unwrap().unwrap();
        names.sort_unstable();
        let mut listed: Vec<String> = Vec::new();
        loop {
            let after = listed.last().cloned().unwrap_or_default();
            let page = bed.store.accounts(&after, 3).await.unwrap();
            assert!(page.len() <= 3);
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|account| account.name));
        }
        assert_eq!(listed, names);
    });
}

#[test]
fn a_change_ends_tokens_where_it_matters_and_sessions_where_it_must() {
    let nothing = AccountChange::default;
    let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect::<Vec<_>>());
    // The change, whether it ends the access tokens, and the reason with which it ends sessions.
    let cases = [
        (nothing(), false, None),
        (AccountChange { roles: words(&["clerk"]), disabled: Some(false), ..nothing() }, false, None),
        (AccountChange { roles: words(&["clerk", "admin"]), ..nothing() }, true, None),
        (AccountChange { roles: words(&[]), ..nothing() }, true, None),
        (AccountChange { scopes: words(&["orders:read"]), ..nothing() }, true, None),
        (AccountChange { attributes: Some(map(json!({"a": 1}))), ..nothing() }, true, None),
        (AccountChange { password: Some(password(BCRYPT)), ..nothing() }, true, Some("password")),
        (AccountChange { disabled: Some(true), ..nothing() }, true, Some("disabled")),
        (AccountChange { end_sessions: true, ..nothing() }, true, Some("changed")),
    ];
    on_both(async |bed: Bed| {
        for (number, (change, ends_tokens, ends_sessions)) in cases.iter().enumerate() {
            let (name, sid) = (format!("u{number}"), format!("s{number}"));
            let before = bed.account(&name).await;
            bed.begin(&name, &sid, NOW).await;
            let seq = bed.store.marks(0).await.unwrap().last().map_or(0, |last| last.seq);
            let (after, marks) = bed.store.change(&name, change, NOW + 1).await.unwrap().unwrap();
            let expected: Vec<Mark> = if *ends_tokens {
                vec![Mark::Account { id: name.clone(), generation: 1 }]
            } else {
                Vec::new()
            };
            assert_eq!(marks, expected, "{change:?}");
            let stored: Vec<Mark> =
                bed.store.marks(seq).await.unwrap().into_iter().map(|marked| marked.mark).collect();
            assert_eq!(stored, expected, "{change:?}");
            let found = bed.store.account(&name).await.unwrap().unwrap();
            for account in [&after, &found] {
                assert_eq!(account.generation, i64::from(*ends_tokens), "{change:?}");
                assert_eq!(&account.roles, change.roles.as_ref().unwrap_or(&before.roles));
                assert_eq!(&account.scopes, change.scopes.as_ref().unwrap_or(&before.scopes));
                assert_eq!(&account.attributes, change.attributes.as_ref().unwrap_or(&before.attributes));
                let expected =
                    change.password.as_ref().map_or(&before.password, |password| &password.encoded);
                assert_eq!(&account.password, expected);
                assert_eq!(account.disabled, change.disabled.unwrap_or_default());
            }
            assert_eq!(bed.ended(&format!("{sid}/0")).await.as_deref(), *ends_sessions, "{change:?}");
        }
    });
}

#[test]
fn an_unknown_account_is_neither_changed_nor_removed() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        let change = AccountChange { end_sessions: true, ..AccountChange::default() };
        for name in ["bob", "", "a\0", "ADA"] {
            assert!(bed.store.change(name, &change, NOW).await.unwrap().is_none());
            assert!(bed.store.remove(name, NOW).await.unwrap().is_none());
        }
        assert!(bed.marks().await.is_empty());
    });
}

#[test]
fn a_removed_account_leaves_only_its_id() {
    on_both(async |bed: Bed| {
        let secret = NewAccount { password: password(PBKDF2), ..new("ada") };
        bed.store.add(&[secret], NOW).await.unwrap();
        bed.begin("ada", "s", NOW).await;
        let (removed, marks) = bed.store.remove("ada", NOW).await.unwrap().unwrap();
        assert_eq!((&*removed.name, removed.generation), ("ada", 1));
        assert_eq!(marks, [Mark::Account { id: "ada".to_owned(), generation: 1 }]);
        assert_eq!(bed.marks().await, marks);
        assert!(bed.store.account("ada").await.unwrap().is_none());
        assert!(bed.store.account_by_name("ada").await.unwrap().is_none());
        assert!(!bed.store.known_address("ada", "192.0.2.1").await.unwrap());
        assert_eq!(bed.ended("s/0").await.as_deref(), Some("removed"));
        assert_eq!(bed.rotate("s/0", NOW).await, What::Ended);
        let left = "SELECT COUNT(*) FROM accounts WHERE id = 'ada' AND name IS NULL AND password = '' AND roles = '[]'";
        assert_eq!(bed.number(left).await, 1);
    });
}

#[test]
fn a_hash_is_upgraded_only_if_it_is_still_that_one() {
    on_both(async |bed: Bed| {
        bed.store.add(&[NewAccount { password: password(BCRYPT), ..new("ada") }], NOW).await.unwrap();
        bed.begin("ada", "s", NOW).await;
        assert!(!bed.store.upgrade_password("ada", PBKDF2, &password("new")).await.unwrap());
        assert!(!bed.store.upgrade_password("bob", BCRYPT, &password("new")).await.unwrap());
        assert!(bed.store.upgrade_password("ada", BCRYPT, &password(PBKDF2)).await.unwrap());
        assert!(!bed.store.upgrade_password("ada", BCRYPT, &password("new")).await.unwrap());
        let account = bed.store.account("ada").await.unwrap().unwrap();
        assert_eq!((&*account.password, account.generation), (PBKDF2, 0));
        assert_eq!(bed.ended("s/0").await, None, "the password is the same one");
        assert!(bed.marks().await.is_empty());
        let long = "x".repeat(1025);
        assert!(matches!(
            bed.store.upgrade_password("ada", PBKDF2, &password(&long)).await,
            Err(StoreError::Unfit(_))
        ));
    });
}

#[test]
fn each_scheme_in_use_is_listed_once() {
    on_both(async |bed: Bed| {
        assert_eq!(bed.store.schemes().await.unwrap(), Vec::<String>::new());
        let with =
            |name: &str, password: &str| NewAccount { password: self::password(password), ..new(name) };
        let all = [with("a", PBKDF2), with("b", PBKDF2), with("c", BCRYPT), with("d", ""), with("e", "what")];
        bed.store.add(&all, NOW).await.unwrap();
        assert_eq!(bed.store.schemes().await.unwrap(), ["bcrypt:12", "pbkdf2:sha256:1000"]);
        // After a new password, an upgrade or a removal, a scheme that no account uses any more is not listed.
        bed.store.upgrade_password("c", BCRYPT, &password(PBKDF2)).await.unwrap();
        assert_eq!(bed.store.schemes().await.unwrap(), ["pbkdf2:sha256:1000"]);
        let change = AccountChange { password: Some(password(BCRYPT)), ..AccountChange::default() };
        bed.store.change("a", &change, NOW).await.unwrap();
        assert_eq!(bed.store.schemes().await.unwrap(), ["bcrypt:12", "pbkdf2:sha256:1000"]);
        bed.store.remove("a", NOW).await.unwrap();
        assert_eq!(bed.store.schemes().await.unwrap(), ["pbkdf2:sha256:1000"]);
    });
}

#[test]
fn debug_output_contains_no_hash() {
    on_both(async |bed: Bed| {
        let made = NewAccount { password: password(PBKDF2), ..new("ada") };
        bed.store.add(std::slice::from_ref(&made), NOW).await.unwrap();
        let account = bed.store.account("ada").await.unwrap().unwrap();
        let change = AccountChange { password: Some(password(PBKDF2)), ..AccountChange::default() };
        let reported = format!("{made:?} {account:?} {change:?} {:?} {:?}", bed.store, hash("s/0"));
        assert!(reported.contains("ada") && !reported.contains("pbkdf2"), "{reported}");
    });
}
