//! What the gateway obeys.
