//! Replaces the policy in force atomically: a reader sees either the old policy or the new one.

use super::Policy;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use std::rc::Rc;
use std::sync::Arc;

/// The policy in force. Clones share the same policy.
#[derive(Clone, Debug)]
pub struct LivePolicy(Arc<ArcSwap<Policy>>);

impl LivePolicy {
    /// Puts the first policy in force.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(policy)))
    }

    /// Returns the policy in force.
    pub fn load(&self) -> Arc<Policy> {
        self.0.load_full()
    }

    /// Replaces the policy in force with a policy that `change` derives from it. Every request that starts after this
    /// method returns is decided by the new policy. If another update happens at the same time, `change` is called
    /// again with the result of that update.
    pub fn update(&self, change: impl FnMut(&Policy) -> Policy) {
        let mut change = change;
        self.0.rcu(|policy| change(policy));
    }

    /// Creates the view of the policy in force for one core.
    pub fn pin(&self) -> Pinned {
        let mut live = Cache::new(self.0.clone());
        let current = Rc::new(live.load().clone());
        Pinned { live, current }
    }
}

/// A policy with an additional reference count. Only one core uses this count.
#[allow(clippy::redundant_allocation, reason = "the outer count is the point: no other core touches it")]
pub type PinnedPolicy = Rc<Arc<Policy>>;

/// One core's view of the policy in force. Each request changes the reference count of the core's own `Rc`. If it
/// changed the shared count of the `Arc`, the count's cache line would move between cores with every request.
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
