//! Finds the credential of a request. A request with two credentials is rejected. A credential in an undocumented form
//! is also rejected.

pub use super::cookie::cookie;

use super::sources::{Source, Sources, scheme_end};
use crate::denial::{Denial, TokenPart};
use crate::route::Head;
use http::{HeaderMap, HeaderName, header};

/// The prefix of the local authority's refresh tokens, by which people, secret scanners and the gateway recognize them.
pub const REFRESH_TOKEN_PREFIX: &str = "pcr_";

/// The names of the local authority's cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieNames {
    /// The cookie with the access token.
    pub access: Box<str>,
    /// The cookie with the refresh token.
    pub refresh: Box<str>,
    /// The cookie from which scripts read the CSRF token.
    pub csrf: Box<str>,
    /// The cookie that binds the form of a login page to the browser that loaded the page.
    pub login: Box<str>,
    /// A second cookie with the CSRF token, for clients that expect a separate CSRF cookie for the refresh token.
    pub csrf_refresh: Option<Box<str>>,
    /// The header field in which clients return the CSRF token.
    pub csrf_header: HeaderName,
}

/// The names of the cookies of the access token, the refresh token, the CSRF token and the login page. Neither a subdomain
/// nor a cleartext response can set a cookie with the `__Host-` prefix (RFC 6265bis section 4.1.3).
const USUAL_NAMES: [&str; 4] =
    ["__Host-portcullis", "__Host-portcullis-refresh", "__Host-portcullis-csrf", "__Host-portcullis-login"];

impl Default for CookieNames {
    fn default() -> Self {
        let [access, refresh, csrf, login] = USUAL_NAMES.map(Into::into);
        Self {
            access,
            refresh,
            csrf,
            login,
            csrf_refresh: None,
            csrf_header: HeaderName::from_static("x-csrf-token"),
        }
    }
}

impl CookieNames {
    /// Returns whether this is the name of a cookie of the local authority. The gateway removes such cookies from
    /// requests to upstreams. The usual names belong to it even if it has others: a browser keeps cookies of earlier logins.
    pub fn includes(&self, name: &[u8]) -> bool {
        let ours =
            [&self.access, &self.refresh, &self.csrf, &self.login].into_iter().chain(&self.csrf_refresh);
        ours.into_iter().any(|ours| ours.as_bytes() == name)
            || USUAL_NAMES.iter().any(|usual| usual.as_bytes() == name)
    }
}

/// The location of a credential in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the `Authorization` field, with the scheme `Bearer`.
    Header,
    /// In the `Authorization` field, with the scheme `DPoP`.
    Dpop,
    /// In the local authority's cookie, which browsers attach to requests that other sites cause.
    Cookie,
    /// In a cookie that another program sets, which browsers attach to requests that other sites cause.
    ForeignCookie,
    /// In a header field that the policy names.
    Named,
    /// Among the subprotocols of a WebSocket handshake.
    WebSocket,
    /// In the header field of API keys, or in `Authorization` with the scheme `ApiKey`. The credential is an API key and
    /// never a token.
    ApiKey,
    /// In the TLS handshake. The credential is a client certificate.
    Certificate,
    /// In the query.
    Query,
}

impl From<&Source> for Place {
    fn from(source: &Source) -> Self {
        match source {
            Source::Header(_) => Self::Named,
            Source::Cookie(_) => Self::ForeignCookie,
            Source::WebSocket(_) => Self::WebSocket,
            Source::ApiKey(_) => Self::ApiKey,
            Source::Certificate => Self::Certificate,
            Source::Query(_) => Self::Query,
        }
    }
}

/// Returns the credential of a request and the place where it was found; `None` if no place that the route searches
/// contains a credential.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] if there are two credentials, in the same place or in different places.
/// [`Denial::MalformedToken`] if the value in one of the places does not have the form that the place requires.
pub fn find<'r>(
    head: &Head<'r>,
    sources: &Sources,
    cookies: Option<&CookieNames>,
) -> Result<Option<(&'r [u8], Place)>, Denial> {
    let mut found = None;
    let mut take = |credential: Option<&'r [u8]>, place| match (credential, &found) {
        (None, _) => Ok(()),
        (Some(credential), None) => {
            found = Some((credential, place));
            Ok(())
        }
        (Some(_), Some(_)) => Err(Denial::AmbiguousCredentials),
    };
    if sources.header
        && let Some((credential, place)) = authorization(head.headers)?
    {
        take(Some(credential), place)?;
    }
    if let (true, Some(names)) = (sources.cookie, cookies) {
        take(cookie(head.headers, &names.access)?, Place::Cookie)?;
    }
    for source in &sources.others {
        take(source.find(head)?, source.into())?;
    }
    Ok(found)
}

/// Returns the text after `Bearer` and one space in `Authorization` (RFC 6750 section 2.1). The caller parses that text
/// with [`token`]. Returns `None` if the field is absent or has another scheme.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] if the field is repeated. [`Denial::MalformedToken`] if anything other than one
/// space follows the scheme, since programs disagree about tabs.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Denial> {
    let found = authorization(headers)?;
    Ok(found.filter(|(_, place)| *place == Place::Header).map(|(credential, _)| credential))
}

/// Returns the text after `Bearer` or `DPoP` and one space in `Authorization`, as described for [`bearer`].
pub(super) fn authorization(headers: &HeaderMap) -> Result<Option<(&[u8], Place)>, Denial> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Denial::AmbiguousCredentials);
    }
    let field = field.as_bytes();
    // The usual spelling needs no search for the end of the scheme.
    if let Some(credential) = field.strip_prefix(b"Bearer ") {
        return Ok(Some((credential, Place::Header)));
    }
    let (scheme, rest) = field.split_at(scheme_end(field));
    let place = if scheme.eq_ignore_ascii_case(b"bearer") {
        Place::Header
    } else if scheme.eq_ignore_ascii_case(b"dpop") {
        Place::Dpop
    } else {
        return Ok(None);
    };
    match rest {
        [b' ', credential @ ..] => Ok(Some((credential, place))),
        _ => Err(Denial::MalformedToken(TokenPart::Field)),
    }
}

/// Describes the scheme of an `Authorization` field for the operator. Only known schemes are shown: the first word of a
/// field without a scheme may be a secret.
pub(super) fn scheme_of(field: &[u8]) -> String {
    // Schemes of the IANA registry, and unregistered schemes in common use.
    const KNOWN: [&str; 20] = [
        "ApiKey",
        "Api-Key",
        "AWS4-HMAC-SHA256",
        "Basic",
        "Bearer",
        "Digest",
        "DPoP",
        "GNAP",
        "Hawk",
        "HOBA",
        "JWT",
        "Key",
        "Mutual",
        "Negotiate",
        "NTLM",
        "OAuth",
        "PrivateToken",
        "Signature",
        "Token",
        "vapid",
    ];
    let words = field.split(|byte| *byte == b' ').count();
    let first = field.split(|byte| *byte == b' ').next().unwrap_or_default();
    let known = KNOWN.iter().find(|known| first.eq_ignore_ascii_case(known.as_bytes()));
    match (known, words) {
        (Some(known), 1) => format!("the scheme {known} and nothing after it"),
        (Some(known), _) => format!("the scheme {known}, not Bearer"),
        (None, _) if field.is_empty() => "no value".to_owned(),
        (None, 1) if field.iter().filter(|byte| **byte == b'.').count() == 2 => {
            "a bare token without \"Bearer \" before it".to_owned()
        }
        (None, 1) => format!("one word of {} bytes and no scheme", field.len()),
        (None, _) => format!("an unknown scheme of {} bytes, not Bearer", first.len()),
    }
}

/// Parses a credential as a single token; spaces and commas are rejected. A credential that is found in the cache skips
/// this check, since the same bytes have already passed it.
///
/// # Errors
/// [`Denial::MalformedToken`] if the credential is empty or contains a character that a b64token cannot contain.
pub fn token(credential: &[u8]) -> Result<&str, Denial> {
    match std::str::from_utf8(credential) {
        // All bytes are checked, so that the compiler can check several at once.
        Ok(token) if !token.is_empty() && token.bytes().fold(true, |all, byte| all & is_b64token(byte)) => {
            Ok(token)
        }
        Ok(_) | Err(_) => Err(Denial::MalformedToken(TokenPart::Field)),
    }
}

/// Returns whether the byte is a character of a b64token (RFC 6750 section 2.1).
fn is_b64token(byte: u8) -> bool {
    // Without a branch; `-`, `.` and `/` precede the digits.
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let is_digit_or_sign = byte.wrapping_sub(b'-') <= b'9' - b'-';
    is_letter | is_digit_or_sign | (byte == b'_') | (byte == b'~') | (byte == b'+') | (byte == b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::sources::NamedHeader;
    use proptest::prelude::*;

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
    fn a_token_has_only_characters_of_a_b64token() {
        const SIGNS: &[u8] = b"-._~+/=";
        for byte in 0..=u8::MAX {
            let is_allowed = byte.is_ascii_alphanumeric() || SIGNS.contains(&byte);
            assert_eq!(token(&[b'a', byte]).is_ok(), is_allowed, "{byte:#x}");
        }
        assert_eq!(token(b""), Err(Denial::MalformedToken(TokenPart::Field)));
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
    fn the_operator_reads_which_scheme_came_and_nothing_of_a_secret() {
        // Each text names the scheme but never shows a secret.
        for (field, words) in [
            ("Token s3cret", "the scheme Token, not Bearer"),
            ("basic dTpw", "the scheme Basic, not Bearer"),
            ("Basic", "the scheme Basic and nothing after it"),
            ("eyJh.eyJz.c2ln", "a bare token without \"Bearer \" before it"),
            ("s3cret", "one word of 6 bytes and no scheme"),
            ("s3cret more", "an unknown scheme of 6 bytes, not Bearer"),
            ("", "no value"),
        ] {
            assert_eq!(scheme_of(field.as_bytes()), words, "{field}");
        }
    }

    #[test]
    fn two_fields_are_ambiguous_even_when_equal() {
        assert_eq!(read(&["Bearer a", "Bearer a"]), Err(Denial::AmbiguousCredentials));
        assert_eq!(read(&["Basic a", "Bearer a"]), Err(Denial::AmbiguousCredentials));
    }

    fn cookies(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, http::HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_wherever_it_stands_and_by_its_whole_name_only() {
        for (fields, value) in [
            (&["__Host-p=v"][..], Some("v")),
            (&["a=b; __Host-p=v; c=d"], Some("v")),
            (&["a=b;__Host-p=v;c=d"], Some("v")),
            (&["a=b", "__Host-p=v"], Some("v")),
            (&["__Host-p=v=w=="], Some("v=w==")),
            (&["__Host-p=v \t; a=b"], Some("v")),
            (&["__Host-p=\"v\""], Some("\"v\"")),
            (&["__Host-p=a%20b,c"], Some("a%20b,c")),
            (&["__Host-p-csrf=v; x__Host-p=v; __Host-p2=v"], None),
            (&["__host-p=v; __HOST-P=v"], None),
            (&["__Host-p =v"], None),
            (&["__Host-p"], None),
            (&["__Host-p=; a=__Host-p=v"], None),
            (&["a=\"b, __Host-p=v\""], None),
            (&["", ";", "=", "=;=", " "], None),
            (&[], None),
        ] {
            let headers = cookies(fields);
            let found = cookie(&headers, "__Host-p").unwrap().map(|v| std::str::from_utf8(v).unwrap());
            assert_eq!(found, value, "{fields:?}");
        }
    }

    #[test]
    fn a_cookie_twice_is_ambiguous_even_when_equal_or_empty() {
        for fields in
            [&["p=v; p=v"][..], &["p=v; a=b; p=w"], &["p=v", "p=v"], &["p=v; p="], &["p=; p=v"], &["p=;p="]]
        {
            assert_eq!(cookie(&cookies(fields), "p"), Err(Denial::AmbiguousCredentials), "{fields:?}");
        }
    }

    fn found(
        sources: &Sources,
        fields: &[(&str, &str)],
        query: Option<&str>,
    ) -> Result<Option<Place>, Denial> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let method = http::Method::GET;
        let head =
            Head { method: &method, host: None, port: None, path: "/".into(), query, headers: &headers };
        find(&head, sources, Some(&CookieNames::default())).map(|found| found.map(|(_, place)| place))
    }

    #[test]
    fn a_credential_counts_only_where_the_route_looks_and_two_are_refused() {
        let named = NamedHeader { name: HeaderName::from_static("x-token"), prefix: "".into() };
        let others = [
            Source::Header(named),
            Source::Cookie("CF_Authorization".into()),
            Source::WebSocket("bearer".into()),
            Source::Query("access_token".into()),
        ];
        let everywhere = Sources { others: Box::new(others), ..Sources::default() };
        let nowhere = Sources { header: false, cookie: false, others: Box::new([]) };
        let header = ("authorization", "Bearer t");
        let cookie = ("cookie", "a=b; __Host-portcullis=t");
        let named = ("x-token", "t");
        let foreign = ("cookie", "CF_Authorization=t");
        let protocol = ("sec-websocket-protocol", "bearer, t");
        let query = Some("a=b&access_token=t");
        assert_eq!(found(&everywhere, &[header], None), Ok(Some(Place::Header)));
        assert_eq!(found(&everywhere, &[cookie], None), Ok(Some(Place::Cookie)));
        assert_eq!(found(&everywhere, &[named], None), Ok(Some(Place::Named)));
        assert_eq!(found(&everywhere, &[foreign], None), Ok(Some(Place::ForeignCookie)));
        assert_eq!(found(&everywhere, &[protocol], None), Ok(Some(Place::WebSocket)));
        assert_eq!(found(&everywhere, &[], query), Ok(Some(Place::Query)));
        assert_eq!(found(&nowhere, &[header, cookie, named, foreign, protocol], query), Ok(None));
        assert_eq!(found(&Sources::default(), &[named, foreign, protocol], query), Ok(None));
        for fields in [
            &[header, cookie][..],
            &[cookie, named],
            &[named, named],
            &[header, named],
            &[cookie, foreign],
            &[foreign, foreign],
            &[foreign, protocol],
            &[protocol, header],
        ] {
            assert_eq!(found(&everywhere, fields, None), Err(Denial::AmbiguousCredentials), "{fields:?}");
        }
        for field in [header, cookie, named, foreign, protocol] {
            assert_eq!(found(&everywhere, &[field], query), Err(Denial::AmbiguousCredentials), "{field:?}");
        }
        let twice = Some("access_token=t&access_token=t");
        assert_eq!(found(&everywhere, &[], twice), Err(Denial::AmbiguousCredentials));
        // The authority's other cookies are not credentials of a route.
        let others =
            ("cookie", "__Host-portcullis-refresh=t; __Host-portcullis-csrf=t; __Host-portcullis-login=t");
        assert_eq!(found(&everywhere, &[others], None), Ok(None));
    }

    proptest! {
        #[test]
        fn a_cookie_is_read_as_a_browser_wrote_it_among_any_others(
            before in proptest::collection::vec(("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", "[!#-+--:<-\\[\\]-~]{0,12}"), 0..4),
            value in "[A-Za-z0-9._-]{1,40}",
            after in proptest::collection::vec(("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", "[!#-+--:<-\\[\\]-~]{0,12}"), 0..4),
        ) {
            let name = "__Host-portcullis";
            let all = before.iter().cloned().chain([(name.to_owned(), value.clone())]).chain(after);
            let written: Vec<String> = all.map(|(name, value)| format!("{name}={value}")).collect();
            let headers = cookies(&[&written.join("; ")]);
            prop_assert_eq!(cookie(&headers, name), Ok(Some(value.as_bytes())));
            let split: Vec<&str> = written.iter().map(String::as_str).collect();
            let headers = cookies(&split);
            prop_assert_eq!(cookie(&headers, name), Ok(Some(value.as_bytes())), "as HTTP/2 splits it");
        }

        #[test]
        fn no_cookie_field_is_ever_read_as_what_no_pair_of_it_says(field in "[ -~\t\\x80-\\xff]{0,60}") {
            let headers = cookies(&[&field]);
            if let Ok(Some(value)) = cookie(&headers, "p") {
                let mut pair = b"p=".to_vec();
                pair.extend_from_slice(value);
                let pairs = field.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                prop_assert_eq!(pairs.filter(|known| *known == &pair[..]).count(), 1);
            }
        }
    }
}
