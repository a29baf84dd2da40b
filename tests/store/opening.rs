//! Opening a store: files and modes, several processes at once, and stores of other programs or versions.

use crate::bed::{
    Bed, DAY, NOW, UNTIL as LATER, Window, hash, new, on_both, on_file, on_server, pool, rotate, run, sql,
};
use crate::dir::Dir;
use crate::postgres::Postgres;
use portcullis::store::{Store, StoreError, TokenLives};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Barrier;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn all_files_of_a_store_are_its_owners_alone() {
    on_file(async |bed: Bed| {
        bed.account("ada").await;
        let state = bed.dir.path().join("state");
        assert_eq!(mode(&state), 0o700);
        let files: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "the database, what was written ahead, and its index: {files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    });
}

#[test]
fn a_file_that_others_may_read_is_not_opened() {
    for (bits, opens) in [(0o600, true), (0o640, false), (0o604, false), (0o602, false)] {
        let dir = Dir::new();
        dir.write("p.db", "");
        fs::set_permissions(dir.path().join("p.db"), Permissions::from_mode(bits)).unwrap();
        let opened = run(Store::open("sqlite:p.db", dir.path()));
        assert_eq!(opened.is_ok(), opens, "{bits:o}: {opened:?}");
        assert!(opens || opened.unwrap_err().to_string().contains("chmod 600"));
    }
}

#[test]
fn a_path_may_have_any_characters() {
    let dir = Dir::new();
    for name in ["with space.db", "a?mode=ro.db", "a%41.db", "a#b.db", "\u{fc}.db"] {
        run(Store::open(&format!("sqlite:{name}"), dir.path())).unwrap();
        assert!(dir.path().join(name).exists(), "{name}");
    }
}

#[test]
fn a_file_that_is_no_database_is_reported_with_its_path() {
    let dir = Dir::new();
    dir.write("p.db", "this is text, and not a database of any kind\n".repeat(100));
    fs::set_permissions(dir.path().join("p.db"), Permissions::from_mode(0o600)).unwrap();
    let error = run(Store::open("sqlite:p.db", dir.path())).unwrap_err();
    assert!(matches!(error, StoreError::Broken(_)), "{error:?}");
    assert!(error.to_string().contains("p.db"), "{error}");
}

#[test]
fn of_processes_that_start_at_once_each_opens_the_store() {
    let dir = Dir::new();
    for url in ["sqlite:new.db".to_owned(), Postgres::shared().database()] {
        let barrier = Barrier::new(6);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    run(async {
                        barrier.wait();
                        let store = Store::open(&url, dir.path()).await.unwrap();
                        store.touch_alive(1).await.unwrap();
                    });
                });
            }
        });
        let steps = run(sql(&url, &dir, "SELECT step FROM schema_steps"));
        assert_eq!(steps.len(), 4, "{url}");
    }
}

#[test]
fn a_store_that_a_newer_version_has_contracted_is_refused_and_one_that_it_has_expanded_is_not() {
    on_both(async |bed: Bed| {
        bed.another().await.expect("one of this version is not");
        bed.sql("INSERT INTO schema_steps (step) VALUES (4)").await;
        let store = bed.another().await.expect("the newer version has only added something");
        store.touch_alive(1).await.unwrap();
        bed.sql("UPDATE schema_needs SET steps = 5").await;
        let error = bed.another().await.unwrap_err();
        assert!(matches!(error, StoreError::Broken(_)), "{error:?}");
        assert!(error.to_string().contains("a newer version has used it"), "{error}");
    });
}

#[test]
fn a_store_of_the_version_before_is_taken_over_with_its_marks() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        // Restores the schema of the first step.
        for statement in [
            "DROP TABLE signing_keys",
            "DROP TABLE schema_needs",
            "DROP TABLE token_life",
            "DROP TABLE long_tokens",
            "ALTER TABLE marks RENAME COLUMN kept TO until",
            "ALTER TABLE sessions DROP COLUMN jkt",
            "DELETE FROM schema_steps WHERE step > 0",
            "INSERT INTO marks (kind, value, generation, until, made) VALUES ('account', 'ada', 1, 2000, 1000)",
        ] {
            bed.sql(statement).await;
        }
        let store = bed.another().await.unwrap();
        let marks = store.marks(0).await.unwrap();
        assert_eq!((marks.len(), marks[0].kept), (1, 2000 + DAY));
        assert_eq!(store.lives().await.unwrap(), TokenLives::default());
        // The first gateway of the new version records its token lifetime. Tokens of the old version may live as long.
        store.record_life(7000).await.unwrap();
        assert_eq!(store.marks(0).await.unwrap()[0].kept, 1000 + 7000 + DAY);
        assert!(store.account("ada").await.unwrap().is_some());
        // A gateway of the old version must not write marks that expire too early.
        let old = "INSERT INTO marks (kind, value, generation, until, made) VALUES ('token', 'x', 0, 1, 1)";
        assert!(sqlx::query(old).execute(&pool(&bed).await).await.is_err());
    });
}

#[test]
fn the_sessions_of_the_version_before_continue_as_bearer_sessions() {
    on_both(async |bed: Bed| {
        bed.account("ada").await;
        // Restores the schema of the second step, with a session.
        bed.sql("ALTER TABLE sessions DROP COLUMN jkt").await;
        bed.sql("DROP TABLE signing_keys").await;
        bed.sql("DROP TABLE schema_needs").await;
        bed.sql("DELETE FROM schema_steps WHERE step >= 2").await;
        let old_gateway = async |sid: &str| {
            bed.sql(&format!(
                "INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, csrf, over)
                 VALUES ('{sid}', 'ada', 1, 1, {LATER}, 1, '', '', NULL, {LATER})"
            ))
            .await;
            let hash: String = hash(&format!("{sid}/0")).iter().map(|byte| format!("{byte:02x}")).collect();
            bed.sql(&format!(
                "INSERT INTO refresh_tokens (hash, session, number, issued, expires)
                 VALUES ('{hash}', '{sid}', 0, 1, {LATER})"
            ))
            .await;
        };
        old_gateway("before").await;
        let store = bed.another().await.unwrap();
        // A gateway of the old version that still runs can begin sessions too.
        old_gateway("after").await;
        for sid in ["before", "after"] {
            let token = format!("{sid}/0");
            assert_eq!(store.session_of_token(&hash(&token)).await.unwrap().unwrap().key, None);
            assert!(rotate(&store, &token, NOW, Window::default()).await.is_rotated());
        }
    });
}

#[test]
fn tables_of_another_application_are_left_alone() {
    let dir = Dir::new();
    fs::write(dir.path().join("other.db"), "").unwrap();
    fs::set_permissions(dir.path().join("other.db"), Permissions::from_mode(0o600)).unwrap();
    for url in ["sqlite:other.db".to_owned(), Postgres::shared().database()] {
        run(async {
            sql(&url, &dir, "CREATE TABLE sessions (what TEXT)").await;
            let error = Store::open(&url, dir.path()).await.unwrap_err();
            assert!(matches!(error, StoreError::Broken(_)), "{error:?}");
            assert!(error.to_string().contains("sessions"), "{error}");
            let kept = sql(&url, &dir, "SELECT what FROM sessions").await;
            assert!(kept.is_empty());
            // The step is atomic: its first table has not been created either.
            sql(&url, &dir, "CREATE TABLE accounts (what TEXT)").await;
        });
    }
}

#[test]
fn a_database_that_cannot_hold_all_names_is_refused() {
    let url = Postgres::shared().database_with("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let error = run(Store::open(&url, Path::new(""))).unwrap_err();
    assert!(error.to_string().contains("LATIN1"), "{error}");
}

#[test]
fn a_server_proves_who_it_is_where_the_url_asks_for_it() {
    let server = Postgres::shared();
    let name = server.database().rsplit('/').next().unwrap().to_owned();
    server.sql(
        &name,
        &format!("CREATE ROLE {name} LOGIN PASSWORD 'hunter2'; ALTER DATABASE {name} OWNER TO {name}"),
    );
    let dir = Dir::new();
    dir.write("ca.pem", server.certificate());
    let trusted = dir.path().join("ca.pem").display().to_string();
    let open = |host: &str, password: &str, options: &str| {
        let url = format!("postgres://{name}:{password}@{host}:{}/{name}?{options}", server.port());
        run(async {
            let store = Store::open(&url, Path::new("")).await?;
            store.add(&[new(options)], NOW).await
        })
    };
    open("localhost", "hunter2", &format!("sslmode=verify-full&sslrootcert={trusted}")).unwrap();
    open("localhost", "hunter2", "sslmode=require").unwrap();
    open("localhost", "hunter2", &format!("sslrootcert={trusted}"))
        .expect("the name and the authority are right");
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    dir.write("stranger.pem", &stranger);
    let stranger = dir.path().join("stranger.pem").display().to_string();
    for (host, password, options) in [
        // An untrusted certificate, a certificate for another name, and a wrong password.
        ("localhost", "hunter2", "sslmode=verify-full".to_owned()),
        ("127.0.0.1", "hunter2", format!("sslmode=verify-full&sslrootcert={trusted}")),
        // An authority that did not sign the certificate, and one that the driver would not read.
        ("localhost", "hunter2", format!("sslrootcert={stranger}")),
        ("localhost", "hunter2", format!("sslmode=require&sslrootcert={trusted}")),
        ("localhost", "hunter3", format!("sslmode=verify-full&sslrootcert={trusted}")),
        // Another address of this machine, which the store must treat as another host.
        ("0.0.0.0", "hunter2", String::new()),
    ] {
        let error = open(host, password, &options).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
        assert!(matches!(error, StoreError::Unavailable(_)), "{options}: {error:?}");
    }
    open("0.0.0.0", "hunter2", "sslmode=disable").expect("it was TLS that was wanted");
}

#[test]
fn a_connection_that_the_server_closed_is_replaced() {
    on_server(async |bed: Bed| {
        bed.account("ada").await;
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(!bed.sql(others).await.is_empty());
        assert!(bed.store.account("ada").await.unwrap().is_some());
    });
}

#[test]
fn an_option_without_effect_is_refused_before_the_server_is_asked() {
    for option in ["connect_timeout=3", "channel_binding=require", "sslmod=require"] {
        let url = format!("postgres://ada@127.0.0.1:1,127.0.0.1:2/p?sslmode=disable&{option}");
        let error = run(Store::open(&url, Path::new(""))).unwrap_err().to_string();
        assert!(error.contains("an option that would have no effect"), "{option}: {error}");
    }
}

#[test]
fn no_fault_of_a_url_contains_its_password() {
    for url in [
        "postgres://ada:hunter2@127.0.0.1:1/p",
        "postgres://ada:hunter2@127.0.0.1:1/p?sslmode=hunter2",
        "postgres://ada@127.0.0.1:1/p?password=hunter2&port=hunter2",
        "postgres://ada:pass?hunter2=@127.0.0.1:1/p",
        "postgres://ada:hunter2@127.0.0.1:hunter2/p",
        "postgres://ada:hunter2@[::1/p",
        "postgres:/ada:hunter2@127.0.0.1",
        "mysql://ada:hunter2@127.0.0.1/p",
        "hunter2",
    ] {
        let error = run(Store::open(url, Path::new(""))).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}: {error}");
        assert!(!error.to_string().is_empty());
    }
}
