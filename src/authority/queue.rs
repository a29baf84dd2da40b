//! Bounds the requests that wait for the authority's thread.
//!
//! Each waiting request uses memory, and later a connection of the store. Requests with a valid access token have a
//! separate limit, so that users can log out during a flood of requests without tokens.

use crate::authenticate::Access;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum number of requests without a token that wait or are in progress. It exceeds the number of passwords that
/// may wait for hashing. A store on a slow disk processes 256 requests in a few seconds.
const ANYBODY: usize = 256;
/// The maximum number of requests with a valid access token that wait or are in progress.
const CALLERS: usize = 64;

/// The places in the queue.
#[derive(Debug)]
pub struct Queue {
    anybody: Arc<Semaphore>,
    callers: Arc<Semaphore>,
    shed: AtomicU64,
}

/// A place in the queue, released on drop.
#[derive(Debug)]
pub(super) struct Place(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Queue {
    pub(super) fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { anybody: places(ANYBODY), callers: places(CALLERS), shed: AtomicU64::new(0) }
    }

    /// Takes a place for a request to an endpoint with this access. Returns `None` if all places are taken.
    pub(super) fn enter(&self, access: Access) -> Option<Place> {
        let places = match access {
            Access::Authenticated => &self.callers,
            Access::Public | Access::Optional => &self.anybody,
        };
        let place = places.clone().try_acquire_owned().ok().map(Place);
        if place.is_none() {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// Returns the number of requests that wait or are in progress.
    pub fn waiting(&self) -> usize {
        ANYBODY + CALLERS - self.anybody.available_permits() - self.callers.available_permits()
    }

    /// Returns the number of requests that were refused because all places were taken.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_fill_their_own_places_alone() {
        let queue = Queue::new();
        let strangers: Vec<Place> = std::iter::from_fn(|| queue.enter(Access::Public)).collect();
        assert_eq!((strangers.len(), queue.waiting(), queue.shed()), (ANYBODY, ANYBODY, 1));
        let callers: Vec<Place> = std::iter::from_fn(|| queue.enter(Access::Authenticated)).collect();
        assert_eq!((callers.len(), queue.waiting(), queue.shed()), (CALLERS, ANYBODY + CALLERS, 2));
        drop(strangers);
        assert_eq!(queue.waiting(), CALLERS);
        assert!(queue.enter(Access::Public).is_some(), "a place that was left is free");
        assert!(queue.enter(Access::Authenticated).is_none());
    }
}
