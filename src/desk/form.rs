//! Forms that may carry a CSRF token, for routes that say so: read before the request is decided on, and sent on as they
//! came.

use crate::authenticate::csrf::is_unsafe;
use crate::authority::Fields;
use crate::denial::Denial;
use crate::forward::RequestBody;
use crate::route::Head;
use http::header;

/// As large a form as is looked into; a larger one needs the header.
const FORM_MAX: u64 = 64 * 1024;

/// The CSRF token in a form's field, where the request has a form with a known, small size. The body is then whole.
///
/// # Errors
/// What the body met on its way; [`Denial::InvalidBody`] for a form with two readings.
pub async fn csrf_field(
    name: &str,
    head: &Head<'_>,
    body: &mut RequestBody,
) -> Result<Option<String>, Denial> {
    let is_form = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    });
    let small =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let small = small.is_some_and(|length: u64| length <= FORM_MAX);
    if !is_form || !small || !is_unsafe(head.method) || !head.headers.contains_key(header::COOKIE) {
        return Ok(None);
    }
    let whole = std::mem::take(body).gather().await?;
    let field = Fields::form(&whole)?.optional(name)?.map(str::to_owned);
    *body = RequestBody::Whole(whole);
    Ok(field)
}

/// A text as a value of a query (RFC 3986 section 2.1).
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
