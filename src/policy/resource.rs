//! Protected resources (RFC 9728). The metadata of a resource names the issuers of its tokens. Challenges contain the
//! URL of the metadata.

use super::Policy;
use crate::route::host::Authority;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Response, StatusCode};

/// The prefix of a metadata path. The path of the resource follows (RFC 9728 section 3).
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// A resource whose metadata the gateway publishes.
#[derive(Debug, PartialEq, Eq)]
pub struct ProtectedResource {
    /// The resource identifier: an `https` URL without query and fragment (RFC 9728 section 1.2).
    pub identifier: Box<str>,
    /// The host of the identifier, in canonical spelling.
    pub host: Box<str>,
    /// The path of the identifier, in canonical spelling and without a trailing slash. Empty for the root.
    pub path: Box<str>,
    /// The URL of the metadata. Contains only visible ASCII without quotes and backslashes.
    pub metadata_url: Box<str>,
    /// The metadata as JSON (RFC 9728 section 2).
    pub metadata: Bytes,
}

impl ProtectedResource {
    /// Whether a request is for this resource. Its path must be the path of the resource or below it.
    pub fn covers(&self, host: &str, path: &str) -> bool {
        *self.host == *host
            && path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request for the metadata. The metadata is public, so scripts of any origin may read it. Browsers send
    /// a preflight request if the script adds a header such as `MCP-Protocol-Version`.
    pub(crate) fn answer(&self, method: &Method) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if *method == Method::OPTIONS {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
            *response.status_mut() = StatusCode::NO_CONTENT;
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        *response.body_mut() = self.metadata.clone();
        response
    }
}

impl Policy {
    /// Returns the most specific resource that covers a request. `host` may contain a port.
    pub fn resource_of(&self, host: &str, path: &str) -> Option<&ProtectedResource> {
        if self.resources.is_empty() {
            return None;
        }
        let host = Authority::parse(host).ok()?.host;
        let covering = self.resources.iter().filter(|resource| resource.covers(&host, path));
        covering.max_by_key(|resource| resource.path.len()).map(|resource| &**resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(host: &str, path: &str) -> ProtectedResource {
        ProtectedResource {
            identifier: format!("https://{host}{path}").into(),
            host: host.into(),
            path: path.into(),
            metadata_url: format!("https://{host}{WELL_KNOWN}{path}").into(),
            metadata: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn a_resource_covers_its_path_and_all_below_it_on_its_host_alone() {
        let mcp = resource("api.example", "/mcp");
        for (host, path, covers) in [
            ("api.example", "/mcp", true),
            ("api.example", "/mcp/", true),
            ("api.example", "/mcp/a/b", true),
            ("api.example", "/mcpx", false),
            ("api.example", "/mc", false),
            ("api.example", "/", false),
            ("other.example", "/mcp", false),
        ] {
            assert_eq!(mcp.covers(host, path), covers, "{host}{path}");
        }
        assert!(resource("api.example", "").covers("api.example", "/anything"));
    }

    #[test]
    fn a_preflight_is_answered_without_the_metadata() {
        let mcp = resource("api.example", "/mcp");
        let answer = mcp.answer(&Method::OPTIONS);
        assert_eq!((answer.status(), answer.body().len()), (StatusCode::NO_CONTENT, 0));
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "*");
        let answer = mcp.answer(&Method::GET);
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"{}"[..]));
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
}
