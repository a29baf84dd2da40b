//! What a connection is waiting for, and since when.
//!
//! Deadlines are kept by one sweep a core (see [`crate::worker`]) that looks at every pulse a few times a second,
//! so that a request starts no timer and reads no clock for them. A deadline is therefore kept to within
//! [`SWEEP`].

use std::cell::Cell;
use std::fmt;
use std::task::{Context, Waker};
use std::time::Duration;

/// How often a core looks at its connections.
pub const SWEEP: Duration = Duration::from_millis(250);

/// Milliseconds on a core's own coarse clock, which its sweep advances.
pub type Tick = u64;

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish what is being answered, then close.
    Drain,
    /// Close now.
    Close(Overdue),
}

/// What did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The head of a request that had begun.
    Head,
    /// A request, the first or another.
    Idle,
    /// The client's reading of what was sent to it.
    Reader,
    /// The end of the drain.
    Drain,
}

/// The limits that a pulse is held to, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a head to its last.
    pub head: Tick,
    /// Between two requests.
    pub idle: Tick,
    /// How long a write may make no progress.
    pub reader: Tick,
}

/// What a connection without a request in progress waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The first byte of all.
    First,
    /// The rest of a head.
    Head,
    /// Another request.
    Next,
}

/// The state of one connection, shared by its task, its requests and its core's sweep. All on one thread.
pub struct Pulse {
    active: Cell<u32>,
    wait: Cell<Wait>,
    since: Cell<Tick>,
    blocked: Cell<Option<Tick>>,
    order: Cell<Option<Order>>,
    waker: Cell<Option<Waker>>,
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse")
            .field("active", &self.active)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl Pulse {
    /// A connection that was just accepted: its first head is due as if it had begun.
    pub fn new(tick: Tick) -> Self {
        Self {
            active: Cell::new(0),
            wait: Cell::new(Wait::First),
            since: Cell::new(tick),
            blocked: Cell::new(None),
            order: Cell::new(None),
            waker: Cell::new(None),
        }
    }

    /// Bytes arrived. True when they are the first of a request's head.
    pub fn received(&self, tick: Tick) -> bool {
        if self.active.get() > 0 || self.wait.get() == Wait::Head {
            return false;
        }
        if self.wait.replace(Wait::Head) == Wait::Next {
            self.since.set(tick);
        }
        true
    }

    /// A request's head is complete.
    pub fn request_begins(&self) {
        self.active.set(self.active.get() + 1);
        self.wait.set(Wait::Next);
    }

    /// A request's answer is handed over in full, or given up.
    pub fn request_ends(&self, tick: Tick) {
        self.active.set(self.active.get().saturating_sub(1));
        self.since.set(tick);
    }

    /// A write could not go on.
    pub fn write_blocked(&self, tick: Tick) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(tick));
        }
    }

    /// A write went on.
    pub fn write_progressed(&self) {
        self.blocked.set(None);
    }

    /// Whether a request is being answered.
    pub fn is_active(&self) -> bool {
        self.active.get() > 0
    }

    /// Looks for a deadline that has passed, and orders the connection closed if there is one.
    pub fn examine(&self, tick: Tick, patience: Patience) {
        let late = |since: Tick, patience: Tick| tick.saturating_sub(since) >= patience;
        if self.blocked.get().is_some_and(|since| late(since, patience.reader)) {
            return self.command(Order::Close(Overdue::Reader));
        }
        if self.active.get() > 0 {
            return;
        }
        let (patience, overdue) = match self.wait.get() {
            Wait::First => (patience.head, Overdue::Idle),
            Wait::Head => (patience.head, Overdue::Head),
            Wait::Next => (patience.idle, Overdue::Idle),
        };
        if late(self.since.get(), patience) {
            self.command(Order::Close(overdue));
        }
    }

    /// Gives an order; one to close is never weakened to one to drain.
    pub fn command(&self, order: Order) {
        if !matches!(self.order.get(), Some(Order::Close(_))) {
            self.order.set(Some(order));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// The order in force. Without one, the task of `cx` is woken when one comes.
    pub fn order(&self, cx: &Context<'_>) -> Option<Order> {
        let order = self.order.get();
        if !matches!(order, Some(Order::Close(_))) {
            match self.waker.take() {
                Some(known) if known.will_wake(cx.waker()) => self.waker.set(Some(known)),
                _ => self.waker.set(Some(cx.waker().clone())),
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: 10_000, idle: 75_000, reader: 30_000 };

    fn order_after(pulse: &Pulse, tick: Tick) -> Option<Order> {
        pulse.examine(tick, PATIENCE);
        pulse.order(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_client_that_never_finishes_its_head_is_closed() {
        let pulse = Pulse::new(0);
        assert!(pulse.received(5_000));
        assert_eq!(order_after(&pulse, 9_999), None);
        assert_eq!(order_after(&pulse, 10_000), Some(Order::Close(Overdue::Head)));
    }

    #[test]
    fn a_client_that_never_sends_a_byte_is_closed() {
        let pulse = Pulse::new(0);
        assert_eq!(order_after(&pulse, 10_000), Some(Order::Close(Overdue::Idle)));
    }

    #[test]
    fn bytes_that_trickle_in_do_not_extend_the_deadline_of_a_head() {
        let pulse = Pulse::new(0);
        pulse.request_begins();
        pulse.request_ends(1_000);
        assert!(pulse.received(2_000));
        assert!(!pulse.received(11_999));
        assert_eq!(order_after(&pulse, 11_999), None);
        assert_eq!(order_after(&pulse, 12_000), Some(Order::Close(Overdue::Head)));
    }

    #[test]
    fn an_idle_connection_has_the_longer_patience() {
        let pulse = Pulse::new(0);
        pulse.request_begins();
        pulse.request_ends(1_000);
        assert_eq!(order_after(&pulse, 75_999), None);
        assert_eq!(order_after(&pulse, 76_000), Some(Order::Close(Overdue::Idle)));
    }

    #[test]
    fn a_request_that_is_being_answered_is_never_idle() {
        let pulse = Pulse::new(0);
        pulse.request_begins();
        assert_eq!(order_after(&pulse, 1_000_000), None);
    }

    #[test]
    fn a_client_that_stops_reading_is_closed_unless_it_goes_on() {
        let pulse = Pulse::new(0);
        pulse.request_begins();
        pulse.write_blocked(0);
        pulse.write_blocked(20_000);
        pulse.write_progressed();
        pulse.write_blocked(29_000);
        assert_eq!(order_after(&pulse, 30_000), None);
        assert_eq!(order_after(&pulse, 59_000), Some(Order::Close(Overdue::Reader)));
    }

    #[test]
    fn an_order_to_close_is_not_weakened() {
        let pulse = Pulse::new(0);
        pulse.command(Order::Close(Overdue::Drain));
        pulse.command(Order::Drain);
        assert_eq!(pulse.order(&Context::from_waker(Waker::noop())), Some(Order::Close(Overdue::Drain)));
    }
}
