//! Keeps a connection to Redis: opens it, checks that it answers, and opens it again.

use super::connect;
use super::link::{Link, Unanswered};
use super::refusals::Command;
use super::settings::SharedSettings;
use crate::journal::Level;
use redis::cmd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::time::{timeout, timeout_at};

/// The interval at which an idle connection is checked.
const CHECKED: Duration = Duration::from_millis(500);
/// The pause after the first failed attempt to connect. It doubles with each attempt.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps a connection open until the link is dropped.
pub(super) async fn keep(link: Weak<Link>) {
    let mut pause = PAUSE_MIN;
    let mut passed_over = None;
    loop {
        let Some(strong) = link.upgrade() else { return };
        let settings = strong.settings();
        match connect::open(&settings, None).await {
            Ok(opened) => {
                if opened.passed_over.is_some() && opened.passed_over != passed_over {
                    let fields = [("error", opened.passed_over.as_deref().unwrap_or_default())];
                    strong.journal.event(Level::Warn, "a Sentinel names no server that can be used", &fields);
                }
                passed_over.clone_from(&opened.passed_over);
                strong.restore(opened);
                drop(strong);
                let begun = Instant::now();
                watch(&link, &settings).await;
                // A server that answers and then fails each time must not keep the gateway busy.
                if begun.elapsed() >= PAUSE_MAX {
                    pause = PAUSE_MIN;
                    continue;
                }
            }
            Err(unopened) => {
                strong.health.count(unopened.reason);
                let place = settings.servers.to_string();
                strong.health.lose(&place, unopened.reason, &unopened.why, &strong.journal);
            }
        }
        let Some(link) = link.upgrade() else { return };
        let end = tokio::time::Instant::now() + pause;
        // A changed policy may name another server, so it ends the pause.
        while link.settings().shares_connection(&settings)
            && timeout_at(end, link.changed.notified()).await.is_ok()
        {}
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Checks the connection until it is lost, or the policy asks for another.
async fn watch(link: &Weak<Link>, settings: &Arc<SharedSettings>) {
    let mut is_late = false;
    loop {
        let Some(link) = link.upgrade() else { return };
        if !link.is_up() {
            return;
        }
        if !link.settings().shares_connection(settings) {
            return link.close();
        }
        // A late answer is checked again at once, so that a frozen server is noticed soon.
        if is_late || timeout(CHECKED, link.changed.notified()).await.is_err() {
            let checked = link.call(|mut connection| async move {
                let answer = cmd("PING").query_async::<redis::Value>(&mut connection).await;
                answer.map_err(|error| Command::Ping.failed(error))
            });
            is_late = matches!(checked.await, Err(Unanswered::Late));
        }
    }
}
