//! Errors of the store, with messages for the operator. A message never contains a stored value or a credential.

use crate::tls::server_certificate_fault;
use std::fmt;
use std::time::Duration;

/// The reason why the store cannot be used.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// The store does not answer in time, or cannot do the work at present. A later attempt may succeed.
    Unavailable(TransientFault),
    /// The store's content or schema is not as expected.
    Broken(String),
    /// A value cannot be stored. It is too large, or has a NUL character, which PostgreSQL's text type does not allow.
    Unfit(String),
}

/// A fault that ends when its cause ends.
#[derive(Clone, Debug)]
pub struct TransientFault {
    /// The kind of the fault, for metrics.
    pub reason: Reason,
    /// The cause, for the operator.
    pub why: String,
}

/// The kinds of transient faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The disk, or a quota, is full.
    Full,
    /// The disk or the file system failed.
    Io,
    /// There was not enough memory.
    Memory,
    /// Another process held a lock for too long, or its transaction conflicted with this transaction.
    Locked,
    /// The database does not accept writes.
    ReadOnly,
    /// The server cannot be reached, or ended the connection.
    Unreachable,
    /// The server rejected the login: too many connections, a wrong password, or no such database.
    Refused,
    /// All connections were in use, or no connection could be opened in time.
    NoConnection,
    /// A statement took too long.
    Timeout,
    /// Another cause.
    Other,
}

impl Reason {
    /// Returns the word for this reason in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Io => "io",
            Self::Memory => "memory",
            Self::Locked => "locked",
            Self::ReadOnly => "read_only",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::NoConnection => "no_connection",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

impl StoreError {
    /// All words that [`Self::reason`] can return.
    pub const REASONS: [&str; 12] = [
        "full",
        "io",
        "memory",
        "locked",
        "read_only",
        "unreachable",
        "refused",
        "no_connection",
        "timeout",
        "other",
        "broken",
        "unfit",
    ];

    /// Returns an error for a transient fault.
    pub(super) const fn trouble(reason: Reason, why: String) -> Self {
        Self::Unavailable(TransientFault { reason, why })
    }

    /// Returns the error for a store that has not answered within the time `within`.
    pub fn late(within: Duration) -> Self {
        Self::trouble(Reason::Timeout, format!("the database does not answer within {within:?}"))
    }

    /// Returns an error for work that began before another server became the primary server.
    pub fn moved() -> Self {
        Self::trouble(Reason::Unreachable, "another server has become the primary server".to_owned())
    }

    /// Returns the kind of the fault as one word, for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(trouble) => trouble.reason.as_str(),
            Self::Broken(_) => "broken",
            Self::Unfit(_) => "unfit",
        }
    }

    /// Returns this error with the message of an error of another server.
    pub(super) fn and(self, other: &Self) -> Self {
        match self {
            Self::Unavailable(TransientFault { reason, why }) => {
                Self::trouble(reason, format!("{why}; {other}"))
            }
            Self::Broken(why) => Self::trouble(Reason::Other, format!("{why}; {other}")),
            Self::Unfit(why) => Self::Unfit(why),
        }
    }

    /// Adds the store's location to the message and, if it is known, the remedy.
    pub(super) fn at(self, place: &str) -> Self {
        match self {
            Self::Unavailable(TransientFault { reason, why }) => {
                let remedy = match reason {
                    Reason::Locked => LOCKED,
                    Reason::Unreachable => UNREACHABLE,
                    _ => "",
                };
                Self::trouble(reason, format!("{place}: {why}{remedy}"))
            }
            Self::Broken(why) => Self::Broken(format!("{place}: {why}")),
            Self::Unfit(why) => Self::Unfit(why),
        }
    }
}

const LOCKED: &str = "; another process holds a lock on it (a backup, or a sqlite3 shell with an open transaction): \
     `fuser` or `lsof` on the file names that process; end its transaction";
const UNREACHABLE: &str = "; the gateway does not start without its store: check host, port and firewall, and let the \
     service manager start the gateway again once the server answers";

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(TransientFault { why, .. }) | Self::Broken(why) | Self::Unfit(why) => {
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // The message of sqlx would show values of the URL, which may include a password.
            sqlx::Error::Configuration(_) => Self::trouble(
                Reason::Other,
                "a part of the store's URL cannot be used: see its host, port and ssl options".into(),
            ),
            sqlx::Error::PoolTimedOut => {
                Self::trouble(Reason::NoConnection, "no database connection became available in time".into())
            }
            sqlx::Error::Database(fault) => {
                let code = fault.code().unwrap_or_default();
                let hint = hint(&code, fault.message());
                let why = format!("the database reports: {} ({code}){hint}", fault.message());
                match reason_of(&code) {
                    Some(reason) => Self::trouble(reason, why),
                    None => Self::Broken(why),
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Broken(error.to_string())
            }
            sqlx::Error::Io(fault) => {
                let fault = server_certificate_fault(fault).map(|fault| format!("TLS: {fault}"));
                Self::trouble(Reason::Unreachable, fault.unwrap_or_else(|| error.to_string()))
            }
            _ => Self::trouble(Reason::Unreachable, error.to_string()),
        }
    }
}

/// Returns the reason of a database error code for which a later attempt may succeed, or `None` for any other code.
fn reason_of(code: &str) -> Option<Reason> {
    if code.len() == 5 {
        // PostgreSQL's codes have five characters; the first two are the class (PostgreSQL manual, appendix A).
        return Some(match (&code[..2], code) {
            (_, "53100") => Reason::Full,
            (_, "53200") => Reason::Memory,
            (_, "53300") | ("28" | "3D", _) => Reason::Refused,
            // A pooler sent the statement to a server connection on which the statement was not prepared.
            (_, "42P05" | "26000") => Reason::Other,
            (_, "57014" | "25P03" | "57P05") => Reason::Timeout,
            (_, "25006") => Reason::ReadOnly,
            ("40" | "55", _) => Reason::Locked,
            ("08" | "57", _) => Reason::Unreachable,
            ("58", _) => Reason::Io,
            ("53" | "25", _) => Reason::Other,
            (_, _) => return None,
        });
    }
    // The lowest byte of SQLite's code is the primary code.
    Some(match code.parse::<u32>().ok()? & 0xff {
        5 | 6 => Reason::Locked,
        7 => Reason::Memory,
        8 => Reason::ReadOnly,
        10 | 14 => Reason::Io,
        13 => Reason::Full,
        _ => return None,
    })
}

/// Returns the remedy for a fault that a pooler causes, or an empty string.
fn hint(code: &str, message: &str) -> &'static str {
    match code {
        "08P01" if message.contains("extra_float_digits") => {
            "; this is PgBouncer: add extra_float_digits to its ignore_startup_parameters"
        }
        "42P05" | "26000" => {
            "; a pooler assigns connections per transaction: add ?pool_mode=transaction to the store's URL"
        }
        _ => "",
    }
}

/// Whether the error says that another connection holds a lock on the database (SQLite's `BUSY` and `LOCKED`).
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let code =
        error.as_database_error().and_then(|fault| fault.code()).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| [5, 6].contains(&(code & 0xff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_passes_has_a_reason_and_another_has_none() {
        // https://sqlite.org/rescode.html; PostgreSQL's manual, appendix A.
        for (code, reason) in [
            ("5", "locked"),
            ("517", "locked"),
            ("7", "memory"),
            ("10", "io"),
            ("778", "io"),
            ("13", "full"),
            ("14", "io"),
            ("1032", "read_only"),
            ("08006", "unreachable"),
            ("57P01", "unreachable"),
            ("57P03", "unreachable"),
            ("40P01", "locked"),
            ("55P03", "locked"),
            ("53100", "full"),
            ("53200", "memory"),
            ("53300", "refused"),
            ("28P01", "refused"),
            ("3D000", "refused"),
            ("57014", "timeout"),
            ("25006", "read_only"),
            ("58030", "io"),
        ] {
            let found = reason_of(code).map(Reason::as_str);
            assert_eq!(found, Some(reason), "{code}");
            assert!(StoreError::REASONS.contains(&reason));
        }
        for code in ["1", "11", "19", "2067", "23505", "42P01", "", "nonsense"] {
            assert_eq!(reason_of(code), None, "{code}");
        }
    }

    #[test]
    fn a_fault_of_the_url_shows_nothing_of_it() {
        let error = StoreError::from(sqlx::Error::Configuration("unknown value \"hunter2\"".into()));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
