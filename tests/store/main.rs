//! Tests of the store. Each behaviour is tested on SQLite and on a real PostgreSQL, because the authority relies on
//! both.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test binary exports nothing, serves nobody, and its helpers may fail a test like the test itself"
)]

mod accounts;
mod bed;
mod binding;
#[path = "../kit/dir.rs"]
mod dir;
mod feed;
mod finality;
mod keys;
mod model;
mod older;
mod opening;
mod parallel;
#[path = "../kit/pgbouncer.rs"]
mod pgbouncer;
mod plans;
mod pooler;
#[path = "../kit/port.rs"]
mod port;
#[path = "../kit/postgres.rs"]
mod postgres;
mod revocation;
mod rotation;
mod sessions;
mod together;
mod trouble;
