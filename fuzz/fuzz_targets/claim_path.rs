//! A claim path is unchanged after writing and parsing. The parser never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::ClaimPath;

fuzz_target!(|text: &str| {
    if let Ok(path) = ClaimPath::parse(text) {
        assert_eq!(ClaimPath::parse(&path.to_string()), Ok(path));
    }
});
