//! Counts and logs the commands that Redis refuses. The log has the command and Redis' error word, and no key or value.

use crate::journal::{Journal, Level};
use redis::{ErrorKind, RedisError};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A command that the gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// `PING`.
    Ping,
    /// `SET`.
    Set,
    /// `GETRANGE`.
    GetRange,
    /// `DEL`.
    Del,
    /// `XADD`.
    XAdd,
    /// `XRANGE`.
    XRange,
    /// `XREAD`.
    XRead,
    /// `EVALSHA`, or a command of the script.
    EvalSha,
    /// `SCRIPT LOAD`.
    ScriptLoad,
}

impl Command {
    /// Returns the name of the command.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Set => "SET",
            Self::GetRange => "GETRANGE",
            Self::Del => "DEL",
            Self::XAdd => "XADD",
            Self::XRange => "XRANGE",
            Self::XRead => "XREAD",
            Self::EvalSha => "EVALSHA",
            Self::ScriptLoad => "SCRIPT LOAD",
        }
    }

    /// Returns the error of this command.
    pub const fn failed(self, error: RedisError) -> CommandError {
        CommandError { command: self, error }
    }
}

/// The error of a command.
#[derive(Debug)]
pub struct CommandError {
    pub(super) command: Command,
    pub(super) error: RedisError,
}

/// The error words that are reported. Redis can send any other word, which is reported as `other`.
const WORDS: [&str; 17] = [
    "NOPERM",
    "READONLY",
    "OOM",
    "WRONGTYPE",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "NOAUTH",
    "EXECABORT",
    "NOSCRIPT",
];
/// A refusal of a kind that was not seen for this long is logged again.
const QUIET: Duration = Duration::from_secs(600);
/// The maximum length of an error's text, in characters.
const TEXT_MAX: usize = 200;

/// The refused commands, by command and error word.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<(Command, &'static str), Refused>>);

#[derive(Clone, Copy, Debug)]
struct Refused {
    count: u64,
    last: Instant,
}

impl Refusals {
    /// Counts a refused command, and logs it if it is the first of its kind. Returns whether `error` is a refusal: an answer
    /// of Redis.
    pub(super) fn note(&self, command: Command, error: &RedisError, journal: &Journal) -> bool {
        let Some(word) = word(error) else { return false };
        let now = Instant::now();
        let mut kinds = self.kinds();
        let known = kinds.get(&(command, word)).copied();
        let count = known.map_or(0, |known| known.count) + 1;
        kinds.insert((command, word), Refused { count, last: now });
        drop(kinds);
        if known.is_none_or(|known| now.duration_since(known.last) >= QUIET) {
            let fields = [("command", command.as_str()), ("error", word)];
            journal.event(Level::Error, "the shared state refuses a command", &fields);
        }
        true
    }

    /// Returns the refused commands: the command, the error word and the count.
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.kinds()
            .iter()
            .map(|((command, word), refused)| (command.as_str(), *word, refused.count))
            .collect()
    }

    /// Returns a line for operators for each kind of refusal.
    pub(super) fn lines(&self) -> String {
        let kinds = self.kinds();
        let line = |((command, word), Refused { count, last }): (&(Command, &str), &Refused)| {
            let (command, seconds) = (command.as_str(), last.elapsed().as_secs());
            format!("shared: {command} refused with {word}, {count} times, last {seconds} s ago\n")
        };
        kinds.iter().map(line).collect()
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<(Command, &'static str), Refused>> {
        // A thread that panicked left only complete values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the word of an error that is an answer of Redis; `None` for other errors, such as a lost connection.
fn word(error: &RedisError) -> Option<&'static str> {
    if matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) {
        return Some("unexpected");
    }
    let errors = error.clone().into_server_errors()?;
    let (_, first) = errors.first()?;
    let known = |text: &str| WORDS.into_iter().find(|word| *word == text);
    let code = first.code();
    if code != "ERR" {
        return Some(known(code).unwrap_or("other"));
    }
    // A script returns the errors of its commands, and some versions put their own word first.
    let details = first.details().unwrap_or_default();
    if details.contains("executing the script can't run this command")
        || details.contains("ACL failure in script")
    {
        return Some("NOPERM");
    }
    Some(details.split([' ', '-', ':']).find_map(known).unwrap_or("ERR"))
}

/// Returns an error's text for operators. The text comes from the server, so it has a bound and no control characters.
pub(super) fn text(error: &RedisError) -> String {
    shortened(&whole_text(error))
}

/// Returns an error's text without the arguments of a command, which some servers repeat.
pub(super) fn whole_text(error: &RedisError) -> String {
    let all = match error.clone().into_server_errors().as_deref() {
        Some([(_, first), ..]) => format!("{} {}", first.code(), first.details().unwrap_or_default()),
        Some([]) | None => error.to_string(),
    };
    all.split_once("with args beginning with")
        .map_or(all.as_str(), |(before, _)| before)
        .trim_end()
        .to_owned()
}

/// Returns the beginning of a text, in one line.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::{Value, parse_redis_value};

    fn error(line: &str) -> RedisError {
        let Ok(Value::ServerError(error)) = parse_redis_value(format!("-{line}\r\n").as_bytes()) else {
            panic!("{line}");
        };
        error.into()
    }

    #[test]
    fn the_word_of_a_refusal_is_one_of_a_fixed_list_also_inside_a_script() {
        for (line, found) in [
            ("NOPERM this user has no permissions to run the 'set' command", "NOPERM"),
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 2e9d, on @user_script:1.",
                "OOM",
            ),
            ("MISCONF Redis is configured to save RDB snapshots", "MISCONF"),
            ("READONLY You can't write against a read only replica.", "READONLY"),
            // Redis 6.2, Redis 7.0 and Valkey 9 inside a script.
            (
                "ERR Error running script (call to f_1): @user_script:7: WRONGTYPE Operation against a key",
                "WRONGTYPE",
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 2e, on @x:1.",
                "NOPERM",
            ),
            ("ERR ACL failure in script: User g has no permissions to run the 'hgetall' command", "NOPERM"),
            ("ERR unknown command 'XADD', with args beginning with: 'k'", "ERR"),
            ("EVIL-1 text", "other"),
        ] {
            assert_eq!(word(&error(line)), Some(found), "{line}");
        }
        assert_eq!(word(&RedisError::from(std::io::Error::other("x"))), None);
        assert_eq!(word(&RedisError::from((ErrorKind::UnexpectedReturnType, "x"))), Some("unexpected"));
    }

    #[test]
    fn the_text_of_a_server_is_short_and_one_line() {
        let shown = text(&error(&format!("ERR a\u{1b}b {}", "x".repeat(1 << 20))));
        assert!(shown.starts_with("ERR a b xx") && shown.chars().count() == TEXT_MAX, "{shown}");
        let shown = text(&error("ERR unknown command 'AUTH', with args beginning with: 'gateway' 'secret'"));
        assert_eq!(shown, "ERR unknown command 'AUTH',");
    }
}
