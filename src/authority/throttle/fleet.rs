//! The counters of failed logins that gateways share in Redis or Valkey.
//!
//! A counter is one key, which expires once its failures are forgotten. The names of the keys are MACs, so Redis holds no
//! account and no address. The script bounds every number that it reads, so neither a foreign value nor a clock that
//! moves back causes a longer delay than the throttle's own.

use super::{ACCOUNT, ADDRESS, Attempt, PAIR, Pace};
use crate::hex;
use crate::peer::network;
use crate::shared::{Command, CommandError, Connection, Link, Unanswered};
use aws_lc_rs::hmac;
use redis::Script;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The kind of the keys. The braces are a hash tag: a cluster keeps all counters at one node, because one script decides
/// about all counters of an attempt.
const KIND: &str = "{login}";
/// The length of a key's name, in bytes of the MAC.
const NAME: usize = 16;

/// Admits an attempt if each of its counters does, or changes the counters of an attempt that has ended. Redis runs the
/// script as a whole. It has one key for each counter, with five arguments: the action, and the pace in milliseconds.
///
/// A value has the time at which it was written, the time left until its last failure is forgotten, and the delay left. A
/// clock that moves back only stops these times until the next attempt. An unreadable value counts as the most failures.
///
/// Returns the wait in milliseconds, and 0 if the attempt is admitted.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counters, wait = {}, 0
local function bounded(digits, most)
    local number = tonumber(digits)
    return number and number <= most and number or most
end
for i, key in ipairs(KEYS) do
    local c = { act = ARGV[5 * i - 4], gone = 0, next = 0 }
    c.forget, c.most = tonumber(ARGV[5 * i - 3]), tonumber(ARGV[5 * i - 2])
    c.free, c.longest = tonumber(ARGV[5 * i - 1]), tonumber(ARGV[5 * i])
    local value = redis.pcall('GETRANGE', key, 0, 63)
    if type(value) == 'table' and not string.find(value.err, 'WRONGTYPE', 1, true) then
        return value
    end
    if value ~= '' then
        local text = type(value) == 'string' and value or ''
        local at, gone, next = string.match(text, '^(%d+) (%d+) (%d+)$')
        local passed = at and now - tonumber(at) or -1
        c.is_odd = passed < 0
        passed = math.max(passed, 0)
        c.gone = math.max(bounded(gone, c.most * c.forget) - passed, 0)
        c.next = math.max(bounded(next, c.longest) - passed, 0)
    end
    if c.act == 'try' then
        wait = math.max(wait, c.next, c.gone - c.forget * (c.most - 1))
    end
    counters[i] = c
end
for i, key in ipairs(KEYS) do
    local c = counters[i]
    if c.act == 'clear' then
        c.gone, c.next = 0, 0
    elseif c.act == 'back' then
        c.gone = math.max(c.gone - c.forget, 0)
    elseif wait == 0 then
        c.gone = c.gone + c.forget
        local over = math.ceil(c.gone / c.forget) - c.free
        c.next = over >= 0 and math.min(1000 * 2 ^ math.min(over, 30), c.longest) or 0
    end
    local left = math.max(c.gone, c.next)
    if left == 0 then
        redis.call('DEL', key)
    elseif wait == 0 or c.is_odd then
        local value = string.format('%.0f %.0f %.0f', now, c.gone, c.next)
        redis.call('SET', key, value, 'PX', string.format('%.0f', left))
    end
end
return wait
",
    )
});

/// An action on one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Counts a failure, if all counters admit the attempt.
    Try,
    /// Takes one failure back. A running delay continues.
    TakeBack,
    /// Forgets all failures.
    Clear,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Try => "try",
            Self::TakeBack => "back",
            Self::Clear => "clear",
        }
    }
}

/// The counters of one attempt in Redis: pair, account, address. An attempt from a known address has only the counter of
/// the pair.
#[derive(Debug)]
pub(super) struct FleetCounters {
    link: Arc<Link>,
    counters: Vec<(String, Pace)>,
}

impl FleetCounters {
    /// Names the counters of an attempt to log in at this issuer.
    pub(super) fn new(link: Arc<Link>, issuer: &str, attempt: &Attempt<'_>) -> Self {
        let settings = link.settings();
        let password = settings.login.password.as_ref().map_or("", |password| password.as_str());
        let secret = hmac::Key::new(hmac::HMAC_SHA256, password.as_bytes());
        let name = |parts: &[&str]| {
            let mut mac = hmac::Context::with_key(&secret);
            for part in ["portcullis: failed logins", &*settings.prefix, issuer].iter().chain(parts) {
                // With the lengths, no two lists of parts have the same bytes.
                mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                mac.update(part.as_bytes());
            }
            let mac = mac.sign();
            link.key(KIND, &hex::text(&mac.as_ref()[..NAME]))
        };
        let address = network(attempt.address).to_string();
        let mut counters = vec![(name(&["pair", attempt.account, &address]), PAIR)];
        if !attempt.known {
            counters.push((name(&["account", attempt.account]), ACCOUNT));
            counters.push((name(&["address", &address]), ADDRESS));
        }
        Self { link, counters }
    }

    /// Counts the attempt, or returns how long to wait. The call ends within the deadline of the shared state.
    ///
    /// # Errors
    /// Returns an error if the shared state does not answer. It may have counted the attempt.
    pub(super) async fn try_attempt(&self) -> Result<Option<Duration>, Unanswered> {
        let script = script(&self.counters, [Action::Try; 3]);
        let wait = self.link.call(|connection| run(connection, script)).await?;
        let longest = PAIR.forget.max(ADDRESS.longest);
        Ok(Some(Duration::from_millis(wait).min(longest)).filter(|wait| !wait.is_zero()))
    }

    /// Forgets the failures of the account and of the pair. `is_counted`: whether the attempt was counted, so that the
    /// address gets it back. No login waits for the answer.
    pub(super) fn succeeded(mut self, is_counted: bool) {
        if !is_counted {
            self.counters.truncate(2);
        }
        self.settle([Action::Clear, Action::Clear, Action::TakeBack]);
    }

    /// Takes back an attempt that was counted. No login waits for the answer.
    pub(super) fn withdrawn(self) {
        self.settle([Action::TakeBack; 3]);
    }

    /// Changes the counters in the background. If the shared state does not answer, they keep the failures.
    fn settle(self, actions: [Action; 3]) {
        let (link, counters) = (Arc::downgrade(&self.link), self.counters);
        drop(self.link.spawn(async move {
            let Some(link) = link.upgrade() else { return };
            let script = script(&counters, actions);
            // The link counts the failure.
            let _ = link.call(|connection| run(connection, script)).await;
        }));
    }
}

fn script(counters: &[(String, Pace)], actions: [Action; 3]) -> redis::ScriptInvocation<'static> {
    let mut invocation = COUNT.prepare_invoke();
    for ((key, pace), action) in counters.iter().zip(actions) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        invocation.key(key).arg(action.as_str()).arg(millis(pace.forget)).arg(pace.most);
        invocation.arg(pace.free).arg(millis(pace.longest));
    }
    invocation
}

async fn run(
    mut connection: Connection,
    script: redis::ScriptInvocation<'static>,
) -> Result<u64, CommandError> {
    let wait = script.invoke_async(&mut connection).await;
    wait.map_err(|error| Command::EvalSha.failed(error))
}

#[cfg(test)]
mod tests;
