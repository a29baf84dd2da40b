//! Starts the connection to Redis, and the tasks that use it.

use super::keeper;
use super::link::Link;
use super::marks::{self, Followed};
use super::settings::SharedSettings;
use crate::journal::Journal;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::time::sleep;

/// The time that calls are sent after the end of the link, for requests that began under the policy before.
const GRACE: Duration = Duration::from_secs(1);

impl Link {
    /// Starts the thread that keeps a connection. Returns before the connection is open.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn start(
        settings: Arc<SharedSettings>,
        followed: Followed,
        journal: Journal,
    ) -> Result<Arc<Self>, String> {
        let (send, started) = mpsc::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(send.send(Err(format!("[shared] cannot start: {error}")))),
            };
            let link = Self::new(settings, followed, journal, runtime.handle().clone());
            let (weak, ended) = (Arc::downgrade(&link), link.ended.clone());
            let tasks = [
                runtime.spawn(marks::follow(weak.clone())).abort_handle(),
                runtime.spawn(marks::publish(weak.clone())).abort_handle(),
            ];
            link.exchange.get_or_init(|| tasks);
            // The caller waits for this message.
            let _ = send.send(Ok(link));
            runtime.block_on(async {
                tokio::select! {
                    () = keeper::keep(weak.clone()) => {}
                    () = ended.notified() => sleep(GRACE).await,
                }
                if let Some(link) = weak.upgrade() {
                    link.close();
                }
            });
            // The remaining tasks end with the runtime.
        };
        std::thread::Builder::new()
            .name("shared".to_owned())
            .spawn(run)
            .map_err(|error| format!("[shared] cannot start: {error}"))?;
        started.recv().map_err(|_| "[shared] the thread ended while it started".to_owned())?
    }
}
