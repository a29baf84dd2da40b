//! Finds cookies of a request.

use crate::denial::Denial;
use http::{HeaderMap, header};

/// Returns the value of a cookie (RFC 6265 section 5.4); `None` if the cookie is absent or empty. A deleted cookie can
/// remain with an empty value.
///
/// Names and values are compared literally: quotes, percent codes and commas have no special meaning. Other parsers may
/// also accept other spellings of a cookie with this name. This function ignores such spellings, and `forward::strip`
/// removes them before forwarding.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] if two cookies have this name.
pub fn cookie<'r>(headers: &'r HeaderMap, name: &str) -> Result<Option<&'r [u8]>, Denial> {
    let mut found = None;
    for field in headers.get_all(header::COOKIE) {
        for pair in field.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii_start();
            if let Some([b'=', value @ ..]) = pair.strip_prefix(name.as_bytes()) {
                if found.is_some() {
                    return Err(Denial::AmbiguousCredentials);
                }
                found = Some(value.trim_ascii_end());
            }
        }
    }
    Ok(found.filter(|value| !value.is_empty()))
}
