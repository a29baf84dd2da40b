//! The credential that a request carries: exactly one, in exactly one form.

use crate::denial::{Denial, TokenPart};
use http::{HeaderMap, header};

/// The bearer token in `Authorization` (RFC 6750 section 2.1); `None` where the field is absent or of another scheme.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] for two fields; [`Denial::MalformedToken`] for anything but one scheme, one space,
/// one token: tabs and second spaces are how one program reads a credential that another does not.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Denial> {
    const SCHEME: &str = "bearer";
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Denial::AmbiguousCredentials);
    }
    let malformed = Denial::MalformedToken(TokenPart::Field);
    let Ok(field) = field.to_str() else { return Err(malformed) };
    // A scheme is a token; the first character that cannot be part of it ends it.
    let end = field.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(field.len());
    let (scheme, rest) = field.split_at(end);
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Ok(None);
    }
    match rest.strip_prefix(' ') {
        Some(token) if !token.is_empty() && token.bytes().all(is_b64token) => Ok(Some(token)),
        Some(_) | None => Err(malformed),
    }
}

/// The characters of a b64token (RFC 6750 section 2.1).
fn is_b64token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> Result<Option<String>, Denial> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, field.parse().unwrap());
        }
        bearer(&headers).map(|token| token.map(str::to_owned))
    }

    #[test]
    fn one_scheme_one_space_one_token() {
        for field in ["Bearer a.b-c_d", "bearer a.b-c_d", "BEARER a.b-c_d"] {
            assert_eq!(read(&[field]), Ok(Some("a.b-c_d".to_owned())), "{field}");
        }
    }

    #[test]
    fn no_field_or_another_scheme_is_no_token() {
        for fields in [&[][..], &["Basic dTpw"], &["Digest a=b"], &["Bearers a"], &[""], &["token"]] {
            assert_eq!(read(fields), Ok(None), "{fields:?}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for field in [
            "Bearer",
            "Bearer ",
            "Bearer  a",
            "Bearer\ta",
            "Bearer a ",
            "Bearer a b",
            "Bearer a,b",
            "Bearer \"a\"",
            "Bearer:a",
            "bearer,a",
        ] {
            assert_eq!(read(&[field]), Err(Denial::MalformedToken(TokenPart::Field)), "{field:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, http::HeaderValue::from_bytes(b"Bearer \xe9").unwrap());
        assert_eq!(bearer(&headers), Err(Denial::MalformedToken(TokenPart::Field)));
    }

    #[test]
    fn two_fields_are_ambiguous_even_when_equal() {
        assert_eq!(read(&["Bearer a", "Bearer a"]), Err(Denial::AmbiguousCredentials));
        assert_eq!(read(&["Basic a", "Bearer a"]), Err(Denial::AmbiguousCredentials));
    }
}
