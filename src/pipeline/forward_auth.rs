//! Forward-auth: another proxy holds an original request, and asks the gateway whether it may forward the request. The
//! gateway answers with a verdict.
//!
//! The gateway must decide about exactly the request that the proxy will forward. A trusted proxy must therefore state
//! every fact, and must not contradict itself. The pipeline decides as it does for all requests.

use super::exchange::{OriginalRequest, VerdictStyle};
use crate::authority::Endpoint;
use crate::authorize::Permit;
use crate::denial::{Denial, Malformed};
use crate::forward::Proof;
use crate::forward::foreign::{self, Kind};
use crate::forward::outgoing;
use crate::peer::forwarded::{self, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::peer::{Caller, Scheme};
use crate::policy::Policy;
use crate::respond::{self, Format, PageLinks};
use crate::route::head::has_path;
use crate::route::{Head, path};
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};

/// The original method, from Traefik and Caddy.
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
/// The original path and query, from Traefik and Caddy.
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// The original method, from nginx.
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
/// The original path and query, from nginx.
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
/// The original scheme, host, path and query, from ingress-nginx.
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// Returns whether a request with this path is a forward-auth request.
///
/// The caller of this function checks the path as sent before all other checks. Envoy appends the original path to the
/// endpoint's path, and the result may leave the endpoint (`/auth/verify/../open`). Envoy must never mistake another
/// route's response for a verdict.
pub(super) fn is_asked(policy: &Policy, path: &str) -> bool {
    policy
        .issuer_settings
        .as_ref()
        .is_some_and(|settings| below(path, settings.path(Endpoint::Verify)).is_some())
}

/// Returns the part of `path` after the prefix `at`: empty, or with a leading slash. Returns `None` if `path` is not
/// below `at`.
fn below<'p>(path: &'p str, at: &str) -> Option<&'p str> {
    path.strip_prefix(at.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Reads the original request from a forward-auth request.
///
/// # Errors
/// Returns [`Denial::UntrustedProxy`] unless the sender is a trusted proxy, because the decision depends on the stated
/// facts. Returns [`Denial::BadRequest`] if a fact is missing or is stated differently in two fields. A proxy may
/// forward a client's field in addition to the field that it writes. The client must not choose the route.
pub(super) fn original(
    policy: &Policy,
    asking: &Parts,
    head: &Head<'_>,
    caller: Caller,
) -> Result<OriginalRequest, Denial> {
    if !caller.by_trusted_proxy {
        return Err(Denial::UntrustedProxy);
    }
    let at = policy.issuer_settings.as_ref().map_or("", |settings| settings.path(Endpoint::Verify));
    read(at, asking, head).map_err(Denial::BadRequest)
}

/// Returns the name of a field by which a service could mistake the request for another request or the caller for
/// another caller. The name is as listed in `foreign`. `pass` lists the identity fields that the policy accepts.
///
/// The gateway removes such fields from forwarded requests, but another proxy does not. Address fields are ignored: no
/// decision here uses them, and proxies write them (Traefik adds `X-Real-Ip` to each forward-auth request).
pub(super) fn misleading(headers: &HeaderMap, pass: &[HeaderName]) -> Option<&'static str> {
    headers.keys().find_map(|name| match foreign::classify(name.as_str())? {
        (Kind::Method | Kind::Target, known) if !is_question(name) => Some(known),
        (Kind::Identity, known) if !pass.contains(name) => Some(known),
        (Kind::Proxy, _) if name == "proxy" => Some("proxy"),
        _ => None,
    })
}

pub(super) fn explain_misleading(name: &str) -> String {
    format!(
        "the proxy passes on the client's `{name}`, by which a service could take the request for another one: see \
         docs/forward-auth.md"
    )
}

/// Returns whether the field describes the original request, such as `X-Forwarded-Uri`.
fn is_question(name: &HeaderName) -> bool {
    [X_FORWARDED_METHOD, X_FORWARDED_URI, X_ORIGINAL_METHOD, X_ORIGINAL_URI, X_ORIGINAL_URL].contains(name)
}

fn read(at: &str, asking: &Parts, head: &Head<'_>) -> Result<OriginalRequest, Malformed> {
    let headers = &asking.headers;
    let mut named = Named::default();
    // Envoy sends the original method and host, and appends the original path to the endpoint's path.
    let rest = below(asking.uri.path(), at).ok_or(Malformed::OriginalSpelling)?;
    if !rest.is_empty() {
        let whole = asking.uri.path_and_query().map_or("", PathAndQuery::as_str);
        named.method(asking.method.clone())?;
        named.host(&head.authority().ok_or(Malformed::OriginalMissing)?)?;
        named.target(below(whole, at).ok_or(Malformed::OriginalSpelling)?.as_bytes())?;
    }
    for name in [X_FORWARDED_METHOD, X_ORIGINAL_METHOD] {
        if let Some(method) = one(headers, &name)? {
            named.method(Method::from_bytes(method).map_err(|_| Malformed::OriginalTwice)?)?;
        }
    }
    let mut style = VerdictStyle::Answers;
    for name in [X_FORWARDED_URI, X_ORIGINAL_URI, X_ORIGINAL_URL] {
        if let Some(target) = one(headers, &name)? {
            named.target(target)?;
            if name != X_FORWARDED_URI {
                style = VerdictStyle::Statuses;
            }
        }
    }
    if let Some(host) = one(headers, &X_FORWARDED_HOST)? {
        named.host(text(host)?)?;
    }
    if let Some(scheme) = one(headers, &X_FORWARDED_PROTO)? {
        // The nearest proxy wrote the last element.
        named.scheme(text(scheme)?.rsplit(',').next().unwrap_or_default().trim())?;
    }
    let Named { method: Some(method), scheme: Some(scheme), host: Some(host), target: Some(target) } = named
    else {
        return Err(Malformed::OriginalMissing);
    };
    let mut headers = headers.clone();
    headers.insert(header::HOST, HeaderValue::try_from(host).map_err(|_| Malformed::Host)?);
    // These fields describe the body of the forward-auth request. The original body stays at the proxy.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    let mut parts = Request::new(()).into_parts().0;
    (parts.method, parts.uri, parts.version) = (method, Uri::from(target), Version::HTTP_11);
    parts.headers = headers;
    Ok(OriginalRequest { parts, scheme, style })
}

/// Returns the value of a field. Rejects a repeated field.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, Malformed> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.as_bytes())),
        (Some(_), Some(_)) => Err(Malformed::OriginalTwice),
    }
}

fn text(value: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(value).map_err(|_| Malformed::OriginalTwice)
}

/// The facts of the original request. Several fields may state the same fact if they agree.
#[derive(Default)]
struct Named {
    method: Option<Method>,
    scheme: Option<Scheme>,
    host: Option<String>,
    target: Option<PathAndQuery>,
}

impl Named {
    fn method(&mut self, method: Method) -> Result<(), Malformed> {
        agree(&mut self.method, method)
    }

    fn scheme(&mut self, scheme: &str) -> Result<(), Malformed> {
        let scheme = forwarded::parse_scheme(scheme).ok_or(Malformed::OriginalTwice)?;
        agree(&mut self.scheme, scheme)
    }

    fn host(&mut self, host: &str) -> Result<(), Malformed> {
        agree(&mut self.host, host.to_ascii_lowercase())
    }

    /// Reads a target in origin form or in absolute form. The absolute form also states the scheme and the host.
    ///
    /// The target is parsed like the target in a request line. A target with raw UTF-8 then gets the same decision as
    /// in an ordinary request.
    fn target(&mut self, target: &[u8]) -> Result<(), Malformed> {
        // The HTTP library removes a fragment silently. The proxy's upstream may keep it.
        if target.contains(&b'#') {
            return Err(Malformed::Fragment);
        }
        let uri = Uri::try_from(target).map_err(|_| Malformed::Target)?;
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => {}
            (Some(scheme), Some(authority)) => {
                self.scheme(scheme)?;
                self.host(authority.as_str())?;
            }
            (Some(_), None) | (None, Some(_)) => return Err(Malformed::Target),
        }
        // The other proxy forwards the empty path of `http://host?query`, and the decision would be about `/`.
        if !has_path(&uri) {
            return Err(Malformed::Target);
        }
        let target = uri.into_parts().path_and_query.ok_or(Malformed::Target)?;
        agree(&mut self.target, target)
    }
}

fn agree<T: PartialEq>(known: &mut Option<T>, named: T) -> Result<(), Malformed> {
    match known {
        Some(known) if *known != named => Err(Malformed::OriginalTwice),
        Some(_) => Ok(()),
        None => {
            *known = Some(named);
            Ok(())
        }
    }
}

/// Rejects a path that differs from its canonical form after percent-decoding.
///
/// The rules are checked against the canonical path, but the other proxy forwards the path as sent. A service may
/// resolve dot segments differently from the gateway.
///
/// # Errors
/// Returns [`Denial::BadRequest`] if the two paths differ after decoding.
pub(super) fn is_forwarded_as_judged(as_sent: &str, canonical: &str) -> Result<(), Denial> {
    let same = path::decoded(as_sent.as_bytes()).eq(path::decoded(canonical.as_bytes()));
    if same { Ok(()) } else { Err(Denial::BadRequest(Malformed::OriginalSpelling)) }
}

/// Returns the verdict for a permitted request, with the identity fields that an upstream would receive.
pub(super) fn granted(permit: &Permit, write_csrf: bool, proof: &Proof<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    outgoing::write_identity(response.headers_mut(), permit, write_csrf, proof);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the verdict for a refused request. `login` is the address of the login page, if the user should log in.
pub(super) fn refused(
    denial: &Denial,
    login: Option<HeaderValue>,
    style: VerdictStyle,
    format: Format,
    id: &HeaderValue,
    method: &Method,
    ways: &PageLinks,
) -> Response<Bytes> {
    let format = match format {
        Format::Html => Format::Html,
        // A refused gRPC call has the status 200, which the proxy would mistake for permission.
        Format::Json | Format::Grpc | Format::GrpcWeb => Format::Json,
    };
    match (login, style) {
        (Some(location), VerdictStyle::Answers) => respond::see_other(location),
        (login, _) => {
            let mut response = respond::refuse_with(denial, status(denial), format, id, method, ways);
            if let Some(location) = login {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
    }
}

/// Returns the status of a refusal. Proxies treat most other statuses as a failure of the gateway.
fn status(denial: &Denial) -> StatusCode {
    match denial.status() {
        status @ (StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS) => status,
        status if status.is_server_error() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::HeadBounds;
    use crate::route::Slashes;
    use proptest::prelude::*;

    const AT: &str = "/auth/verify";
    const BOUNDS: HeadBounds = HeadBounds { header_count: 100, header_bytes: 32 * 1024 };

    /// Reads a forward-auth request, and returns the original method, scheme, host and target.
    fn asked(
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<(String, Scheme, String, String), Malformed> {
        let mut request = Request::builder().method(method).uri(target).header("host", "proxy.test");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let head = Head::read(&parts, BOUNDS, Slashes::Strict).map_err(|_| Malformed::Target)?;
        let original = read(AT, &parts, &head)?;
        let host = original.parts.headers[header::HOST].to_str().unwrap().to_owned();
        let target = original.parts.uri.to_string();
        Ok((original.parts.method.to_string(), original.scheme, host, target))
    }

    fn names(method: &str, scheme: Scheme, host: &str, target: &str) -> (String, Scheme, String, String) {
        (method.to_owned(), scheme, host.to_owned(), target.to_owned())
    }

    #[test]
    fn each_proxys_way_to_name_a_request_is_read() {
        let forwarded = [
            ("x-forwarded-method", "PUT"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "Shop.test:8443"),
            ("x-forwarded-uri", "/a%2D?b=/../c"),
        ];
        let read = names("PUT", Scheme::Https, "shop.test:8443", "/a%2D?b=/../c");
        assert_eq!(asked("GET", AT, &forwarded), Ok(read));
        let original = [
            ("x-original-method", "PUT"),
            ("x-forwarded-proto", "http, https"),
            ("x-forwarded-host", "shop.test"),
            ("x-original-uri", "/a?"),
        ];
        assert_eq!(asked("GET", AT, &original), Ok(names("PUT", Scheme::Https, "shop.test", "/a?")));
        let ingress = [("x-original-method", "PUT"), ("x-original-url", "https://shop.test/a")];
        assert_eq!(asked("GET", AT, &ingress), Ok(names("PUT", Scheme::Https, "shop.test", "/a")));
        let proto = [("x-forwarded-proto", "http")];
        let read = names("PUT", Scheme::Http, "proxy.test", "/a?b");
        assert_eq!(asked("PUT", "/auth/verify/a?b", &proto), Ok(read));
        let read = names("GET", Scheme::Http, "proxy.test", "/");
        assert_eq!(asked("GET", "/auth/verify/", &proto), Ok(read), "the root, as Envoy asks about it");
    }

    #[test]
    fn a_target_of_raw_utf_8_is_read_as_a_request_line_is() {
        // curl sends this character unencoded in a query.
        let question = |target: &[u8]| {
            let value = HeaderValue::from_bytes(target).unwrap();
            let fields = [("x-forwarded-method", "GET"), ("x-forwarded-proto", "https")];
            let mut request = Request::builder().uri(AT).header("x-forwarded-uri", value);
            for (name, value) in fields.into_iter().chain([("x-forwarded-host", "a"), ("host", "proxy.test")])
            {
                request = request.header(name, value);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            let head = Head::read(&parts, BOUNDS, Slashes::Strict).unwrap();
            read(AT, &parts, &head).map(|original| original.parts.uri.to_string())
        };
        for target in ["/search?q=M\u{fc}nchen", "/caf\u{e9}?x={\u{e9}}", "/{a}|^?b|"] {
            assert_eq!(question(target.as_bytes()), Ok(target.to_owned()));
            assert_eq!(Uri::try_from(target.as_bytes()).unwrap().to_string(), target);
        }
        assert_eq!(question(b"/a?\xff"), Err(Malformed::Target), "no UTF-8");
        assert_eq!(question(b"http://a/?b"), Err(Malformed::OriginalTwice), "another scheme");
        assert_eq!(question(b"https://a/?b"), Ok("/?b".to_owned()));
        assert_eq!(question(b"https://a?b"), Err(Malformed::Target), "the other proxy forwards no path");
    }

    #[test]
    fn a_websockets_scheme_is_its_connections() {
        // Traefik writes these schemes for WebSockets (RFC 6455 section 3).
        for (written, scheme) in [("wss", Scheme::Https), ("ws", Scheme::Http), ("WSS", Scheme::Https)] {
            let fields = [
                ("x-forwarded-method", "GET"),
                ("x-forwarded-proto", written),
                ("x-forwarded-host", "a"),
                ("x-forwarded-uri", "/"),
            ];
            assert_eq!(asked("GET", AT, &fields), Ok(names("GET", scheme, "a", "/")));
        }
    }

    #[test]
    fn a_field_that_names_another_request_or_caller_misleads() {
        let found = |name: &'static str, pass: &[HeaderName]| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            misleading(&headers, pass)
        };
        for name in [
            "x-http-method-override",
            "x-method-override",
            "x_http_method",
            "x-rewrite-url",
            "x-override-url",
            "x_original_url",
            "x-original-host",
            "x_forwarded_uri",
            "base-url",
            "proxy",
            "remote-user",
            "x-forwarded-user",
            "x-webauth-user",
            "x-forwarded-client-cert",
        ] {
            assert!(found(name, &[]).is_some(), "{name}");
        }
        for name in [
            "x-forwarded-method",
            "x-forwarded-uri",
            "x-original-method",
            "x-original-uri",
            "x-original-url",
            "x-real-ip",
            "x-forwarded-prefix",
            "x-forwarded-server",
            "forwarded",
            "x-request-id",
            "accept",
            "x-original-forwarded-for",
            "x-auth-request-redirect",
            "proxy-connection",
            "x-envoy-internal",
        ] {
            assert_eq!(found(name, &[]), None, "{name}");
        }
        let pass = [HeaderName::from_static("x-forwarded-client-cert")];
        assert_eq!(found("x-forwarded-client-cert", &pass), None);
    }

    #[test]
    fn the_length_of_the_question_does_not_apply_to_the_original() {
        let mut request = Request::builder().method("POST").uri("/auth/verify/a");
        for (name, value) in [("host", "a"), ("x-forwarded-proto", "http"), ("content-length", "7")] {
            request = request.header(name, value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let head = Head::read(&parts, BOUNDS, Slashes::Strict).unwrap();
        let original = read(AT, &parts, &head).unwrap();
        assert!(!original.parts.headers.contains_key(header::CONTENT_LENGTH));
    }

    #[test]
    fn only_what_lies_below_the_endpoint_is_its() {
        for (path, rest) in [
            ("/auth/verify", Some("")),
            ("/auth/verify/", Some("/")),
            ("/auth/verify/a/b", Some("/a/b")),
            ("/auth/verify/../me", Some("/../me")),
            ("/auth/verifying", None),
            ("/auth/verif", None),
            ("/auth/%76erify", None),
        ] {
            assert_eq!(below(path, AT), rest, "{path}");
            assert_eq!(below(path, "/auth/verify/"), rest, "{path}");
        }
    }

    #[test]
    fn two_spellings_of_one_path_may_differ_in_their_codes_alone() {
        for (as_sent, canonical, same) in [
            ("/a", "/a", true),
            ("/%61", "/a", true),
            ("/%c3%a9", "/%C3%A9", true),
            ("/{", "/%7B", true),
            ("/a/../b", "/b", false),
            ("/a/./b", "/a/b", false),
            ("/a/.", "/a/", false),
            ("//a", "/a", false),
        ] {
            assert_eq!(is_forwarded_as_judged(as_sent, canonical).is_ok(), same, "{as_sent}");
        }
    }

    proptest! {
        #[test]
        fn a_field_of_the_client_never_changes_what_is_read(
            name in proptest::sample::select(vec![
                "x-forwarded-method", "x-original-method", "x-forwarded-uri", "x-original-uri", "x-original-url",
                "x-forwarded-host", "x-forwarded-proto", "x-rewrite-url", "x-forwarded-prefix", "forwarded",
                "x-http-method-override", "x_forwarded_uri",
            ]),
            value in "[ -~]{0,24}|/open/a|GET|POST|https?|https?://[a-z.]{1,8}/[a-z]?",
        ) {
            let whole = [
                ("x-forwarded-method", "GET"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop.test"),
                ("x-forwarded-uri", "/open/a"),
            ];
            let honest = asked("GET", AT, &whole);
            let mut fields = whole.to_vec();
            fields.push((name, &value));
            let read = asked("GET", AT, &fields);
            prop_assert!(read.is_err() || read == honest, "{:?}", read);
        }
    }
}
