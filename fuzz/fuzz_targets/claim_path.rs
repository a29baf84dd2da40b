//! A claim path that is read is written and read again the same; none makes the parser panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::ClaimPath;

fuzz_target!(|text: &str| {
    if let Ok(path) = ClaimPath::parse(text) {
        assert_eq!(ClaimPath::parse(&path.to_string()), Ok(path));
    }
});
