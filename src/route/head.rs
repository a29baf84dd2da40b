//! Reads the head of a request into a canonical form. All later stages use this form.
//!
//! hyper has parsed the message. This module rejects a target, host or framing that two servers could read differently.

use super::host::Authority;
use super::known_host::KnownHost;
use super::path::{Slashes, canonical_with};
use crate::denial::{Denial, Malformed};
use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use std::borrow::Cow;

/// The parts of a request on which decisions depend. No later stage reads the raw URI or the `Host` header.
#[derive(Debug)]
pub struct Head<'r> {
    /// The method. Methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'r Method,
    /// The host in lower case, without port or trailing dot. An IPv6 address is in brackets. `None` only for HTTP/1.0
    /// requests without `Host`.
    pub host: Option<Cow<'r, str>>,
    /// The port, if the client sent a port with the host.
    pub port: Option<u16>,
    /// The canonical path. The gateway matches and forwards this path.
    pub path: Cow<'r, str>,
    /// The query without `?`, as sent.
    pub query: Option<&'r str>,
    /// The header fields, as sent.
    pub headers: &'r HeaderMap,
}

/// The bounds on the header fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBounds {
    /// The maximum number of fields.
    pub header_count: usize,
    /// The maximum size of all fields, in bytes. Each field counts as `name: value` and CRLF.
    pub header_bytes: usize,
}

impl HeadBounds {
    /// The number of additional fields in a forward-auth request. Some describe the original request, and proxies add
    /// others.
    const QUESTION_FIELDS: usize = 32;
    /// The number of additional bytes in a forward-auth request, mostly for the original target.
    const QUESTION_BYTES: usize = 16 * 1024;

    /// Returns the bounds for a forward-auth request. Such a request has the original request's fields and additional
    /// fields.
    #[must_use]
    pub(crate) fn of_question(self) -> Self {
        Self {
            header_count: self.header_count + Self::QUESTION_FIELDS,
            header_bytes: self.header_bytes + Self::QUESTION_BYTES,
        }
    }

    /// Describes for the operator which bound the headers exceed.
    pub(crate) fn excess(self, headers: &HeaderMap) -> String {
        // The bytes first: the pieces of one `Cookie`, which count as one field, can be more than the bound on fields.
        let (count, bytes) = (headers.len(), header_bytes(headers));
        if bytes > self.header_bytes {
            let bound = self.header_bytes;
            return format!("{bytes} bytes of header fields, and header_size in [server.bounds] is {bound}");
        }
        format!("{count} header fields, and headers in [server.bounds] is {}", self.header_count)
    }
}

impl<'r> Head<'r> {
    /// Reads the head of a request. Allocates only if the host or path is not canonical.
    ///
    /// `http::Uri` drops a fragment. A fragment is therefore neither matched nor forwarded.
    ///
    /// # Errors
    ///
    /// Returns [`Denial::HeadersTooLarge`] if the head exceeds the bounds. Returns [`Denial::BadRequest`] if two
    /// servers could read the request differently.
    pub fn read(parts: &'r Parts, bounds: HeadBounds, slashes: Slashes) -> Result<Self, Denial> {
        Self::read_after(None, parts, bounds, slashes)
    }

    /// Reads the head of a request like [`Head::read`]. `known` is the last `Host` of the connection, if it is remembered.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Head::read`].
    pub(crate) fn read_after(
        known: Option<&KnownHost>,
        parts: &'r Parts,
        bounds: HeadBounds,
        slashes: Slashes,
    ) -> Result<Self, Denial> {
        let is_too_many = parts.headers.len() > bounds.header_count && fields(parts) > bounds.header_count;
        let singular = SingularFields::of(&parts.headers);
        if is_too_many || singular.bytes > bounds.header_bytes {
            return Err(Denial::HeadersTooLarge);
        }
        Self::read_bounded(known, parts, &singular, slashes).map_err(Denial::BadRequest)
    }

    fn read_bounded(
        known: Option<&KnownHost>,
        parts: &'r Parts,
        singular: &SingularFields<'r>,
        slashes: Slashes,
    ) -> Result<Self, Malformed> {
        check_framing(parts.version, singular)?;
        check_padding(parts)?;
        check_target(&parts.method, &parts.uri, parts.version)?;
        let authority = read_authority(known, parts, singular)?;
        let (host, port) = authority.map_or((None, None), |authority| (Some(authority.host), authority.port));
        Ok(Self {
            method: &parts.method,
            host,
            port,
            path: canonical_with(parts.uri.path(), slashes)?,
            query: parts.uri.query(),
            headers: &parts.headers,
        })
    }

    /// Whether `written` equals [`Head::authority`]. Does not allocate.
    pub(crate) fn authority_is(&self, written: &[u8]) -> bool {
        let Some(rest) = self.host.as_deref().and_then(|host| written.strip_prefix(host.as_bytes())) else {
            return false;
        };
        match (rest, self.port) {
            ([], None) => true,
            ([b':', digits @ ..], Some(port)) => itoa::Buffer::new().format(port).as_bytes() == digits,
            _ => false,
        }
    }

    /// Returns the host, with the port if the client sent one.
    pub fn authority(&self) -> Option<Cow<'_, str>> {
        let host = self.host.as_deref()?;
        Some(match self.port {
            Some(port) => Cow::Owned(format!("{host}:{port}")),
            None => Cow::Borrowed(host),
        })
    }
}

/// Returns the number of fields. Counts the `Cookie` fields of an HTTP/2 request as one, because a client may split
/// them (RFC 9113 section 8.2.3).
#[cold]
fn fields(parts: &Parts) -> usize {
    let pieces =
        if parts.version == Version::HTTP_2 { parts.headers.get_all(COOKIE).iter().count() } else { 0 };
    parts.headers.len() - pieces.saturating_sub(1)
}

fn header_bytes(headers: &HeaderMap) -> usize {
    SingularFields::of(headers).bytes
}

/// The fields that a request may have once, found in one pass over all fields.
#[derive(Debug, Default)]
struct SingularFields<'r> {
    host: Once<'r>,
    coding: Once<'r>,
    length: Once<'r>,
    /// The size of all fields of the request. Each field counts as `name: value` and CRLF.
    bytes: usize,
}

/// A field that a request may have once.
#[derive(Debug, Default)]
struct Once<'r> {
    first: Option<&'r HeaderValue>,
    is_repeated: bool,
}

impl<'r> SingularFields<'r> {
    fn of(headers: &'r HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let text = name.as_str();
            found.bytes += text.len() + value.len() + 4;
            // The length excludes nearly all names.
            let field = match text.len() {
                4 if name == HOST => &mut found.host,
                14 if name == CONTENT_LENGTH => &mut found.length,
                17 if name == TRANSFER_ENCODING => &mut found.coding,
                _ => continue,
            };
            field.is_repeated = field.first.is_some();
            field.first.get_or_insert(value);
        }
        found
    }
}

/// Rejects values of HTTP/2 with white space around them (RFC 9113 section 8.2.1). The policy would compare other values
/// than an HTTP/1.1 server, for which the white space is not part of the value (RFC 9112 section 5.1).
fn check_padding(parts: &Parts) -> Result<(), Malformed> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_padded =
        |value: &HeaderValue| is_space(value.as_bytes().first()) || is_space(value.as_bytes().last());
    match parts.version == Version::HTTP_2 && parts.headers.values().any(is_padded) {
        true => Err(Malformed::PaddedValue),
        false => Ok(()),
    }
}

/// Rejects combinations of headers that are used for request smuggling (RFC 9112 section 6.1). hyper handles
/// `Content-Length` with `Transfer-Encoding`: it drops `Content-Length` and closes the connection after the request.
fn check_framing(
    version: Version,
    SingularFields { coding, length, .. }: &SingularFields<'_>,
) -> Result<(), Malformed> {
    let Some(value) = coding.first else {
        // hyper accepts a repeated `Content-Length` with equal values. Other servers reject the request.
        return if length.is_repeated { Err(Malformed::Framing) } else { Ok(()) };
    };
    // Only `chunked` is accepted. hyper does not decode other codings, and the gateway removes `Transfer-Encoding`. The
    // upstream would receive an encoded body without the name of the coding.
    let is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked") && !coding.is_repeated;
    let has_chunks = version == Version::HTTP_11;
    if is_chunked && has_chunks && length.first.is_none() { Ok(()) } else { Err(Malformed::Framing) }
}

/// Accepts only origin-form and absolute-form targets (RFC 9112 section 3.2). Rejects tunnels, which the gateway does
/// not open. Rejects `OPTIONS *`, which is addressed to the gateway and not to an upstream. In HTTP/2, a path is never empty
/// (RFC 9113 section 8.3.1).
fn check_target(method: &Method, uri: &Uri, version: Version) -> Result<(), Malformed> {
    let scheme_fits = match uri.scheme_str() {
        Some(scheme) => {
            (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
                && uri.authority().is_some()
        }
        // An authority without a scheme is the target of a tunnel, also in HTTP/2.
        None => uri.authority().is_none(),
    };
    let has_path = version != Version::HTTP_2 || has_path(uri);
    if *method != Method::CONNECT && scheme_fits && has_path && uri.path().starts_with('/') {
        Ok(())
    } else {
        Err(Malformed::Target)
    }
}

/// Whether the text of a target has a path. `Uri::path` returns `/` for the empty path of `http://host?query`.
pub(crate) fn has_path(uri: &Uri) -> bool {
    uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/'))
}

/// Whether two authorities are equal. A missing port equals the default port of the scheme (RFC 9110 section 4.2.3, RFC
/// 9113 section 8.3.1).
fn is_same(one: &Authority<'_>, other: &Authority<'_>, uri: &Uri) -> bool {
    let default = uri.scheme_str().map(|scheme| if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 });
    one.host == other.host && (one.port == other.port || one.port.or(default) == other.port.or(default))
}

/// Returns the host of a request. Rejects a `Host` that differs from an absolute-form target or `:authority`.
fn read_authority<'r>(
    known: Option<&KnownHost>,
    parts: &'r Parts,
    singular: &SingularFields<'r>,
) -> Result<Option<Authority<'r>>, Malformed> {
    let field = match singular.host.first {
        Some(value) => Some(match known {
            Some(known) => known.parse(value)?,
            // `to_str` accepts only visible ASCII.
            None => Authority::parse(value.to_str().map_err(|_| Malformed::Host)?)?,
        }),
        None => None,
    };
    if singular.host.is_repeated {
        return Err(Malformed::Host);
    }
    let target = match parts.uri.authority() {
        Some(authority) => Some(Authority::parse(authority.as_str())?),
        None => None,
    };
    match (field, target) {
        // A proxy must use the authority of the target, but origin servers often use `Host` (RFC 9112 section 3.2.2).
        (Some(field), Some(target)) if !is_same(&field, &target, &parts.uri) => Err(Malformed::HostMismatch),
        (Some(authority), Some(_) | None) => Ok(Some(authority)),
        // HTTP/1.1 requires `Host`, even with an absolute-form target (RFC 9112 section 3.2).
        (None, Some(_) | None) if parts.version == Version::HTTP_11 => Err(Malformed::Host),
        (None, Some(authority)) => Ok(Some(authority)),
        (None, None) if parts.version == Version::HTTP_10 => Ok(None),
        (None, None) => Err(Malformed::Host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    const ROOMY: HeadBounds = HeadBounds { header_count: 100, header_bytes: 32 * 1024 };

    fn parts(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn read(parts: &Parts) -> Result<Head<'_>, Denial> {
        Head::read(parts, ROOMY, Slashes::Strict)
    }

    fn refused(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Malformed {
        match read(&parts(version, method, target, fields)) {
            Err(Denial::BadRequest(malformed)) => malformed,
            other => panic!("{method} {target} {fields:?}: {other:?}"),
        }
    }

    fn host_of(version: Version, target: &str, fields: &[(&str, &str)]) -> Option<String> {
        let parts = parts(version, "GET", target, fields);
        let head = read(&parts).unwrap();
        let authority = head.authority().map(Cow::into_owned);
        if let Some(authority) = &authority {
            assert!(head.authority_is(authority.as_bytes()));
            assert!(!head.authority_is(format!("{authority}0").as_bytes()));
            assert!(!head.authority_is(&authority.as_bytes()[1..]));
        }
        authority
    }

    #[test]
    fn an_ordinary_request_is_read_without_copying() {
        let parts = parts(Version::HTTP_11, "GET", "/a/b?c=%2f", &[("host", "api.example.com:8443")]);
        let head = read(&parts).unwrap();
        assert!(matches!(head.host, Some(Cow::Borrowed("api.example.com"))));
        assert!(matches!(head.path, Cow::Borrowed("/a/b")));
        assert_eq!((head.port, head.query), (Some(8443), Some("c=%2f")));
        assert_eq!(head.authority().as_deref(), Some("api.example.com:8443"));
    }

    #[test]
    fn every_spelling_of_a_host_reads_the_same() {
        for host in ["example.com", "EXAMPLE.com", "example.com."] {
            assert_eq!(host_of(Version::HTTP_11, "/", &[("host", host)]).as_deref(), Some("example.com"));
        }
        assert_eq!(host_of(Version::HTTP_11, "/", &[("host", "[0::1]:80")]).as_deref(), Some("[::1]:80"));
    }

    #[test]
    fn each_version_needs_a_host_but_the_first() {
        assert_eq!(refused(Version::HTTP_11, "GET", "/", &[]), Malformed::Host);
        assert_eq!(refused(Version::HTTP_11, "GET", "http://a/", &[]), Malformed::Host);
        assert_eq!(refused(Version::HTTP_2, "GET", "/", &[]), Malformed::Host);
        assert_eq!(host_of(Version::HTTP_10, "/", &[]), None);
        assert_eq!(host_of(Version::HTTP_10, "http://a/", &[]).as_deref(), Some("a"));
        assert_eq!(host_of(Version::HTTP_10, "/", &[("host", "a")]).as_deref(), Some("a"));
        assert_eq!(host_of(Version::HTTP_2, "https://a/", &[]).as_deref(), Some("a"));
        assert_eq!(host_of(Version::HTTP_2, "/", &[("host", "a")]).as_deref(), Some("a"));
    }

    #[test]
    fn a_host_that_is_none_or_two_is_refused() {
        for host in
            ["", " ", "a b", "u@a", ":", "a:x", "a%2eb", "a,b", "b\u{fc}cher", "a/b", "http://a", "::1"]
        {
            assert_eq!(refused(Version::HTTP_11, "GET", "/", &[("host", host)]), Malformed::Host, "{host}");
        }
        assert_eq!(refused(Version::HTTP_11, "GET", "/", &[("host", "a"), ("host", "a")]), Malformed::Host);
        assert_eq!(refused(Version::HTTP_11, "GET", "http://u@a/", &[("host", "a")]), Malformed::Host);
    }

    #[test]
    fn host_and_target_must_name_the_same() {
        for (target, field) in [
            ("http://a/", "a"),
            ("http://A./", "a"),
            ("https://a:81/", "A.:81"),
            ("http://[::1]/", "[0::1]"),
            ("http://a/", "a:80"),
            ("http://a:80/", "a"),
            ("https://a/", "a:443"),
            ("http://a/", "a:"),
        ] {
            assert!(host_of(Version::HTTP_11, target, &[("host", field)]).is_some());
            assert!(host_of(Version::HTTP_2, target, &[("host", field)]).is_some());
        }
        for (target, field) in
            [("http://a/", "b"), ("http://a:81/", "a"), ("http://a/", "a:443"), ("http://a:81/", "a:82")]
        {
            for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
                assert_eq!(refused(version, "GET", target, &[("host", field)]), Malformed::HostMismatch);
            }
        }
    }

    #[test]
    fn only_origin_form_and_absolute_form_are_targets() {
        let host = &[("host", "a")][..];
        assert_eq!(refused(Version::HTTP_11, "OPTIONS", "*", host), Malformed::Target);
        assert_eq!(refused(Version::HTTP_11, "CONNECT", "a:443", host), Malformed::Target);
        assert_eq!(refused(Version::HTTP_11, "CONNECT", "/", host), Malformed::Target);
        assert_eq!(refused(Version::HTTP_2, "CONNECT", "https://a/", host), Malformed::Target);
        assert_eq!(refused(Version::HTTP_11, "GET", "a:443", host), Malformed::Target);
        assert_eq!(refused(Version::HTTP_11, "GET", "ftp://a/", host), Malformed::Target);
        assert!(read(&parts(Version::HTTP_11, "OPTIONS", "/", host)).is_ok());
    }

    #[test]
    fn an_absolute_target_is_read_by_its_path_alone() {
        let request = parts(Version::HTTP_11, "GET", "http://a?q", &[("host", "a")]);
        let head = read(&request).unwrap();
        assert_eq!((&*head.path, head.query), ("/", Some("q")));
    }

    #[test]
    fn a_target_of_http_2_has_a_path() {
        let host = &[("host", "a")][..];
        assert_eq!(refused(Version::HTTP_2, "GET", "https://a?q", host), Malformed::Target);
        assert!(read(&parts(Version::HTTP_2, "GET", "https://a/?q", host)).is_ok());
    }

    #[test]
    fn the_path_is_canonical_or_refused() {
        let host = &[("host", "a")][..];
        let request = parts(Version::HTTP_11, "GET", "/x/../%61?..", host);
        let head = read(&request).unwrap();
        assert_eq!((&*head.path, head.query), ("/a", Some("..")));
        assert_eq!(refused(Version::HTTP_11, "GET", "/a\\b", host), Malformed::Backslash);
        assert_eq!(refused(Version::HTTP_11, "GET", "/a//b", host), Malformed::EmptySegment);
        let request = parts(Version::HTTP_11, "GET", "/a//b", host);
        assert_eq!(Head::read(&request, ROOMY, Slashes::Merge).unwrap().path, "/a/b");
    }

    #[test]
    fn a_fragment_is_neither_matched_nor_forwarded() {
        let request = parts(Version::HTTP_11, "GET", "/a#/b?c", &[("host", "a")]);
        let head = read(&request).unwrap();
        assert_eq!((&*head.path, head.query), ("/a", None));
    }

    #[test]
    fn framing_has_one_reading() {
        let framed = |version, fields: &[(&str, &str)]| {
            let mut all = vec![("host", "a")];
            all.extend_from_slice(fields);
            read(&parts(version, "POST", "/", &all)).map(|_| ())
        };
        assert_eq!(framed(Version::HTTP_11, &[("transfer-encoding", "chunked")]), Ok(()));
        assert_eq!(framed(Version::HTTP_11, &[("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(framed(Version::HTTP_11, &[("content-length", "1")]), Ok(()));
        for (version, fields) in [
            (Version::HTTP_11, &[("transfer-encoding", "chunked"), ("content-length", "1")][..]),
            (Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")]),
            (Version::HTTP_11, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
            (Version::HTTP_11, &[("transfer-encoding", "xchunked")]),
            (Version::HTTP_11, &[("content-length", "1"), ("content-length", "1")]),
            (Version::HTTP_10, &[("transfer-encoding", "chunked")]),
            (Version::HTTP_2, &[("transfer-encoding", "chunked")]),
        ] {
            assert_eq!(framed(version, fields), Err(Denial::BadRequest(Malformed::Framing)), "{fields:?}");
        }
    }

    #[test]
    fn header_fields_are_bounded_in_number_and_bytes() {
        // The fields `host: a` and `x: yz` count as 4 + 1 + 4 and 1 + 2 + 4 bytes.
        let parts = parts(Version::HTTP_11, "GET", "/", &[("host", "a"), ("x", "yz")]);
        let read = |header_count, header_bytes| {
            Head::read(&parts, HeadBounds { header_count, header_bytes }, Slashes::Strict).map(|_| ())
        };
        assert_eq!(read(2, 16), Ok(()));
        assert_eq!(read(1, 16), Err(Denial::HeadersTooLarge));
        let excess =
            |header_count, header_bytes| HeadBounds { header_count, header_bytes }.excess(&parts.headers);
        assert_eq!(excess(1, 16), "2 header fields, and headers in [server.bounds] is 1");
        assert_eq!(excess(2, 15), "16 bytes of header fields, and header_size in [server.bounds] is 15");
        assert_eq!(read(2, 15), Err(Denial::HeadersTooLarge));
    }

    #[test]
    fn the_pieces_of_a_cookie_are_one_field_and_each_has_its_bytes() {
        let fields = [("host", "a"), ("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")];
        let bounds = |header_bytes| HeadBounds { header_count: 2, header_bytes };
        let parts = |version| parts(version, "GET", "/", &fields);
        let read = |version, bytes| Head::read(&parts(version), bounds(bytes), Slashes::Strict).map(|_| ());
        assert_eq!(read(Version::HTTP_2, 48), Ok(()));
        assert_eq!(read(Version::HTTP_11, 48), Err(Denial::HeadersTooLarge));
        assert_eq!(read(Version::HTTP_2, 47), Err(Denial::HeadersTooLarge));
        let excess = bounds(47).excess(&parts(Version::HTTP_2).headers);
        assert_eq!(excess, "48 bytes of header fields, and header_size in [server.bounds] is 47");
    }

    proptest! {
        #[test]
        fn no_target_or_host_breaks_the_reader(target in "\\PC{0,40}|[/.%;a-f0-9]{1,24}|https?://[a-zA-Z.:0-9@]{1,12}/[.%/a]{0,9}", host in any::<Vec<u8>>()) {
            let (Ok(uri), Ok(host)) = (target.parse::<Uri>(), HeaderValue::from_bytes(&host)) else { return Ok(()) };
            let (parts, ()) = Request::builder().uri(uri).header("host", host).body(()).unwrap().into_parts();
            if let Ok(head) = read(&parts) {
                let host = head.host.as_deref().unwrap();
                prop_assert!(!host.is_empty() && host.is_ascii() && host == host.to_ascii_lowercase());
                prop_assert!(head.path.starts_with('/'));
            }
        }
    }
}
