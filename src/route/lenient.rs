//! The reading of a path by the most lenient server behind the gateway.

use super::path::decoded;
use std::borrow::Cow;

/// The maximum number of times that a path is decoded. No known server decodes more often. A path that needs more is
/// rejected.
const DECODINGS_MAX: usize = 3;

/// Whether a lenient server could read a canonical path differently. Ignores case.
pub(crate) fn is_ambiguous(path: &str) -> bool {
    path.contains(['%', ';', '$']) || path.ends_with('.') || path.contains("./")
}

/// Returns a canonical path as the most lenient server reads it.
///
/// Such a server decodes repeatedly, treats a backslash as a slash, and drops path parameters (RFC 3986 section 3.3).
/// At the end of a name, it drops dots, blanks and `::$DATA`, as Windows does. Case is kept.
///
/// Returns `None` if the result has a dot segment, an empty segment before the end, a control character, or invalid
/// UTF-8. Servers read such paths differently.
pub(crate) fn reading(path: &str) -> Option<Cow<'_, str>> {
    if !is_ambiguous(path) {
        return Some(Cow::Borrowed(path));
    }
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODINGS_MAX {
        let fewer: Vec<u8> = decoded(&bytes).collect();
        if fewer.len() == bytes.len() {
            break;
        }
        bytes = fewer;
    }
    if decoded(&bytes).count() != bytes.len() {
        return None;
    }
    let text = String::from_utf8(bytes).ok()?;
    let mut read = String::with_capacity(text.len());
    let mut segments = text.split(['/', '\\']).skip(1).peekable();
    while let Some(segment) = segments.next() {
        let name = segment.split(';').next().unwrap_or_default();
        if matches!(name, "." | "..") || name.contains(char::is_control) {
            return None;
        }
        let name = without_ending(name);
        // An empty name is accepted only at the end, and only if the segment was empty or held only parameters.
        if name.is_empty() && (segments.peek().is_some() || !segment.is_empty() && !segment.starts_with(';'))
        {
            return None;
        }
        read.push('/');
        read.push_str(name);
    }
    Some(Cow::Owned(read))
}

/// Returns a decoded segment without the ending that Windows drops: a stream name, dots and blanks.
pub(crate) fn without_ending(name: &str) -> &str {
    let name = name.find(":$").map_or(name, |stream| name[..stream].trim_end_matches(':'));
    name.trim_end_matches(|char: char| char == '.' || char.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_lenient_reader_decodes_to_the_end_and_drops_parameters() {
        for (path, read) in [
            ("/a/b", Some("/a/b")),
            ("/a%20b/", Some("/a b/")),
            ("/a;x=1/b%3Bc", Some("/a/b")),
            ("/admin./x", Some("/admin/x")),
            ("/admin..", Some("/admin")),
            ("/admin%20/x", Some("/admin/x")),
            ("/admin%C2%A0/x", Some("/admin/x")),
            ("/admin%20.%20", Some("/admin")),
            ("/admin::$DATA", Some("/admin")),
            ("/admin:$i30:$INDEX_ALLOCATION/x", Some("/admin/x")),
            ("/a.b/.c/v1:batch", Some("/a.b/.c/v1:batch")),
            ("/$metadata", Some("/$metadata")),
            ("/.../a", None),
            ("/%20/a", None),
            ("/a/%20", None),
            ("/a/;x", Some("/a/")),
            ("/%2561%252525", Some("/a%")),
            ("/a%252fb%255cc", Some("/a/b/c")),
            ("/100%25", Some("/100%")),
            ("/;x/a", None),
            ("/a%252f/b", None),
            ("/%252e%252e/a", None),
            ("/a%2500", None),
            ("/%25ff", None),
            ("/%2525252541", None),
        ] {
            assert_eq!(reading(path).as_deref(), read, "{path}");
        }
        assert!(matches!(reading("/a/b"), Some(Cow::Borrowed(_))));
    }
}
