//! Stores the revocations of foreign issuers' tokens, so that all gateways with the same store apply them.

use super::runtime::{Authority, millis};
use crate::authenticate::{Access, Mark, SignalMark};
use crate::clock::Now;
use crate::denial::Denial;
use std::sync::Arc;

impl Authority {
    /// Stores marks and puts them into force.
    ///
    /// # Errors
    /// [`Denial::StoreUnavailable`] if the marks are not stored.
    pub async fn record_signals(self: &Arc<Self>, marks: Vec<SignalMark>, now: Now) -> Result<(), Denial> {
        let Some(place) = self.queue.enter(Access::Authenticated) else {
            return Err(Denial::Overloaded);
        };
        let authority = self.clone();
        self.on_own_thread(async move {
            // Hold the place in the queue until the work is done, even if the caller gives up earlier.
            let _place = place;
            let stored = authority.store.record_signals(&marks, millis(now)).await;
            stored.map_err(|error| authority.unavailable(&error))?;
            let settings = authority.settings.load();
            for mark in marks {
                settings.revoked.mark(&Mark::Signal(mark), u64::from(mark.until));
            }
            Ok(())
        })
        .await
    }
}
