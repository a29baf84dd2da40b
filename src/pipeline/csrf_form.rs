//! Reads CSRF tokens from forms, on routes with `csrf_field`. The form is read before the decision, and forwarded
//! unchanged.

use crate::authenticate::CookieNames;
use crate::authenticate::csrf::is_unsafe;
use crate::authority::{BodyKind, Fields};
use crate::denial::Denial;
use crate::forward::RequestBody;
use crate::route::Head;
use http::{HeaderMap, header};
use zeroize::Zeroizing;

/// Maximum size in bytes of a form that the gateway reads. With a larger form, the client must send the token in the
/// header.
const FORM_MAX: u64 = 64 * 1024;

/// Returns the CSRF token in the field `name` of a form, if the announced size is at most `FORM_MAX`. Replaces `body`
/// with the whole body in memory.
///
/// # Errors
/// Returns the denial if the body cannot be read. Returns [`Denial::InvalidBody`] if the field occurs twice or cannot
/// be decoded.
pub(super) async fn csrf_field(
    name: &str,
    head: &Head<'_>,
    names: &CookieNames,
    body: &mut RequestBody,
) -> Result<Option<Zeroizing<String>>, Denial> {
    // The field matters only if the request has a cookie and no token in the header.
    if !is_unsafe(head.method)
        || !head.headers.contains_key(header::COOKIE)
        || head.headers.contains_key(&names.csrf_header)
        || !is_small_form(head.headers)
    {
        return Ok(None);
    }
    let whole = std::mem::take(body).gather().await?;
    let field = Fields::one_of_form(&whole, name);
    *body = RequestBody::Whole(whole);
    field
}

/// Returns whether the body is a form with an announced size of at most [`FORM_MAX`].
fn is_small_form(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    BodyKind::of(headers) == Some(BodyKind::Form) && length.is_some_and(|length: u64| length <= FORM_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderName, Method};

    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
    const COOKIE: (&str, &str) = ("cookie", "__Host-portcullis=x");

    /// Returns the token found in a body, and the body after the search.
    fn look(method: &str, fields: &[(&str, &str)], text: &str) -> (Result<Option<String>, Denial>, Bytes) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let method: Method = method.parse().unwrap();
        let head = Head {
            method: &method,
            host: None,
            port: None,
            path: "/".into(),
            query: None,
            headers: &headers,
        };
        let mut body = RequestBody::Whole(Bytes::copy_from_slice(text.as_bytes()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let found = csrf_field("t", &head, &CookieNames::default(), &mut body).await;
            (found.map(|found| found.map(|value| value.to_string())), body.gather().await.unwrap())
        })
    }

    #[test]
    fn a_forms_token_is_found_and_the_body_left_as_it_was() {
        let body = "a=1&a=2&t=the+token&b=%e4";
        let length = body.len().to_string();
        let length = ("content-length", &*length);
        let found = |method: &str, fields: &[(&str, &str)]| {
            let (found, left) = look(method, fields, body);
            assert_eq!(left, body, "{fields:?}");
            found
        };
        let token = Ok(Some("the token".to_owned()));
        assert_eq!(found("POST", &[FORM, COOKIE, length]), token);
        assert_eq!(found("PUT", &[FORM, COOKIE, length]), token);
        let upper = ("content-type", "Application/X-WWW-Form-Urlencoded; charset=utf-8");
        assert_eq!(found("POST", &[upper, COOKIE, length]), token);
        for fields in [
            &[FORM, COOKIE][..],
            &[FORM, length],
            &[COOKIE, length],
            &[FORM, FORM, COOKIE, length],
            &[("content-type", "multipart/form-data; boundary=x"), COOKIE, length],
            &[("content-type", "text/plain"), COOKIE, length],
            &[FORM, COOKIE, ("content-length", "65537")],
            &[FORM, COOKIE, ("content-length", "-1")],
            &[FORM, COOKIE, length, ("x-csrf-token", "x")],
        ] {
            assert_eq!(found("POST", fields), Ok(None), "{fields:?}");
        }
        assert_eq!(found("GET", &[FORM, COOKIE, length]), Ok(None));
    }

    #[test]
    fn a_token_twice_is_refused() {
        let (found, _) = look("POST", &[FORM, COOKIE, ("content-length", "7")], "t=1&t=2");
        assert!(matches!(found, Err(Denial::InvalidBody(_))), "{found:?}");
    }
}
