//! Runs the HTTP/2 streams of a connection on the connection's core.

use crate::peer::Connection;
use crate::peer::streams::StreamSlot;
use std::future::{Future, poll_fn};
use std::rc::Rc;

/// Spawns a task for each stream of one connection. The task ends early if the client reads too slowly.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor(pub(super) Rc<Connection>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        let connection = self.0.clone();
        // Pinning inside the task would reserve space for the future twice.
        let future = Box::pin(future);
        tokio::task::spawn_local(async move {
            let slot = StreamSlot::acquire(&connection.streams);
            // Locals are dropped in reverse order, so the future is dropped before its slot is released.
            let mut future = future;
            poll_fn(|cx| slot.poll(cx, |cx| future.as_mut().poll(cx))).await;
        });
    }
}
