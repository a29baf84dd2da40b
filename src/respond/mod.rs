//! Answers of our own, and telling what happened.
