//! No text makes the reader or the compiler of policies panic, and faults never come without a word.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authority::Absent;
use portcullis::{config, policy};
use std::path::PathBuf;

fuzz_target!(|text: &str| {
    // Files that a policy names are looked for where there are none.
    let base = PathBuf::from("/nonexistent/portcullis-fuzz");
    match config::load_text("fuzz.toml", text.to_owned(), base, Vec::new()) {
        Ok(loaded) => match policy::compile(&loaded, 1, Absent::Pretend) {
            Ok(compiled) => assert!(!compiled.policy.routes.is_empty()),
            Err(faults) => assert!(!faults.is_empty()),
        },
        Err(faults) => assert!(!faults.is_empty()),
    }
});
