//! The destination after a login is on this host for every browser, and is its own canonical form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authority::{NEXT_MAX, Next};

/// Returns whether a browser leaves the host for a `Location`, as the URL Standard reads it (section 4.4): it removes
/// tabs and line breaks, and reads a backslash as a slash.
fn leaves(location: &str) -> bool {
    let read: String = location
        .trim_matches(|c: char| c <= ' ')
        .chars()
        .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
        .map(|c| if c == '\\' { '/' } else { c })
        .collect();
    !read.starts_with('/') || read.starts_with("//")
}

fuzz_target!(|asked: &str| {
    let Some(next) = Next::parse(asked) else { return };
    assert!(next.as_str().len() <= NEXT_MAX);
    assert!(next.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!leaves(next.as_str()));
    let again = Next::parse(next.as_str());
    assert_eq!(again, Some(next));
});
