//! Renders a refusal as a problem document, as a page for a browser, or as gRPC trailers.
//!
//! The text is fixed except for the request id. The caller adds the fields of every response (`X-Request-Id`, HSTS,
//! `RateLimit`) and decides whether the connection stays open.

use super::accept::Format;
use super::page::{self, PageLinks, card};
use crate::authenticate::dpop::algorithms;
use crate::denial::{Challenge, Denial, Grpc};
use crate::journal::line::quoted;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The time that a client should wait after a 503, in seconds. In one second, a health check can succeed again, and users
/// hardly notice the delay.
const WAIT_UNAVAILABLE: u32 = 1;

/// The longest time that a gRPC client waits before it repeats a refused call, in seconds. A client waits inside the call,
/// so a longer time would replace the refusal by the end of the call's deadline.
const GRPC_PUSHBACK_MAX: u32 = 5;

/// Redirects a browser to another address with GET (RFC 9110 section 15.4.4).
pub(crate) fn see_other(location: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Renders the response to a refused request. A response to HEAD has the header fields of a response to GET, but no
/// body (RFC 9110 section 9.3.2).
pub(crate) fn refuse(
    denial: &Denial,
    format: Format,
    request_id: &HeaderValue,
    method: &Method,
) -> Response<Bytes> {
    refuse_with(denial, denial.status(), format, request_id, method, &PageLinks::default())
}

/// Renders a refusal like [`refuse`], but with the given status and page links. A status is given because some proxies
/// accept only a few statuses. gRPC responses ignore both arguments.
pub(crate) fn refuse_with(
    denial: &Denial,
    status: StatusCode,
    format: Format,
    request_id: &HeaderValue,
    method: &Method,
    ways: &PageLinks,
) -> Response<Bytes> {
    match format {
        Format::Json => {
            let body = document(denial, status, request_id.as_bytes());
            answer(denial, status, DOCUMENT, body, method)
        }
        Format::Html => {
            let body = page::page(denial, status, request_id.as_bytes(), ways).into_bytes();
            let mut answer = answer(denial, status, "text/html; charset=utf-8", body, method);
            let headers = answer.headers_mut();
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(card::CONTENT_SECURITY_POLICY));
            headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            answer
        }
        Format::Grpc => grpc_answer(denial, "application/grpc"),
        Format::GrpcWeb => grpc_answer(denial, "application/grpc-web"),
    }
}

/// Builds a response with this status and body, and adds the denial's header fields.
pub(super) fn answer(
    denial: &Denial,
    status: StatusCode,
    kind: &'static str,
    body: Vec<u8>,
    method: &Method,
) -> Response<Bytes> {
    let length = HeaderValue::from(body.len());
    let body = if method == Method::HEAD { Bytes::new() } else { Bytes::from(body) };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(challenge) = challenge(denial) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    if let Denial::MethodNotAllowed(methods) = denial {
        // A 405 must have an `Allow` field (RFC 9110 section 15.5.6). An empty field is valid.
        let allow = HeaderValue::from_str(methods).unwrap_or_else(|_| HeaderValue::from_static(""));
        headers.insert(ALLOW, allow);
    }
    if let Some(wait) = wait(denial) {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    answer
}

/// Returns the seconds after which a client may repeat its request, if the denial depends on time.
fn wait(denial: &Denial) -> Option<u32> {
    if let Denial::RateLimited { wait } | Denial::TooManyAttempts { wait } | Denial::Maintenance { wait } =
        denial
    {
        return Some(*wait);
    }
    (denial.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(WAIT_UNAVAILABLE)
}

/// Renders a problem document. `type` is a stable URN, which cannot be fetched (RFC 9457 section 3.1.1 allows this).
/// `title` is the standard phrase of the status.
fn document(denial: &Denial, status: StatusCode, request_id: &[u8]) -> Vec<u8> {
    let code = denial.code();
    let mut out = Vec::with_capacity(320);
    for part in [
        "{\"type\":\"urn:portcullis:refusal:",
        code,
        "\",\"title\":\"",
        status.canonical_reason().unwrap_or("Refused"),
        "\",\"status\":",
        status.as_str(),
        ",\"code\":\"",
        code,
        "\",\"detail\":\"",
        denial.detail(),
        "\",\"request_id\":",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    quoted(&mut out, request_id);
    // The line feed ends the line on a terminal.
    out.extend_from_slice(b"}\n");
    out
}

/// The media type of problem documents.
pub(crate) const DOCUMENT: &str = "application/problem+json";

/// The beginning of a challenge for bearer tokens.
const BEARER: &str = "Bearer realm=\"portcullis\"";

/// The challenge that offers API keys.
pub(crate) const API_KEY: &str = "ApiKey realm=\"portcullis\"";

/// Returns the challenge that offers DPoP (RFC 9449 section 7.1).
pub(crate) fn dpop() -> String {
    format!("DPoP realm=\"portcullis\", algs=\"{}\"", algorithms())
}

/// Returns a challenge for bearer tokens as a challenge that begins with `offer` and has the same parameters; `None` if
/// the challenge is for another scheme.
pub(crate) fn rewritten(challenge: &HeaderValue, offer: &str) -> Option<HeaderValue> {
    let rest = challenge.as_bytes().strip_prefix(BEARER.as_bytes())?;
    HeaderValue::try_from([offer.as_bytes(), rest].concat()).ok()
}

/// Renders `WWW-Authenticate` (RFC 6750 section 3). The description begins with the code.
fn challenge(denial: &Denial) -> Option<HeaderValue> {
    let mut max_age = 0;
    let mut beginning = std::borrow::Cow::Borrowed(BEARER);
    let (error, scope) = match denial.challenge() {
        Challenge::None => return None,
        Challenge::Bearer => return Some(HeaderValue::from_static(BEARER)),
        Challenge::Basic => return Some(HeaderValue::from_static("Basic realm=\"portcullis\"")),
        Challenge::InvalidRequest => ("invalid_request", None),
        Challenge::InvalidToken => ("invalid_token", None),
        Challenge::Bound => {
            beginning = dpop().into();
            ("invalid_token", None)
        }
        Challenge::Proof(error) => {
            beginning = dpop().into();
            (error, None)
        }
        Challenge::StaleLogin(seconds) => {
            max_age = seconds;
            ("insufficient_user_authentication", None)
        }
        Challenge::InsufficientScope(scope) => ("insufficient_scope", scope),
    };
    let mut out = Vec::with_capacity(192);
    for part in [&*beginning, ", error=\"", error, "\", error_description=\"", denial.code()] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(denial.detail().as_bytes());
    out.push(b'"');
    if let Some(scope) = scope {
        out.extend_from_slice(b", scope=\"");
        // Characters that a scope cannot contain are removed (RFC 6749 section 3.3). No token has a scope with such
        // characters.
        out.extend(scope.bytes().filter(|b| (b' '..=b'~').contains(b) && !matches!(b, b'"' | b'\\')));
        out.push(b'"');
    }
    if max_age > 0 {
        // `max_age` is defined in RFC 9470 section 3.
        out.extend_from_slice(format!(", max_age=\"{max_age}\"").as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(out)).ok()
}

/// Renders a trailers-only gRPC response. Its status is 200, because gRPC clients treat any other status as a transport
/// error.
fn grpc_answer(denial: &Denial, kind: &'static str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(denial.spec().grpc.as_str()));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(denial.code()));
    if let Some(wait) = wait(denial) {
        // Clients that repeat calls by themselves obey this field and not `Retry-After` (gRFC A6).
        let pushback = match wait {
            0..=GRPC_PUSHBACK_MAX => HeaderValue::from(wait * 1000),
            _ => HeaderValue::from_static("-1"),
        };
        headers.insert(GRPC_RETRY_PUSHBACK, pushback);
    }
    answer
}

/// Returns the trailers that end a gRPC call with this status.
pub(crate) fn grpc_trailers(status: Grpc, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(status.as_str()));
    trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const ID: HeaderValue = HeaderValue::from_static("01J-id");

    fn get(denial: &Denial, format: Format) -> Response<Bytes> {
        refuse(denial, format, &ID, &Method::GET)
    }

    fn field(answer: &Response<Bytes>, name: &str) -> Option<String> {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn every_denial_is_a_document_with_all_members() {
        for denial in Denial::every() {
            let answer = get(&denial, Format::Json);
            assert_eq!(answer.status(), denial.status());
            assert_eq!(field(&answer, "content-type").unwrap(), "application/problem+json");
            assert_eq!(field(&answer, "cache-control").unwrap(), "no-store");
            assert_eq!(field(&answer, "vary").unwrap(), "accept");
            assert_eq!(field(&answer, "content-length").unwrap(), answer.body().len().to_string());
            let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(body.as_object().unwrap().len(), 6);
            assert_eq!(body["type"], format!("urn:portcullis:refusal:{}", denial.code()));
            assert_eq!(body["title"], denial.status().canonical_reason().unwrap());
            assert_eq!(body["status"], denial.status().as_u16());
            assert_eq!(body["code"], denial.code());
            assert_eq!(body["detail"], denial.detail());
            assert_eq!(body["request_id"], "01J-id");
        }
    }

    #[test]
    fn a_request_id_cannot_break_the_document() {
        let id = HeaderValue::from_bytes(b"a\",\"status\":200,\"x\":\"\\\xff").unwrap();
        let answer = refuse(&Denial::NoRoute, Format::Json, &id, &Method::GET);
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["status"], 404);
        assert_eq!(body["request_id"], "a\",\"status\":200,\"x\":\"\\\u{fffd}");
    }

    #[test]
    fn challenges_follow_rfc_6750() {
        let challenge = |denial: Denial| field(&get(&denial, Format::Json), "www-authenticate");
        assert_eq!(challenge(Denial::MissingToken).unwrap(), "Bearer realm=\"portcullis\"");
        assert_eq!(
            challenge(Denial::ExpiredToken).unwrap(),
            "Bearer realm=\"portcullis\", error=\"invalid_token\", \
             error_description=\"expired_token: The access token has expired.\""
        );
        assert_eq!(
            challenge(Denial::InsufficientScope(Arc::from("orders:read a\"b\\c\r\nd"))).unwrap(),
            "Bearer realm=\"portcullis\", error=\"insufficient_scope\", error_description=\
             \"insufficient_scope: The access token's scope does not allow this.\", \
             scope=\"orders:read abcd\""
        );
        assert!(!challenge(Denial::InsufficientRole).unwrap().contains("scope=\""));
        assert!(challenge(Denial::AmbiguousCredentials).unwrap().contains("error=\"invalid_request\""));
        assert_eq!(challenge(Denial::NoRoute), None);
    }

    #[test]
    fn every_description_holds_only_what_a_quoted_string_may() {
        for denial in Denial::every() {
            let text = denial.detail();
            assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'), "{text}");
            assert_eq!(challenge(&denial).is_some(), denial.challenge() != Challenge::None);
            // Clients of MCP find a parameter by the first occurrence of its name (findings/mcp-client-and-several-challenges.sh).
            for parameter in ["error=", "scope=", "resource_metadata="] {
                assert!(!text.contains(parameter), "{text}");
            }
        }
    }

    #[test]
    fn retry_after_stands_on_429_and_503_and_nowhere_else() {
        for denial in Denial::every() {
            let expected = matches!(denial.status().as_u16(), 429 | 503);
            for format in [Format::Json, Format::Html] {
                assert_eq!(get(&denial, format).headers().contains_key("retry-after"), expected);
            }
        }
        let answer = get(&Denial::RateLimited { wait: 17 }, Format::Json);
        assert_eq!(field(&answer, "retry-after").unwrap(), "17");
    }

    #[test]
    fn a_grpc_client_gets_the_wait_in_its_own_field() {
        for denial in Denial::every() {
            let is_there = get(&denial, Format::Json).headers().contains_key("retry-after");
            for format in [Format::Grpc, Format::GrpcWeb] {
                let answer = get(&denial, format);
                assert_eq!(answer.headers().contains_key("grpc-retry-pushback-ms"), is_there, "{denial:?}");
            }
        }
        let pushback = |denial| field(&get(&denial, Format::Grpc), "grpc-retry-pushback-ms").unwrap();
        assert_eq!(pushback(Denial::RateLimited { wait: 1 }), "1000");
        assert_eq!(pushback(Denial::RateLimited { wait: 5 }), "5000");
        // A longer wait means: do not repeat the call.
        for wait in [6, u32::MAX] {
            assert_eq!(pushback(Denial::RateLimited { wait }), "-1");
            assert_eq!(pushback(Denial::Maintenance { wait }), "-1");
        }
        assert_eq!(pushback(Denial::Overloaded), "1000");
    }

    #[test]
    fn a_405_carries_the_methods_that_are_allowed() {
        let answer = get(&Denial::MethodNotAllowed(Arc::from("GET, POST")), Format::Json);
        assert_eq!(field(&answer, "allow").unwrap(), "GET, POST");
        let answer = get(&Denial::MethodNotAllowed(Arc::from("GE\r\nT")), Format::Json);
        assert_eq!(field(&answer, "allow").unwrap(), "");
        assert_eq!(field(&get(&Denial::NoRoute, Format::Json), "allow"), None);
    }

    #[test]
    fn an_answer_to_head_has_the_header_fields_of_get_and_no_body() {
        for format in [Format::Json, Format::Html] {
            let get = get(&Denial::NoRoute, format);
            let head = refuse(&Denial::NoRoute, format, &ID, &Method::HEAD);
            assert_eq!(head.headers(), get.headers());
            assert!(head.body().is_empty() && !get.body().is_empty());
        }
    }

    #[test]
    fn a_page_may_load_nothing_and_be_framed_by_nobody() {
        let answer = get(&Denial::MissingToken, Format::Html);
        assert_eq!(answer.status(), 401);
        assert_eq!(field(&answer, "content-type").unwrap(), "text/html; charset=utf-8");
        assert_eq!(field(&answer, "x-content-type-options").unwrap(), "nosniff");
        let policy = field(&answer, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"));
        assert!(answer.headers().contains_key("www-authenticate"));
    }

    #[test]
    fn grpc_answers_are_trailers_with_the_code() {
        for denial in Denial::every() {
            for (format, kind) in
                [(Format::Grpc, "application/grpc"), (Format::GrpcWeb, "application/grpc-web")]
            {
                let answer = get(&denial, format);
                assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 0));
                assert_eq!(field(&answer, "content-type").unwrap(), kind);
                assert_eq!(field(&answer, "grpc-message").unwrap(), denial.code());
                let expected = match denial.status().as_u16() {
                    400 | 408 | 413 | 415 | 431 => "3",
                    401 => "16",
                    403 | 421 => "7",
                    404 if denial == Denial::NotFound => "5",
                    404 | 405 => "12",
                    429 => "8",
                    502 | 503 => "14",
                    504 => "4",
                    other => panic!("no gRPC status for {other}"),
                };
                assert_eq!(field(&answer, "grpc-status").unwrap(), expected, "{}", denial.code());
            }
        }
    }
}
