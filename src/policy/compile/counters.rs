//! The counters of routes, which outlive the policy.

use crate::metrics::RouteCounters;
use crate::policy::Policy;
use std::collections::HashMap;
use std::sync::Arc;

/// The counters of the routes of the previous policy: a route with the same name continues them.
pub(super) struct CounterRegistry {
    counters: HashMap<Arc<str>, Arc<RouteCounters>>,
    cores: usize,
}

impl CounterRegistry {
    /// The counters of the policy before, if there is one; else new ones for so many cores.
    pub(super) fn after(before: Option<&Policy>, cores: usize) -> Self {
        let counters: HashMap<_, _> = before
            .iter()
            .flat_map(|before| before.routes.iter())
            .map(|route| (route.name.clone(), route.counters.clone()))
            .collect();
        // The cores that run are those of the start, whatever the file says by now.
        let cores = counters.values().next().map_or(cores, |counters| counters.cores());
        Self { counters, cores }
    }

    /// The number of cores.
    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    /// The counters of a route.
    pub(super) fn of(&self, name: &Arc<str>) -> Arc<RouteCounters> {
        let counters = self.counters.get(name).cloned();
        counters.unwrap_or_else(|| Arc::new(RouteCounters::new(name.clone(), self.cores)))
    }
}
