//! Removes header fields that must not be forwarded: hop-by-hop fields, forged identity fields, fields of other proxies
//! and products, and the gateway's own credentials.
//!
//! The gateway removes fields before it adds its own. Otherwise a client could name an added field in `Connection` and
//! have it removed (CVE-2024-45410 and similar).
//!
//! Names are compared *folded*: all characters other than letters and digits are equal. A CGI-style backend reads
//! `X_Auth_Subject` and `X.Auth.Subject` as `X-Auth-Subject`.

use super::foreign;
use crate::authenticate::credential::REFRESH_TOKEN_PREFIX;
use crate::authenticate::dpop::DPOP;
use crate::authenticate::{CookieNames, IdentityHeaders};
use crate::field_list::members;
use http::{HeaderMap, HeaderName, HeaderValue, header};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// A non-standard field that some clients send.
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Requests an upgrade to HTTP/2 and must not be forwarded (RFC 7540 section 3.2.1).
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Decides by name which fields of a client's request reach an upstream.
///
/// The fields that `Connection` names must be removed before.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// The names of the identity fields.
    pub identity: &'a IdentityHeaders,
    /// The fields of `foreign` to keep.
    pub pass: &'a [HeaderName],
    /// Whether `Authorization` is kept.
    pub authorization: bool,
    /// Whether the proof of a bound token is kept.
    pub proof: bool,
}

/// The decision about one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream receives the field.
    Keep,
    /// The upstream does not receive the field.
    Drop,
    /// The field would state an identity. The upstream does not receive it, and the gateway counts it.
    Forged,
}

impl Filter<'_> {
    /// Decides about the field of this name.
    pub fn verdict(&self, name: &HeaderName) -> Verdict {
        if self.identity.reserved(name) {
            return Verdict::Forged;
        }
        let text = name.as_str();
        let is_unwanted = match text.len() {
            4 if *name == DPOP => !self.proof,
            10 if name == header::CONNECTION => true,
            13 if name == header::AUTHORIZATION => !self.authorization,
            _ => is_hop_by_hop(name) || is_for_us(name),
        };
        if is_unwanted || (foreign::classify(text).is_some() && !self.pass.contains(name)) {
            Verdict::Drop
        } else {
            Verdict::Keep
        }
    }
}

/// Removes the fields of a client's request that must not reach an upstream. Returns the number of removed identity
/// fields.
pub fn request(headers: &mut HeaderMap, filter: &Filter<'_>) -> u64 {
    connection(headers);
    let mut forged = 0;
    remove_where(headers, |name| {
        let verdict = filter.verdict(name);
        forged += u64::from(verdict == Verdict::Forged);
        verdict != Verdict::Keep
    });
    forged
}

/// Rewrites the scheme of a verified token in its usual spelling. `scheme` is `Bearer` or `DPoP`, followed by a space.
///
/// The gateway accepts the scheme in any case (RFC 9110 section 11.1), but some libraries accept only `Bearer`. With
/// another spelling, Flask-JWT-Extended 4.7.4 rejects the request. djangorestframework-simplejwt 5.5.1 treats the
/// caller as anonymous.
pub(crate) fn canonical_scheme(headers: &mut HeaderMap, scheme: &str) {
    let scheme = scheme.as_bytes();
    if let Some(field) = headers.get_mut(header::AUTHORIZATION)
        && !field.as_bytes().starts_with(scheme)
        && let Some(token) = field.as_bytes().get(scheme.len()..)
        && let Ok(mut written) = HeaderValue::from_bytes(&[scheme, token].concat())
    {
        written.set_sensitive(field.is_sensitive());
        *field = written;
    }
}

/// Removes the local authority's cookies from `Cookie`. All other cookies stay unchanged and in order.
///
/// A cookie with a refresh token is removed under every name. A browser keeps it for weeks, although the policy may have
/// changed the names since.
///
/// An authority cookie is also removed if white space surrounds its name or if it has no value. The gateway ignores
/// such a cookie, but an upstream might read it.
///
/// An authority cookie inside quotes is removed too. Some servers read `a="x; __Host-portcullis=TOKEN; y"` as one
/// cookie. Anyone who can read that cookie could then read the token.
pub fn cookies(headers: &mut HeaderMap, ours: &CookieNames) {
    cookies_where(headers, |name, value| ours.includes(name) || is_refresh_token(value));
}

/// Returns whether the text after the name of a cookie is a refresh token of a local authority.
fn is_refresh_token(value: &[u8]) -> bool {
    let start = value.iter().position(|byte| !matches!(byte, b'=' | b'"' | b' ' | b'\t'));
    start.is_some_and(|start| value[start..].starts_with(REFRESH_TOKEN_PREFIX.as_bytes()))
}

/// Removes a cookie that another program sets and in which a route looks for tokens. As in `cookies`, quotes and white
/// space around the name do not matter.
pub fn cookie(headers: &mut HeaderMap, name: &str) {
    cookies_where(headers, |found, _value| found == name.as_bytes());
}

fn cookies_where(headers: &mut HeaderMap, is_unwanted: impl Fn(&[u8], &[u8]) -> bool) {
    let is_ours = |pair: &&[u8]| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        is_unwanted(pair[..end].trim_ascii(), &pair[end..])
    };
    fn pairs(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
        field.as_bytes().split(|byte| *byte == b';')
    }
    // Most requests have no such cookie and stay unchanged.
    if !headers.get_all(header::COOKIE).iter().flat_map(pairs).any(|pair| is_ours(&pair)) {
        return;
    }
    let mut left = Vec::new();
    for field in headers.get_all(header::COOKIE) {
        let others: Vec<&[u8]> = pairs(field).filter(|pair| !is_ours(pair)).collect();
        // If the first cookie was removed, the rest begins with a space.
        let others = others.join(&b";"[..]);
        if !others.trim_ascii().is_empty() {
            let others = HeaderValue::from_bytes(others.trim_ascii());
            left.push(others.expect("pieces of a field value are a field value"));
        }
    }
    headers.remove(header::COOKIE);
    for field in left {
        headers.append(header::COOKIE, field);
    }
}

/// Removes each `Set-Cookie` field of an upstream's response that sets a cookie of the local authority. A service
/// behind the gateway must not start or end a visitor's session. Returns the number of removed fields.
pub fn set_cookies(headers: &mut HeaderMap, ours: &CookieNames) -> u64 {
    let is_ours = |field: &HeaderValue| ours.includes(cookie_name(field.as_bytes()));
    // Most responses set none of the gateway's cookies and stay unchanged.
    if !headers.get_all(header::SET_COOKIE).iter().any(is_ours) {
        return 0;
    }
    let all: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    let mut removed = 0;
    for field in all {
        if is_ours(&field) {
            removed += 1;
        } else {
            headers.append(header::SET_COOKIE, field);
        }
    }
    removed
}

/// Returns the name of the cookie that a `Set-Cookie` value sets.
///
/// Some browsers store `=NAME=VALUE` or `NAME` as a cookie without a name. They later send the text unchanged, and
/// servers read it as the cookie NAME. RFC 6265bis section 5.7 requires browsers to reject some of these cookies, but
/// older browsers accept them.
fn cookie_name(field: &[u8]) -> &[u8] {
    let pair = field.split(|byte| *byte == b';').next().unwrap_or_default();
    let mut pair = pair.trim_ascii();
    while let Some(rest) = pair.strip_prefix(b"=") {
        pair = rest.trim_ascii_start();
    }
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

/// Removes hop-by-hop fields: the fields of RFC 9110 section 7.6.1, and the fields that `Connection` names.
pub(crate) fn hop_by_hop(headers: &mut HeaderMap) {
    connection(headers);
    remove_where(headers, is_hop_by_hop);
}

/// Removes `Connection` and the fields that it names.
pub(in crate::forward) fn connection(headers: &mut HeaderMap) {
    // The length excludes nearly all names, and comparing it is faster than a look-up.
    if !headers.keys().any(|name| name.as_str().len() == 10 && name == header::CONNECTION) {
        return;
    }
    let mut values = headers.get_all(header::CONNECTION).iter();
    let first = values.next();
    // `keep-alive` is the most common value, and names no field to remove.
    let only_keep_alive = first.is_some_and(|value| value == "keep-alive") && values.next().is_none();
    if only_keep_alive {
        headers.remove(header::CONNECTION);
    } else if first.is_some() {
        let named: Vec<HeaderName> =
            members(headers, &header::CONNECTION).filter_map(|name| name.try_into().ok()).collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
}

/// Returns whether a field is hop-by-hop. `Connection` is handled separately.
#[inline]
pub(in crate::forward) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // This check runs for each field of each request and response. The length alone excludes nearly all names.
    match name.as_str().len() {
        2 => name == header::TE,
        7 => name == header::TRAILER || name == header::UPGRADE,
        10 => *name == KEEP_ALIVE,
        16 => *name == PROXY_CONNECTION,
        17 => name == header::TRANSFER_ENCODING,
        _ => false,
    }
}

/// Returns whether a field is meant for the gateway and not for the upstream.
#[inline]
fn is_for_us(name: &HeaderName) -> bool {
    match name.as_str().len() {
        // An upstream that received the proof could use it together with the token.
        4 => *name == DPOP,
        // The gateway handles `Expect: 100-continue`, so the upstream must not handle it again.
        6 => name == header::EXPECT,
        14 => *name == HTTP2_SETTINGS,
        19 => name == header::PROXY_AUTHORIZATION,
        _ => false,
    }
}

/// Returns whether the gateway forwards a client's field with this name. The gateway may still overwrite the value.
pub(crate) fn passes(name: &HeaderName, identity: &IdentityHeaders) -> bool {
    let is_removed = identity.reserved(name)
        || is_hop_by_hop(name)
        || is_for_us(name)
        || foreign::classify(name.as_str()).is_some()
        || *name == header::CONNECTION;
    !is_removed
}

pub(in crate::forward) fn remove_where(
    headers: &mut HeaderMap,
    mut unwanted: impl FnMut(&HeaderName) -> bool,
) {
    // Most requests have none of these fields. An empty list does not allocate.
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn filter<'a>(identity: &'a IdentityHeaders, pass: &'a [HeaderName]) -> Filter<'a> {
        Filter { identity, pass, authorization: false, proof: false }
    }

    fn left(fields: &[(&str, &str)], pass: &[&'static str]) -> Vec<String> {
        let mut headers = headers(fields);
        let pass: Vec<_> = pass.iter().map(|name| HeaderName::from_static(name)).collect();
        request(&mut headers, &filter(&IdentityHeaders::default(), &pass));
        let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn hop_by_hop_fields_and_what_connection_names_do_not_pass() {
        let fields = [
            ("connection", "close, X-Secret ,, te"),
            ("connection", "x-other"),
            // A member that is not a name hides no other member.
            ("connection", "\u{e9}, x-third, a b"),
            ("x-third", "1"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x-auth-subject"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("accept", "*/*"),
        ];
        assert_eq!(left(&fields, &[]), ["accept"]);
    }

    #[test]
    fn fields_of_other_proxies_and_products_pass_by_name_alone() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_proto", "https"),
            ("x-forwarded-prefix", "/"),
            ("x.forwarded.host", "evil"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x-method-override", "DELETE"),
            ("true-client-ip", "1.1.1.1"),
            ("cf-connecting-ip", "1.1.1.1"),
            ("remote-user", "root"),
            ("proxy", "http://evil"),
            ("x-request-id", "1"),
        ];
        assert!(left(&fields, &[]).is_empty());
        assert_eq!(left(&fields, &["true-client-ip"]), ["true-client-ip"]);
    }

    #[test]
    fn ordinary_fields_pass() {
        let fields = [
            ("accept", "*/*"),
            ("cookie", "a=b"),
            ("content-type", "text/plain"),
            ("x-api-version", "2"),
            ("x-authority", "1"),
            ("priority", "u=1"),
            ("from", "a@example.com"),
        ];
        assert_eq!(left(&fields, &[]).len(), fields.len());
    }

    proptest! {
        #[test]
        fn an_identity_name_never_passes_in_any_spelling(
            which in 0..4usize,
            separators in proptest::collection::vec(proptest::sample::select(b"-_.!#$%&'*+^`|~".to_vec()), 3),
        ) {
            let name = ["x-auth-subject", "x-auth-roles", "x-auth-anything", "x-auth-scopes"][which];
            let mut separators = separators.into_iter();
            let spelled: Vec<u8> = name
                .bytes()
                .map(|b| if b == b'-' { separators.next().unwrap_or(b'-') } else { b })
                .collect();
            let name = HeaderName::from_bytes(&spelled).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(name, "forged".parse().unwrap());
            let pass = [headers.keys().next().unwrap().clone()];
            let dropped = request(&mut headers, &filter(&IdentityHeaders::default(), &pass));
            prop_assert!(headers.is_empty());
            prop_assert_eq!(dropped, 1);
        }

        #[test]
        fn our_cookies_never_pass_and_all_others_always_do(
            pieces in proptest::collection::vec(
                proptest::collection::vec(
                    prop_oneof![
                        2 => proptest::sample::select(vec![
                            "__Host-portcullis=SECRET", "__Host-portcullis-refresh=SECRET", "__Host-portcullis-csrf=SECRET",
                            "__Host-portcullis-login=SECRET", "__Host-portcullis = SECRET", "__Host-portcullis",
                            "\t__Host-portcullis=SECRET", "__Host-portcullis==SECRET", "__Host-portcullis\t=\"SECRET\"",
                            "refresh_token_cookie=pcr_SECRET", "old =\"pcr_SECRET\"", "a==pcr_SECRET",
                        ]).prop_map(str::to_owned),
                        3 => "[!-:<-~]{0,3}=[!-:<-~]{0,6}",
                        1 => proptest::sample::select(vec![
                            "", " ", "=", "a=\"x", "y\"", "__host-portcullis=1", "__Host-portcullis2=1", "a b=c",
                        ]).prop_map(str::to_owned),
                    ],
                    0..6,
                ),
                0..4,
            ),
            parted in proptest::sample::select(vec![";", "; ", " ; "]),
        ) {
            let names = CookieNames::default();
            let mut headers = HeaderMap::new();
            for field in &pieces {
                headers.append(header::COOKIE, field.join(parted).parse().unwrap());
            }
            let before = headers.clone();
            cookies(&mut headers, &names);
            let all = |headers: &HeaderMap| -> Vec<String> {
                let fields = headers.get_all(header::COOKIE).iter().map(|field| field.to_str().unwrap().to_owned());
                let pairs = fields.flat_map(|field| field.split(';').map(|p| p.trim().to_owned()).collect::<Vec<_>>());
                pairs.filter(|pair| !pair.is_empty()).collect()
            };
            let name = |pair: &str| pair.split('=').next().unwrap_or_default().trim().to_owned();
            let is_ours = |pair: &String| {
                names.includes(name(pair).as_bytes()) || ["=pcr_", "=\"pcr_", "==pcr_"].iter().any(|sign| pair.contains(sign))
            };
            let (was, is) = (all(&before), all(&headers));
            prop_assert!(!is.iter().any(|pair| is_ours(pair) || pair.contains("SECRET")));
            let others: Vec<String> = was.iter().filter(|pair| !is_ours(pair)).cloned().collect();
            prop_assert_eq!(&others, &is);
            if others.len() == was.len() {
                prop_assert_eq!(before, headers, "not touched at all");
            }
        }
    }

    #[test]
    fn an_answer_sets_no_cookie_of_the_gateways() {
        let names = CookieNames { csrf_refresh: Some("csrf_refresh_token".into()), ..CookieNames::default() };
        for ours in [
            "__Host-portcullis=x; Path=/; Secure; HttpOnly",
            "__Host-portcullis-refresh=x",
            "__Host-portcullis-csrf=; Max-Age=0",
            "__Host-portcullis-login = x",
            " \t__Host-portcullis\t=x",
            "=__Host-portcullis=x",
            "= =__Host-portcullis=x",
            "__Host-portcullis",
            "__Host-portcullis;=x",
            "csrf_refresh_token=x",
        ] {
            let mut headers =
                headers(&[("set-cookie", "a=1"), ("set-cookie", ours), ("set-cookie", "b=2; Path=/")]);
            assert_eq!(set_cookies(&mut headers, &names), 1, "{ours}");
            let left: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
            assert_eq!(left, ["a=1", "b=2; Path=/"], "{ours}");
        }
        for theirs in
            ["portcullis=1", "__Host-portcullisx=1", "a=__Host-portcullis", "x; __Host-portcullis=1", ""]
        {
            let mut headers = headers(&[("set-cookie", theirs)]);
            assert_eq!(set_cookies(&mut headers, &names), 0, "{theirs}");
            assert_eq!(headers.get_all(header::SET_COOKIE).iter().count(), 1, "{theirs}");
        }
    }

    #[test]
    fn the_other_cookies_of_a_field_stay_as_they_were_written() {
        for (field, left) in [
            ("__Host-portcullis=x", None),
            ("__Host-portcullis=x; __Host-portcullis-csrf=y;", None),
            ("a=b; __Host-portcullis=x", Some("a=b")),
            ("__Host-portcullis=x; a=b", Some("a=b")),
            ("a=\"1; __Host-portcullis=x; 2\"", Some("a=\"1; 2\"")),
            ("a=b; refresh_token_cookie=pcr_x; old = \"pcr_x\"; c==pcr_x", Some("a=b")),
            ("a=pcr; pcr_x=1; b=xpcr_; pcr_", Some("a=pcr; pcr_x=1; b=xpcr_; pcr_")),
            ("a=b;c=d;   e=f; __Host-portcullis-refresh=x; g=%20;", Some("a=b;c=d;   e=f; g=%20;")),
            (" a=b ;; c", Some(" a=b ;; c")),
            (
                "portcullis=x; __Host-portcullisx=1; x__Host-portcullis=1",
                Some("portcullis=x; __Host-portcullisx=1; x__Host-portcullis=1"),
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, field.parse().unwrap());
            cookies(&mut headers, &CookieNames::default());
            assert_eq!(headers.get(header::COOKIE).map(|field| field.to_str().unwrap()), left, "{field}");
        }
    }
}
