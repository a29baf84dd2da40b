//! Canonical paths. The gateway matches and forwards the path that [`canonical`] returns.
//!
//! An ambiguous path is rejected.

use crate::denial::Malformed;
use crate::hex::push_percent_code;
use std::borrow::Cow;

/// The maximum length of a path, in bytes. Most servers accept 8 KiB for the whole request line.
pub const PATH_BYTES_MAX: usize = 8 * 1024;

/// The maximum number of segments in a path.
pub(crate) const SEGMENTS_MAX: usize = 128;

/// The treatment of an empty segment (`//`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slashes {
    /// Rejects the path. Some servers drop an empty segment and others keep it.
    #[default]
    Strict,
    /// Drops the segment. The upstream receives the path without it.
    Merge,
}

/// Returns the canonical spelling of a path. Rejects empty segments. See [`canonical_with`].
///
/// # Errors
///
/// Returns why the path is ambiguous or invalid.
pub fn canonical(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    canonical_with(raw, Slashes::Strict)
}

/// Returns the canonical spelling of a path (RFC 3986 section 6.2.2).
///
/// Removes dot segments, decodes percent codes of unreserved characters once, and writes other codes in upper case.
/// Encodes characters that are not allowed in a path. Does not allocate if the path is canonical.
///
/// # Errors
///
/// Returns why the path is ambiguous or invalid. An ambiguous path is not repaired: a servlet container reads
/// `/public/..;/admin` as `/admin`, and other servers do not.
pub fn canonical_with(raw: &str, slashes: Slashes) -> Result<Cow<'_, str>, Malformed> {
    if inspect(raw, slashes)? {
        return Ok(Cow::Borrowed(raw));
    }
    let path = rewrite(raw);
    // Encoding lengthens a path. The bound applies to the forwarded path.
    if path.len() > PATH_BYTES_MAX { Err(Malformed::PathTooLong) } else { Ok(Cow::Owned(path)) }
}

/// Whether a segment of a canonical path decodes to `value`. Does not allocate.
pub fn decoded_eq(segment: &str, value: &str) -> bool {
    decoded(segment.as_bytes()).eq(value.bytes())
}

/// Returns the decoded bytes of a segment. Keeps an invalid percent code, which no canonical path contains.
pub fn decoded(segment: &[u8]) -> impl Iterator<Item = u8> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = *segment.get(at)?;
        let code = if first == b'%' { code_at(segment, at) } else { None };
        at += if code.is_some() { 3 } else { 1 };
        Some(code.map_or(first, |(byte, _)| byte))
    })
}

/// Whether a canonical path has path parameters (RFC 3986 section 3.3). Treats `%3B` as `;`, because some servers
/// decode first.
pub(crate) fn has_parameters(path: &str) -> bool {
    path.as_bytes().iter().enumerate().any(|(at, byte)| match byte {
        b';' => true,
        b'%' => path[at..].starts_with(PARAMETER),
        _ => false,
    })
}

const PARAMETER: &str = "%3B";

/// Rejects ambiguous and invalid paths. Returns whether the path is already canonical.
fn inspect(raw: &str, slashes: Slashes) -> Result<bool, Malformed> {
    let bytes = raw.as_bytes();
    if bytes.len() > PATH_BYTES_MAX {
        return Err(Malformed::PathTooLong);
    }
    if bytes.first() != Some(&b'/') {
        return Err(Malformed::Target);
    }
    let mut is_canonical = true;
    // `count` is the number of segments read so far. `depth` is the number of segments after `..` is resolved. The
    // flags `parameters` and `empty` describe all earlier segments.
    let (mut count, mut depth) = (0, 0_usize);
    let (mut parameters, mut empty) = (false, false);
    let mut at = 1;
    loop {
        let start = at;
        let mut is_odd = false;
        while at < bytes.len() {
            match CLASS[usize::from(bytes[at])] {
                Class::Plain => at += 1,
                Class::Slash => break,
                Class::Semicolon => {
                    (is_odd, parameters) = (true, true);
                    at += 1;
                }
                Class::Special => {
                    let read = Spelling::at(raw, at)?;
                    // A server that decodes the path first treats an encoded `;` as the start of parameters.
                    parameters |= read.character == ';';
                    is_odd = true;
                    is_canonical &= read.is_canonical;
                    at += read.len;
                }
            }
        }
        count += 1;
        if count > SEGMENTS_MAX {
            return Err(Malformed::PathTooLong);
        }
        let is_last = at == bytes.len();
        match &bytes[start..at] {
            b"" if is_last => {}
            b"" => match slashes {
                Slashes::Strict => return Err(Malformed::EmptySegment),
                Slashes::Merge => (empty, is_canonical) = (true, false),
            },
            // Servers disagree on the segment that `..` removes: some drop parameters first, and others keep them.
            b"." | b".." if parameters => return Err(Malformed::DotSegment),
            b"." => is_canonical = false,
            b".." => {
                // Servers disagree on the order: `/a//../b` → `/b` if slashes are merged first, else `/a/b`.
                if empty {
                    return Err(Malformed::EmptySegment);
                }
                depth = depth.checked_sub(1).ok_or(Malformed::DotSegment)?;
                is_canonical = false;
            }
            segment if is_odd && hides_dots(segment) => return Err(Malformed::DotSegment),
            _ => depth += 1,
        }
        if is_last {
            return Ok(is_canonical);
        }
        at += 1;
    }
}

/// Whether a segment is a dot segment after it is decoded or its parameters are dropped.
fn hides_dots(segment: &[u8]) -> bool {
    let mut name = decoded(segment).take_while(|byte| *byte != b';');
    match (name.next(), name.next(), name.next()) {
        (Some(b'.'), None, _) | (Some(b'.'), Some(b'.'), None) => true,
        (None | Some(_), _, _) => false,
    }
}

/// A character of a path, as spelled in the request.
struct Spelling {
    character: char,
    len: usize,
    is_canonical: bool,
}

impl Spelling {
    /// Reads the character at a position whose byte is `Class::Special`.
    fn at(raw: &str, at: usize) -> Result<Self, Malformed> {
        let read = match raw.as_bytes()[at] {
            b'%' => Self::of_code(raw.as_bytes(), at)?,
            b'\\' => return Err(Malformed::Backslash),
            b'#' => return Err(Malformed::Fragment),
            b'?' => return Err(Malformed::Target),
            _ => {
                let character = raw[at..].chars().next().ok_or(Malformed::NotUtf8)?;
                Self { character, len: character.len_utf8(), is_canonical: false }
            }
        };
        if read.character.is_control() { Err(Malformed::ControlByte) } else { Ok(read) }
    }

    /// Reads a character that is encoded as one or more percent codes.
    fn of_code(bytes: &[u8], at: usize) -> Result<Self, Malformed> {
        let (first, is_upper) = code_at(bytes, at).ok_or(Malformed::PercentCode)?;
        if matches!(first, b'/' | b'\\') {
            return Err(Malformed::EncodedSeparator);
        }
        if first.is_ascii() {
            let is_canonical = is_upper && !is_unreserved(first);
            return Ok(Self { character: char::from(first), len: 3, is_canonical });
        }
        let width = match first {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return Err(Malformed::NotUtf8),
        };
        let mut character = [first, 0, 0, 0];
        let mut is_canonical = is_upper;
        for (nth, byte) in character.iter_mut().enumerate().take(width).skip(1) {
            let at = at + 3 * nth;
            if bytes.get(at) != Some(&b'%') {
                return Err(Malformed::NotUtf8);
            }
            let (next, is_upper) = code_at(bytes, at).ok_or(Malformed::PercentCode)?;
            *byte = next;
            is_canonical &= is_upper;
        }
        // The standard library rejects overlong forms and surrogates.
        let text = std::str::from_utf8(&character[..width]).map_err(|_| Malformed::NotUtf8)?;
        let character = text.chars().next().ok_or(Malformed::NotUtf8)?;
        Ok(Self { character, len: 3 * width, is_canonical })
    }
}

/// Returns the canonical spelling of a path that [`inspect`] accepted.
fn rewrite(raw: &str) -> String {
    let mut path = String::with_capacity(raw.len() + 16);
    let mut segments = raw.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            ".." => path.truncate(path.rfind('/').unwrap_or(0)),
            _ => {
                path.push('/');
                push_canonical(&mut path, segment.as_bytes());
                continue;
            }
        }
        // A path that ends in a slash or a dot segment keeps a trailing slash (RFC 3986 section 5.2.4).
        if is_last {
            path.push('/');
        }
    }
    path
}

/// Appends one segment in its canonical spelling.
fn push_canonical(path: &mut String, segment: &[u8]) {
    let mut at = 0;
    while at < segment.len() {
        let (byte, len, stands_bare) = match code_at(segment, at) {
            Some((byte, _)) => (byte, 3, is_unreserved(byte)),
            None => {
                (segment[at], 1, matches!(CLASS[usize::from(segment[at])], Class::Plain | Class::Semicolon))
            }
        };
        at += len;
        if stands_bare {
            path.push(char::from(byte));
        } else {
            push_percent_code(path, byte);
        }
    }
}

/// Returns the byte of the percent code at this position, and whether its digits are upper case.
fn code_at(bytes: &[u8], at: usize) -> Option<(u8, bool)> {
    let &[b'%', high, low] = bytes.get(at..at + 3)? else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let is_upper = !high.is_ascii_lowercase() && !low.is_ascii_lowercase();
    Some((digit(high)? << 4 | digit(low)?, is_upper))
}

/// The class of a byte in a path.
#[derive(Clone, Copy)]
enum Class {
    /// Allowed unencoded (`pchar` of RFC 3986 section 3.3).
    Plain,
    /// Ends a segment.
    Slash,
    /// Begins path parameters for some servers.
    Semicolon,
    /// Inspected further.
    Special,
}

const CLASS: [Class; 256] = {
    let mut class = [Class::Special; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let sub_delimiter =
            matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=');
        if is_unreserved(byte) || sub_delimiter || matches!(byte, b':' | b'@') {
            class[byte as usize] = Class::Plain;
        }
        byte += 1;
    }
    class[b'/' as usize] = Class::Slash;
    class[b';' as usize] = Class::Semicolon;
    class
};

/// Whether a character may be decoded without a change of meaning (RFC 3986 section 2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(raw: &str) -> Malformed {
        canonical(raw).expect_err(raw)
    }

    #[test]
    fn a_canonical_path_is_returned_as_it_is() {
        let plain =
            ["/", "/a", "/a/", "/a/b.c/~d", "/a;v=1/b", "/%20", "/%C3%A9/x", "/@me:1,2", "/...", "/.a/..b"];
        for path in plain {
            assert!(matches!(canonical(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_becomes_one() {
        for (raw, path) in [
            ("/%61dmin", "/admin"),
            ("/%7euser", "/~user"),
            ("/a%2db", "/a-b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("/a/b/../../c/", "/c/"),
            ("/%c3%a9", "/%C3%A9"),
            ("/%C3%a9", "/%C3%A9"),
            ("/\u{e9}", "/%C3%A9"),
            ("/{a}\"|", "/%7Ba%7D%22%7C"),
            ("/a b", "/a%20b"),
            // `%25` is decoded only once. The digits after it are text.
            ("/%2541%3a", "/%2541%3A"),
            ("/%2e%2e%2ehidden", "/...hidden"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(path), "{raw}");
        }
    }

    #[test]
    fn a_trailing_slash_is_another_path() {
        assert_ne!(canonical("/a").unwrap(), canonical("/a/").unwrap());
    }

    #[test]
    fn a_path_with_two_readings_is_refused_and_says_why() {
        use Malformed::*;
        for (raw, why) in [
            ("/a%2fb", EncodedSeparator),
            ("/a%2Fb", EncodedSeparator),
            ("/a%5cb", EncodedSeparator),
            ("/a\\b", Backslash),
            ("/a%00", ControlByte),
            ("/a\0", ControlByte),
            ("/a%0d%0a", ControlByte),
            ("/a\tb", ControlByte),
            ("/a%7f", ControlByte),
            ("/a\x7f", ControlByte),
            ("/a%C2%85", ControlByte),
            ("/..", DotSegment),
            ("/a/../../b", DotSegment),
            ("/a/%2e%2e/b", DotSegment),
            ("/a/.%2E/b", DotSegment),
            ("/a/%2e/b", DotSegment),
            ("/a/%2e", DotSegment),
            ("/a/..;/b", DotSegment),
            ("/a/.;x=1/b", DotSegment),
            ("/a/%2e%2e;/b", DotSegment),
            ("/a/..%3b/b", DotSegment),
            ("/;x/..", DotSegment),
            ("/a;x/../b", DotSegment),
            ("/a%3Bx/../b", DotSegment),
            ("/a;x/b/c/../..", DotSegment),
            ("/a;x/./b", DotSegment),
            ("//a", EmptySegment),
            ("/a//b", EmptySegment),
            ("/a//", EmptySegment),
            ("/a%", PercentCode),
            ("/a%4", PercentCode),
            ("/a%4/b", PercentCode),
            ("/a%g1", PercentCode),
            ("/a%+1", PercentCode),
            ("/a%u0041", PercentCode),
            ("/%ff", NotUtf8),
            ("/%c3", NotUtf8),
            ("/%c3x", NotUtf8),
            ("/%c0%af", NotUtf8),
            ("/%e0%80%af", NotUtf8),
            ("/%ed%a0%80", NotUtf8),
            ("/a#b", Fragment),
            ("/a?b", Target),
            ("a", Target),
            ("", Target),
            ("*", Target),
        ] {
            assert_eq!(refused(raw), why, "{raw:?}");
        }
    }

    #[test]
    fn parameters_after_the_last_dot_segment_are_no_trick() {
        assert_eq!(canonical("/a/../b;v=1").as_deref(), Ok("/b;v=1"));
    }

    #[test]
    fn merging_drops_empty_segments_but_never_before_a_climb() {
        let merged = |raw| canonical_with(raw, Slashes::Merge);
        assert_eq!(merged("//a///b//").as_deref(), Ok("/a/b/"));
        assert_eq!(merged("//").as_deref(), Ok("/"));
        assert_eq!(merged("/a/../b//c").as_deref(), Ok("/b/c"));
        assert_eq!(merged("/a//../b"), Err(Malformed::EmptySegment));
    }

    #[test]
    fn length_and_segments_are_bounded_at_the_stated_numbers() {
        let long = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        assert!(canonical(&long(PATH_BYTES_MAX)).is_ok());
        assert_eq!(refused(&long(PATH_BYTES_MAX + 1)), Malformed::PathTooLong);
        assert!(canonical(&"/a".repeat(SEGMENTS_MAX)).is_ok());
        assert_eq!(refused(&"/a".repeat(SEGMENTS_MAX + 1)), Malformed::PathTooLong);
        // The path is short enough as sent, but too long when encoded.
        assert_eq!(refused(&format!("/{}", "\u{e9}".repeat(PATH_BYTES_MAX / 3))), Malformed::PathTooLong);
    }

    #[test]
    fn a_segment_is_compared_by_what_it_stands_for() {
        assert!(decoded_eq("a%20b", "a b"));
        assert!(decoded_eq("%C3%A9", "\u{e9}"));
        assert!(decoded_eq("", ""));
        assert!(!decoded_eq("a%20b", "a%20b"));
        assert!(!decoded_eq("a%20b", "a "));
        assert!(!decoded_eq("a", "a "));
        assert!(!decoded_eq("a", ""));
        // The segment is decoded only once.
        assert!(decoded_eq("%2541", "%41"));
        assert!(!decoded_eq("%2541", "A"));
    }

    /// Generates paths from parts of known path attacks.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            6 => Just("/".to_owned()),
            2 => proptest::sample::select(vec![
                ".", "..", ";", "%2e", "%2E", "%2f", "%5c", "%00", "%25", "%3b", "\\", "#", "?", "%", "%c3%a9",
                "%C3", "%a9", "%7E", "a", "b", "A", "%61", "%20", " ", "\u{e9}", "\u{85}", "{", "//", "/./", "/../",
            ]).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
            1 => "[a-z]{1,4}",
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    /// Returns the path as a naive server reads it: segments are decoded, then dot segments are resolved.
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_canonical_path_has_one_reading(raw in prop_oneof![tricky(), any::<String>()], merge: bool) {
            let slashes = if merge { Slashes::Merge } else { Slashes::Strict };
            if let Ok(path) = canonical_with(&raw, slashes) {
                prop_assert!(matches!(canonical(&path), Ok(Cow::Borrowed(same)) if same == path), "not idempotent");
                prop_assert!(path.starts_with('/') && path.is_ascii());
                prop_assert!(!path.contains("//") && !path.contains('\\'));
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(path.split('/').all(|segment| !hides_dots(segment.as_bytes())));
                prop_assert_eq!(resolved(&path), resolved(&raw), "another resource");
                prop_assert_eq!(
                    path.ends_with('/'),
                    raw.ends_with('/') || raw.ends_with("/.") || raw.ends_with("/..")
                );
                let text: Vec<u8> = decoded(path.as_bytes()).collect();
                prop_assert!(String::from_utf8(text).is_ok_and(|text| !text.chars().any(char::is_control)));
            }
        }

        #[test]
        fn a_refused_path_is_never_made_good_by_case_of_its_codes(raw in tricky()) {
            let upper: String = raw.replace("%2e", "%2E").replace("%2f", "%2F").replace("%5c", "%5C");
            prop_assert_eq!(canonical(&raw).ok(), canonical(&upper).ok());
        }

        #[test]
        fn a_value_always_equals_its_own_segment(value in "[^/\\\\\\x00-\\x1f\\x7f-\\u{9f}]{1,12}") {
            let mut segment = String::new();
            for byte in value.bytes() {
                segment.push_str(&format!("%{byte:02x}"));
            }
            if let Ok(path) = canonical(&format!("/{segment}")) {
                prop_assert!(decoded_eq(&path[1..], &value));
                let longer = format!("{value}x");
                prop_assert!(!decoded_eq(&path[1..], &longer));
            } else {
                prop_assert!(matches!(value.split(';').next(), Some("." | "..")));
            }
        }
    }
}
