//! Creates odd spellings of a request. Each spelling changes one detail that some servers ignore.
//!
//! The spellings come from known attacks. A request has about a hundred spellings, regardless of the length of its
//! path.

use std::collections::HashSet;

/// The number of leading segments to vary. The last segment is also varied.
const SEGMENTS_MAX: usize = 2;

/// The part of the request that is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SpellingKind {
    /// The letter case of the path.
    Case,
    /// Additional slashes and dot segments.
    Slash,
    /// Text after the name of a segment: a path parameter (RFC 3986 section 3.3), a trailing dot or space, or the name
    /// of an NTFS stream.
    Parameter,
    /// Percent-encoding, once or twice, and invalid encodings.
    Encoding,
    /// The spelling of the host.
    Host,
    /// The spelling of the method.
    Method,
    /// A different host.
    OtherHost,
    /// Different values of header fields by which routes are chosen.
    OtherHeader,
    /// A path that a route rewrites to the same path for the upstream.
    Rewritten,
}

impl SpellingKind {
    /// All kinds, in the order of the report.
    pub(super) const ALL: [Self; 9] = [
        Self::Case,
        Self::Slash,
        Self::Parameter,
        Self::Encoding,
        Self::Host,
        Self::Method,
        Self::OtherHost,
        Self::OtherHeader,
        Self::Rewritten,
    ];

    /// Returns the id of findings of this kind.
    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::Case => "spelling_case",
            Self::Slash => "spelling_slash",
            Self::Parameter => "spelling_parameter",
            Self::Encoding => "spelling_encoding",
            Self::Host => "spelling_host",
            Self::Method => "spelling_method",
            Self::OtherHost => "open_by_another_host",
            Self::OtherHeader => "open_by_another_header",
            Self::Rewritten => "open_by_rewriting",
        }
    }
}

/// Returns odd spellings of a path. Every spelling differs from the path.
pub(super) fn paths(path: &str) -> Vec<(SpellingKind, String)> {
    let mut odd = Spellings { plain: path, known: HashSet::new(), odd: Vec::new() };
    odd.of_whole();
    let ends = ends(path);
    for (start, end) in ends {
        odd.of_segment(start, end);
    }
    odd.odd
}

/// Returns odd spellings of a host.
pub(super) fn hosts(host: &str) -> Vec<String> {
    let name = host.to_ascii_uppercase();
    let mut odd = vec![name.clone(), format!("{host}:443"), format!("{host}:1"), format!("{host}:")];
    odd.push(format!("somebody@{host}"));
    if !host.starts_with('[') {
        odd.extend([format!("{host}."), format!("{host}.."), format!("{name}.:443"), format!(".{host}")]);
        odd.push(host.replacen('.', "%2e", 1));
    }
    odd.retain(|odd| odd != host);
    odd
}

/// Returns hosts that are covered by wildcards of this host's parent domains, and a host that no policy names.
pub(super) fn others(host: &str) -> Vec<String> {
    let domains =
        host.match_indices('.').map(|(dot, _)| &host[dot + 1..]).filter(|domain| domain.contains('.'));
    let mut others: Vec<String> = domains.map(|domain| format!("another.{domain}")).collect();
    others.push("another.invalid".to_owned());
    others.retain(|other| other != host);
    others
}

/// Returns odd spellings of a method. Methods are case-sensitive (RFC 9110 section 9.1), but some servers ignore case.
pub(super) fn methods(method: &str) -> Vec<String> {
    let lower = method.to_ascii_lowercase();
    let (first, rest) = method.split_at(method.len().min(1));
    let mut odd = vec![lower, format!("{first}{}", rest.to_ascii_lowercase()), method.to_ascii_uppercase()];
    odd.retain(|odd| odd != method);
    odd
}

/// Returns the start and end of each segment to vary.
fn ends(path: &str) -> Vec<(usize, usize)> {
    let mut ends = Vec::new();
    for (slash, _) in path.match_indices('/') {
        let start = slash + 1;
        let end = path[start..].find('/').map_or(path.len(), |end| start + end);
        ends.push((start, end));
    }
    if ends.len() > SEGMENTS_MAX + 1 {
        let last = ends.len() - 1;
        ends.drain(SEGMENTS_MAX..last);
    }
    ends
}

struct Spellings<'p> {
    plain: &'p str,
    known: HashSet<String>,
    odd: Vec<(SpellingKind, String)>,
}

impl Spellings<'_> {
    fn add(&mut self, kind: SpellingKind, spelling: String) {
        if spelling != self.plain && self.known.insert(spelling.clone()) {
            self.odd.push((kind, spelling));
        }
    }

    fn of_whole(&mut self) {
        let path = self.plain;
        self.add(SpellingKind::Case, in_case(path, |byte| byte.to_ascii_uppercase()));
        self.add(SpellingKind::Case, in_case(path, |byte| byte.to_ascii_lowercase()));
        match path.strip_suffix('/') {
            Some(shorter) if !shorter.is_empty() => self.add(SpellingKind::Slash, shorter.to_owned()),
            Some(_) => {}
            None => self.add(SpellingKind::Slash, format!("{path}/")),
        }
        for end in ["//", "/.", "/x/..", "/;x", "\\", "%252f", "%255c"] {
            self.add(SpellingKind::Slash, format!("{path}{end}"));
        }
        self.add(SpellingKind::Slash, path.replace('/', "\\"));
        for end in [";", ";x=1", "%3Bx=1", ".", "%20", "%C2%A0", "::$DATA"] {
            self.add(SpellingKind::Parameter, format!("{path}{end}"));
        }
        for end in
            ["%2f", "%2F", "%5c", "%00", "\u{0}", "%2500", "/%2e", "/%252e", "%c0%af", "%ff", "%u002f", "%"]
        {
            self.add(SpellingKind::Encoding, format!("{path}{end}"));
        }
        // Encodes all bytes except slashes, once and twice.
        let coded = |code: &str| {
            let bytes = path.bytes().map(|byte| match byte {
                b'/' => "/".to_owned(),
                b'%' => "%".to_owned(),
                _ => format!("{code}{byte:02x}"),
            });
            bytes.collect::<String>()
        };
        if !path.contains('%') {
            self.add(SpellingKind::Encoding, coded("%"));
            self.add(SpellingKind::Encoding, coded("%25"));
        }
    }

    fn of_segment(&mut self, start: usize, end: usize) {
        let (before, segment, after) = (&self.plain[..start], &self.plain[start..end], &self.plain[end..]);
        let folder = &self.plain[..start - 1];
        let mut odd = vec![
            (SpellingKind::Slash, format!("{before}/{segment}{after}")),
            (SpellingKind::Slash, format!("{before}./{segment}{after}")),
            (SpellingKind::Slash, format!("{before}x/../{segment}{after}")),
            (SpellingKind::Slash, format!("{folder}\\{segment}{after}")),
            (SpellingKind::Parameter, format!("{before};x/{segment}{after}")),
            (SpellingKind::Parameter, format!("{before}x/..;/{segment}{after}")),
            (SpellingKind::Encoding, format!("{before}%2e/{segment}{after}")),
            (SpellingKind::Encoding, format!("{before}x/%2e%2e/{segment}{after}")),
            (SpellingKind::Encoding, format!("{before}%252e/{segment}{after}")),
            (SpellingKind::Encoding, format!("{before}x/%252e%252e/{segment}{after}")),
        ];
        if start > 1 {
            for code in ["%2f", "%5c", "%252f", "%c0%af"] {
                odd.push((SpellingKind::Encoding, format!("{folder}{code}{segment}{after}")));
            }
        }
        // A percent-encoded first character is not varied.
        if let Some(first) = segment.chars().next().filter(|first| first.is_ascii_alphanumeric()) {
            let rest = &segment[1..];
            let turned = if first.is_ascii_uppercase() {
                first.to_ascii_lowercase()
            } else {
                first.to_ascii_uppercase()
            };
            odd.push((SpellingKind::Case, format!("{before}{turned}{rest}{after}")));
            odd.push((SpellingKind::Parameter, format!("{before}{segment};x=1{after}")));
            odd.push((SpellingKind::Parameter, format!("{before}{segment}.{after}")));
            odd.push((SpellingKind::Parameter, format!("{before}{segment}%20{after}")));
            let byte = first as u32;
            odd.push((SpellingKind::Encoding, format!("{before}%{byte:02x}{rest}{after}")));
            odd.push((SpellingKind::Encoding, format!("{before}%25{byte:02x}{rest}{after}")));
            odd.push((SpellingKind::Encoding, format!("{before}%u00{byte:02x}{rest}{after}")));
        }
        for (kind, spelling) in odd {
            self.add(kind, spelling);
        }
    }
}

/// Changes the case of a path. Percent codes are kept, because their case has no meaning.
fn in_case(path: &str, turned: impl Fn(u8) -> u8) -> String {
    let mut code = 0;
    let bytes = path.bytes().map(|byte| {
        code = if byte == b'%' { 3_u8 } else { code };
        let kept = code > 0;
        code = code.saturating_sub(1);
        char::from(if kept { byte } else { turned(byte) })
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a path as the most lenient server reads it: decoded, in lower case, without parameters and endings.
    fn leniently(path: &str) -> String {
        let mut bytes = path.as_bytes().to_vec();
        for _ in 0..3 {
            bytes = crate::route::path::decoded(&bytes).collect();
        }
        let text = String::from_utf8_lossy(&bytes).to_lowercase().replace('\\', "/");
        let text = text.split(['\0', '?', '#']).next().unwrap_or_default();
        let mut segments: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(segments.pop()),
                name => {
                    let name = name.split(":$").next().unwrap_or_default().trim_end_matches(':');
                    let name = name.trim_end_matches(|char: char| char == '.' || char.is_whitespace());
                    segments.extend(Some(name).filter(|name| !name.is_empty()));
                }
            }
        }
        format!("/{}", segments.join("/"))
    }

    #[test]
    fn each_kind_of_spelling_is_among_those_of_a_path() {
        let odd = paths("/admin/x%20y");
        for spelling in [
            "/ADMIN/X%20Y",
            "/Admin/x%20y",
            "/admin/x%20y/",
            "//admin/x%20y",
            "/admin//x%20y",
            "/./admin/x%20y",
            "/admin/x/../x%20y",
            "/admin\\x%20y",
            "/admin;x=1/x%20y",
            "/admin./x%20y",
            "/admin%20/x%20y",
            "/admin/x%20y::$DATA",
            "/admin/x%20y;",
            "/%2e/admin/x%20y",
            "/admin%2fx%20y",
            "/admin%5cx%20y",
            "/admin%252fx%20y",
            "/%61dmin/x%20y",
            "/%2561dmin/x%20y",
            "/admin%c0%afx%20y",
            "/admin/x%20y%00",
            "/admin/x/..;/x%20y",
            "/;x/admin/x%20y",
            "/x/%2e%2e/admin/x%20y",
            "/%u0061dmin/x%20y",
        ] {
            assert!(odd.iter().any(|(_, known)| known == spelling), "{spelling}\n{odd:#?}");
        }
        assert!(
            paths("/admin/").iter().any(|(kind, path)| (*kind, &**path) == (SpellingKind::Slash, "/admin"))
        );
        assert!(
            paths("/admin").iter().any(
                |(kind, path)| (*kind, &**path) == (SpellingKind::Encoding, "/%2561%2564%256d%2569%256e")
            )
        );
        assert_eq!(methods("GET"), ["get", "Get"]);
        let hosts = hosts("api.example.com");
        for host in ["API.EXAMPLE.COM", "api.example.com.", "api.example.com:443"] {
            assert!(hosts.iter().any(|odd| odd == host), "{host}");
        }
    }

    #[test]
    fn the_most_lenient_reader_distinguishes_different_requests() {
        for (path, other) in [("/a", "/b"), ("/a/b", "/b"), ("/a", "/a/b"), ("/", "/a"), ("/a%20b", "/ab")] {
            assert_ne!(leniently(path), leniently(other));
        }
    }

    proptest! {
        #[test]
        fn every_odd_spelling_is_the_plain_one_to_the_most_lenient_reader(path in "(/([a-zA-Z]{1,4}|[a-z]%20[A-Z]|@me|%C3%A9)){1,12}/?") {
            let spellings = paths(&path);
            prop_assert!(spellings.len() <= 110, "{}", spellings.len());
            for (kind, odd) in spellings {
                prop_assert_ne!(&odd, &path);
                // Servers do not agree on invalid encodings, so these are not compared.
                if !odd.contains("%u") && !odd.contains("%c0") && !odd.contains("%ff") && !odd.ends_with('%') {
                    prop_assert_eq!(leniently(&odd), leniently(&path), "{:?} {}", kind, odd);
                }
            }
        }
    }
}
