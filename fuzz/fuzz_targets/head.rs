//! An accepted head has one host, one path and one framing. Parsing it again gives the same head.
//!
//! The first input line has the version, method and target. The other lines are header fields.
#![no_main]

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};
use libfuzzer_sys::fuzz_target;
use portcullis::route::host::{Authority, canonical_host};
use portcullis::route::{Head, HeadBounds, Slashes};

const BOUNDS: HeadBounds = HeadBounds { header_count: 8, header_bytes: 512 };

fn parse(input: &[u8]) -> Option<Parts> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(3, |byte| *byte == b' ');
    let version = match words.next()? {
        b"0" => Version::HTTP_10,
        b"1" => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = Uri::try_from(words.next()?).ok()?;
    let mut request = Request::builder().version(version).method(method).uri(uri);
    for line in lines.take(16) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

fuzz_target!(|input: &[u8]| {
    let Some(parts) = parse(input) else { return };
    let Ok(head) = Head::read(&parts, BOUNDS, Slashes::Strict) else { return };
    // The pieces of one `Cookie`, which HTTP/2 may divide (RFC 9113 section 8.2.3), count as one field.
    let pieces = parts.headers.get_all("cookie").iter().count();
    let joined = if parts.version == Version::HTTP_2 { pieces.saturating_sub(1) } else { 0 };
    assert!(parts.headers.len() - joined <= BOUNDS.header_count);
    let bytes =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    assert!(bytes <= BOUNDS.header_bytes);
    assert!(
        !parts.headers.contains_key("transfer-encoding") || !parts.headers.contains_key("content-length")
    );
    assert!(head.path.starts_with('/') && !head.path.contains("//"));
    assert!(head.method != Method::CONNECT);
    let Some(host) = head.host.as_deref() else {
        assert!(parts.version == Version::HTTP_10 && !parts.headers.contains_key("host"));
        return;
    };
    assert_eq!(canonical_host(host).as_deref(), Ok(host));
    // The forwarded `Host` parses to the same host and port that the decision used.
    let authority = head.authority().expect("there is a host");
    let again = Authority::parse(&authority).expect("an authority reads itself");
    assert_eq!((&*again.host, again.port), (host, head.port));
    for field in parts.headers.get_all("host") {
        let field = Authority::parse(field.to_str().expect("ASCII")).expect("a host");
        assert_eq!((&*field.host, field.port), (host, head.port), "one host");
    }
});
