//! Reads the marks of other gateways over a connection of its own, because reading waits for new entries.

use super::super::connect;
use super::super::link::Link;
use super::entry::{self, Found};
use super::stream::{self, Line, START, StreamEntry};
use super::{KEPT_MAX, KIND, MarkExchange, NAME};
use crate::authenticate::{Mark, MarkDigest, SignalMark, mark_seconds};
use crate::clock::Now;
use crate::journal::Level;
use aws_lc_rs::rand;
use std::collections::HashMap;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The time that one reading waits for new entries.
const WAITED: Duration = Duration::from_millis(500);
/// The pause before the next attempt to read.
const PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of marks of the local authority's tokens that are taken from the stream. The store brings more.
const LEARNED_MAX: usize = 2_000_000;
/// A gateway that writes back more marks than this first waits, because another gateway may write the same marks.
const MANY: usize = 1000;
/// The longest of these waits in milliseconds.
const STAGGER: u64 = 3000;

/// The log event when tokens are refused.
pub(in super::super) const UNKNOWN: &str =
    "the revocations of other gateways are unknown: refusing the tokens that signals can revoke";

/// The position up to which a stream was read.
#[derive(Debug)]
struct Position {
    key: String,
    last: String,
}

/// The newest signal's mark for each digest in the stream.
type Seen = HashMap<MarkDigest, (u32, u32)>;

/// Refuses tokens if the reader of marks panics, because the process then no longer reads them.
struct BlindAtPanic(Weak<Link>);

impl Drop for BlindAtPanic {
    fn drop(&mut self) {
        if let (true, Some(link)) = (std::thread::panicking(), self.0.upgrade()) {
            link.marks.stop(&link.settings());
            let event = "the reader of the revocations of other gateways has stopped until a restart";
            link.journal.event(Level::Error, event, &[]);
        }
    }
}

/// Follows the stream until the link is dropped.
pub(in super::super) async fn follow(link: Weak<Link>) {
    let _blind = BlindAtPanic(link.clone());
    let (mut position, mut fails) = (None, false);
    loop {
        let Some(strong) = link.upgrade() else { return };
        judge(&strong);
        if !strong.is_up() {
            let _ = timeout(PAUSE, strong.restored.notified()).await;
            continue;
        }
        let settings = strong.settings();
        let patience = WAITED + settings.answer_timeout + Duration::from_secs(2);
        let opened = match connect::open(&settings, Some(patience)).await {
            Ok(opened) => opened,
            // The keeper logs why there is no connection.
            Err(unopened) => {
                strong.marks.note_fault(Some(unopened.why));
                sleep(PAUSE).await;
                continue;
            }
        };
        drop(strong);
        loop {
            let Some(link) = link.upgrade() else { return };
            let line = Line { link: &link, connection: &opened.connection, settings: &settings };
            if line.is_outdated() {
                break;
            }
            let read = read_on(line, &mut position).await;
            if let Err(why) = &read {
                link.marks.note_fault(Some(why.clone()));
            }
            // One line for each outage.
            let failed_before = std::mem::replace(&mut fails, read.is_err());
            if let Err(why) = &read
                && !failed_before
            {
                let fields = [("error", why.as_str())];
                link.journal.event(Level::Warn, "cannot read the revocations of other gateways", &fields);
            }
            judge(&link);
            if read.is_err() {
                sleep(PAUSE).await;
                break;
            }
        }
    }
}

/// Refuses or accepts tokens by the state of the marks, and logs a change.
fn judge(link: &Link) {
    match link.marks.judge(&link.settings()) {
        Some(true) => link.journal.event(Level::Error, UNKNOWN, &[]),
        Some(false) if link.marks.is_complete() => {
            link.journal.event(Level::Info, "the revocations of other gateways are known", &[]);
        }
        Some(false) | None => {}
    }
}

/// Reads the next entries, or all of them if some were missed.
async fn read_on(line: Line<'_>, position: &mut Option<Position>) -> Result<(), String> {
    let exchange = &line.link.marks;
    let key = line.link.key(KIND, NAME);
    let has_room_again = exchange.lacks_room.load(Ordering::Relaxed)
        && exchange.followed.load().revoked.signals().has_room(stream::PAGE);
    let must_compare = exchange.must_compare.swap(false, Ordering::Relaxed) || has_room_again;
    let known = position.take().filter(|known| known.key == key && !must_compare);
    let Some(mut known) = known else {
        let last = compare(line, &key).await.inspect_err(|_| {
            exchange.must_compare.fetch_or(must_compare, Ordering::Relaxed);
        })?;
        *position = Some(Position { key, last });
        return Ok(());
    };
    let page = stream::wait_after(line, &key, &known.last, WAITED).await?;
    // The page may come from a server that has replaced another without its last entries. The entry at the last
    // position is then gone, too.
    let is_gapless = known.last == START || stream::has(line, &key, &known.last).await?;
    let last = take(exchange, page, None)?;
    if is_gapless {
        if let Some(last) = last {
            known.last = last;
        }
        exchange.note_heard();
        *position = Some(known);
    }
    Ok(())
}

/// Reads the whole stream, and writes back the marks of signals that it does not have. Returns the last position.
async fn compare(line: Line<'_>, key: &str) -> Result<String, String> {
    let exchange = &line.link.marks;
    let mut seen = Seen::new();
    exchange.newest.store(0, Ordering::Relaxed);
    let without_room = exchange.without_room.load(Ordering::Relaxed);
    let mut last = read_to_end(line, key, START.to_owned(), &mut seen).await?;
    if exchange.without_room.load(Ordering::Relaxed) == without_room {
        exchange.lacks_room.store(false, Ordering::Relaxed);
    }
    exchange.note_heard();
    let mut missing = missing(exchange, &seen);
    if missing.len() > MANY {
        let mut random = [0; 8];
        // Without random numbers, the gateway waits for the longest time.
        let _ = rand::fill(&mut random);
        sleep(Duration::from_millis(STAGGER - u64::from_le_bytes(random) % STAGGER)).await;
        last = read_to_end(line, key, last, &mut seen).await?;
        missing.retain(|mark| !covers(&seen, mark));
    }
    if missing.is_empty() {
        return Ok(last);
    }
    let now = Now::read().unix;
    for batch in missing.chunks(stream::PAGE) {
        let texts: Vec<_> = batch
            .iter()
            .inspect(|mark| exchange.retain(now, u64::from(mark.until)))
            .filter_map(|mark| entry::write(&Mark::Signal(*mark), u64::from(mark.until), None))
            .collect();
        stream::send(line, &stream::add(key, texts.iter().map(String::as_str), None)).await?;
        exchange.counts.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
    let fields = [("marks", missing.len().into())];
    line.link.journal.event_with(
        Level::Warn,
        "the shared state lacked revocations: they were written back",
        &fields,
    );
    Ok(last)
}

async fn read_to_end(line: Line<'_>, key: &str, mut last: String, seen: &mut Seen) -> Result<String, String> {
    loop {
        let page = stream::after(line, key, &last).await?;
        let is_end = page.len() < stream::PAGE;
        if let Some(end) = take(&line.link.marks, page, Some(seen))? {
            last = end;
        }
        if is_end {
            return Ok(last);
        }
        // A server can send full pages without end, and the marks are unknown meanwhile.
        judge(line.link);
        if line.is_outdated() {
            return Err("the policy names another server".to_owned());
        }
    }
}

/// Returns the known marks of signals that the stream does not have.
fn missing(exchange: &MarkExchange, seen: &Seen) -> Vec<SignalMark> {
    let now = Now::read().unix;
    let mut missing = Vec::new();
    exchange.followed.load().revoked.signals().for_each(|mark| {
        if u64::from(mark.until) > now && !covers(seen, &mark) {
            missing.push(mark);
        }
    });
    missing
}

fn covers(seen: &Seen, mark: &SignalMark) -> bool {
    seen.get(&mark.digest).is_some_and(|(before, until)| *before >= mark.before && *until >= mark.until)
}

/// Applies the entries of a page. Returns the position of the last one.
fn take(
    exchange: &MarkExchange,
    page: Vec<StreamEntry>,
    seen: Option<&mut Seen>,
) -> Result<Option<String>, String> {
    apply(exchange, &page, seen);
    if let Some(added) = page.last().and_then(StreamEntry::added) {
        exchange.newest.store(added, Ordering::Relaxed);
    }
    match page.into_iter().next_back() {
        Some(last) if last.is_final() => {
            Err("the stream has the last possible entry, so it takes no more: delete it".to_owned())
        }
        last => Ok(last.map(|last| last.id)),
    }
}

/// Applies the entries of a page.
fn apply(exchange: &MarkExchange, page: &[StreamEntry], mut seen: Option<&mut Seen>) {
    let followed = exchange.followed.load();
    let (revoked, now) = (&followed.revoked, Now::read().unix);
    for found in page {
        let read = found
            .text
            .as_deref()
            .map_or(Found::Unreadable, |text| entry::read(text, followed.issuer.as_ref()));
        let (mark, until) = match read {
            Found::Mark(mark, until) => (mark, until),
            Found::Foreign => continue,
            Found::Unreadable => {
                exchange.counts.rejected.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        if let Some(added) = found.added() {
            exchange.retain(added, until);
        }
        if until <= now {
            continue;
        }
        // Nobody who writes to Redis may fill the memory, for any time.
        let (has_room, mark, until) = match mark {
            Mark::Signal(mark) => {
                let has_room = revoked.signals().covers(&mark) || revoked.signals().has_room(1);
                if !has_room {
                    exchange.without_room.fetch_add(1, Ordering::Relaxed);
                    exchange.lacks_room.store(true, Ordering::Relaxed);
                }
                if let Some(seen) = seen.as_deref_mut().filter(|_| has_room) {
                    let known = seen.entry(mark.digest).or_default();
                    *known = (known.0.max(mark.before), known.1.max(mark.until));
                }
                let until = until.min(now.saturating_add(KEPT_MAX));
                (has_room, Mark::Signal(SignalMark { until: mark_seconds(until), ..mark }), until)
            }
            mark @ (Mark::Token(_) | Mark::Session(_) | Mark::Account { .. }) => {
                (revoked.len() < LEARNED_MAX, mark, until.min(revoked.kept_until(now)))
            }
        };
        if !has_room {
            exchange.counts.rejected.fetch_add(1, Ordering::Relaxed);
        } else if revoked.learn(&mark, until) {
            exchange.counts.received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Followed;
    use super::*;
    use crate::authenticate::{Revoked, SIGNAL_MARKS_MAX};
    use std::sync::Arc;

    fn signal(number: usize, until: u32) -> Mark {
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Mark::Signal(SignalMark { digest, before: 1, until })
    }

    #[test]
    fn the_marks_count_as_unknown_once_one_has_no_room() {
        let revoked = Arc::new(Revoked::default());
        let until = mark_seconds(Now::read().unix + 3600);
        for number in 0..SIGNAL_MARKS_MAX {
            revoked.learn(&signal(number, until), until.into());
        }
        let exchange = MarkExchange::new(Followed { revoked, issuer: None, has_store: false });
        exchange.note_heard();
        let entry = |number| {
            let text = entry::write(&signal(number, until), until.into(), None);
            StreamEntry { id: "1-1".to_owned(), text }
        };
        apply(&exchange, &[entry(0)], None);
        assert!(exchange.is_complete(), "a known mark needs no room");
        apply(&exchange, &[entry(SIGNAL_MARKS_MAX)], None);
        assert!(!exchange.is_complete());
    }
}
