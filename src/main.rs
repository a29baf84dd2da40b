//! The `portcullis` binary, which only calls the command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// mimalloc takes less CPU time per request than the system's allocator; docs/performance.md contains the measurements.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portcullis::cli::main()
}
