//! A refusal for a person with a browser.
//!
//! Promises a small page that reads well aloud, in the dark and on a phone, loads nothing, runs nothing, and
//! holds fixed text but for the request's id, which is escaped.

use crate::denial::Denial;
use http::StatusCode;

/// The page's style sheet, byte for byte as it stands in the page: the policy below names its digest.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1.0625rem/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto 2rem;padding:0 1.25rem}\
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .5rem}\
p{margin:.5rem 0}\
footer{margin-top:2rem;font-size:.875rem;overflow-wrap:anywhere}";

/// What the page may do: show its own style, and nothing else.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-+MHogwwIVqB2IkZf67UwkVUUz810MPR1oB7T7QrJtYI='; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// The page for a refusal.
pub(super) fn page(denial: &Denial, status: StatusCode, request_id: &[u8]) -> Vec<u8> {
    let title = status.canonical_reason().unwrap_or("Refused");
    let mut out = Vec::with_capacity(1024);
    for part in [
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>",
        title,
        "</title>\n<style>",
        STYLE,
        "</style>\n</head>\n<body>\n<main>\n<h1>",
        title,
        "</h1>\n<p>",
        denial.detail(),
        "</p>\n</main>\n<footer>\n<p>Status ",
        status.as_str(),
        ", <code>",
        denial.code(),
        "</code></p>\n<p>Request <code>",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    for byte in request_id {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b' '..=b'~' => out.push(*byte),
            _ => out.push(b'?'),
        }
    }
    out.extend_from_slice(b"</code></p>\n</footer>\n</body>\n</html>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn the_policy_allows_exactly_the_style_of_the_page() {
        let page = String::from_utf8(page(&Denial::NoRoute, StatusCode::NOT_FOUND, b"id")).unwrap();
        let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
        let expected = format!("style-src 'sha256-{}';", STANDARD.encode(digest));
        assert!(CONTENT_SECURITY_POLICY.contains(&expected), "{expected}");
    }

    #[test]
    fn every_page_says_what_the_document_says() {
        for denial in Denial::every() {
            let page = String::from_utf8(page(&denial, denial.status(), b"01J-id")).unwrap();
            for text in [denial.detail(), denial.code(), denial.status().as_str(), "01J-id"] {
                assert!(page.contains(text), "{text}");
            }
            assert!(!denial.detail().contains(['<', '&']));
            assert!(!page.contains("<script") && !page.contains("http"));
        }
    }

    #[test]
    fn a_request_id_cannot_open_an_element() {
        let page = String::from_utf8(page(&Denial::NoRoute, StatusCode::NOT_FOUND, b"<b>&\xff\x1b")).unwrap();
        assert!(page.contains("&lt;b>&amp;??</code>"));
    }
}
