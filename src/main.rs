//! The `portcullis` binary: the command line, and nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Less CPU a request than the system's allocator: docs/performance.md says by how much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portcullis::cli::main()
}
