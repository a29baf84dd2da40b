//! The credential that a request carries: exactly one, in exactly one form.

use crate::denial::{Denial, TokenPart};
use http::{HeaderMap, header};

/// What stands behind `Bearer` and one space in `Authorization` (RFC 6750 section 2.1), to be read by [`token`];
/// `None` where the field is absent or of another scheme.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] for two fields; [`Denial::MalformedToken`] for a scheme with anything but one space
/// behind it: tabs are how one program reads a credential that another does not.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Denial> {
    const SCHEME: &[u8] = b"bearer";
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Denial::AmbiguousCredentials);
    }
    let field = field.as_bytes();
    // A scheme is a token; the first character that cannot be part of it ends it.
    let end = field.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'-').unwrap_or(field.len());
    let (scheme, rest) = field.split_at(end);
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Ok(None);
    }
    match rest {
        [b' ', credential @ ..] => Ok(Some(credential)),
        _ => Err(Denial::MalformedToken(TokenPart::Field)),
    }
}

/// The one token that a credential is: no second space, no list. Not asked of a credential that was verified before,
/// which has the very bytes of one that was one.
///
/// # Errors
/// [`Denial::MalformedToken`].
pub fn token(credential: &[u8]) -> Result<&str, Denial> {
    match std::str::from_utf8(credential) {
        Ok(token) if !token.is_empty() && token.bytes().all(is_b64token) => Ok(token),
        Ok(_) | Err(_) => Err(Denial::MalformedToken(TokenPart::Field)),
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
        bearer(&headers)?.map(|credential| token(credential).map(str::to_owned)).transpose()
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
        assert_eq!(
            bearer(&headers).map(|c| c.map(token)),
            Ok(Some(Err(Denial::MalformedToken(TokenPart::Field))))
        );
    }

    #[test]
    fn two_fields_are_ambiguous_even_when_equal() {
        assert_eq!(read(&["Bearer a", "Bearer a"]), Err(Denial::AmbiguousCredentials));
        assert_eq!(read(&["Basic a", "Bearer a"]), Err(Denial::AmbiguousCredentials));
    }
}
