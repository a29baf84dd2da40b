//! Parses the URLs of the gateway's own requests.

use http::Uri;
use std::fmt;

/// The maximum length of a URL in bytes.
const URL_MAX: usize = 2048;

/// An absolute `https` or `http` URL without user name and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
    port: u16,
    is_https: bool,
}

impl Url {
    /// Parses a URL.
    ///
    /// # Errors
    /// Returns a phrase that describes what is wrong with the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > URL_MAX {
            return Err(format!("longer than {URL_MAX} bytes"));
        }
        // `http::Uri` drops a fragment without an error, so fragments are rejected here.
        if text.contains('#') {
            return Err("has a fragment".to_owned());
        }
        let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err("the scheme is neither https nor http".to_owned()),
            None => return Err("has no scheme".to_owned()),
        };
        let authority = uri.authority().ok_or("has no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user name".to_owned());
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().len() > authority.host().len() => {
                return Err("the port is not a number".to_owned());
            }
            None if is_https => 443,
            None => 80,
        };
        if port == 0 {
            return Err("port 0 cannot be connected to".to_owned());
        }
        if authority.host().is_empty() {
            return Err("has no host".to_owned());
        }
        Ok(Self { uri, port, is_https })
    }

    /// Whether requests to the URL are encrypted.
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Returns the host name or address, without brackets.
    pub fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Returns the TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Whether the URL has a query.
    pub fn has_query(&self) -> bool {
        self.uri.query().is_some()
    }

    /// Returns scheme, host and port as in the URL: `https://id.example.com:8443`.
    pub fn origin(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}", self.uri.authority().map_or("", http::uri::Authority::as_str))
    }

    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl fmt::Display for Url {
    /// Writes the URL without its query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.origin(), self.path(), if self.has_query() { "?…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_and_a_host_and_neither_user_nor_fragment() {
        for (text, host, port) in [
            ("https://id.example.com/jwks", "id.example.com", 443),
            ("http://id.example.com", "id.example.com", 80),
            ("https://id.example.com:8443/a?b=c", "id.example.com", 8443),
            ("https://[2001:db8::1]:8443/", "2001:db8::1", 8443),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.host(), url.port(), url.is_https()),
                (host, port, text.starts_with("https")),
                "{text}"
            );
        }
        for text in [
            "",
            "/jwks",
            "id.example.com",
            "ftp://id.example.com/",
            "file:///etc/passwd",
            "https://",
            "https:///jwks",
            "https://user:secret@id.example.com/",
            "https://id.example.com:0/",
            "https://id.example.com:port/",
            "https://id.example.com/#keys",
            "https://id.example.com/a b",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert!(Url::parse(&format!("https://id.example.com/{}", "a".repeat(URL_MAX))).is_err());
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = Url::parse("https://id.example.com/jwks?key=secret").unwrap();
        assert_eq!(url.to_string(), "https://id.example.com/jwks?…");
    }
}
