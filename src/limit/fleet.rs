//! The gateways that share limits, and the reports to them.
//!
//! Requests read a few atomic values (`fleet_state`). A background task reports to the fleet and writes them (`sync`).

pub(super) mod exact;
mod script;
mod sync;

#[doc(hidden)]
pub use script::read_lease;

use super::fleet_state::FleetState;
use super::lease::table::LeaseTable;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The fleet of this gateway. There is one for all limits of the process, and it survives reloads.
#[derive(Debug, Default)]
pub struct Fleet {
    state: Arc<FleetState>,
    tables: Mutex<Vec<Weak<LeaseTable>>>,
    /// Whether the task that reports was started.
    has_task: AtomicBool,
}

impl Fleet {
    /// Returns a fleet of this many gateways that answers no report, for tests and benchmarks.
    #[doc(hidden)]
    pub fn for_tests(gateways: u32) -> Self {
        Self { state: Arc::new(FleetState::of(gateways)), ..Self::default() }
    }

    /// Returns the state of the fleet.
    pub fn state(&self) -> &Arc<FleetState> {
        &self.state
    }

    /// Adds the table of a limit. The table leaves the fleet when it is dropped.
    pub(super) fn register(&self, table: &Arc<LeaseTable>) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|known| known.strong_count() > 0);
        tables.push(Arc::downgrade(table));
    }

    /// Returns the tables of all limits.
    pub(super) fn tables(&self) -> Vec<Arc<LeaseTable>> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::lease::Terms;

    #[test]
    fn a_table_leaves_the_fleet_with_its_limit() {
        let fleet = Fleet::default();
        let table = LeaseTable::new(Terms { interval: 1, burst: 1 }, 7, 128, fleet.state().clone());
        fleet.register(&table);
        assert_eq!(fleet.tables().len(), 1);
        drop(table);
        assert_eq!(fleet.tables().len(), 0);
    }
}
