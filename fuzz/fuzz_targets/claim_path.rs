//! A parsed claim path, written and parsed again, is the same. No input makes the parser panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::ClaimPath;

fuzz_target!(|text: &str| {
    if let Ok(path) = ClaimPath::parse(text) {
        assert_eq!(ClaimPath::parse(&path.to_string()), Ok(path));
    }
});
