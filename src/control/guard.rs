//! Protects the admin listener from web pages.
//!
//! The listener requires no credential, so a web page must not reach it through an operator's browser. `Sec-Fetch-Site`
//! and `Origin` reveal a request from another site.
//!
//! Over plain http, a page whose name resolves to this listener (DNS rebinding) sends neither field. Its requests have
//! the page's name in `Host`, while operators and their tools use an address.

use super::queries::QueryError;
use crate::route::host::Authority;
use http::uri::Uri;
use http::{HeaderMap, HeaderName, StatusCode, header};
use std::net::Ipv4Addr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Rejects a request that a web page may have sent. `named` contains the listener's names in the policy.
///
/// # Errors
/// Returns 403 and the reason.
pub(super) fn admit(uri: &Uri, headers: &HeaderMap, named: &[Box<str>]) -> Result<(), QueryError> {
    let forbidden = |why: &str| Err((StatusCode::FORBIDDEN, format!("{why}\n")));
    if headers.contains_key(header::ORIGIN) {
        return forbidden("not for web pages: the request has an Origin");
    }
    // A browser sends `none` for an address that a person typed.
    if headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none" && site != "same-origin") {
        return forbidden("not for web pages: Sec-Fetch-Site names another site");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let hosts = match (hosts.next(), hosts.next()) {
        // An HTTP/1.0 request may omit `Host`. No browser sends such a request.
        (None, _) => [None, uri.authority().map(|authority| authority.as_str())],
        (Some(host), None) => {
            [Some(host.to_str().unwrap_or_default()), uri.authority().map(|authority| authority.as_str())]
        }
        (Some(_), Some(_)) => [Some(""), None],
    };
    let is_known = |host: &str| {
        Authority::parse(host).is_ok_and(|Authority { host, .. }| {
            is_address(&host)
                || named.iter().any(|name| **name == *host)
                || is_open(uri.path()) && !host.contains('.')
        })
    };
    if hosts.into_iter().flatten().all(is_known) {
        Ok(())
    } else {
        forbidden("Host must be an IP address, localhost, or a name in [server] admin_hosts")
    }
}

/// Returns whether a host name is safe: an attacker cannot make it resolve to the listener.
fn is_address(host: &str) -> bool {
    host == "localhost" || host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()
}

/// Returns whether scrapers and probes use this path. These paths also accept a host name without a dot. Containers and
/// services have such names, but public web pages do not.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(path: &str, fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let named = ["gateway.internal".into()];
        let outcome = admit(&path.parse().unwrap(), &headers, &named);
        assert!(outcome.as_ref().err().is_none_or(|(status, _)| *status == StatusCode::FORBIDDEN));
        outcome.is_ok()
    }

    const ALL: [&str; 8] =
        ["/livez", "/readyz", "/readyz?verbose", "/metrics", "/keys", "/decisions", "/explain", "/reload"];

    #[test]
    fn operators_and_their_tools_may_ask() {
        for path in ALL {
            for host in [
                "127.0.0.1:9900",
                "[::1]:9900",
                "localhost:9900",
                "10.1.2.3",
                "gateway.internal:9900",
                "GATEWAY.internal",
            ] {
                assert!(admitted(path, &[("host", host)]), "{path} {host}");
                assert!(admitted(path, &[("host", host), ("sec-fetch-site", "none")]), "{path} {host}");
            }
            assert!(admitted(path, &[]), "{path}");
        }
        for (path, expected) in [
            ("/metrics", true),
            ("/readyz?verbose", true),
            ("/livez", true),
            ("/keys", false),
            ("/decisions", false),
            ("/explain", false),
            ("/reload", false),
            ("/", false),
        ] {
            assert_eq!(admitted(path, &[("host", "portcullis:9900")]), expected, "{path}");
        }
    }

    /// Checks that the `Host` rule prevents DNS rebinding.
    #[test]
    fn web_pages_may_not() {
        for path in ALL {
            for fields in [
                &[("host", "127.0.0.1:9900"), ("origin", "http://127.0.0.1:9900")][..],
                &[("host", "127.0.0.1"), ("origin", "null")],
                &[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")],
                &[("host", "127.0.0.1"), ("sec-fetch-site", "same-site")],
                &[("host", "127.0.0.1"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
                &[("host", "127.0.0.1"), ("sec-fetch-site", "")],
                &[("host", "rebound.example:9900")],
                &[("host", "localhost.example")],
                &[("host", "gateway.internal.example")],
                &[("host", "127.0.0.1"), ("host", "rebound.example")],
                &[("host", "127.0.0.1"), ("host", "127.0.0.1")],
                &[("host", "")],
                &[("host", "user@127.0.0.1")],
            ] {
                assert!(!admitted(path, fields), "{path} {fields:?}");
            }
        }
        assert!(!admitted("http://rebound.example/metrics", &[("host", "127.0.0.1")]));
        assert!(admitted("http://127.0.0.1/metrics", &[("host", "127.0.0.1")]));
    }
}
