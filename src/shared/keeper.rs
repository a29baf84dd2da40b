//! Keeps a connection to Redis: opens it, checks that it answers, and opens it again.

use super::connect;
use super::link::{Link, Unanswered};
use super::settings::SharedSettings;
use redis::cmd;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::timeout;

/// How often an idle connection is checked.
const CHECKED: Duration = Duration::from_millis(500);
/// The pause after the first failed attempt to connect. It doubles with each attempt.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps a connection open until the link is dropped.
pub(super) async fn keep(link: Weak<Link>) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(link) = link.upgrade() else { return };
        let settings = link.settings();
        match connect::open(&settings, None).await {
            Ok(opened) => {
                link.restore(opened);
                pause = PAUSE_MIN;
                let weak = Arc::downgrade(&link);
                drop(link);
                watch(&weak, &settings).await;
            }
            Err(unopened) => {
                link.health.count(unopened.reason);
                let place = settings.servers.to_string();
                link.health.lose(&place, unopened.reason, &unopened.why, &link.journal);
                // A changed policy may name another server, so it ends the pause.
                let _ = timeout(pause, link.changed.notified()).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
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
            let ping = cmd("PING");
            let checked = link.call(|mut connection| {
                let ping = ping.clone();
                async move { ping.query_async::<redis::Value>(&mut connection).await }
            });
            is_late = matches!(checked.await, Err(Unanswered::Late));
        }
    }
}
