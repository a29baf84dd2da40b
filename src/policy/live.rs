//! The one place where a policy is swapped: readers see an old one or a new one, never a mix.

use super::Policy;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use std::rc::Rc;
use std::sync::Arc;

/// The policy in force.
#[derive(Clone, Debug)]
pub struct LivePolicy(Arc<ArcSwap<Policy>>);

impl LivePolicy {
    /// Puts a first policy in force.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(policy)))
    }

    /// The policy in force now.
    pub fn load(&self) -> Arc<Policy> {
        self.0.load_full()
    }

    /// Puts a policy in force that is made out of the one in force. Each request that begins after this returns is decided
    /// by it. Of two such changes at once none is lost: `change` may be called again.
    pub fn update(&self, change: impl FnMut(&Policy) -> Policy) {
        let mut change = change;
        self.0.rcu(|policy| change(policy));
    }

    /// One core's view of it.
    pub fn pin(&self) -> Pinned {
        let mut live = Cache::new(self.0.clone());
        let current = Rc::new(live.load().clone());
        Pinned { live, current }
    }
}

/// A policy, counted by one core alone.
#[allow(clippy::redundant_allocation, reason = "the outer count is the point: no other core touches it")]
pub type PinnedPolicy = Rc<Arc<Policy>>;

/// One core's view of the policy in force. A request counts references of its core's own `Rc`: the shared count of
/// the `Arc` would pass between cores with each request.
#[derive(Debug)]
pub struct Pinned {
    live: Cache<Arc<ArcSwap<Policy>>, Arc<Policy>>,
    current: PinnedPolicy,
}

impl Pinned {
    /// The policy in force now.
    pub fn current(&mut self) -> PinnedPolicy {
        let live = self.live.load();
        if !Arc::ptr_eq(live, &self.current) {
            self.current = Rc::new(live.clone());
        }
        self.current.clone()
    }
}
