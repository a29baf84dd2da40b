//! A canonical path is unambiguous, for any raw path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::route::path::{PATH_BYTES_MAX, Slashes, canonical, canonical_with, decoded, decoded_eq};
use std::borrow::Cow;

/// Returns a naive reading of a path: dot segments are resolved, then segments are decoded.
fn resolved(path: &str) -> Vec<Vec<u8>> {
    let mut folders = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "" | "." => {}
            ".." => drop(folders.pop()),
            _ => folders.push(decoded(segment.as_bytes()).collect()),
        }
    }
    folders
}

fuzz_target!(|raw: &str| {
    let strict = canonical(raw);
    let merged = canonical_with(raw, Slashes::Merge);
    if let Ok(path) = &strict {
        // If the strict reading accepts a path, merging slashes does not change it.
        assert_eq!(merged.as_ref(), Ok(path));
    }
    for path in [strict, merged].into_iter().flatten() {
        assert!(matches!(canonical(&path), Ok(Cow::Borrowed(same)) if same == path), "not idempotent");
        assert!(path.starts_with('/') && path.is_ascii() && path.len() <= PATH_BYTES_MAX);
        assert!(!path.contains("//") && !path.contains('\\'));
        assert_eq!(resolved(&path), resolved(raw), "another resource");
        for segment in path.split('/').skip(1) {
            let text = String::from_utf8(decoded(segment.as_bytes()).collect()).expect("UTF-8 once decoded");
            assert!(decoded_eq(segment, &text));
            assert!(!matches!(text.split(';').next(), Some("." | "..")), "a hidden dot segment");
            assert!(!text.contains(['/', '\\']) && !text.chars().any(char::is_control));
        }
    }
});
