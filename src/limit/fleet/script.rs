//! The fleet's buckets in Redis or Valkey.
//!
//! A key in Redis holds up to eight buckets of a limit, so a limit has at most 65,536 keys, whatever clients send. A key
//! expires when its last bucket is full. The names of keys and fields are keyed hashes of the clients' data.

use super::super::lease::{Granted, Order, Terms};
use crate::shared::{Connection, Link};
use redis::{ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value};
use std::sync::{Arc, LazyLock};
use tokio::task::JoinSet;

/// The number of keys of a limit in Redis.
const SETS: u64 = 1 << 16;

/// Charges a bucket, and leases tokens from it, by the clock of Redis in microseconds since a day in 2025. Redis runs the
/// script as a whole. Arguments: field, interval, burst, debt, wanted tokens, and the arrival time of a lost bucket.
///
/// Returns the number of leased tokens, the distance of the arrival time from now, and whether an active bucket was
/// evicted.
static ORDER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = (time[1] - 1750000000) * 1000000 + time[2]
local field, interval, burst = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local arrival, least, latest, count = nil, nil, now, 0
local buckets = redis.call('HGETALL', KEYS[1])
local at_least
for i = 1, #buckets, 2 do
    local at = tonumber(buckets[i + 1])
    if buckets[i] == field then
        arrival = at
    elseif at <= now then
        redis.call('HDEL', KEYS[1], buckets[i])
    else
        count = count + 1
        if at > latest then latest = at end
        if not at_least or at < at_least then least, at_least = buckets[i], at end
    end
end
local is_new = not arrival
arrival = math.max(arrival or now + tonumber(ARGV[6]), now)
arrival = math.max(arrival + tonumber(ARGV[4]) * interval, now)
local free = math.max(math.floor((now + burst * interval - arrival) / interval + 0.001), 0)
local granted = math.min(tonumber(ARGV[5]), free)
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
",
    )
});

/// Adds a gateway to the fleet, removes those that have not been seen for a while, and returns the number of gateways.
/// Arguments: the gateway, and the time in milliseconds after which a gateway has left.
static JOIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
",
    )
});

/// An order about one bucket.
#[derive(Clone, Debug)]
pub(in crate::limit) struct Call {
    key: String,
    field: String,
    interval: String,
    burst: u32,
    order: Order,
}

impl Call {
    pub(in crate::limit) fn new(link: &Link, limit: u64, terms: &Terms, bucket: u64, order: Order) -> Self {
        Self {
            key: link.key("limit", &format!("{limit:016x}:{:04x}", bucket % SETS)),
            field: format!("{bucket:016x}"),
            interval: format!("{}.{:03}", terms.interval / 1000, terms.interval % 1000),
            burst: terms.burst,
            order,
        }
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
    fn of(value: &Value) -> RedisResult<Self> {
        let (tokens, ahead, evicted): (u32, u64, u8) = redis::from_redis_value_ref(value)?;
        let granted = Granted { tokens, ahead: ahead.saturating_mul(1000) };
        Ok(Self { granted, has_evicted: evicted > 0 })
    }
}

/// Sends calls together. A call that was not answered has an error in its place.
///
/// # Errors
/// Returns an error if no call was answered.
pub(in crate::limit) async fn send(
    mut connection: Connection,
    calls: Vec<Call>,
) -> RedisResult<Vec<RedisResult<Reply>>> {
    let replies = match &mut connection {
        Connection::One(_) => send_together(&mut connection, &calls).await?,
        // The keys belong to different nodes.
        Connection::Cluster(_) => send_apart(&connection, calls).await,
    };
    if replies.iter().all(Result::is_err) {
        let first = replies.into_iter().next();
        return first.map_or(Ok(Vec::new()), |reply| reply.map(|reply| vec![Ok(reply)]));
    }
    Ok(replies)
}

async fn send_together(connection: &mut Connection, calls: &[Call]) -> RedisResult<Vec<RedisResult<Reply>>> {
    let mut values = pipeline(calls).query_async::<Vec<RedisResult<Value>>>(connection).await?;
    if values.iter().any(is_unknown_script) {
        ORDER.load_async(connection).await?;
        let missing: Vec<usize> = (0..values.len()).filter(|at| is_unknown_script(&values[*at])).collect();
        let again: Vec<Call> = missing.iter().map(|at| calls[*at].clone()).collect();
        let answers = pipeline(&again).query_async::<Vec<RedisResult<Value>>>(connection).await?;
        for (at, answer) in missing.into_iter().zip(answers) {
            values[at] = answer;
        }
    }
    Ok(values.into_iter().map(|value| Reply::of(&value?)).collect())
}

fn pipeline(calls: &[Call]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        let command = pipeline.cmd("EVALSHA").arg(ORDER.get_hash()).arg(1).arg(&call.key).arg(&call.field);
        command.arg(&call.interval).arg(call.burst).arg(call.order.debt).arg(call.order.want);
        command.arg(call.order.ahead / 1000);
    }
    pipeline.ignore_errors();
    pipeline
}

fn is_unknown_script(value: &RedisResult<Value>) -> bool {
    matches!(value, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}

async fn send_apart(connection: &Connection, calls: Vec<Call>) -> Vec<RedisResult<Reply>> {
    let mut replies: Vec<_> =
        calls.iter().map(|_| Err(RedisError::from((ErrorKind::Client, "no answer")))).collect();
    let mut sent = JoinSet::new();
    for (at, call) in calls.into_iter().enumerate() {
        let connection = connection.clone();
        sent.spawn(async move { (at, send_one(connection, call).await) });
    }
    while let Some(answered) = sent.join_next().await {
        if let Ok((at, reply)) = answered {
            replies[at] = reply;
        }
    }
    replies
}

/// Sends one call.
pub(in crate::limit) async fn send_one(mut connection: Connection, call: Call) -> RedisResult<Reply> {
    let mut invocation = ORDER.prepare_invoke();
    invocation.key(call.key).arg(call.field).arg(call.interval).arg(call.burst);
    invocation.arg(call.order.debt).arg(call.order.want).arg(call.order.ahead / 1000);
    Reply::of(&invocation.invoke_async::<Value>(&mut connection).await?)
}

/// Says that this gateway is in the fleet. Returns the number of gateways.
pub(super) async fn join(
    mut connection: Connection,
    key: String,
    gateway: Arc<str>,
    gone: u64,
) -> RedisResult<u32> {
    JOIN.prepare_invoke().key(key).arg(&*gateway).arg(gone).invoke_async(&mut connection).await
}
