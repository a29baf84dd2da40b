//! Keeps a copy of a body while it is read. The copies of one core share a bound on their memory.

use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The maximum memory of the copies of one core, in bytes: heads, and bodies that have arrived so far.
pub(in crate::forward) const MEMORY_MAX: usize = 16 << 20;

/// The memory that the copies of one core may still take, in bytes.
#[derive(Debug)]
pub(in crate::forward) struct CopyMemory(Cell<usize>);

/// Memory that a copy has taken. Dropping it gives the memory back.
#[derive(Debug)]
pub(in crate::forward) struct Reserved {
    memory: Rc<CopyMemory>,
    bytes: usize,
}

impl CopyMemory {
    pub(in crate::forward) fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self(Cell::new(bytes)))
    }

    /// Takes memory. Returns `None` if less is left.
    pub(in crate::forward) fn reserve(self: &Rc<Self>, bytes: usize) -> Option<Reserved> {
        let left = self.0.get().checked_sub(bytes)?;
        self.0.set(left);
        Some(Reserved { memory: self.clone(), bytes })
    }
}

impl Reserved {
    /// Takes more memory. Returns false and takes nothing if less is left.
    fn grow(&mut self, bytes: usize) -> bool {
        let left = self.memory.0.get().checked_sub(bytes);
        if let Some(left) = left {
            self.memory.0.set(left);
            self.bytes += bytes;
        }
        left.is_some()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.0.set(self.memory.0.get() + self.bytes);
    }
}

/// The end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum CopyEnd {
    Whole,
    /// The body was not read to its end, or is larger than the bound.
    Incomplete,
    /// Other copies had the memory.
    NoMemory,
}

/// A copy of a body, up to a bound.
pub(in crate::forward) struct Tee {
    bound: usize,
    /// `None` once the copy is lost or taken.
    copy: RefCell<Option<(Vec<u8>, Reserved)>>,
    /// `None` while the body is read.
    end: Cell<Option<CopyEnd>>,
    waiter: Cell<Option<Waker>>,
}

impl fmt::Debug for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Tee {
    /// Creates an empty copy of at most `bound` bytes. Its memory is added to `reserved`.
    pub(in crate::forward) fn new(bound: usize, reserved: Reserved) -> Rc<Self> {
        let copy = RefCell::new(Some((Vec::new(), reserved)));
        Rc::new(Self { bound, copy, end: Cell::new(None), waiter: Cell::new(None) })
    }

    /// Adds a piece. The copy is lost if it would exceed its bound, or the memory of all copies.
    pub(in crate::forward) fn add(&self, data: &[u8]) {
        let mut copy = self.copy.borrow_mut();
        let Some((bytes, reserved)) = &mut *copy else { return };
        let length = bytes.len() + data.len();
        let more = match bytes.capacity() {
            capacity if length <= capacity => 0,
            capacity => (2 * capacity).max(length).min(self.bound.max(length)) - capacity,
        };
        let end = match () {
            () if length > self.bound => Some(CopyEnd::Incomplete),
            () if !reserved.grow(more) => Some(CopyEnd::NoMemory),
            () => None,
        };
        if let Some(end) = end {
            drop(copy);
            return self.end(end);
        }
        bytes.reserve_exact(bytes.capacity() + more - bytes.len());
        bytes.extend_from_slice(data);
    }

    /// Ends the copy. Only the first end counts. A copy that is not whole gives its memory back.
    pub(in crate::forward) fn end(&self, end: CopyEnd) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
            if end != CopyEnd::Whole {
                self.copy.take();
            }
            if let Some(waker) = self.waiter.take() {
                waker.wake();
            }
        }
    }

    /// Waits for the end of the body, and returns its copy.
    ///
    /// # Errors
    /// Returns why the copy is lost.
    pub(in crate::forward) async fn whole(&self) -> Result<(Bytes, Reserved), CopyEnd> {
        let end = poll_fn(|cx| match self.end.get() {
            Some(end) => Poll::Ready(end),
            None => {
                self.waiter.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await;
        self.copy.take().map(|(bytes, reserved)| (bytes.into(), reserved)).ok_or(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn left(memory: &CopyMemory) -> usize {
        memory.0.get()
    }

    fn whole(tee: &Tee) -> Result<(Bytes, Reserved), CopyEnd> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(tee.whole())
    }

    proptest! {
        /// No copy takes memory that it has not reserved, and all memory comes back.
        #[test]
        fn copies_stay_within_their_memory(
            memory in 0_usize..5000,
            bound in 0_usize..2000,
            pieces in prop::collection::vec((0_usize..3, 0_usize..900, any::<bool>()), 0..40),
        ) {
            let all = CopyMemory::new(memory);
            let mut tees: Vec<_> = (0..3)
                .filter_map(|_| Some((Tee::new(bound, all.reserve(10)?), Vec::new())))
                .collect();
            let mut held = Vec::new();
            for (at, length, ends) in pieces {
                if tees.is_empty() {
                    break;
                }
                let at = at % tees.len();
                let data = vec![u8::try_from(length % 251).unwrap(); length];
                tees[at].0.add(&data);
                tees[at].1.extend_from_slice(&data);
                let taken: usize = tees
                    .iter()
                    .filter_map(|(tee, _)| tee.copy.borrow().as_ref().map(|(bytes, _)| bytes.capacity()))
                    .sum();
                prop_assert!(taken + left(&all) <= memory, "{taken} {}", left(&all));
                if ends {
                    let (tee, sent) = tees.swap_remove(at);
                    tee.end(CopyEnd::Whole);
                    let copy = whole(&tee);
                    prop_assert!(copy.as_ref().is_ok_and(|(bytes, _)| bytes[..] == sent[..]) || copy.is_err());
                    prop_assert!(sent.len() <= bound || copy.is_err());
                    held.extend(copy);
                }
            }
            drop((tees, held));
            prop_assert_eq!(left(&all), memory);
        }
    }

    #[test]
    fn a_lost_copy_gives_its_memory_back_at_once() {
        let memory = CopyMemory::new(100);
        let tee = Tee::new(50, memory.reserve(10).unwrap());
        tee.add(&[1; 50]);
        assert_eq!(left(&memory), 40);
        let other = Tee::new(50, memory.reserve(0).unwrap());
        other.add(&[1; 41]);
        assert_eq!(whole(&other).err(), Some(CopyEnd::NoMemory));
        tee.add(&[1]);
        assert_eq!(left(&memory), 100);
        assert_eq!(whole(&tee).err(), Some(CopyEnd::Incomplete), "beyond its bound");
    }
}
