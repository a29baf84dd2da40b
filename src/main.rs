//! The `portcullis` binary, which chooses the allocator and calls the command line.
#![deny(unsafe_code)]

use std::process::ExitCode;

/// mimalloc takes less CPU time per request than the system's allocator; docs/performance.md contains the measurements.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// SAFETY: mimalloc.h declares the function like this, and `mimalloc` links it. It may be called at any time and on any
// thread: it takes no pointer, frees no block in use, and changes only the heap of the calling thread.
#[expect(unsafe_code, reason = "the crate mimalloc has no safe function for this")]
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

fn main() -> ExitCode {
    portcullis::memory::set_release(|| mi_collect(true));
    portcullis::cli::main()
}
