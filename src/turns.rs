//! Spreads expensive work over the turns of a core's event loop.
//!
//! One thread serves all requests of a core. Between two looks at its sockets, it finishes the work of everything that
//! has arrived. If that work includes many signatures, each of which takes as long as several ordinary requests, then the
//! clients of ordinary requests wait for all of them: a flood of forged tokens or of handshakes slows down everybody. With
//! [`Turns`], the core checks one signature, looks at its sockets, serves all requests that are cheap, and only then
//! checks the next signature.

use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};

/// Grants one piece of expensive work in each turn of the event loop, in the order of arrival.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// One permit, which a turn uses up.
    free: Semaphore,
    taken: Notify,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Inner { free: Semaphore::new(1), taken: Notify::new() }))
    }
}

impl PartialEq for Turns {
    /// Returns whether both grant the turns of the same event loop.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Turns {}

impl Turns {
    /// Takes the current turn. Returns `false` if it is taken, or if others wait for a turn.
    pub fn try_take(&self) -> bool {
        let taken = self.0.free.try_acquire();
        // The keeper adds the permit again.
        let is_taken = taken.map(tokio::sync::SemaphorePermit::forget).is_ok();
        if is_taken {
            self.0.taken.notify_one();
        }
        is_taken
    }

    /// Waits for a turn, and takes it. A future that is dropped before its end takes none.
    pub async fn take(&self) {
        // Nobody closes the semaphore.
        if let Ok(permit) = self.0.free.acquire().await {
            permit.forget();
            self.0.taken.notify_one();
        }
    }

    /// Begins the next turn whenever one was taken and the event loop has looked at its sockets since. The core runs this
    /// future, which has no end, in its event loop.
    pub async fn keep(self) {
        loop {
            self.0.taken.notified().await;
            // The runtime continues a task that yields after it has looked at the sockets, and after the tasks that it
            // has woken then.
            tokio::task::yield_now().await;
            self.0.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::io::Write;
    use std::rc::Rc;
    use std::time::Duration;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    async fn soon(mut condition: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !condition().await {
                yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the condition holds soon");
    }

    #[test]
    fn the_first_work_of_a_turn_is_done_at_once_and_more_of_it_in_later_turns_in_order() {
        run(async {
            let turns = Turns::default();
            let log = Rc::new(RefCell::new(Vec::new()));
            spawn_local(turns.clone().keep());
            assert!(turns.try_take());
            assert!(!turns.try_take());
            for name in ["a", "b", "c"] {
                let (turns, log) = (turns.clone(), log.clone());
                spawn_local(async move {
                    turns.take().await;
                    log.borrow_mut().push(name);
                });
            }
            // Each yield of this task is a turn of the event loop.
            let mut seen = Vec::new();
            soon(async || {
                seen.push(log.borrow().len());
                log.borrow().len() == 3
            })
            .await;
            assert_eq!(*log.borrow(), ["a", "b", "c"]);
            assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{seen:?}");
            soon(async || turns.try_take()).await;
        });
    }

    #[test]
    fn bytes_that_arrive_meanwhile_are_served_before_the_next_expensive_work() {
        run(async {
            let (turns, log) = (Turns::default(), Rc::new(RefCell::new(Vec::new())));
            spawn_local(turns.clone().keep());
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            server.set_nonblocking(true).unwrap();
            let server = tokio::net::TcpStream::from_std(server).unwrap();
            let reads = log.clone();
            let reader = spawn_local(async move {
                server.readable().await.unwrap();
                reads.borrow_mut().push("cheap");
            });
            // The reader waits for its socket.
            yield_now().await;
            let expensive = |is_first: bool| {
                let (turns, log) = (turns.clone(), log.clone());
                // The bytes arrive while the first work is being done.
                let mut client = client.try_clone().unwrap();
                async move {
                    turns.take().await;
                    log.borrow_mut().push("expensive");
                    if is_first {
                        client.write_all(b"x").unwrap();
                    }
                }
            };
            let works = [spawn_local(expensive(true)), spawn_local(expensive(false))];
            for work in works {
                work.await.unwrap();
            }
            reader.await.unwrap();
            assert_eq!(*log.borrow(), ["expensive", "cheap", "expensive"]);
            client.flush().unwrap();
        });
    }

    #[test]
    fn a_client_that_leaves_while_it_waits_takes_no_turn() {
        run(async {
            let turns = Turns::default();
            assert!(turns.try_take());
            let mut leaving = Box::pin(turns.take());
            let mut next = Box::pin(turns.take());
            for waiting in [&mut leaving, &mut next] {
                assert!(futures_poll(waiting.as_mut()).await.is_pending());
            }
            spawn_local(turns.clone().keep());
            // The turn may be granted to the first one before it leaves.
            yield_now().await;
            yield_now().await;
            drop(leaving);
            tokio::time::timeout(Duration::from_secs(10), next).await.expect("a turn");
        });
    }

    /// Polls a future once.
    async fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        let mut future = Some(future);
        std::future::poll_fn(|cx| {
            let future = future.take().expect("polled once");
            std::task::Poll::Ready(future.poll(cx))
        })
        .await
    }
}
