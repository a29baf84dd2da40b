//! Why the store could not do something, in words for the operator. No value that was stored, and no part of a URL, is
//! among them.

use std::fmt;

/// Why the store cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// It does not answer, or not in time: later it may.
    Unavailable(String),
    /// It holds what it should not, or not what it should.
    Broken(String),
    /// It was given what it does not keep: too large, or with a NUL, which PostgreSQL's text has no room for.
    Unfit(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) | Self::Broken(why) | Self::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // sqlx tells values of the URL here, and a password may be one.
            sqlx::Error::Configuration(_) => Self::Unavailable(
                "a part of the store's URL cannot be used: see its host, port and ssl options".into(),
            ),
            sqlx::Error::PoolTimedOut => {
                Self::Unavailable("the database gave no connection in time, or all are in use".into())
            }
            sqlx::Error::Database(fault) => {
                let code = fault.code().unwrap_or_default();
                let why = format!("the database says: {} ({code})", fault.message());
                if passes(&code) { Self::Unavailable(why) } else { Self::Broken(why) }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Broken(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Whether another attempt later may succeed.
fn passes(code: &str) -> bool {
    match code.len() {
        // PostgreSQL's classes (its manual, appendix A): connections, rollbacks, resources, objects in use, operators'
        // interventions, systems.
        5 => ["08", "40", "53", "55", "57", "58", "28", "3D", "25"].contains(&&code[..2]),
        // SQLite's primary codes, in the lowest byte: busy, locked, no memory, read-only, I/O, full, cannot open.
        _ => code.parse::<u32>().is_ok_and(|code| [5, 6, 7, 8, 10, 13, 14].contains(&(code & 0xff))),
    }
}

/// Whether another process has the database at this moment (SQLite's `BUSY` and `LOCKED`).
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let code =
        error.as_database_error().and_then(|fault| fault.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| [5, 6].contains(&(code & 0xff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for code in ["5", "517", "10", "13", "08006", "40P01", "53300", "55P03", "57014"] {
            assert!(passes(code), "{code}");
        }
        for code in ["1", "11", "19", "2067", "23505", "42P01", "", "nonsense"] {
            assert!(!passes(code), "{code}");
        }
    }

    #[test]
    fn a_fault_of_the_url_tells_nothing_of_it() {
        let error = StoreError::from(sqlx::Error::Configuration("unknown value \"hunter2\"".into()));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
