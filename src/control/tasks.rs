//! Tasks that work for one part of the policy each, such as a source of keys.

use std::sync::Arc;
use tokio::task::JoinHandle;

/// One task for each part of the current policy that needs one.
#[derive(Debug)]
pub(super) struct Tasks<T>(Vec<(Arc<T>, JoinHandle<()>)>);

impl<T> Default for Tasks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Tasks<T> {
    /// Starts and stops tasks, so that each wanted part has one. A part that is still wanted keeps its task. `stopped` is
    /// called for each part that has lost its task.
    pub(super) fn follow(
        &mut self,
        wanted: Vec<Arc<T>>,
        start: impl Fn(Arc<T>) -> JoinHandle<()>,
        stopped: impl Fn(&T),
    ) {
        self.0.retain(|(part, task)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, part));
            if !stays {
                task.abort();
                stopped(part);
            }
            stays
        });
        for part in wanted {
            if !self.0.iter().any(|(known, _)| Arc::ptr_eq(known, &part)) {
                let task = start(part.clone());
                self.0.push((part, task));
            }
        }
    }
}
