//! The places where a route looks for tokens, and the form of a token in each place.
//!
//! `credential` finds the token of a request with these functions, and `forward` removes the token with the same
//! functions. The gateway therefore removes a token from every place that it reads.

use super::cookie::cookie;
use crate::denial::{Denial, TokenPart};
use crate::field_list::members;
use crate::route::Head;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::borrow::Cow;

/// The places where a route accepts tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// `Authorization: Bearer` (RFC 6750 section 2.1).
    pub header: bool,
    /// The local authority's cookie.
    pub cookie: bool,
    /// Further places, in the order of the policy. Most routes have none.
    pub others: Box<[Source]>,
}

impl Default for Sources {
    fn default() -> Self {
        Self { header: true, cookie: true, others: Box::new([]) }
    }
}

impl Sources {
    /// Whether requests may carry an API key.
    pub fn takes_api_keys(&self) -> bool {
        self.others.iter().any(|source| matches!(source, Source::ApiKey(_)))
    }

    /// Whether a client certificate identifies the caller of a request without another credential.
    pub fn takes_certificates(&self) -> bool {
        self.others.iter().any(|source| matches!(source, Source::Certificate))
    }

    /// Returns the schemes of `Authorization` that requests may use, as challenges name them. Without any, clients get
    /// the challenge of bearer tokens, since a 401 must have one (RFC 9110 section 15.5.2).
    pub fn schemes(&self) -> &'static [&'static str] {
        match (self.header, self.takes_api_keys()) {
            (true, true) => &["Bearer", "ApiKey"],
            (false, true) => &["ApiKey"],
            (true | false, false) => &["Bearer"],
        }
    }

    /// Returns the names of the query fields that may contain a token.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        self.others.iter().filter_map(|source| match source {
            Source::Query(name) => Some(&**name),
            Source::Header(_)
            | Source::Cookie(_)
            | Source::WebSocket(_)
            | Source::ApiKey(_)
            | Source::Certificate => None,
        })
    }
}

/// A place other than `Authorization: Bearer` and the local authority's cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A header field that contains a prefix and the token.
    Header(NamedHeader),
    /// A cookie that another program sets, for example an identity-aware proxy.
    Cookie(Box<str>),
    /// The name of the subprotocol that precedes the token in `Sec-WebSocket-Protocol`. A script in a browser cannot
    /// set any other header field of a WebSocket handshake.
    WebSocket(Box<str>),
    /// An API key in this header field, or in `Authorization` with the scheme `ApiKey`.
    ApiKey(HeaderName),
    /// The client's certificate. It is not in the request.
    Certificate,
    /// A query field with this name. Many systems log queries (RFC 6750 section 5.3).
    Query(Box<str>),
}

/// A header field that may contain a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHeader {
    /// The name of the field.
    pub name: HeaderName,
    /// The text before the token, which may be empty. It is compared without regard to case, like an authentication
    /// scheme (RFC 9110 section 11.1).
    pub prefix: Box<str>,
}

impl NamedHeader {
    /// Returns the credential in this field; `None` if the field is absent, or is `Authorization` with another scheme.
    ///
    /// # Errors
    /// [`Denial::AmbiguousCredentials`] if the field is repeated. [`Denial::MalformedToken`] if the prefix is missing.
    pub(super) fn find<'r>(&self, headers: &'r HeaderMap) -> Result<Option<&'r [u8]>, Denial> {
        let mut fields = headers.get_all(&self.name).iter();
        let Some(field) = fields.next() else { return Ok(None) };
        if fields.next().is_some() {
            return Err(Denial::AmbiguousCredentials);
        }
        let (field, prefix) = (field.as_bytes(), self.prefix.as_bytes());
        if let Some((found, credential)) = field.split_at_checked(prefix.len())
            && found.eq_ignore_ascii_case(prefix)
        {
            return Ok(Some(credential));
        }
        if self.name == header::AUTHORIZATION {
            let (scheme, ours) = (&field[..scheme_end(field)], &prefix[..scheme_end(prefix)]);
            if !scheme.eq_ignore_ascii_case(ours) {
                return Ok(None);
            }
        }
        Err(Denial::MalformedToken(TokenPart::Field))
    }
}

/// Returns the API key of a request, in the field with this name or in `Authorization: ApiKey`.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] if there are two. [`Denial::MalformedToken`] if something other than one space
/// follows the scheme.
fn api_key<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r [u8]>, Denial> {
    const SCHEME: &[u8] = b"apikey";
    let mut fields = headers.get_all(name).iter();
    let own = fields.next().map(HeaderValue::as_bytes);
    if fields.next().is_some() {
        return Err(Denial::AmbiguousCredentials);
    }
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let is_ours = |field: &&[u8]| field[..scheme_end(field)].eq_ignore_ascii_case(SCHEME);
    let Some(field) = fields.next().filter(is_ours) else { return Ok(own) };
    match field[SCHEME.len()..] {
        _ if own.is_some() || fields.next().is_some() => Err(Denial::AmbiguousCredentials),
        [b' ', ref key @ ..] => Ok(Some(key)),
        _ => Err(Denial::MalformedToken(TokenPart::Field)),
    }
}

/// Returns the subprotocol that follows `marker` in `Sec-WebSocket-Protocol` (RFC 6455 section 11.3.4); `None` if the
/// client does not offer `marker`. Subprotocols are compared with regard to case.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] if the client offers `marker` twice. [`Denial::MalformedToken`] if no subprotocol
/// follows.
pub(super) fn subprotocol<'r>(headers: &'r HeaderMap, marker: &str) -> Result<Option<&'r [u8]>, Denial> {
    let mut offers = members(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    let mut found = None;
    while let Some(offer) = offers.next() {
        if offer != marker.as_bytes() {
            continue;
        }
        if found.is_some() {
            return Err(Denial::AmbiguousCredentials);
        }
        let token = offers.next().filter(|token| !token.is_empty() && *token != marker.as_bytes());
        found = Some(token.ok_or(Denial::MalformedToken(TokenPart::Field))?);
    }
    Ok(found)
}

/// Returns the first marker of these sources that the client offers as a subprotocol.
pub(crate) fn marker_offered<'s>(headers: &HeaderMap, sources: &'s Sources) -> Option<&'s str> {
    sources.others.iter().find_map(|source| match source {
        Source::WebSocket(marker) => members(headers, &header::SEC_WEBSOCKET_PROTOCOL)
            .any(|offer| offer == marker.as_bytes())
            .then_some(&**marker),
        Source::Header(_)
        | Source::Cookie(_)
        | Source::ApiKey(_)
        | Source::Certificate
        | Source::Query(_) => None,
    })
}

/// Removes `marker`, and the token after it, from the offered subprotocols. The other subprotocols stay in their order.
/// If no subprotocol is left, removes the header field.
pub(crate) fn strip_subprotocol(headers: &mut HeaderMap, marker: &str) {
    if !members(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == marker.as_bytes()) {
        return;
    }
    let mut left: Vec<&[u8]> = Vec::new();
    let mut is_after_marker = false;
    for offer in members(headers, &header::SEC_WEBSOCKET_PROTOCOL) {
        let is_marker = !is_after_marker && offer == marker.as_bytes();
        if !is_marker && !is_after_marker && !offer.is_empty() {
            left.push(offer);
        }
        is_after_marker = is_marker;
    }
    let left = (!left.is_empty()).then(|| HeaderValue::from_bytes(&left.join(&b", "[..])));
    match left {
        Some(Ok(left)) => drop(headers.insert(header::SEC_WEBSOCKET_PROTOCOL, left)),
        Some(Err(_)) | None => drop(headers.remove(header::SEC_WEBSOCKET_PROTOCOL)),
    }
}

/// Returns the value of a query field with this name.
///
/// # Errors
/// [`Denial::AmbiguousCredentials`] if the field is repeated.
pub(super) fn query_field<'r>(query: Option<&'r str>, name: &str) -> Result<Option<&'r [u8]>, Denial> {
    let fields = query.unwrap_or_default().split('&').filter_map(|field| field.split_once('='));
    let mut values = fields.filter(|(key, _)| **key == *name).map(|(_, value)| value.as_bytes());
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(Denial::AmbiguousCredentials),
        (value, _) => Ok(value),
    }
}

/// Returns the query without the fields of these names; `None` if nothing is left.
pub(crate) fn without_fields<'q>(query: &'q str, is_removed: impl Fn(&str) -> bool) -> Option<Cow<'q, str>> {
    let is_token = |field: &&str| field.split_once('=').is_some_and(|(name, _)| is_removed(name));
    if !query.split('&').any(|field| is_token(&field)) {
        return Some(Cow::Borrowed(query));
    }
    let left = query.split('&').filter(|field| !is_token(field)).collect::<Vec<_>>().join("&");
    (!left.is_empty()).then_some(Cow::Owned(left))
}

impl Source {
    /// Returns the credential in this place.
    ///
    /// # Errors
    /// Returns the error of the function that reads the place.
    pub(super) fn find<'r>(&self, head: &Head<'r>) -> Result<Option<&'r [u8]>, Denial> {
        match self {
            Self::Header(named) => named.find(head.headers),
            Self::Cookie(name) => cookie(head.headers, name),
            Self::WebSocket(marker) => subprotocol(head.headers, marker),
            Self::ApiKey(name) => api_key(head.headers, name),
            Self::Certificate => Ok(None),
            Self::Query(name) => query_field(head.query, name),
        }
    }

    /// Returns whether a request contains anything in this place, even if it is malformed.
    pub(crate) fn is_used(&self, head: &Head<'_>) -> bool {
        match self {
            Self::Header(named) => head.headers.contains_key(&named.name),
            Self::Cookie(name) => !matches!(cookie(head.headers, name), Ok(None)),
            Self::WebSocket(marker) => !matches!(subprotocol(head.headers, marker), Ok(None)),
            Self::ApiKey(name) => !matches!(api_key(head.headers, name), Ok(None)),
            Self::Certificate => false,
            Self::Query(name) => !matches!(query_field(head.query, name), Ok(None)),
        }
    }
}

/// Returns the end of the scheme (a `token` of RFC 9110 section 5.6.2) in an `Authorization` field: the first character
/// that is not a letter, a digit or `-`.
pub(super) fn scheme_end(field: &[u8]) -> usize {
    field.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'-').unwrap_or(field.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(name: &'static str, fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(name, field.parse().unwrap());
        }
        headers
    }

    const MALFORMED: Denial = Denial::MalformedToken(TokenPart::Field);

    #[test]
    fn a_field_has_its_prefix_or_is_malformed() {
        let find = |name: &'static str, prefix: &str, fields: &[&str]| {
            let named = NamedHeader { name: HeaderName::from_static(name), prefix: prefix.into() };
            let headers = headers(name, fields);
            named.find(&headers).map(|found| found.map(|token| String::from_utf8(token.to_vec()).unwrap()))
        };
        let token = |text: &str| Ok(Some(text.to_owned()));
        for (prefix, field, found) in [
            ("", "a.b.c", token("a.b.c")),
            ("", "", token("")),
            ("Token ", "Token a.b.c", token("a.b.c")),
            ("Token ", "tOKEN a.b.c", token("a.b.c")),
            ("Token ", "Token  a.b.c", token(" a.b.c")),
            ("Token ", "Token", Err(MALFORMED)),
            ("Token ", "a.b.c", Err(MALFORMED)),
            ("Token ", "Bearer a.b.c", Err(MALFORMED)),
            ("Token ", "", Err(MALFORMED)),
        ] {
            assert_eq!(find("x-token", prefix, &[field]), found, "{prefix:?} {field:?}");
        }
        assert_eq!(find("x-token", "", &[]), Ok(None));
        assert_eq!(find("x-token", "", &["a", "a"]), Err(Denial::AmbiguousCredentials));
        // `Authorization` may have another scheme, which other sources or the upstream read.
        for (field, found) in [
            ("JWT a.b.c", token("a.b.c")),
            ("jwt a.b.c", token("a.b.c")),
            ("Bearer a.b.c", Ok(None)),
            ("Basic dTpw", Ok(None)),
            ("JWT", Err(MALFORMED)),
            ("JWT\ta.b.c", Err(MALFORMED)),
        ] {
            assert_eq!(find("authorization", "JWT ", &[field]), found, "{field}");
        }
    }

    #[test]
    fn a_token_follows_its_marker_and_the_other_subprotocols_are_left() {
        for (fields, found, left) in [
            (&["bearer, a.b.c"][..], Ok(Some("a.b.c")), None),
            (&["bearer,a.b.c"], Ok(Some("a.b.c")), None),
            (&["bearer, a.b.c, graphql-ws"], Ok(Some("a.b.c")), Some("graphql-ws")),
            (&["chat, bearer, a.b.c, graphql-ws"], Ok(Some("a.b.c")), Some("chat, graphql-ws")),
            (&["chat", "bearer", "a.b.c"], Ok(Some("a.b.c")), Some("chat")),
            (&["chat, graphql-ws"], Ok(None), Some("chat, graphql-ws")),
            (&["Bearer, a.b.c"], Ok(None), Some("Bearer, a.b.c")),
            (&["bearer"], Err(MALFORMED), None),
            (&["bearer,, a"], Err(MALFORMED), Some("a")),
            (&["bearer, bearer, a"], Err(MALFORMED), Some("a")),
            (&["bearer, a, bearer, b"], Err(Denial::AmbiguousCredentials), None),
            (&[], Ok(None), None),
        ] {
            let mut headers = headers("sec-websocket-protocol", fields);
            let read = subprotocol(&headers, "bearer");
            assert_eq!(
                read.map(|read| read.map(|token| std::str::from_utf8(token).unwrap())),
                found,
                "{fields:?}"
            );
            strip_subprotocol(&mut headers, "bearer");
            let stays = headers.get("sec-websocket-protocol").map(|field| field.to_str().unwrap());
            assert_eq!(stays, left, "{fields:?}");
        }
    }

    #[test]
    fn an_api_key_has_a_field_of_its_own_or_a_scheme() {
        let name = HeaderName::from_static("x-api-key");
        let find = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            api_key(&headers, &name).map(|key| key.map(|key| String::from_utf8(key.to_vec()).unwrap()))
        };
        let key = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(find(&[("x-api-key", "k")]), key("k"));
        assert_eq!(find(&[("authorization", "ApiKey k")]), key("k"));
        assert_eq!(find(&[("authorization", "apikey  k")]), key(" k"));
        assert_eq!(find(&[("authorization", "Bearer k")]), Ok(None));
        assert_eq!(find(&[("authorization", "ApiKeys k")]), Ok(None));
        assert_eq!(find(&[]), Ok(None));
        assert_eq!(find(&[("authorization", "ApiKey")]), Err(MALFORMED));
        assert_eq!(find(&[("authorization", "ApiKey:k")]), Err(MALFORMED));
        for fields in [
            [("x-api-key", "k"), ("x-api-key", "k")],
            [("x-api-key", "k"), ("authorization", "ApiKey k")],
            [("authorization", "ApiKey k"), ("authorization", "ApiKey k")],
        ] {
            assert_eq!(find(&fields), Err(Denial::AmbiguousCredentials), "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn no_token_is_left_among_the_subprotocols(
            before in proptest::collection::vec("[a-z]{1,6}", 0..3),
            after in proptest::collection::vec("[a-z]{1,6}", 0..3),
            blank in "[ \t]{0,2}",
        ) {
            let others = || before.iter().chain(&after).filter(|offer| *offer != "bearer");
            prop_assume!(others().count() == before.len() + after.len());
            let mut offered = before.clone();
            offered.extend(["bearer".to_owned(), "A.B.C".to_owned()]);
            offered.extend(after.iter().cloned());
            let mut headers = headers("sec-websocket-protocol", &[&offered.join(&format!("{blank},"))]);
            prop_assert_eq!(subprotocol(&headers, "bearer"), Ok(Some(&b"A.B.C"[..])));
            strip_subprotocol(&mut headers, "bearer");
            let left = headers.get("sec-websocket-protocol").map_or("", |field| field.to_str().unwrap());
            prop_assert_eq!(left, others().cloned().collect::<Vec<_>>().join(", "));
        }

        #[test]
        fn a_field_that_is_read_is_removed(query in "([ab]=?[ab]?&?){0,6}") {
            let left = without_fields(&query, |name| name == "a");
            prop_assert_eq!(query_field(left.as_deref(), "a"), Ok(None));
            if query_field(Some(&query), "a") == Ok(None) {
                prop_assert_eq!(left.as_deref(), Some(&*query));
            }
        }
    }
}
