//! Not too fast.
