//! The finer reasons that some denials hold. The log shows them; the client sees the denial's code.

/// What is wrong with a request that cannot be read in one way only. For the log; the client sees one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// `%2f` or `%5c`: a separator for some readers, a letter for others.
    EncodedSeparator,
    /// A backslash, which some readers take for a slash.
    Backslash,
    /// A control byte or NUL, raw or encoded.
    ControlByte,
    /// `..` above the root, or dot segments that appear only after decoding, or carry parameters.
    DotSegment,
    /// An empty segment (`//`).
    EmptySegment,
    /// A path that is another route's, or none's, to a reader that ignores case, drops path parameters (`;x`), a last slash,
    /// or dots and blanks at the end of a segment, or decodes twice.
    OtherRoute,
    /// `%` without two hexadecimal digits behind it.
    PercentCode,
    /// Bytes that are not UTF-8 once decoded.
    NotUtf8,
    /// A fragment in the request target.
    Fragment,
    /// A target that is neither a path nor an absolute URI (RFC 9112 section 3.2).
    Target,
    /// A path longer, or of more segments, than can be matched.
    PathTooLong,
    /// No host where one is needed, more than one, or one that is not a host.
    Host,
    /// `Host` and the authority of the target differ.
    HostMismatch,
    /// Framing that two readers could take differently (RFC 9112 section 6.1).
    Framing,
    /// Who asks for a verdict does not say on which request.
    OriginalMissing,
    /// Who asks for a verdict names two requests, or one in a way that cannot be read.
    OriginalTwice,
    /// Who asks for a verdict would forward another spelling of the path than the one judged.
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
            Self::EncodedSeparator => "the path holds an encoded slash or backslash",
            Self::Backslash => "the path holds a backslash",
            Self::ControlByte => "the path holds a control character",
            Self::DotSegment => "the path holds a hidden dot segment, or climbs above its root",
            Self::EmptySegment => "the path holds an empty segment (//)",
            Self::OtherRoute => {
                "the path is another route's but for case, a last slash, parameters (;), dots or blanks, or a second encoding"
            }
            Self::PercentCode => "the path contains a % that is not a percent code",
            Self::NotUtf8 => "the path is not UTF-8",
            Self::Fragment => "the request target holds a fragment (#)",
            Self::Target => "the request target is neither a path nor an absolute URI",
            Self::PathTooLong => "the path is too long",
            Self::Host => "the host is missing, repeated or not a host",
            Self::HostMismatch => "Host and the target's authority differ",
            Self::Framing => "the body's framing is ambiguous or broke off",
            Self::OriginalMissing => {
                "the proxy does not name the original method, scheme, host and target: see docs/forward-auth.md"
            }
            Self::OriginalTwice => "the original request is named twice, or not in one way",
            Self::OriginalSpelling => "the path holds dot segments, which the proxy would forward",
            Self::OriginalOverride => {
                "the proxy passes on a field that names another method, target or caller: see docs/forward-auth.md"
            }
            Self::WebSocket => "a WebSocket handshake, and the gateway does not forward WebSockets",
        }
    }
}

/// The part of a token that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPart {
    /// The `Authorization` field: not one scheme, one space, one token (RFC 6750 section 2.1).
    Field,
    /// Not three non-empty parts.
    Shape,
    /// Longer than a token may be.
    Length,
    /// The JOSE header.
    Header,
    /// The claims.
    Claims,
    /// The signature: not base64url, or not of the algorithm's length.
    Signature,
    /// A `crit` member: nothing that it could name is understood here (RFC 7515 section 4.1.11).
    Critical,
}

impl TokenPart {
    /// The reason for the operator, as fixed text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Field => "Authorization is not one scheme, one space, one token",
            Self::Shape => "the token is not three parts",
            Self::Length => "the token is too long",
            Self::Header => "the token's header cannot be read",
            Self::Claims => "the token's claims cannot be read",
            Self::Signature => "the token's signature is not of its algorithm's form",
            Self::Critical => "the token's header has critical members (crit)",
        }
    }
}

/// A claim that every token must carry, well typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredClaim {
    /// `iss`.
    Issuer,
    /// `sub`.
    Subject,
    /// A `sub` that is there and no string.
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

/// What is wrong with the body of a request to an endpoint of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// Not JSON, or JSON but no object, or one with a member twice.
    Json,
    /// Not `application/x-www-form-urlencoded`, or with a field twice.
    Form,
    /// A field that is needed is not there, or empty.
    Missing,
    /// A field is no string.
    WrongType,
    /// A field is longer than it may be, or holds what it may not.
    Value,
}

impl BodyFault {
    /// The sentence for the client.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Json => "The body is not one JSON object, each member once.",
            Self::Form => "The body is not a form, each field once.",
            Self::Missing => "A field that is needed is missing or empty.",
            Self::WrongType => "A field is not a string.",
            Self::Value => "A field is too long or holds what it may not.",
        }
    }
}
