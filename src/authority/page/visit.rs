//! Protects the login form from cross-site requests. The page sets a short-lived cookie with a random value, and the
//! form contains the same value.
//!
//! Another site cannot read the value. It cannot set the cookie either, because the name begins with `__Host-`.

use super::super::cookie;
use super::super::grant::random_text;
use super::super::request::EndpointRequest;
use super::super::settings::Cookies;
use crate::authenticate::credential;
use crate::denial::Denial;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;

/// The time that a login page may stay open, in seconds.
const OPEN: u64 = 60 * 60;
/// Minimum time between two renewals of the tokens, in seconds. Prevents a redirect loop if the browser does not store
/// the session cookies.
const SETTLING: u64 = 10;

/// A browser's visit to the login page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Visit {
    value: String,
    /// When the browser's tokens were last renewed without a login, in seconds since 1970.
    renewed: Option<u64>,
}

impl Visit {
    /// Parses the visit from the request's cookie.
    pub(super) fn of(request: &EndpointRequest) -> Option<Self> {
        let cookies = request.settings.cookies.as_ref()?;
        // A repeated cookie is ignored.
        let text = credential::cookie(&request.headers, &cookies.names.login).ok()??;
        Self::parse(std::str::from_utf8(text).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (value, renewed) = match text.split_once('.') {
            Some((value, renewed)) => (value, Some(renewed.parse().ok()?)),
            None => (text, None),
        };
        let is_text = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        // The value is 128 bits in base64url.
        (value.len() == 22 && value.bytes().all(is_text)).then(|| Self { value: value.to_owned(), renewed })
    }

    /// Creates a visit with a random value.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub(super) fn new() -> Result<Self, Denial> {
        Ok(Self { value: random_text()?, renewed: None })
    }

    /// Returns the value that the form must contain.
    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// Whether `field` is the value of the visit. Compares in constant time.
    pub(super) fn is(&self, field: &str) -> bool {
        verify_slices_are_equal(self.value.as_bytes(), field.as_bytes()).is_ok()
    }

    /// Whether the browser's tokens were renewed within the last 10 seconds.
    pub(super) fn was_renewed(&self, now: u64) -> bool {
        self.renewed.is_some_and(|renewed| now < renewed.saturating_add(SETTLING))
    }

    /// Sets the visit's cookie in a response with the login page.
    pub(super) fn keep(&self, headers: &mut HeaderMap, cookies: &Cookies, now: u64) {
        cookie::set_visit_cookie(headers, cookies, &self.value, OPEN, now);
    }

    /// Sets the visit's cookie and the time of the renewal in a response that renews the tokens.
    pub(super) fn renew(&self, headers: &mut HeaderMap, cookies: &Cookies, now: u64) {
        cookie::set_visit_cookie(headers, cookies, &format!("{}.{now}", self.value), OPEN, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    #[test]
    fn a_visit_is_what_its_cookie_says_and_no_other_form_is_its_own() {
        let visit = Visit::new().unwrap();
        let parsed = Visit::parse(visit.value()).unwrap();
        assert_eq!(visit, parsed);
        assert!(parsed.is(visit.value()));
        for other in
            ["", "x", &visit.value()[1..], Visit::new().unwrap().value(), &format!("{}x", visit.value())]
        {
            assert!(!visit.is(other), "{other}");
        }
        for text in [
            "",
            ".",
            "x",
            ".7",
            &format!("{}.", visit.value()),
            &format!("{}.x", visit.value()),
            &"<".repeat(22),
        ] {
            assert_eq!(Visit::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_browser_that_was_just_given_a_session_is_known_for_a_moment() {
        let cookies = request("GET", None, &[]).settings.cookies.clone().unwrap();
        let visit = Visit::new().unwrap();
        assert!(!visit.was_renewed(1000));
        let mut headers = HeaderMap::new();
        visit.renew(&mut headers, &cookies, 1000);
        let line = headers["set-cookie"].to_str().unwrap();
        let value = line.split(['=', ';']).nth(1).unwrap();
        let again = Visit::parse(value).unwrap();
        assert!(again.was_renewed(1000) && again.was_renewed(1009) && !again.was_renewed(1010));
        assert!(again.is(visit.value()), "forms that stand open are still its own");
    }
}
