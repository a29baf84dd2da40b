//! What a route covers: host, path and method patterns, and the values that path parameters took.

/// The most parameters that one path pattern may have.
pub const PARAMS_MAX: usize = 8;

/// The values that a path's parameters took, by position in the pattern; slices of the canonical path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params<'p> {
    values: [&'p str; PARAMS_MAX],
    len: usize,
}

impl<'p> Params<'p> {
    /// The value of the parameter at this position.
    pub fn get(&self, position: usize) -> Option<&'p str> {
        self.values[..self.len].get(position).copied()
    }

    /// Adds the next value. More than [`PARAMS_MAX`] cannot come from a pattern that parsed.
    pub fn push(&mut self, value: &'p str) {
        debug_assert!(self.len < PARAMS_MAX, "a pattern holds at most PARAMS_MAX parameters");
        if self.len < PARAMS_MAX {
            self.values[self.len] = value;
            self.len += 1;
        }
    }

    /// Takes the last value back.
    pub fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
    }
}

/// A host pattern.
#[derive(Clone, Debug)]
pub struct HostPattern;
/// A path pattern.
#[derive(Clone, Debug)]
pub struct PathPattern;
/// A set of methods.
#[derive(Clone, Debug)]
pub struct Methods;
