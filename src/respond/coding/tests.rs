use super::*;
use proptest::prelude::*;

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn chosen(accept: &str) -> &'static str {
    negotiate(&map(&[("accept-encoding", accept)]), &Coding::ALL).map_or("plain", Coding::as_str)
}

#[test]
fn the_client_s_preference_decides_and_then_the_order_of_the_policy() {
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip;q=1.0, br;q=0.9", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, br;q=0", "zstd"),
        ("zstd;q=0, *;q=0.1", "br"),
        ("gzip ; q=0.5 , identity;q=0.4", "gzip"),
        ("gzip;q=0.5, identity", "plain"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=0", "plain"),
        ("gzip;q=0.000", "plain"),
        ("gzip;q=2", "plain"),
        ("gzip;q=", "plain"),
        ("gzipx", "plain"),
        ("deflate, compress", "plain"),
        ("", "plain"),
        (",,;q=1", "plain"),
    ] {
        assert_eq!(chosen(accept), coding, "{accept}");
    }
    assert_eq!(negotiate(&HeaderMap::new(), &Coding::ALL), None);
    assert_eq!(negotiate(&map(&[("accept-encoding", "br, gzip")]), &[Coding::Gzip]), Some(Coding::Gzip));
}

const GZIP: (&str, &str) = ("accept-encoding", "gzip");

fn compression(with_credentials: bool) -> Compression {
    Compression { codings: Coding::ALL.into(), types: Box::default(), with_credentials }
}

/// Returns the coding and the fields of an answer to a request.
fn answered(
    with_credentials: bool,
    request: &[(&'static str, &str)],
    status: u16,
    answer: &[(&'static str, &str)],
) -> (Option<Coding>, HeaderMap) {
    let compression = compression(with_credentials);
    let wish = compression.wish(&map(request), false, false);
    let mut headers = map(answer);
    let coding = compression.apply(wish, status.try_into().unwrap(), &mut headers, Some(5000), |_| true);
    (coding, headers)
}

#[test]
fn a_compressed_answer_has_a_weak_validator_no_length_and_no_ranges() {
    let fields = [
        ("content-type", "text/HTML; charset=utf-8"),
        ("content-length", "5000"),
        ("etag", "\"a\""),
        ("accept-ranges", "bytes"),
        ("vary", "origin"),
    ];
    let (coding, headers) = answered(false, &[GZIP], 200, &fields);
    assert_eq!(coding, Some(Coding::Gzip));
    let expected = [
        ("content-type", "text/HTML; charset=utf-8"),
        ("etag", "W/\"a\""),
        ("vary", "origin"),
        ("vary", "accept-encoding"),
        ("content-encoding", "gzip"),
    ];
    assert_eq!(headers, map(&expected));
    let (coding, headers) = answered(false, &[], 200, &fields);
    assert_eq!((coding, headers.get("etag").unwrap().as_bytes()), (None, &b"\"a\""[..]));
    assert_eq!(headers.get_all("vary").iter().count(), 2, "the plain answer varies too");
    let (coding, headers) = answered(false, &[GZIP], 304, &[("etag", "\"a\"")]);
    assert_eq!((coding, headers), (None, map(&[("etag", "W/\"a\""), ("vary", "accept-encoding")])));
}

#[test]
fn answers_that_must_stay_as_they_are_stay() {
    let html = ("content-type", "text/html");
    for (status, fields) in [
        (200, &[html, ("content-encoding", "br")][..]),
        (200, &[html, ("cache-control", "public, No-Transform")]),
        (200, &[html, ("content-range", "bytes 0-1/2")]),
        (200, &[html, ("content-digest", "sha-256=:x:")]),
        (200, &[html, html]),
        (200, &[("content-type", "image/png")]),
        (200, &[("content-type", "text/event-stream")]),
        (200, &[("content-type", "application/grpc")]),
        (200, &[]),
        (204, &[html]),
        (206, &[html]),
    ] {
        let (coding, headers) = answered(false, &[GZIP], status, fields);
        assert_eq!((coding, headers), (None, map(fields)), "{status} {fields:?}");
    }
    let compression = compression(false);
    let wish = compression.wish(&map(&[GZIP]), false, false);
    let mut headers = map(&[html]);
    assert_eq!(compression.apply(wish, StatusCode::OK, &mut headers, Some(1023), |_| true), None);
    assert_eq!(headers, map(&[html]));
    assert_eq!(
        compression.apply(wish, StatusCode::OK, &mut headers, None, |_| false),
        None,
        "the core is busy"
    );
    assert_eq!(headers.get("content-encoding"), None);
    assert_eq!(compression.apply(wish, StatusCode::OK, &mut headers, None, |_| true), Some(Coding::Gzip));
}

#[test]
fn the_answer_to_head_has_the_fields_of_the_answer_to_get() {
    let compression = compression(false);
    let wish = compression.wish(&map(&[GZIP]), true, false);
    let mut headers = map(&[("content-type", "text/css"), ("content-length", "5000")]);
    assert_eq!(compression.apply(wish, StatusCode::OK, &mut headers, Some(0), |_| false), None);
    let expected = [("content-type", "text/css"), ("vary", "accept-encoding"), ("content-encoding", "gzip")];
    assert_eq!(headers, map(&expected));
}

/// The precondition of BREACH: a secret of the caller, and requests that another site can cause.
#[test]
fn answers_that_may_hold_a_secret_are_not_compressed() {
    let html = [("content-type", "text/html")];
    let is_compressed =
        |may, request: &[(&'static str, &str)]| answered(may, request, 200, &html).0.is_some();
    for credential in [("cookie", "a=1"), ("authorization", "Basic x")] {
        assert!(!is_compressed(false, &[GZIP, credential]), "{credential:?}");
        assert!(is_compressed(true, &[GZIP, credential]), "{credential:?}");
        for (site, expected) in
            [("cross-site", false), ("same-site", false), ("same-origin", true), ("none", true)]
        {
            let request = [GZIP, credential, ("sec-fetch-site", site)];
            assert_eq!(is_compressed(true, &request), expected, "{site}");
        }
    }
    assert!(is_compressed(false, &[GZIP, ("sec-fetch-site", "cross-site")]), "no credential, no secret");
    assert!(!is_compressed(true, &[GZIP, ("cache-control", "no-transform")]));
    let compression = compression(false);
    assert!(compression.wish(&map(&[GZIP]), false, true).coding.is_none(), "a verified caller");
}

proptest! {
    /// A coding is chosen only if the client names it or `*`, and not with weight 0.
    #[test]
    fn no_client_gets_a_coding_that_it_does_not_accept(
        accept in "((gzip|br|zstd|identity|\\*|x-gzip)(;q=[01](\\.[0-9]{1,3})?)?(, ?)?){0,5}",
        noise in "[ -~]{0,40}",
    ) {
        for text in [accept.clone(), noise.clone(), format!("{accept},{noise}")] {
            let headers = map(&[("accept-encoding", text.as_str())]);
            if let Some(coding) = negotiate(&headers, &Coding::ALL) {
                let lower = text.to_ascii_lowercase();
                prop_assert!(lower.contains(coding.as_str()) || lower.contains('*'), "{}", text);
                let refused = format!("{};q=0", coding.as_str());
                prop_assert_eq!(negotiate(&map(&[("accept-encoding", &refused)]), &Coding::ALL), None);
            }
        }
    }
}

#[test]
fn trailers_lose_the_digests_of_the_plain_bytes() {
    let mut trailers = map(&[("repr-digest", "x"), ("x-checksum", "7"), ("signature-input", "x")]);
    clean_trailers(&mut trailers);
    assert_eq!(trailers, map(&[("x-checksum", "7")]));
}
