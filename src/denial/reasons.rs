//! The finer reasons that some denials hold. The log shows them; the client sees the denial's code.

/// Why a request is ambiguous or malformed. The log shows it; the client sees one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// `%2f` or `%5c`: some readers take it for a separator, others for a letter.
    EncodedSeparator,
    /// A backslash, which some readers take for a slash.
    Backslash,
    /// A control byte or NUL, raw or encoded.
    ControlByte,
    /// `..` above the root, or dot segments that appear only after decoding, or carry parameters.
    DotSegment,
    /// An empty segment (`//`).
    EmptySegment,
    /// A path that belongs to another route, or to none, for a reader that ignores case, drops path parameters (`;x`),
    /// a trailing slash, or dots and blanks at the end of a segment, or decodes twice.
    OtherRoute,
    /// `%` that is not followed by two hexadecimal digits.
    PercentCode,
    /// Bytes that are not UTF-8 after decoding.
    NotUtf8,
    /// A fragment in the request target.
    Fragment,
    /// A target that is neither a path nor an absolute URI (RFC 9112 section 3.2).
    Target,
    /// A path that is too long, or has too many segments, to be matched.
    PathTooLong,
    /// The host is missing where one is required, repeated, or invalid.
    Host,
    /// `Host` and the authority of the target differ.
    HostMismatch,
    /// Framing that two readers could interpret differently (RFC 9112 section 6.1).
    Framing,
    /// The proxy that asks for a verdict does not name the original request.
    OriginalMissing,
    /// The proxy that asks for a verdict names two requests, or names one unreadably.
    OriginalTwice,
    /// The proxy that asks for a verdict would forward another spelling of the path than the one that was judged.
    OriginalSpelling,
    /// The proxy that asks for a verdict would forward a field that names another method, target or caller.
    OriginalOverride,
    /// A WebSocket handshake on a route that forwards: the gateway does not forward WebSockets.
    WebSocket,
}

impl Malformed {
    /// The reason for the operator, as fixed text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::EncodedSeparator => "the path contains an encoded slash or backslash",
            Self::Backslash => "the path contains a backslash",
            Self::ControlByte => "the path contains a control character",
            Self::DotSegment => "the path contains a hidden dot segment, or climbs above its root",
            Self::EmptySegment => "the path contains an empty segment (//)",
            Self::OtherRoute => {
                "the path is another route's except for case, a trailing slash, parameters (;), dots or blanks, or double encoding"
            }
            Self::PercentCode => "the path contains a % that does not begin a percent code",
            Self::NotUtf8 => "the path is not UTF-8",
            Self::Fragment => "the request target contains a fragment (#)",
            Self::Target => "the request target is neither a path nor an absolute URI",
            Self::PathTooLong => "the path is too long",
            Self::Host => "the host is missing, repeated or invalid",
            Self::HostMismatch => "Host and the target's authority differ",
            Self::Framing => "the body's framing is ambiguous or incomplete",
            Self::OriginalMissing => {
                "the proxy does not name the original method, scheme, host and target: see docs/forward-auth.md"
            }
            Self::OriginalTwice => "the original request is named twice or ambiguously",
            Self::OriginalSpelling => "the path contains dot segments, which the proxy would forward",
            Self::OriginalOverride => {
                "the proxy passes on a field that names another method, target or caller: see docs/forward-auth.md"
            }
            Self::WebSocket => "a WebSocket handshake; the gateway does not forward WebSockets",
        }
    }
}

/// The part of a token that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPart {
    /// The `Authorization` field: it is not one scheme, one space and one token (RFC 6750 section 2.1).
    Field,
    /// The number of parts: not three, or one of them is empty.
    Shape,
    /// The length: the token is too long.
    Length,
    /// The JOSE header.
    Header,
    /// The claims.
    Claims,
    /// The signature: not base64url, or not of the algorithm's length.
    Signature,
    /// A `crit` member. It is always rejected, since the gateway supports none of the extensions that it could list
    /// (RFC 7515 section 4.1.11).
    Critical,
}

impl TokenPart {
    /// The reason for the operator, as fixed text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Field => "Authorization is not one scheme, one space, one token",
            Self::Shape => "the token does not have three parts",
            Self::Length => "the token is too long",
            Self::Header => "the token's header cannot be read",
            Self::Claims => "the token's claims cannot be read",
            Self::Signature => "the token's signature does not have its algorithm's form",
            Self::Critical => "the token's header has critical members (crit)",
        }
    }
}

/// A required claim that is missing or has the wrong type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredClaim {
    /// `iss`.
    Issuer,
    /// `sub`.
    Subject,
    /// A `sub` that is present but not a string.
    SubjectText,
    /// `aud`.
    Audience,
    /// `exp`.
    Expiry,
    /// A time (`nbf`, `iat`) that is not a number.
    Time,
}

impl RequiredClaim {
    /// The reason for the operator, as fixed text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Issuer => "iss is missing or not a string",
            Self::Subject => "sub is missing or empty",
            Self::SubjectText => "sub is not a string",
            Self::Audience => "aud is missing or neither string nor list of strings",
            Self::Expiry => "exp is missing or not a number",
            Self::Time => "nbf or iat is not a number",
        }
    }
}

/// Why the body of a request to an endpoint of the authority cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// The body is not JSON, not an object, or an object with a repeated member.
    Json,
    /// The body is not `application/x-www-form-urlencoded`, or has a repeated field.
    Form,
    /// A required field is missing or empty.
    Missing,
    /// A field is not a string.
    WrongType,
    /// A field is too long or contains characters that are not allowed.
    Value,
}

impl BodyFault {
    /// The sentence for the client.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Json => "The body is not a JSON object with unique members.",
            Self::Form => "The body is not a form with unique fields.",
            Self::Missing => "A required field is missing or empty.",
            Self::WrongType => "A field is not a string.",
            Self::Value => "A field is too long or contains characters that are not allowed.",
        }
    }
}
