//! The schema, as a list of migration steps. A released step must not be changed: each change to the schema is a new
//! step.

use super::connect::Dialect;
use super::error::Reason;
use super::{Store, StoreError, TransientFault};
use sqlx::{AssertSqlSafe, Row};
use std::time::Duration;

/// Takes the advisory lock for a migration.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8098271342)";
/// Raise the time limits for a migration: a change to a large table is slow, and another process may hold the lock.
const UNHURRIED: [&str; 2] = ["SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 60000"];
/// A change of a table must not wait for long: all statements of running gateways would wait behind it.
const HURRIED: &str = "SET LOCAL lock_timeout = 2000";
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// The number of times that a migration is tried if other gateways hold a table for longer than that.
const ATTEMPTS: u32 = 10;

/// The number of steps that a version must know to work with a store of this version. A step that such a version cannot
/// work with raises this number: it contracts what earlier steps have expanded.
const NEEDED: i64 = 3;

/// The statements of each step. `{text}` and `{serial}` are placeholders for types that the two databases name
/// differently.
const STEPS: [&[&str]; 4] = [
    &[
        // A row with `removed` set keeps only the id of a removed account, so that the id is never assigned again.
        // `scheme` is the kind and cost of the password hash.
        "CREATE TABLE accounts (
        id {text} PRIMARY KEY,
        name {text} UNIQUE,
        password {text} NOT NULL,
        roles {text} NOT NULL,
        scopes {text} NOT NULL,
        attributes {text} NOT NULL,
        disabled BIGINT NOT NULL,
        generation BIGINT NOT NULL,
        created BIGINT NOT NULL,
        removed BIGINT,
        scheme {text} NOT NULL DEFAULT ''
    )",
        "CREATE INDEX accounts_by_scheme ON accounts (scheme)",
        // `over` is the time from which the session cannot be used, because it has expired or was ended.
        "CREATE TABLE sessions (
        id {text} PRIMARY KEY,
        account {text} NOT NULL REFERENCES accounts (id),
        created BIGINT NOT NULL,
        used BIGINT NOT NULL,
        expires BIGINT NOT NULL,
        authenticated BIGINT NOT NULL,
        address {text} NOT NULL,
        agent {text} NOT NULL,
        csrf {text},
        ended {text},
        over BIGINT NOT NULL
    )",
        "CREATE INDEX sessions_of_account ON sessions (account, created)",
        "CREATE INDEX sessions_by_end ON sessions (over)",
        // `number` counts the tokens of a session. The unique constraint on it is the last safeguard against a second
        // successor of a token.
        "CREATE TABLE refresh_tokens (
        hash {text} PRIMARY KEY,
        session {text} NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        number BIGINT NOT NULL,
        issued BIGINT NOT NULL,
        expires BIGINT NOT NULL,
        spent BIGINT,
        nonce {text},
        UNIQUE (session, number)
    )",
        "CREATE TABLE marks (
        seq {serial},
        kind {text} NOT NULL,
        value {text} NOT NULL,
        generation BIGINT NOT NULL,
        until BIGINT NOT NULL,
        made BIGINT NOT NULL
    )",
        "CREATE INDEX marks_by_end ON marks (until)",
        "CREATE TABLE addresses (
        account {text} NOT NULL REFERENCES accounts (id),
        address {text} NOT NULL,
        seen BIGINT NOT NULL,
        PRIMARY KEY (account, address)
    )",
        "CREATE INDEX addresses_by_age ON addresses (seen)",
        "CREATE TABLE life (one BIGINT PRIMARY KEY CHECK (one = 1), alive BIGINT NOT NULL)",
    ],
    &[
        // These tables record how long access tokens live: see `lives`.
        "CREATE TABLE token_life (one BIGINT PRIMARY KEY CHECK (one = 1), longest BIGINT NOT NULL)",
        "CREATE TABLE long_tokens (subject {text} PRIMARY KEY, until BIGINT NOT NULL)",
        // This version keeps marks one day longer than the previous version. The column is renamed so that gateways of
        // the previous version fail and reject tokens. Otherwise they would delete marks too early.
        "ALTER TABLE marks RENAME COLUMN until TO kept",
        "UPDATE marks SET kept = kept + 86400000",
    ],
    &[
        // `jkt` is the thumbprint of the key to which the session's tokens are bound, as in the `cnf` claim. A gateway
        // of the previous version does not know this column. Bound refresh tokens therefore have a form that it rejects
        // before it looks them up.
        "ALTER TABLE sessions ADD COLUMN jkt {text}",
    ],
    &[
        // `sealed` is the encrypted private key, and `secret` the name of the secret with which it is encrypted. Both
        // are NULL after a revocation.
        "CREATE TABLE signing_keys (
        kid {text} PRIMARY KEY,
        algorithm {text} NOT NULL,
        signs_from BIGINT NOT NULL,
        created BIGINT NOT NULL,
        secret {text},
        sealed {text},
        UNIQUE (algorithm, signs_from)
    )",
        // `steps` is `NEEDED` of the newest version that has used the store.
        "CREATE TABLE schema_needs (one BIGINT PRIMARY KEY CHECK (one = 1), steps BIGINT NOT NULL)",
    ],
];

impl Store {
    /// Runs the missing steps in one transaction. If several processes start at the same time, one of them runs the
    /// steps and the others wait.
    ///
    /// Gateways of an older version may serve at the same time. If they hold a table that a step changes, the migration
    /// is tried again.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let mut attempts = 1;
        loop {
            match self.try_migrate().await {
                Err(StoreError::Unavailable(TransientFault { reason: Reason::Locked, .. }))
                    if attempts < ATTEMPTS && self.dialect.is_server() =>
                {
                    attempts += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn try_migrate(&self) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        if self.dialect.is_server() {
            for statement in UNHURRIED.into_iter().chain([LOCK]) {
                transaction.query(statement).execute(&mut *transaction).await?;
            }
        }
        transaction
            .query("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY)")
            .execute(&mut *transaction)
            .await?;
        let row = transaction.query("SELECT COUNT(*) FROM schema_steps").fetch_one(&mut *transaction).await?;
        let done = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        if done > STEPS.len() {
            let needed =
                transaction.query("SELECT steps FROM schema_needs").fetch_optional(&mut *transaction).await?;
            let needed = needed.map_or(Ok(i64::MAX), |row| row.try_get(0))?;
            transaction.undo().await;
            // The newer steps have only added what this version does not use.
            if usize::try_from(needed).is_ok_and(|needed| needed <= STEPS.len()) {
                return Ok(());
            }
            return Err(StoreError::Broken(format!(
                "the store's schema is at step {done}, and this version knows {}: a newer version has used it; run \
                 that one, or bring back a copy from before",
                STEPS.len()
            )));
        }
        if self.dialect.is_server() {
            transaction.query(HURRIED).execute(&mut *transaction).await?;
        }
        for (number, statements) in STEPS.iter().enumerate().skip(done) {
            for statement in *statements {
                let statement = self.dialect.written(statement);
                transaction.query(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            }
            transaction
                .query("INSERT INTO schema_steps (step) VALUES ($1)")
                .bind(i64::try_from(number).unwrap_or(i64::MAX))
                .execute(&mut *transaction)
                .await?;
        }
        if done < STEPS.len() {
            transaction
                .query(
                    "INSERT INTO schema_needs (one, steps) VALUES (1, $1)
                     ON CONFLICT (one) DO UPDATE SET steps = excluded.steps WHERE schema_needs.steps < excluded.steps",
                )
                .bind(NEEDED)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }
}

impl Dialect {
    /// Returns a statement of the schema in this database's SQL.
    fn written(self, statement: &str) -> String {
        let (text, serial) = match self {
            // With `AUTOINCREMENT`, SQLite never assigns a number twice, even after the highest number was deleted.
            Self::Sqlite => ("TEXT", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            // The collation "C" compares byte by byte, as SQLite does. The collation of a language may change with an
            // update of the system's libraries, and existing indexes would then be wrong.
            Self::Postgres | Self::PooledPostgres => {
                ("TEXT COLLATE \"C\"", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
            }
        };
        statement.replace("{text}", text).replace("{serial}", serial)
    }
}
