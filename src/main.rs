//! The `portcullis` binary: the command line, and nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// The system's allocator is slower on this workload; see docs/performance.md for by how much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portcullis::cli::main()
}
