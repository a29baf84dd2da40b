//! Sends the new marks of this gateway.

use super::super::link::Link;
use super::super::refusals::Command;
use super::{KIND, NAME, entry, stream};
use crate::clock::Now;
use crate::journal::Level;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The maximum number of marks that are sent at once.
const BATCH: usize = 500;
/// The pause before marks are sent again.
const PAUSE: Duration = Duration::from_millis(50);
/// The time that the task waits for a new mark before it looks whether the policy has changed.
const WAITED: Duration = Duration::from_millis(500);

/// Sends marks until the link is dropped. A mark that may have been sent before is sent again, which changes nothing.
pub(in super::super) async fn publish(link: Weak<Link>) {
    let mut fails = false;
    loop {
        let Some(strong) = link.upgrade() else { return };
        let followed = strong.marks.followed.load_full();
        let news = followed.revoked.signals().news();
        if news.take_overflow() {
            strong.marks.must_compare.store(true, Ordering::Relaxed);
        }
        let batch = news.take(BATCH);
        let key = strong.key(KIND, NAME);
        if batch.is_empty() {
            drop(strong);
            let _ = timeout(WAITED, news.arrived()).await;
            continue;
        }
        let now = Now::read().unix;
        let oldest = strong.marks.oldest(now);
        let texts: Vec<_> = batch
            .iter()
            .filter_map(|(mark, until)| entry::write(mark, *until, followed.issuer.as_ref()))
            .collect();
        let commands = stream::add(&key, texts.iter().map(String::as_str), oldest);
        let sent = strong
            .call(|mut connection| async move {
                let answer = commands.query_async::<()>(&mut connection).await;
                answer.map_err(|error| Command::XAdd.failed(error))
            })
            .await;
        match sent {
            Ok(()) => {
                batch.iter().for_each(|(_, until)| strong.marks.retain(now, *until));
                strong.marks.counts.sent.fetch_add(texts.len() as u64, Ordering::Relaxed);
                fails = false;
            }
            Err(why) => {
                news.put_back(batch);
                if strong.is_up() && !std::mem::replace(&mut fails, true) {
                    let fields = [("error", &*why.to_string())];
                    let event = "revocations cannot be sent to other gateways";
                    strong.journal.event(Level::Error, event, &fields);
                }
                if !strong.is_up() {
                    let _ = timeout(WAITED, strong.restored.notified()).await;
                } else {
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
