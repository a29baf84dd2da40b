//! Numbers of servers, by which each core finds its connections to them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A number that no other server of this process has. A number is used again once neither a server nor a connection
/// has it, so that the tables of the cores do not grow while the addresses of names change.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServerId(Arc<Number>);

#[derive(PartialEq, Eq)]
struct Number(usize);

/// The numbers that are free, and the least number that was never used.
static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

impl ServerId {
    /// Takes a free number.
    pub(in crate::forward) fn new() -> Self {
        let (free, next) = &mut *FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = free.pop().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        });
        Self(Arc::new(Number(number)))
    }

    /// Returns the index in the tables of the cores.
    #[inline]
    pub(in crate::forward) fn index(&self) -> usize {
        self.0.0
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).0.push(self.0);
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.index().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_used_again_while_a_clone_of_it_exists() {
        let one = ServerId::new();
        let (number, clone) = (one.index(), one.clone());
        drop(one);
        let others: Vec<_> = (0..1_000).map(|_| ServerId::new()).collect();
        assert!(others.iter().all(|other| other.index() != number));
        drop(others);
        assert_eq!(clone.index(), number);
    }
}
