//! The answers of a route to scripts of other origins.

use super::{EXPOSED, method_asked, origin};
use crate::field_list::members;
use crate::route::Methods;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// The maximum number of characters of a client's text that operators see.
const SHOWN_MAX: usize = 64;

/// A compiled `[cors.NAME]`.
#[derive(Debug)]
pub(crate) struct Cors {
    pub(crate) name: Box<str>,
    origins: Origins,
    /// The methods that scripts may use.
    methods: Methods,
    /// The request fields that scripts may set, as a field value. `None` if there is no such field.
    headers: Option<HeaderValue>,
    /// The names of the fields that scripts may read.
    exposed: HeaderValue,
    credentials: bool,
    max_age: HeaderValue,
    private_network: bool,
}

/// The origins of a [`Cors`].
#[derive(Debug)]
pub(crate) enum Origins {
    /// Every origin, without credentials.
    Any,
    /// The listed origins.
    Listed(Box<[OriginPattern]>),
}

/// An origin, or all hosts below a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OriginPattern {
    /// One origin.
    Exact(Box<str>),
    /// The origins `https://*.example.com:8443`.
    Below {
        /// The scheme with `://`.
        scheme: &'static str,
        /// The name with its leading dot, and the port if it is not the scheme's default.
        parent: Box<str>,
    },
}

impl OriginPattern {
    /// Returns the origin or the pattern that the text probably means: without a path, in lower case, without the default
    /// port.
    pub(crate) fn corrected(text: &str) -> Option<String> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let (scheme, host) = (scheme.to_ascii_lowercase(), rest.split('/').next()?.to_ascii_lowercase());
        let default = if scheme == "https" { ":443" } else { ":80" };
        let meant = format!("{scheme}://{}", host.strip_suffix(default).unwrap_or(&host));
        Self::parse(&meant).map(|_| meant)
    }

    /// Parses an origin or a pattern. Returns `None` for text that no browser sends as an origin, for a pattern below a
    /// top-level domain, and for a pattern of addresses.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, default) = match text.starts_with("https://") {
            true => ("https://", "443"),
            false => ("http://", "80"),
        };
        let rest = text.strip_prefix(scheme)?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        // A browser omits the default port and leading zeros.
        let is_port = |port: &str| {
            port.parse::<u16>().is_ok_and(|number| number.to_string() == port && number > 0)
                && port != default
        };
        if !port.is_none_or(is_port) {
            return None;
        }
        if let Some(parent) = rest.strip_prefix('*') {
            let name = host.strip_prefix("*.")?;
            let is_address =
                name.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
            let is_name = is_labels(name.as_bytes()) && name.contains('.') && !is_address;
            return is_name.then(|| Self::Below { scheme, parent: parent.into() });
        }
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match address {
            Some(address) => {
                address.parse::<std::net::Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address)
            }
            None => is_labels(host.as_bytes()),
        };
        is_host.then(|| Self::Exact(text.into()))
    }

    /// Returns whether this is the origin, or the pattern covers it.
    pub(crate) fn covers(&self, origin: &[u8]) -> bool {
        match self {
            Self::Exact(listed) => listed.as_bytes() == origin,
            // The labels cannot contain `:`, `@`, `/` or white space, so the origin's host really ends in the name.
            Self::Below { scheme, parent } => origin
                .strip_prefix(scheme.as_bytes())
                .and_then(|host| host.strip_suffix(parent.as_bytes()))
                .is_some_and(is_labels),
        }
    }
}

/// Returns whether text consists of labels of a host name in lower case.
fn is_labels(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'.').all(|label| {
        !label.is_empty()
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
            && label.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    })
}

/// The parts of a [`Cors`] that its section states.
#[derive(Debug)]
pub(crate) struct CorsParts<'c> {
    pub(crate) name: &'c str,
    pub(crate) origins: Origins,
    pub(crate) methods: Methods,
    pub(crate) headers: Vec<HeaderName>,
    pub(crate) expose: Vec<HeaderName>,
    pub(crate) credentials: bool,
    pub(crate) max_age: u64,
    pub(crate) private_network: bool,
}

impl Cors {
    /// Returns `None` for credentials with every origin, which no browser accepts and nobody should want.
    pub(crate) fn new(parts: CorsParts<'_>) -> Option<Self> {
        let CorsParts { name, origins, methods, headers, expose, credentials, max_age, private_network } =
            parts;
        if credentials && matches!(origins, Origins::Any) {
            return None;
        }
        let list = |names: &[HeaderName]| names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        let mut exposed = EXPOSED.to_str().unwrap_or_default().to_owned();
        if !expose.is_empty() {
            exposed = format!("{exposed}, {}", list(&expose));
        }
        Some(Self {
            name: name.into(),
            origins,
            methods,
            headers: (!headers.is_empty()).then(|| HeaderValue::try_from(list(&headers)).ok()).flatten(),
            exposed: HeaderValue::try_from(exposed).ok()?,
            credentials,
            max_age: HeaderValue::from(max_age),
            private_network,
        })
    }

    /// Returns the value of `Access-Control-Allow-Origin` for a request of this origin.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(list) => {
                origin.filter(|origin| list.iter().any(|listed| listed.covers(origin.as_bytes()))).cloned()
            }
        }
    }

    /// Replaces the CORS fields of an answer. The fields of the upstream are removed even if the origin is not listed.
    #[cold]
    pub(crate) fn share(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        for name in
            [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS]
        {
            headers.remove(name);
        }
        if matches!(self.origins, Origins::Listed(_)) && !varies(headers) {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(allowed) = self.allowed(origin) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }

    /// Returns the reason for which a preflight is refused, for the operator.
    #[cold]
    pub(crate) fn unlisted(&self, method: &Method, asked: &HeaderMap) -> String {
        let origin = origin(asked);
        let (what, text) = match self.allowed(origin) {
            None => ("origin", origin.and_then(|origin| origin.to_str().ok()).unwrap_or("of this request")),
            Some(_) => ("method", method.as_str()),
        };
        let shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
        format!("[cors.{}] does not list the {what} {shown}", self.name)
    }

    /// Returns the answer to a preflight for this method, without the fields of [`Cors::share`]. The status is 403 if
    /// the origin or the method is not listed: a browser does not send the request after a status outside 2xx. It would
    /// send GET, HEAD and POST whatever `Access-Control-Allow-Methods` says (Fetch Standard, section 4.8).
    pub(crate) fn preflight(&self, method: &Method, asked: &HeaderMap) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let is_allowed = self.allowed(origin(asked)).is_some() && self.methods.contains(method);
        let (true, Ok(method)) = (is_allowed, HeaderValue::from_str(method.as_str())) else {
            *response.status_mut() = StatusCode::FORBIDDEN;
            return response;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if let Some(names) = &self.headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        if self.private_network && asked.get(REQUEST_PRIVATE_NETWORK).is_some_and(|asked| asked == "true") {
            headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
        }
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    }
}

/// Returns the method that a preflight asks for, if the request is a preflight of a browser.
pub(crate) fn asked_by_browser(method: &Method, headers: &HeaderMap) -> Option<Method> {
    method_asked(method, headers).filter(|_| headers.contains_key(ORIGIN))
}

/// Returns whether `Vary` already names `Origin`.
fn varies(headers: &HeaderMap) -> bool {
    members(headers, &VARY).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> OriginPattern {
        OriginPattern::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn the_origin_that_a_text_means_is_proposed() {
        for (text, meant) in [
            ("https://app.example.com/", Some("https://app.example.com")),
            ("https://App.example.com:443/start", Some("https://app.example.com")),
            ("http://localhost:80", Some("http://localhost")),
            ("https://*.example.com/", Some("https://*.example.com")),
            ("https://*.com", None),
            ("app.example.com", None),
            ("ftp://app.example.com", None),
            ("https:///", None),
        ] {
            assert_eq!(OriginPattern::corrected(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        for text in [
            "https://app.example.com",
            "http://localhost:5173",
            "https://[::1]:8443",
            "https://192.0.2.7",
            "https://*.example.com",
            "https://*.example.com:8443",
        ] {
            pattern(text);
        }
        for text in [
            "",
            "*",
            "null",
            "app.example.com",
            "ftp://app.example.com",
            "https://",
            "https://app.example.com/",
            "https://App.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:08443",
            "https://app.example.com:0",
            "https://app.example.com:",
            "https://u@app.example.com",
            "https://*",
            "https://*.com",
            "https://*.",
            "https://*example.com",
            "https://a.*.example.com",
            "https://*.*.example.com",
            "https://*.0.0.1",
            "https://*..example.com",
            "https://app..example.com",
            "https://[::01]",
            "https://[*.example.com]",
        ] {
            assert_eq!(OriginPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pattern_covers_hosts_below_its_name_alone() {
        let below = pattern("https://*.example.com:8443");
        for origin in ["https://a.example.com:8443", "https://a-1.b.example.com:8443"] {
            assert!(below.covers(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "https://example.com:8443",
            "https://.example.com:8443",
            "https://a.example.com",
            "https://a.example.com:8444",
            "http://a.example.com:8443",
            "https://aexample.com:8443",
            "https://evil.test/.example.com:8443",
            "https://evil.test:1.example.com:8443",
            "https://evil.test@a.example.com:8443",
            "https://evil.test#.example.com:8443",
            "https://a..example.com:8443",
            "https://A.example.com:8443",
            "https://a.example.com:8443.evil.test",
            "https://a.example.com:8443, https://a.example.com:8443",
            "null",
            "",
        ] {
            assert!(!below.covers(origin.as_bytes()), "{origin}");
        }
    }

    proptest! {
        #[test]
        fn what_a_pattern_covers_is_an_https_url_of_a_host_below_it(
            origin in "https://[a-z.@:/#?%\\\\ *\\[\\]-]{0,12}\\.example\\.com",
        ) {
            if pattern("https://*.example.com").covers(origin.as_bytes()) {
                let host = origin.strip_prefix("https://").unwrap();
                let uri: http::Uri = origin.parse().unwrap();
                prop_assert_eq!(uri.authority().map(|authority| authority.as_str()), Some(host));
                prop_assert_eq!(uri.host(), Some(host));
            }
        }
    }
}
