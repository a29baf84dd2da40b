//! Decides what a caller may do: checks the route's rule and issues the permit.

mod expected;
mod permit;
mod refusal;
mod rule;
#[cfg(test)]
mod tests;

pub use expected::{Expected, RequestFacts};
pub use permit::{Permit, ShadowMode, Shadowed, authorize};
pub use refusal::Refusal;
pub use rule::{Check, Rule};
