//! The schema, step by step. A step that was ever released is never changed; what is new is a new step.

use super::{Dialect, Store, StoreError};
use sqlx::{AssertSqlSafe, Row};

/// Names the lock that one process holds while it migrates.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8098271342)";

const STEPS: [&[&str]; 1] = [&[
    "CREATE TABLE accounts (
        id TEXT PRIMARY KEY,
        name TEXT UNIQUE,
        password TEXT NOT NULL,
        roles TEXT NOT NULL,
        scopes TEXT NOT NULL,
        attributes TEXT NOT NULL,
        disabled BIGINT NOT NULL,
        generation BIGINT NOT NULL,
        created BIGINT NOT NULL,
        removed BIGINT
    )",
    "CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        account TEXT NOT NULL REFERENCES accounts (id),
        created BIGINT NOT NULL,
        used BIGINT NOT NULL,
        expires BIGINT NOT NULL,
        authenticated BIGINT NOT NULL,
        address TEXT NOT NULL,
        agent TEXT NOT NULL,
        csrf TEXT,
        ended TEXT,
        ended_at BIGINT
    )",
    "CREATE INDEX sessions_of_account ON sessions (account, created)",
    "CREATE TABLE refresh_tokens (
        hash TEXT PRIMARY KEY,
        session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        issued BIGINT NOT NULL,
        expires BIGINT NOT NULL,
        spent BIGINT,
        nonce TEXT,
        successor TEXT
    )",
    "CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session, issued)",
    "CREATE TABLE marks (
        seq {serial},
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        generation BIGINT NOT NULL,
        until BIGINT NOT NULL,
        made BIGINT NOT NULL
    )",
    "CREATE TABLE addresses (
        account TEXT NOT NULL,
        address TEXT NOT NULL,
        seen BIGINT NOT NULL,
        PRIMARY KEY (account, address)
    )",
    "CREATE TABLE life (one BIGINT PRIMARY KEY, alive BIGINT NOT NULL)",
]];

/// What each connection is told.
pub(super) const fn settings(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Sqlite => &[
            "PRAGMA journal_mode = WAL",
            // A commit is on the disk before it is answered: a spent token must not come back after a loss of power.
            "PRAGMA synchronous = FULL",
            "PRAGMA busy_timeout = 5000",
            "PRAGMA foreign_keys = ON",
        ],
        Dialect::Postgres => &["SET statement_timeout = 5000", "SET lock_timeout = 5000"],
    }
}

impl Store {
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        if self.dialect == Dialect::Postgres {
            sqlx::query(LOCK).execute(&mut *transaction).await?;
        }
        sqlx::query("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY)")
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query("SELECT COUNT(*) FROM schema_steps").fetch_one(&mut *transaction).await?;
        let done = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        if done > STEPS.len() {
            return Err(StoreError::Broken(format!(
                "its schema is of step {done}, and this version knows {}: it was used by a newer version",
                STEPS.len()
            )));
        }
        let serial = match self.dialect {
            Dialect::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Dialect::Postgres => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        };
        for (number, statements) in STEPS.iter().enumerate().skip(done) {
            for statement in *statements {
                let statement = statement.replace("{serial}", serial);
                sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            }
            sqlx::query("INSERT INTO schema_steps (step) VALUES ($1)")
                .bind(i64::try_from(number).unwrap_or(i64::MAX))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
