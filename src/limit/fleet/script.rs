//! The fleet's buckets in Redis or Valkey.
//!
//! A key in Redis holds up to eight buckets of a limit, so a limit has at most 65,536 keys, whatever clients send. A key
//! expires when its last bucket is full. The names of keys and fields are keyed hashes of the clients' data.

use crate::hex::digits_of;
use crate::limit::lease::{Granted, Order, Terms};
use crate::shared::{Command, CommandError, Connection, Link, Unanswered};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value, cmd};
use std::sync::LazyLock;
use tokio::task::JoinSet;

/// The number of keys of a limit in Redis.
const SETS: u64 = 1 << 16;

/// Charges a bucket, and leases tokens from it, by the clock of Redis in microseconds since a day in 2025. Redis runs the
/// script as a whole.
///
/// A stored time that lies further ahead than the limit can cause was written before the clock was set back, or by
/// somebody else. It counts as the furthest time that the limit can cause.
///
/// Returns the number of leased tokens, the distance of the arrival time from now, and whether an active bucket was
/// evicted.
const ORDER_TEXT: &str = r"
local time = redis.call('TIME')
local now = (time[1] - 1750000000) * 1000000 + time[2]
local furthest = now + most
local arrival, least, at_least
local latest, count = now, 0
local buckets = redis.call('HGETALL', KEYS[1])
for i = 1, #buckets, 2 do
    local at = tonumber(buckets[i + 1])
    if not at or at ~= at then at = now end
    at = math.min(at, furthest)
    if buckets[i] == field then
        arrival = at
    elseif at <= now then
        redis.call('HDEL', KEYS[1], buckets[i])
    else
        if at == furthest then redis.call('HSET', KEYS[1], buckets[i], string.format('%.3f', at)) end
        count = count + 1
        latest = math.max(latest, at)
        if not at_least or at < at_least then least, at_least = buckets[i], at end
    end
end
local is_new = not arrival
arrival = math.max(arrival or now + ahead, now)
arrival = math.min(math.max(arrival + debt * interval, now), furthest)
local free = math.max(math.floor((now + burst * interval - arrival) / interval + 0.001), 0)
local granted = math.min(want, free)
arrival = arrival + granted * interval
local evicted = 0
if arrival > now then
    if is_new and count >= 8 then
        redis.call('HDEL', KEYS[1], least)
        evicted = 1
    end
    redis.call('HSET', KEYS[1], field, string.format('%.3f', arrival))
    latest = math.max(latest, arrival)
elseif not is_new then
    redis.call('HDEL', KEYS[1], field)
end
if latest > now then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil((latest - now) / 1000) + 1))
end
return {granted, math.ceil(arrival - now), evicted}
";

/// Adds an argument, made from the facts of a call, to its command.
type Write<Facts> = fn(&Facts, &mut Cmd);

/// The arguments of [`ORDER`] in their order: the name of each in the script, and its value.
const ORDER_ARGUMENTS: [(&str, Write<Call>); 7] = [
    ("field", |call, command| {
        command.arg(&call.field[..]);
    }),
    ("interval", |call, command| micros(call.terms.interval, command)),
    ("burst", |call, command| {
        command.arg(call.terms.burst);
    }),
    // The number of tokens that the gateway owes or gives back.
    ("debt", |call, command| {
        command.arg(call.order.debt);
    }),
    // The number of tokens to lease.
    ("want", |call, command| {
        command.arg(call.order.want);
    }),
    // The distance of the arrival time from now, for a bucket that Redis has lost.
    ("ahead", |call, command| micros(call.order.ahead, command)),
    // The maximum of this distance.
    ("most", |call, command| micros(call.ahead_max, command)),
];

/// Adds a gateway to the fleet, removes those that have not been seen for a while, and returns the number of gateways. A
/// gateway that was seen in the future was seen before the clock was set back.
const JOIN_TEXT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, gateway)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - gone)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')
redis.call('PEXPIRE', KEYS[1], gone)
return redis.call('ZCARD', KEYS[1])
";

/// The arguments of [`JOIN`] in their order, as for [`ORDER_ARGUMENTS`].
#[expect(clippy::type_complexity, reason = "a function of any lifetime has no shorter name")]
const JOIN_ARGUMENTS: [(&str, fn(&Sign<'_>, &mut Cmd)); 2] = [
    ("gateway", |sign, command| {
        command.arg(sign.gateway);
    }),
    // The time in milliseconds after which a gateway has left.
    ("gone", |sign, command| {
        command.arg(sign.gone);
    }),
];

static ORDER: LazyLock<Source> =
    LazyLock::new(|| Source::new(ORDER_ARGUMENTS.map(|(name, _)| name), ORDER_TEXT));
static JOIN: LazyLock<Source> =
    LazyLock::new(|| Source::new(JOIN_ARGUMENTS.map(|(name, _)| name), JOIN_TEXT));

/// A script, and the hash by which Redis knows it.
struct Source {
    text: String,
    hash: String,
}

impl Source {
    /// Makes a script whose arguments are local variables.
    fn new<const N: usize>(names: [&str; N], text: &str) -> Self {
        let text = format!("local {} = unpack(ARGV){text}", names.join(", "));
        Self { hash: Script::new(&text).get_hash().to_owned(), text }
    }

    /// Returns the command that runs the script. `write` adds the arguments. The memory is taken at once, because a gateway
    /// may send thousands of commands in a second.
    fn command(&self, key: &[u8], write: impl FnOnce(&mut Cmd)) -> Cmd {
        let mut command = Cmd::with_capacity(4 + ORDER_ARGUMENTS.len(), 128 + key.len() + ARGUMENTS_BYTES);
        command.arg("EVALSHA").arg(&self.hash).arg(1).arg(key);
        write(&mut command);
        command
    }
}

/// The usual length of all arguments.
const ARGUMENTS_BYTES: usize = 96;

/// Adds a time in microseconds, with three decimals.
fn micros(nanos: u64, command: &mut Cmd) {
    let mut text = [0; 24];
    let mut buffer = itoa::Buffer::new();
    let whole = buffer.format(nanos / 1000).as_bytes();
    // The remainder has three digits.
    let digit = |power: u64| b'0' + (nanos / power % 10) as u8;
    let (start, rest) = text.split_at_mut(whole.len());
    start.copy_from_slice(whole);
    rest[..4].copy_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
    command.arg(&text[..whole.len() + 4]);
}

/// A gateway's sign of life.
struct Sign<'s> {
    gateway: &'s str,
    gone: u64,
}

/// An order about one bucket.
#[derive(Clone, Debug)]
pub(in crate::limit) struct Call {
    key: Vec<u8>,
    field: [u8; 16],
    terms: Terms,
    order: Order,
    ahead_max: u64,
}

impl Call {
    /// Creates a call. `prefix` begins the names of the keys of all limits. `ahead_max`: the maximum distance of the
    /// bucket's arrival time from now, in nanoseconds.
    pub(in crate::limit) fn new(
        prefix: &str,
        limit: u64,
        terms: Terms,
        bucket: u64,
        order: Order,
        ahead_max: u64,
    ) -> Self {
        let key = [prefix.as_bytes(), &digits_of(limit), b":", &digits_of(bucket % SETS)[12..]].concat();
        Self { key, field: digits_of(bucket), terms, order, ahead_max }
    }

    /// Returns the first part of the names of the keys of all limits.
    pub(in crate::limit) fn prefix(link: &Link) -> String {
        link.key("limit", "")
    }

    fn command(&self) -> Cmd {
        ORDER.command(&self.key, |command| ORDER_ARGUMENTS.iter().for_each(|(_, write)| write(self, command)))
    }
}

/// The answer to a call.
#[derive(Clone, Copy, Debug)]
pub(in crate::limit) struct Reply {
    pub(in crate::limit) granted: Granted,
    /// Whether an active bucket of another client was evicted.
    pub(in crate::limit) has_evicted: bool,
}

impl Reply {
    /// Reads the answer to a call. Nobody who answers for Redis can grant more than was asked for, or close a bucket for
    /// longer than the limit can.
    fn of(value: &Value, call: &Call) -> RedisResult<Self> {
        let (tokens, ahead, evicted): (i64, i64, i64) = redis::from_redis_value_ref(value)?;
        let granted = Granted {
            tokens: unsigned::<u32>(tokens)?.min(call.order.want),
            ahead: unsigned::<u64>(ahead)?.saturating_mul(1000).min(call.ahead_max),
        };
        Ok(Self { granted, has_evicted: evicted > 0 })
    }
}

/// Reads the bytes of an answer to an order that wants this many tokens. Returns the leased tokens, and the distance of the
/// bucket's arrival time from now in nanoseconds. For the fuzzer.
#[doc(hidden)]
pub fn read_lease(answer: &[u8], want: u32, ahead_max: u64) -> Option<(u32, u64)> {
    let order = Order { debt: 0, want, ahead: 0 };
    let terms = Terms { interval: 1, burst: 1 };
    let call = Call { key: Vec::new(), field: [0; 16], terms, order, ahead_max };
    let reply = Reply::of(&redis::parse_redis_value(answer).ok()?, &call).ok()?;
    Some((reply.granted.tokens, reply.granted.ahead))
}

/// Converts a number of Redis. The library itself cuts numbers off: it would read -1 as 4,294,967,295 tokens.
fn unsigned<T: TryFrom<i64>>(number: i64) -> RedisResult<T> {
    T::try_from(number).map_err(|_| (ErrorKind::UnexpectedReturnType, "a number out of range").into())
}

/// Sends calls together. A call that was not answered has an error in its place.
///
/// # Errors
/// Returns an error if no call was answered.
pub(in crate::limit) async fn send(
    link: &Link,
    calls: &[Call],
) -> Result<Vec<RedisResult<Reply>>, Unanswered> {
    let values = link.call(|connection| send_and_load(connection, calls)).await?;
    let replies = values.into_iter().zip(calls).map(|(value, call)| Reply::of(&value?, call));
    let note = |reply: &RedisResult<Reply>| {
        if let Err(error) = reply {
            link.note_refusal(Command::EvalSha, error);
        }
    };
    Ok(replies.inspect(note).collect())
}

/// Sends one call.
pub(in crate::limit) async fn send_one(link: &Link, call: &Call) -> Result<Reply, Unanswered> {
    run(link, &ORDER, call.command(), |value| Reply::of(value, call)).await
}

/// Says that this gateway is in the fleet. Returns the number of gateways.
pub(super) async fn join(link: &Link, key: &str, gateway: &str, gone: u64) -> Result<u32, Unanswered> {
    let sign = Sign { gateway, gone };
    let write = |command: &mut Cmd| JOIN_ARGUMENTS.iter().for_each(|(_, write)| write(&sign, command));
    let command = JOIN.command(key.as_bytes(), write);
    run(link, &JOIN, command, |value| unsigned(redis::from_redis_value_ref(value)?)).await
}

/// Runs a script, and loads it if Redis does not know it.
async fn run<T>(
    link: &Link,
    script: &Source,
    command: Cmd,
    read: impl Fn(&Value) -> RedisResult<T>,
) -> Result<T, Unanswered> {
    let work = |mut connection| async move {
        let mut answer = command.query_async::<Value>(&mut connection).await;
        if is_unknown_script(&answer) {
            load(&mut connection, script).await?;
            answer = command.query_async::<Value>(&mut connection).await;
        }
        answer.and_then(|value| read(&value)).map_err(|error| Command::EvalSha.failed(error))
    };
    link.call(work).await
}

async fn load(connection: &mut Connection, script: &Source) -> Result<(), CommandError> {
    let load = cmd("SCRIPT").arg("LOAD").arg(&script.text).to_owned();
    let answer = load.query_async::<()>(connection).await;
    answer.map_err(|error| Command::ScriptLoad.failed(error))
}

async fn send_and_load(
    mut connection: Connection,
    calls: &[Call],
) -> Result<Vec<RedisResult<Value>>, CommandError> {
    let mut values = send_all(&mut connection, calls.iter()).await?;
    let missing: Vec<usize> = (0..values.len()).filter(|at| is_unknown_script(&values[*at])).collect();
    if !missing.is_empty() {
        load(&mut connection, &ORDER).await?;
        let again = missing.iter().filter_map(|at| calls.get(*at));
        let again = send_all(&mut connection, again).await?;
        for (at, value) in missing.into_iter().zip(again) {
            values[at] = value;
        }
    }
    match values.first() {
        Some(Err(error)) if values.iter().all(Result::is_err) => Err(Command::EvalSha.failed(error.clone())),
        _ => Ok(values),
    }
}

async fn send_all(
    connection: &mut Connection,
    calls: impl Iterator<Item = &Call>,
) -> Result<Vec<RedisResult<Value>>, CommandError> {
    match connection {
        Connection::One(connection) => {
            let mut pipeline = Pipeline::with_capacity(calls.size_hint().1.unwrap_or_default());
            for call in calls {
                pipeline.add_command(call.command());
            }
            let answer = pipeline.ignore_errors().query_async(connection).await;
            answer.map_err(|error| Command::EvalSha.failed(error))
        }
        // The keys belong to different nodes.
        Connection::Cluster(..) => Ok(send_apart(connection, calls).await),
    }
}

async fn send_apart(connection: &Connection, calls: impl Iterator<Item = &Call>) -> Vec<RedisResult<Value>> {
    let mut values = Vec::new();
    let mut sent = JoinSet::new();
    for (at, call) in calls.enumerate() {
        values.push(Err(RedisError::from((ErrorKind::Client, "no answer"))));
        let (mut connection, command) = (connection.clone(), call.command());
        sent.spawn(async move { (at, command.query_async::<Value>(&mut connection).await) });
    }
    while let Some(answered) = sent.join_next().await {
        if let Ok((at, value)) = answered {
            values[at] = value;
        }
    }
    values
}

fn is_unknown_script(value: &RedisResult<Value>) -> bool {
    matches!(value, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_grants_no_more_than_was_asked_for_and_closes_no_bucket_for_longer_than_the_limit_can() {
        let terms = Terms { interval: 1_000_000, burst: 10 };
        let order = Order { debt: 0, want: 3, ahead: 0 };
        let ahead_max = terms.ahead_max(2);
        let call = Call { key: Vec::new(), field: [0; 16], terms, order, ahead_max };
        let answer = |tokens: i64, ahead: i64| {
            let parts = [tokens, ahead, 0].map(Value::Int);
            Reply::of(&Value::Array(parts.into()), &call).ok().map(|reply| reply.granted)
        };
        assert_eq!(answer(2, 7), Some(Granted { tokens: 2, ahead: 7_000 }));
        assert_eq!(answer(4, 7), Some(Granted { tokens: 3, ahead: 7_000 }));
        assert_eq!(answer(u32::MAX.into(), i64::MAX), Some(Granted { tokens: 3, ahead: ahead_max }));
        for (tokens, ahead) in [(-1, 0), (0, -1), (i64::MAX, 0)] {
            assert_eq!(answer(tokens, ahead), None);
        }
        for strange in [Value::Nil, Value::Okay, Value::Double(f64::NAN), Value::Array(Vec::new())] {
            assert!(Reply::of(&strange, &call).is_err(), "{strange:?}");
        }
    }

    #[test]
    fn the_script_names_its_arguments_in_the_order_in_which_they_are_sent() {
        assert!(
            ORDER.text.starts_with("local field, interval, burst, debt, want, ahead, most = unpack(ARGV)\n")
        );
        let terms = Terms { interval: 1_500, burst: 10 };
        let order = Order { debt: -2, want: 3, ahead: 4_000 };
        let call = Call::new("p:limit:", 0x1f, terms, 0xabc_def0, order, 50_000);
        let sent = String::from_utf8(call.command().get_packed_command()).unwrap();
        let words: Vec<_> = sent.split("\r\n").skip(2).step_by(2).collect();
        let (key, field) = ("p:limit:000000000000001f:def0", "000000000abcdef0");
        assert_eq!(words[2..], ["1", key, field, "1.500", "10", "-2", "3", "4.000", "50.000"]);
    }

    #[test]
    fn a_time_has_all_its_digits() {
        let written = |nanos: u64| {
            let mut command = Cmd::new();
            micros(nanos, &mut command);
            let sent = String::from_utf8(command.get_packed_command()).unwrap();
            sent.split("\r\n").nth(2).unwrap().to_owned()
        };
        for (nanos, text) in [(0, "0.000"), (7, "0.007"), (1_090, "1.090"), (999_999, "999.999")] {
            assert_eq!(written(nanos), text);
        }
        assert_eq!(written(u64::MAX), "18446744073709551.615");
    }
}
