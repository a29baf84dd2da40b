//! Canonical paths.
