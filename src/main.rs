//! The `portcullis` binary: the command line, and nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Takes less CPU per request than the system's allocator; see docs/performance.md for measurements.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portcullis::cli::main()
}
