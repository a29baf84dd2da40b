//! Chooses the format of a refusal from `Content-Type` and `Accept`. Detects whether a person waits for a page.

use crate::field_list::members;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The weight 1, in thousandths.
const WHOLE: u16 = 1000;

/// The format in which a client can read a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/problem+json` (RFC 9457).
    Json,
    /// A page for a browser.
    Html,
    /// The trailers-only response of gRPC.
    Grpc,
    /// The trailers-only response of gRPC-Web, which has a different media type.
    GrpcWeb,
}

impl Format {
    /// Returns the format for a request: gRPC by the `Content-Type`, a page if `Accept` prefers `text/html` to JSON,
    /// and a problem document otherwise.
    pub fn of(headers: &HeaderMap) -> Self {
        // The length excludes nearly all names. Most requests need no look-up.
        let (mut has_kind, mut has_ranges) = (false, false);
        for name in headers.keys() {
            match name.as_str().len() {
                6 => has_ranges |= name == ACCEPT,
                12 => has_kind |= name == CONTENT_TYPE,
                _ => {}
            }
        }
        let kind = if has_kind { headers.get(CONTENT_TYPE) } else { None };
        let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
        if begins(kind, b"application/grpc-web") {
            return Self::GrpcWeb;
        }
        if begins(kind, b"application/grpc") {
            return Self::Grpc;
        }
        // Programs do not name HTML in `Accept`, so most requests skip `prefers_page`.
        if has_ranges
            && members(headers, &ACCEPT).any(|range| begins(range, b"text/html"))
            && prefers_page(headers)
        {
            Self::Html
        } else {
            Self::Json
        }
    }
}

/// Returns whether a person will see the response.
///
/// A browser sends `Sec-Fetch-Mode: navigate` with such a request (Fetch Metadata, section 2.3), and another mode for
/// images, scripts and `fetch`. A request without this field counts as navigation, unless `X-Requested-With` marks a
/// script. A request that cannot be repeated after a login does not count.
pub(crate) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let is_script = |with: &HeaderValue| with.as_bytes().eq_ignore_ascii_case(b"XMLHttpRequest");
    is_repeatable(method)
        && headers.get_all(SEC_FETCH_MODE).iter().all(|mode| mode == "navigate")
        && !headers.get_all(X_REQUESTED_WITH).iter().any(is_script)
}

/// Returns whether a browser can repeat the request by opening its address.
pub(crate) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Returns whether HTML has a higher weight than JSON (RFC 9110 section 12.5.1). The most specific range sets the
/// weight of a type. If the weights are equal, the first range wins, because old clients list their preferences in
/// order.
#[cold]
fn prefers_page(headers: &HeaderMap) -> bool {
    let (mut page, mut json): (Option<Wish>, Option<Wish>) = (None, None);
    let (mut application, mut any) = (None, None);
    for (place, range) in members(headers, &ACCEPT).enumerate() {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let wish = Wish { weight: weight(parts), place };
        match &media[..] {
            b"text/html" => raise(&mut page, wish),
            b"application/json" | b"application/problem+json" => raise(&mut json, wish),
            b"application/*" => raise(&mut application, wish),
            b"*/*" => raise(&mut any, wish),
            _ => {}
        }
    }
    let Some(page) = page.filter(|page| page.weight > 0) else { return false };
    match (json, application.or(any)) {
        (Some(json), _) if json.weight == page.weight => page.place < json.place,
        (Some(json), _) => page.weight > json.weight,
        (None, Some(wild)) => page.weight >= wild.weight,
        (None, None) => true,
    }
}

/// The weight of a media type, and the position of the range in `Accept`.
#[derive(Clone, Copy, Debug)]
struct Wish {
    weight: u16,
    place: usize,
}

/// Keeps the highest weight, at its first position.
fn raise(kept: &mut Option<Wish>, wish: Wish) {
    if kept.is_none_or(|kept| kept.weight < wish.weight) {
        *kept = Some(wish);
    }
}

/// Returns the weight of a range in thousandths (RFC 9110 section 12.4.2). An invalid weight counts as 0.
pub(super) fn weight<'p>(parameters: impl Iterator<Item = &'p [u8]>) -> u16 {
    for parameter in parameters {
        if let [b'q' | b'Q', b'=', value @ ..] = parameter {
            return thousandths(value).unwrap_or(0);
        }
    }
    WHOLE
}

fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(at) => (&value[..at], &value[at + 1..]),
        None => (value, &b""[..]),
    };
    // Java's HTTP client sends ".2", which the grammar does not allow.
    let whole = match whole {
        b"1" => WHOLE,
        b"0" => 0,
        b"" if !fraction.is_empty() => 0,
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(&b"000"[fraction.len()..]);
    let sum = digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')) + whole;
    (sum <= WHOLE).then_some(sum)
}

fn begins(value: &[u8], with: &[u8]) -> bool {
    value.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn format(fields: &[(&'static str, &str)]) -> Format {
        Format::of(&headers(fields))
    }

    #[test]
    fn browsers_get_a_page_and_every_other_client_a_document() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(format(&[("accept", browser)]), Format::Html);
        assert_eq!(format(&[("accept", "TEXT/HTML")]), Format::Html);
        assert_eq!(format(&[]), Format::Json);
        assert_eq!(format(&[("accept", "*/*")]), Format::Json);
        assert_eq!(format(&[("accept", "text/*")]), Format::Json);
        assert_eq!(format(&[("accept", "text/htmlx")]), Format::Json);
    }

    /// Checks RFC 9110 sections 12.4.2 and 12.5.1.
    #[test]
    fn the_higher_weight_wins_and_a_weight_of_zero_never_does() {
        for (accept, page) in [
            ("application/json;q=0.5,text/html", true),
            ("application/json, text/html;q=0.1", false),
            ("text/html;q=0.9, application/json;q=0.8", true),
            ("text/html;q=0.8, application/json;q=0.9", false),
            ("text/html;q=0.8, application/problem+json;q=0.801", false),
            ("text/html;q=0", false),
            ("text/html;q=0.000", false),
            ("text/html;Q=0, */*", false),
            ("text/html; q=0 , application/json;q=0", false),
            ("text/html;q=0.001", true),
            ("text/html;level=1;q=0.3, application/json;q=0.2", true),
            // If the weights are equal, the first range wins.
            ("application/json, text/html", false),
            ("text/html, application/json", true),
            ("application/json;q=1.0, text/html;q=1", false),
            // If no range names JSON, JSON has the weight of the wildcard.
            ("text/html, */*", true),
            ("*/*, text/html", true),
            ("text/html;q=0.5, */*", false),
            ("text/html;q=0.5, application/*;q=0.4, */*", true),
            ("text/html;q=0.5, application/json;q=0.1, */*", true),
            // These weights are invalid.
            ("text/html;q=1.1", false),
            ("text/html;q=2", false),
            ("text/html;q=-1", false),
            ("text/html;q=0.1234", false),
            ("text/html;q=", false),
            ("text/html;q=.", false),
            ("text/html, image/gif, *; q=.2, */*; q=.2", true),
            ("text/html;q=.2, */*;q=.3", false),
        ] {
            let expected = if page { Format::Html } else { Format::Json };
            assert_eq!(format(&[("accept", accept)]), expected, "{accept}");
            let fields: Vec<_> = accept.split(',').map(|range| ("accept", range)).collect();
            assert_eq!(format(&fields), expected, "{accept}, in a field each");
        }
    }

    #[test]
    fn grpc_calls_are_recognised_by_their_content_type() {
        assert_eq!(format(&[("content-type", "application/grpc")]), Format::Grpc);
        assert_eq!(format(&[("content-type", "Application/gRPC+proto")]), Format::Grpc);
        assert_eq!(format(&[("content-type", "application/grpc-web+proto")]), Format::GrpcWeb);
        assert_eq!(format(&[("content-type", "application/json")]), Format::Json);
        assert_eq!(format(&[("content-type", "application/grp"), ("accept", "text/html")]), Format::Html);
    }

    /// Checks the modes of Fetch Metadata, section 2.3.
    #[test]
    fn only_what_a_person_looks_at_next_is_a_navigation() {
        for (method, fields, expected) in [
            ("GET", &[][..], true),
            ("HEAD", &[], true),
            ("GET", &[("sec-fetch-mode", "navigate")], true),
            ("GET", &[("sec-fetch-mode", "cors")], false),
            ("GET", &[("sec-fetch-mode", "no-cors")], false),
            ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "cors")], false),
            ("GET", &[("x-requested-with", "XMLHttpRequest")], false),
            ("GET", &[("x-requested-with", "xmlhttprequest")], false),
            ("GET", &[("x-requested-with", "org.example.browser")], true),
            ("OPTIONS", &[], false),
            ("TRACE", &[], false),
            ("POST", &[("sec-fetch-mode", "navigate")], false),
            ("PROPFIND", &[], false),
        ] {
            assert_eq!(
                is_navigation(&method.parse().unwrap(), &headers(fields)),
                expected,
                "{method} {fields:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_accept_has_a_reading(accept in "[ -~]{0,60}|([a-z*]{1,4}/(html|json|[*])(;q=[0-9.]{0,5})?,?){0,6}") {
            let format = format(&[("accept", &accept)]);
            prop_assert!(format == Format::Json || accept.to_ascii_lowercase().contains("text/html"));
        }

        #[test]
        fn the_weights_decide_wherever_they_stand(page in 0_u16..=1000, json in 0_u16..=1000, first in any::<bool>()) {
            prop_assume!(page != json);
            let q = |weight: u16| format!("{}.{:03}", weight / 1000, weight % 1000);
            let (page_range, json_range) =
                (format!("text/html;q={}", q(page)), format!("application/json;q={}", q(json)));
            let accept =
                if first { format!("{page_range}, {json_range}") } else { format!("{json_range},{page_range}") };
            let expected = if page > json { Format::Html } else { Format::Json };
            prop_assert_eq!(format(&[("accept", &accept)]), expected);
        }
    }
}
