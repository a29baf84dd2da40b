//! Keeps the request counters of routes across reloads.

use crate::metrics::RouteCounters;
use crate::policy::Policy;
use std::collections::HashMap;
use std::sync::Arc;

/// The route counters of the previous policy. A route with the same name continues to use them.
pub(super) struct CounterRegistry {
    counters: HashMap<Arc<str>, Arc<RouteCounters>>,
    cores: usize,
}

impl CounterRegistry {
    /// Collects the counters of the previous policy. Without a previous policy, new counters have `cores` shards.
    pub(super) fn after(before: Option<&Policy>, cores: usize) -> Self {
        let counters: HashMap<_, _> = before
            .iter()
            .flat_map(|before| before.routes.iter())
            .map(|route| (route.name.clone(), route.counters.clone()))
            .collect();
        // The number of cores is fixed at start.
        let cores = counters.values().next().map_or(cores, |counters| counters.cores());
        Self { counters, cores }
    }

    /// Returns the number of cores.
    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    /// Returns the counters of a route.
    pub(super) fn of(&self, name: &Arc<str>) -> Arc<RouteCounters> {
        let counters = self.counters.get(name).cloned();
        counters.unwrap_or_else(|| Arc::new(RouteCounters::new(name.clone(), self.cores)))
    }
}
