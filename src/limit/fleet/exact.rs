//! Asks the fleet about one request, for limits that are exact.

use super::script::{self, Call};
use crate::limit::charge::Charge;
use crate::limit::lease::table::LeaseTable;
use crate::limit::lease::{Granted, Order};
use crate::shared::{Link, Unanswered};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Takes one token from the fleet's bucket.
///
/// # Errors
/// Returns an error if the shared state does not answer before its deadline. It may have charged the request.
pub(in crate::limit) async fn ask(
    link: Option<&Link>,
    table: &LeaseTable,
    key: u64,
) -> Result<Charge, Unanswered> {
    let link = link.ok_or(Unanswered::Down)?;
    let order = Order { debt: 0, want: 1, ahead: table.ahead(key, table.now()) };
    // No gateway owes tokens of an exact limit.
    let prefix = Call::prefix(link);
    let call = Call::new(&prefix, table.identity, table.terms, key, order, table.terms.window());
    let answer = script::send_one(link, &call).await;
    let counts = &table.fleet().counts;
    if answer.is_err() {
        counts.failed.fetch_add(1, Ordering::Relaxed);
    }
    let reply = answer?;
    counts.reports.fetch_add(1, Ordering::Relaxed);
    if reply.has_evicted {
        counts.displaced.fetch_add(1, Ordering::Relaxed);
    }
    // The local copy decides if the next question has no answer.
    let Granted { tokens, ahead } = reply.granted;
    let now = table.now();
    table.learn(key, ahead, now);
    let terms = table.terms;
    Ok(match tokens {
        0 => {
            let wait = ahead.saturating_add(terms.interval).saturating_sub(terms.window());
            Charge::Refused { wait: Duration::from_nanos(wait.max(1)) }
        }
        _ => {
            let remaining = terms.free(ahead, 0);
            Charge::Admitted { remaining, next: Duration::from_nanos(terms.interval) }
        }
    })
}
