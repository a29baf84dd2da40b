//! Runs a request as far as possible before the HTTP library looks at its connection again.
//!
//! The library looks whether the client has left before it first polls a request. While slices of the request's head
//! exist, it takes a new read buffer of 8 KiB for that. The first poll of a request drops these slices, so it comes
//! first here.

use crate::peer::activity::Activity;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Creates the future of a request in its box. `Box::pin` copies its whole size of 3.5 KB into the box, although only the
/// arguments have values yet: 330 instructions a request.
#[inline(always)]
pub(super) fn boxed_in_place<F>(create: impl FnOnce() -> F) -> Pin<Box<F>> {
    let uninitialized = Box::new_uninit();
    Box::into_pin(Box::write(uninitialized, create()))
}

/// A request that has begun.
pub(super) struct Begun<F: Future> {
    /// In a box, because a request is large and the library moves it.
    request: Pin<Box<F>>,
    /// The result of the first poll, until the library asks for it. The request was polled for the task that asks, so a
    /// pending request wakes that task. A response is in a box, because it is large and the library moves it; most requests
    /// have none at once.
    first: Option<Poll<Box<F::Output>>>,
}

impl<F: Future> Begun<F> {
    /// Polls a request once for the task that serves its connection.
    pub(super) fn new(mut request: Pin<Box<F>>, activity: &Activity) -> Self {
        let first = activity.with_task(|cx| request.as_mut().poll(cx).map(Box::new));
        Self { request, first }
    }
}

// The request is pinned in its box, and the result of a poll is not.
impl<F: Future> Unpin for Begun<F> {}

impl<F: Future> Future for Begun<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.first.take() {
            Some(first) => first.map(|response| *response),
            None => self.request.as_mut().poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_request_is_polled_once_before_the_library_asks_and_wakes_the_task_of_its_connection() {
        let activity = Activity::new(0);
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        activity.command(&cx);
        let (polls, kept) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let request = {
            let (polls, kept) = (polls.clone(), kept.clone());
            poll_fn(move |cx: &mut Context<'_>| {
                polls.set(polls.get() + 1);
                kept.set(Some(cx.waker().clone()));
                if polls.get() == 2 { Poll::Ready("done") } else { Poll::Pending }
            })
        };
        let mut begun = Begun::new(Box::pin(request), &activity);
        assert_eq!(polls.get(), 1);
        assert_eq!((Pin::new(&mut begun).poll(&mut cx), polls.get()), (Poll::Pending, 1));
        kept.take().unwrap().wake();
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!((Pin::new(&mut begun).poll(&mut cx), polls.get()), (Poll::Ready("done"), 2));
    }

    #[test]
    fn a_request_without_a_task_waits_for_the_library() {
        let mut begun = Begun::new(Box::pin(async { 1 }), &Activity::new(0));
        assert!(begun.first.is_none());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut begun).poll(&mut cx), Poll::Ready(1));
    }
}
