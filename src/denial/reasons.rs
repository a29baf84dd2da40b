//! The specific reasons that some denials contain. The log shows these reasons; the client sees only the denial's code.

/// The reason why a request is ambiguous or malformed. The client sees only the code `bad_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The path contains `%2f` or `%5c`, which some servers read as a separator and others as part of a segment.
    EncodedSeparator,
    /// The path contains a backslash, which some servers read as a slash.
    Backslash,
    /// The path contains a control byte or NUL, raw or encoded.
    ControlByte,
    /// The path has `..` above its root, or dot segments that appear only after decoding or have parameters.
    DotSegment,
    /// The path contains an empty segment (`//`).
    EmptySegment,
    /// Some servers would assign the path to another route or to none. Such servers ignore case, decode twice, or
    /// remove path parameters (`;x`), a trailing slash, or dots and blanks at the end of a segment.
    OtherRoute,
    /// Two servers could read a header field by which routes are chosen differently: the field is repeated, in another
    /// spelling, named in `Connection`, or almost has the value that a route matches.
    RouteField,
    /// The path contains a `%` that is not followed by two hexadecimal digits.
    PercentCode,
    /// The decoded path is not UTF-8.
    NotUtf8,
    /// The request target contains a fragment.
    Fragment,
    /// The request target is neither a path nor an absolute URI (RFC 9112 section 3.2).
    Target,
    /// The path is too long, or has too many segments, to be matched.
    PathTooLong,
    /// The host is missing although it is required, or it is repeated or invalid.
    Host,
    /// `Host` and the authority of the request target differ.
    HostMismatch,
    /// Two servers could interpret the framing of the body differently (RFC 9112 section 6.1).
    Framing,
    /// A proxy that requests a verdict does not name the original request.
    OriginalMissing,
    /// A proxy that requests a verdict names the original request twice or in a form that cannot be parsed.
    OriginalTwice,
    /// A proxy that requests a verdict would forward a different spelling of the path than the gateway judged.
    OriginalSpelling,
    /// A proxy that requests a verdict would forward a field that names another method, target or caller.
    OriginalOverride,
    /// The request is a WebSocket handshake on a route that forwards. The gateway does not forward WebSockets.
    WebSocket,
}

impl Malformed {
    /// Returns the reason for the operator, as fixed text.
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
            Self::RouteField => {
                "a header that selects the route is repeated, in another spelling, named in Connection, or almost has a value that a route matches"
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

/// The part of a token that is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPart {
    /// The `Authorization` field, which does not consist of one scheme, one space and one token (RFC 6750 section 2.1).
    Field,
    /// The number of parts is not three, or the header or the claims are empty.
    Shape,
    /// The token is too long.
    Length,
    /// The JOSE header.
    Header,
    /// The claims.
    Claims,
    /// The signature, which is not base64url or does not have its algorithm's length.
    Signature,
    /// The header contains `crit`. Such a token is always rejected, since the gateway supports none of the extensions
    /// that `crit` can list (RFC 7515 section 4.1.11).
    Critical,
}

impl TokenPart {
    /// Returns the reason for the operator, as fixed text.
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
    /// `iss` is missing or not a string.
    Issuer,
    /// The claim of the subject, normally `sub`, is missing or empty.
    Subject,
    /// The claim of the subject, normally `sub`, is present but not a string.
    SubjectText,
    /// The claim of the audience, normally `aud`, is missing, or is neither a string nor a list of strings.
    Audience,
    /// `exp` is missing or not a number.
    Expiry,
    /// `nbf` or `iat` is not a number.
    Time,
    /// `iat` is missing, and the issuer's `max_lifetime` needs it.
    Issued,
    /// A claim that the issuer's entry requires is missing or has another value.
    Configured,
}

impl RequiredClaim {
    /// Returns the reason for the operator, as fixed text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Issuer => "iss is missing or not a string",
            Self::Subject => "sub is missing or empty",
            Self::SubjectText => "sub is not a string",
            Self::Audience => "aud is missing or neither string nor list of strings",
            Self::Expiry => "exp is missing or not a number",
            Self::Time => "nbf or iat is not a number",
            Self::Issued => "iat is missing, and max_lifetime needs it",
            Self::Configured => "a claim that the issuer's entry requires is missing or has another value",
        }
    }
}

/// The reason why the gateway cannot use the body of a request to an endpoint of the authority.
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
    /// Returns the sentence for the client.
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
