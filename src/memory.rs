//! Gives freed memory back to the system.
//!
//! An allocator keeps freed pages for a while, and returns them only when it is called again. A thread that has freed
//! much memory and then waits would keep it for as long as it waits.

use std::sync::OnceLock;

static RELEASE: OnceLock<fn()> = OnceLock::new();

/// Sets the function that gives the freed memory of the calling thread back to the system. Only the first call counts.
/// The binary calls it, because it chooses the allocator.
pub fn set_release(release: fn()) {
    let _ = RELEASE.set(release);
}

/// Gives the freed memory of the calling thread back to the system.
pub(crate) fn release() {
    if let Some(release) = RELEASE.get() {
        release();
    }
}
