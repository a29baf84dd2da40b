#!/usr/bin/env bash
# After SQLite reports a full disk once, a pooled sqlx connection never begins an immediate transaction again.
#
# Version: sqlx 0.9.0 (with its bundled SQLite).
#
# On SQLITE_FULL, SQLite rolls back the whole transaction itself. The ROLLBACK that sqlx then sends fails ("no
# transaction is active"), and sqlx decrements its count of open transactions only after a successful ROLLBACK.
#
# Seen: with a pool of one connection and a database that may grow by two pages, a transaction fails with "database or
# disk is full (13)". Even after there is room again, every `begin_with("BEGIN IMMEDIATE")` on that connection fails
# with "attempted to call begin_with at non-zero transaction depth", while statements without a transaction succeed. A
# health check with a plain statement therefore reports that the database works.
#
# Portcullis closes a writing connection whose transaction failed, and opens another.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = ["runtime-tokio", "sqlite-bundled"] }
tokio = { version = "=1.54.1", features = ["rt", "macros"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("name a file")?;
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    sqlx::query("CREATE TABLE t (x BLOB)").execute(&pool).await?;
    let (pages,): (i64,) = sqlx::query_as("PRAGMA page_count").fetch_one(&pool).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 2))).execute(&pool).await?;

    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let full = loop {
        if let Err(error) = sqlx::query("INSERT INTO t VALUES (zeroblob(2000))").execute(&mut *transaction).await {
            break error;
        }
    };
    println!("full: {full}");
    drop(transaction);

    sqlx::query("PRAGMA max_page_count = 100000").execute(&pool).await?;
    for _ in 0..3 {
        match pool.begin_with("BEGIN IMMEDIATE").await {
            Ok(_) => println!("room again, BEGIN IMMEDIATE: begun"),
            Err(error) => println!("room again, BEGIN IMMEDIATE: {error}"),
        }
    }
    sqlx::query("INSERT INTO t VALUES (1)").execute(&pool).await?;
    println!("room again, without a transaction: written");
    Ok(())
}
RUST
(cd "$folder" && cargo run --quiet -- "$folder/database") | tee "$folder/seen"
diff - "$folder/seen" <<'TEXT'
full: error returned from database: (code: 13) database or disk is full
room again, BEGIN IMMEDIATE: attempted to call begin_with at non-zero transaction depth
room again, BEGIN IMMEDIATE: attempted to call begin_with at non-zero transaction depth
room again, BEGIN IMMEDIATE: attempted to call begin_with at non-zero transaction depth
room again, without a transaction: written
TEXT
