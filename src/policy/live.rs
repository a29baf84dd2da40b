//! Replaces the current policy atomically.

use super::Policy;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use std::rc::Rc;
use std::sync::Arc;

/// The current policy. Clones share the same policy.
#[derive(Clone, Debug)]
pub struct LivePolicy(Arc<ArcSwap<Policy>>);

impl LivePolicy {
    /// Creates a live policy.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(policy)))
    }

    /// Returns the current policy.
    pub fn load(&self) -> Arc<Policy> {
        self.0.load_full()
    }

    /// Replaces the current policy with the result of `change`. Requests that start after this method returns use the
    /// new policy. `change` is called again if another update happens at the same time.
    pub fn update(&self, change: impl FnMut(&Policy) -> Policy) {
        let mut change = change;
        self.0.rcu(|policy| change(policy));
    }

    /// Creates a core's view of the current policy.
    pub fn pin(&self) -> Pinned {
        let mut live = Cache::new(self.0.clone());
        let current = Rc::new(live.load().clone());
        Pinned { live, current }
    }
}

/// A policy with a second reference count that only one core uses.
#[allow(clippy::redundant_allocation, reason = "the outer count is the point: no other core touches it")]
pub type PinnedPolicy = Rc<Arc<Policy>>;

/// One core's view of the current policy. Each request changes only the reference count of the core's `Rc`. With the
/// shared count of the `Arc`, a cache line would move between cores in each request.
#[derive(Debug)]
pub struct Pinned {
    live: Cache<Arc<ArcSwap<Policy>>, Arc<Policy>>,
    current: PinnedPolicy,
}

impl Pinned {
    /// Returns the current policy.
    pub fn current(&mut self) -> PinnedPolicy {
        let live = self.live.load();
        if !Arc::ptr_eq(live, &self.current) {
            self.current = Rc::new(live.clone());
        }
        self.current.clone()
    }
}
