//! Defines the reasons why one of the gateway's own requests got no usable answer.

use http::StatusCode;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The reason why a request got no usable answer, for the operator. The reason contains no secret. Text from the server
/// is escaped and truncated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The URL is `http` and the policy does not allow it.
    Cleartext,
    /// The name has no address.
    Name(String),
    /// The name resolves only to addresses that are not allowed. Contains the first of these addresses.
    Address(IpAddr),
    /// No connection could be opened.
    Connect(String),
    /// The TLS handshake failed.
    Tls(String),
    /// No connection was opened in this time.
    ConnectTimeout(Duration),
    /// The whole exchange took longer than this time.
    Timeout(Duration),
    /// The answer's body has more than this number of bytes.
    TooLarge(usize),
    /// The answer has a content coding, although none was accepted.
    Encoded,
    /// The connection failed during the exchange, or the answer is not HTTP.
    Protocol(String),
    /// The answer is a redirect, which is not followed. Contains the status and the escaped target.
    Redirect(StatusCode, String),
    /// The answer has a status other than 200.
    Status(StatusCode),
}

impl Error {
    /// Returns a short name for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Cleartext => "cleartext",
            Self::Name(_) => "name",
            Self::Address(_) => "address",
            Self::Connect(_) | Self::ConnectTimeout(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::TooLarge(_) => "too_large",
            Self::Encoded | Self::Protocol(_) => "protocol",
            Self::Redirect(..) => "redirect",
            Self::Status(_) => "status",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cleartext => f.write_str("the URL is http, and only https is allowed"),
            Self::Name(why) => write!(f, "the name has no address: {why}"),
            Self::Address(address) => {
                write!(
                    f,
                    "the name resolves to {address}, which is not a public address and not in private_networks"
                )
            }
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Tls(why) => write!(f, "the TLS handshake failed: {why}"),
            Self::ConnectTimeout(bound) => write!(f, "no connection within {} ms", bound.as_millis()),
            Self::Timeout(bound) => write!(f, "the answer was not complete within {} ms", bound.as_millis()),
            Self::TooLarge(bound) => write!(f, "the answer has more than {bound} bytes"),
            Self::Encoded => f.write_str("the answer has a Content-Encoding, and none was accepted"),
            Self::Protocol(why) => write!(f, "the exchange failed: {why}"),
            Self::Redirect(status, target) => {
                write!(
                    f,
                    "the answer is {}, a redirect to {target}: redirects are not followed",
                    status.as_u16()
                )
            }
            Self::Status(status) => write!(f, "the answer has status {}", status.as_u16()),
        }
    }
}

impl std::error::Error for Error {}

/// The maximum number of characters of a server's text that are shown.
const SHOWN_MAX: usize = 120;

/// Returns a server's text in quotes, escaped and truncated.
pub(crate) fn quoted(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut characters = text.chars();
    let mut quoted: String = characters.by_ref().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if characters.next().is_some() {
        quoted.push('…');
    }
    format!("'{quoted}'")
}
