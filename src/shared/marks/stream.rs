//! Reads and writes the stream of marks (`XADD`, `XRANGE`, `XREAD`).

use super::super::connect::Connection;
use super::super::link::Link;
use super::super::refusals::{self, Command};
use super::super::settings::SharedSettings;
use redis::{Cmd, Pipeline, RedisResult, Value, cmd};
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// The number of entries that are read at once.
pub(super) const PAGE: usize = 1000;
/// The position before the first entry.
pub(super) const START: &str = "0-0";
/// The last possible position. After an entry there, Redis takes no more entries.
const END: &str = "18446744073709551615-18446744073709551615";
/// The member of an entry that contains the mark.
const MEMBER: &str = "mark";
/// The time that reading one page may take, in addition to the deadline of an answer. A page has up to 300 KB.
const PAGE_MAX: Duration = Duration::from_secs(2);

/// The connection on which a gateway follows the stream.
#[derive(Clone, Copy)]
pub(super) struct Line<'l> {
    pub(super) link: &'l Link,
    pub(super) connection: &'l Connection,
    /// The settings with which the connection was opened.
    pub(super) settings: &'l SharedSettings,
}

impl Line<'_> {
    /// Returns whether the policy in force names another server.
    pub(super) fn is_outdated(&self) -> bool {
        !self.link.settings().shares_connection(self.settings)
    }
}

/// An entry of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamEntry {
    /// Its position.
    pub(super) id: String,
    /// The mark, if the entry has one.
    pub(super) text: Option<String>,
}

impl StreamEntry {
    /// Returns whether the stream can take no entry after this one. The gateways let Redis choose the positions, so
    /// another writer has chosen this one.
    pub(super) fn is_final(&self) -> bool {
        self.id == END
    }

    /// Returns when Redis added the entry, in seconds since 1970.
    pub(super) fn added(&self) -> Option<u64> {
        Some(position(&self.id)?.0 / 1000)
    }
}

/// Waits up to `wait` for entries after a position. The result is empty if there are none.
pub(super) async fn wait_after(
    line: Line<'_>,
    key: &str,
    last: &str,
    wait: Duration,
) -> Result<Vec<StreamEntry>, String> {
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let mut question = cmd("XREAD");
    question.arg("COUNT").arg(PAGE).arg("BLOCK").arg(millis).arg("STREAMS").arg(key).arg(last);
    match ask(line, Command::XRead, &question, wait + PAGE_MAX).await? {
        Value::Nil => Ok(Vec::new()),
        answer => {
            let of_stream = list(&answer).and_then(|streams| list(streams.first()?)?.get(1));
            entries_after(last, of_stream.ok_or_else(unexpected)?)
        }
    }
}

/// Returns the entries after a position, a page at most.
pub(super) async fn after(line: Line<'_>, key: &str, last: &str) -> Result<Vec<StreamEntry>, String> {
    let mut question = cmd("XRANGE");
    question.arg(key).arg(format!("({last}")).arg("+").arg("COUNT").arg(PAGE);
    entries_after(last, &ask(line, Command::XRange, &question, PAGE_MAX).await?)
}

/// Returns whether the stream has an entry at this position.
pub(super) async fn has(line: Line<'_>, key: &str, id: &str) -> Result<bool, String> {
    let mut question = cmd("XRANGE");
    question.arg(key).arg(id).arg(id).arg("COUNT").arg(1);
    Ok(!entries(&ask(line, Command::XRange, &question, PAGE_MAX).await?)?.is_empty())
}

/// Returns the command that adds marks. Entries from before `oldest` (milliseconds since 1970) are deleted.
///
/// The number of entries is not bounded, because a gateway that starts would not learn an entry that was deleted too
/// early. Redis bounds its own memory.
pub(super) fn add<'t>(key: &str, texts: impl Iterator<Item = &'t str>, oldest: Option<u64>) -> Pipeline {
    let mut commands = Pipeline::new();
    for text in texts {
        let mut command = cmd("XADD");
        command.arg(key);
        if let Some(oldest) = oldest {
            command.arg("MINID").arg("~").arg(oldest);
        }
        commands.add_command(command.arg("*").arg(MEMBER).arg(text).to_owned()).ignore();
    }
    commands
}

/// Sends commands that the follower's own connection executes.
pub(super) async fn send(line: Line<'_>, commands: &Pipeline) -> Result<(), String> {
    let mut connection = line.connection.clone();
    answer(line, Command::XAdd, commands.query_async::<()>(&mut connection), PAGE_MAX).await
}

async fn ask(line: Line<'_>, command: Command, question: &Cmd, within: Duration) -> Result<Value, String> {
    let mut connection = line.connection.clone();
    answer(line, command, question.query_async::<Value>(&mut connection), within).await
}

async fn answer<T>(
    line: Line<'_>,
    command: Command,
    work: impl Future<Output = RedisResult<T>>,
    within: Duration,
) -> Result<T, String> {
    match timeout(within, work).await {
        Ok(answer) => answer.map_err(|error| {
            line.link.note_refusal(command, &error);
            refusals::text(&error)
        }),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn entries(value: &Value) -> Result<Vec<StreamEntry>, String> {
    list(value).ok_or_else(unexpected)?.iter().map(|entry| entry_of(entry).ok_or_else(unexpected)).collect()
}

/// Returns the entries of an answer, which must be in order and after a position. A gateway would otherwise read some
/// entries again and again.
fn entries_after(last: &str, value: &Value) -> Result<Vec<StreamEntry>, String> {
    let found = entries(value)?;
    let mut before = position(last);
    for entry in &found {
        let at = position(&entry.id);
        if at <= before {
            return Err("entries that are not in order".to_owned());
        }
        before = at;
    }
    Ok(found)
}

/// Reads the bytes of an answer with the entries after a position. Returns the position and the mark of each. For the
/// fuzzer.
#[doc(hidden)]
pub fn read_page(answer: &[u8], last: &str) -> Option<Vec<(String, Option<String>)>> {
    let page = entries_after(last, &redis::parse_redis_value(answer).ok()?).ok()?;
    Some(page.into_iter().map(|entry| (entry.id, entry.text)).collect())
}

/// Reads a position: a time and a number.
fn position(id: &str) -> Option<(u64, u64)> {
    let (millis, number) = id.split_once('-')?;
    Some((millis.parse().ok()?, number.parse().ok()?))
}

fn entry_of(value: &Value) -> Option<StreamEntry> {
    let [id, members] = list(value)? else { return None };
    let members = list(members)?;
    let at = members.chunks(2).find(|pair| text(&pair[0]) == Some(MEMBER));
    let mark = at.and_then(|pair| text(pair.get(1)?)).map(str::to_owned);
    Some(StreamEntry { id: text(id)?.to_owned(), text: mark })
}

fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn unexpected() -> String {
    "an unexpected answer".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_read_with_their_marks_and_a_strange_answer_is_an_error() {
        let entry = |id: &str, members: &[&str]| {
            Value::Array(vec![bulk(id), Value::Array(members.iter().map(|text| bulk(text)).collect())])
        };
        let answer = Value::Array(vec![
            entry("1700000000123-0", &["mark", "a"]),
            entry("1700000000124-0", &["other", "x", "mark", "b"]),
            entry("1700000000125-0", &["other", "x"]),
            entry("1700000000126-0", &["mark"]),
        ]);
        let found = entries(&answer).unwrap();
        let texts: Vec<_> = found.iter().map(|entry| entry.text.as_deref()).collect();
        assert_eq!(texts, [Some("a"), Some("b"), None, None]);
        assert_eq!(found[0].added(), Some(1_700_000_000));
        assert!(entries_after("1700000000122-9", &answer).is_ok());
        assert!(entries_after("1700000000123-0", &answer).is_err(), "the first entry is not a later one");
        for strange in ["1-1", "1", "x-0", "18446744073709551616-0", ""] {
            let page = Value::Array(vec![entry("1-1", &[]), entry(strange, &[])]);
            assert!(entries_after(START, &page).is_err(), "{strange}");
        }
        for strange in
            [Value::Nil, Value::Int(1), Value::Array(vec![Value::Int(1)]), Value::Array(vec![bulk("1-0")])]
        {
            assert!(entries(&strange).is_err(), "{strange:?}");
        }
    }
}
