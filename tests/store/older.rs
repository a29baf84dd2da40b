//! A store that a newer version has migrated, used by a gateway of the version before. Such a gateway serves during a
//! rollout, and after a rollback.
//!
//! `older/step-N.sql` has the statements of a version whose schema has N steps. Add the statements of a release before
//! the next step; remove a file when its version is no longer supported. `benches/older.sh` runs the real
//! program of the version before.

use crate::bed::{on_both, run};
use crate::postgres::Postgres;
use portcullis::store::Store;
use std::path::Path;

const OLDER: [(&str, &str); 1] = [("step 3", include_str!("older/step-3.sql"))];

fn statements(text: &'static str) -> Vec<&'static str> {
    let statements = text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty());
    statements.collect()
}

#[test]
fn the_statements_of_the_version_before_still_work() {
    let server = Postgres::shared();
    let url = server.database();
    let database = url.rsplit('/').next().unwrap();
    drop(run(Store::open(&url, Path::new(""))).unwrap());
    for (version, text) in OLDER {
        let statements = statements(text);
        assert!(statements.len() > 30, "{version}");
        // The server checks each statement against the tables, and executes none.
        let prepared = statements.iter().enumerate();
        let prepared: Vec<_> =
            prepared.map(|(number, text)| format!("PREPARE s{number} AS {text};")).collect();
        server.sql(database, &prepared.concat());
    }
    on_both(async |bed| {
        // SQLite has no `PREPARE`.
        if bed.url.starts_with("sqlite:") {
            for (_, text) in OLDER {
                for statement in statements(text).iter().filter(|text| !text.contains("FOR UPDATE")) {
                    bed.sql(&format!("EXPLAIN {statement}")).await;
                }
            }
        }
    });
}
