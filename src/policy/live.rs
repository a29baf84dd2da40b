//! Swaps the policy in force: readers see either the old policy or the new one, never a mix.

use super::Policy;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use std::rc::Rc;
use std::sync::Arc;

/// The policy in force.
#[derive(Clone, Debug)]
pub struct LivePolicy(Arc<ArcSwap<Policy>>);

impl LivePolicy {
    /// Creates a holder with a first policy.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(policy)))
    }

    /// Returns the policy in force.
    pub fn load(&self) -> Arc<Policy> {
        self.0.load_full()
    }

    /// Replaces the policy in force by one derived from it. Every request that starts after this returns is decided by
    /// the new policy. `change` may be called again, so that concurrent updates are not lost.
    pub fn update(&self, change: impl FnMut(&Policy) -> Policy) {
        let mut change = change;
        self.0.rcu(|policy| change(policy));
    }

    /// Creates one core's view of the policy in force.
    pub fn pin(&self) -> Pinned {
        let mut live = Cache::new(self.0.clone());
        let current = Rc::new(live.load().clone());
        Pinned { live, current }
    }
}

/// A policy whose references are counted by one core.
#[allow(clippy::redundant_allocation, reason = "the outer count is the point: no other core touches it")]
pub type PinnedPolicy = Rc<Arc<Policy>>;

/// One core's view of the policy in force. Each request counts references on the core's own `Rc`: the shared count of
/// the `Arc` would move between cores with every request.
#[derive(Debug)]
pub struct Pinned {
    live: Cache<Arc<ArcSwap<Policy>>, Arc<Policy>>,
    current: PinnedPolicy,
}

impl Pinned {
    /// Returns the policy in force.
    pub fn current(&mut self) -> PinnedPolicy {
        let live = self.live.load();
        if !Arc::ptr_eq(live, &self.current) {
            self.current = Rc::new(live.clone());
        }
        self.current.clone()
    }
}
