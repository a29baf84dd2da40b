//! Defines the specific reasons of some denials. They appear only in the log. The client gets only the denial's code.

/// The reason why a request is ambiguous or malformed. The client gets only the code `bad_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The path contains `%2f` or `%5c`. Some servers read it as a separator, and others as part of a segment.
    EncodedSeparator,
    /// The path contains a backslash, which some servers read as a slash.
    Backslash,
    /// The path contains a control byte or NUL, raw or encoded.
    ControlByte,
    /// The path has `..` above its root, or a dot segment that is encoded or has parameters.
    DotSegment,
    /// The path contains an empty segment (`//`).
    EmptySegment,
    /// Some servers would match the path to another route or to none: they ignore case, decode twice, or remove path
    /// parameters (`;x`), a trailing slash, or dots and blanks at the end of a segment.
    OtherRoute,
    /// A header field that selects the route is ambiguous: it is repeated, spelled differently, named in `Connection`,
    /// or has almost the value that a route matches.
    RouteField,
    /// The path contains a `%` without two hexadecimal digits after it.
    PercentCode,
    /// The decoded path is not UTF-8.
    NotUtf8,
    /// The request target contains a fragment.
    Fragment,
    /// The request target is neither a path nor an absolute URI (RFC 9112 section 3.2).
    Target,
    /// The path is too long or has too many segments.
    PathTooLong,
    /// The host is missing, repeated or invalid.
    Host,
    /// `Host` and the authority of the request target differ.
    HostMismatch,
    /// The framing of the body is ambiguous (RFC 9112 section 6.1).
    Framing,
    /// A forward-auth request does not name the original request.
    OriginalMissing,
    /// A forward-auth request names the original request twice, or in a form that cannot be parsed.
    OriginalTwice,
    /// In forward-auth, the proxy would forward a path that is spelled differently from the checked path.
    OriginalSpelling,
    /// In forward-auth, the proxy would forward a field that names another method, target or caller.
    OriginalOverride,
    /// A field value of an HTTP/2 request begins or ends with white space (RFC 9113 section 8.2.1). An HTTP/1.1 server
    /// would read another value.
    PaddedValue,
    /// The pattern of the route turns the path into one that is not canonical.
    Rewritten,
    /// The request is a WebSocket handshake, and the route does not forward WebSockets.
    WebSocket,
    /// The request looks like a WebSocket handshake, but is not a valid one.
    Handshake(HandshakeFault),
}

/// The flaw of a WebSocket handshake (RFC 6455 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The request is not a GET of HTTP/1.1, nor a WebSocket handshake of HTTP/2.
    Method,
    /// `Upgrade` is not `websocket` alone, or `Connection` lacks `Upgrade`.
    Upgrade,
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64.
    Key,
    /// The request has a body.
    Body,
}

impl HandshakeFault {
    const fn reason(self) -> &'static str {
        match self {
            Self::Method => {
                "a WebSocket handshake that is not a GET of HTTP/1.1, or is not by CONNECT over HTTP/2"
            }
            Self::Upgrade => "a WebSocket handshake without Upgrade: websocket alone and Connection: Upgrade",
            Self::Version => "a WebSocket handshake whose Sec-WebSocket-Version is missing, or not 13",
            Self::Key => {
                "a WebSocket handshake whose Sec-WebSocket-Key is missing, or not 16 bytes in base64"
            }
            Self::Body => "a WebSocket handshake with a body",
        }
    }
}

impl Malformed {
    /// Returns the reason as a fixed text for the operator.
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
            Self::PaddedValue => "a field value begins or ends with white space",
            Self::OriginalMissing => {
                "the proxy does not name the original method, scheme, host and target: see docs/forward-auth.md"
            }
            Self::OriginalTwice => "the original request is named twice or ambiguously",
            Self::OriginalSpelling => "the path contains dot segments, which the proxy would forward",
            Self::OriginalOverride => {
                "the proxy passes on a field that names another method, target or caller: see docs/forward-auth.md"
            }
            Self::Rewritten => "rewrite_pattern turns the path into an invalid or ambiguous one",
            Self::WebSocket => "a WebSocket handshake; the route lacks websocket = true",
            Self::Handshake(fault) => fault.reason(),
        }
    }
}

/// The malformed part of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPart {
    /// The `Authorization` field is not one scheme, one space and one token (RFC 6750 section 2.1).
    Field,
    /// The token does not have three parts, or the header or the claims are empty.
    Shape,
    /// The token is too long.
    Length,
    /// The JOSE header cannot be read.
    Header,
    /// The claims cannot be read.
    Claims,
    /// The signature is not base64url, or does not have the length for its algorithm.
    Signature,
    /// The header contains `crit`. The gateway supports no extension that `crit` can list (RFC 7515 section 4.1.11).
    Critical,
}

impl TokenPart {
    /// Returns the reason as a fixed text for the operator.
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
    /// The subject claim, normally `sub`, is missing or empty.
    Subject,
    /// The subject claim, normally `sub`, is not a string.
    SubjectText,
    /// The audience claim, normally `aud`, is missing, or is neither a string nor a list of strings.
    Audience,
    /// `exp` is missing or not a number.
    Expiry,
    /// `nbf` or `iat` is not a number.
    Time,
    /// `iat` is missing, but the issuer's `max_lifetime` needs it.
    Issued,
    /// A claim that the issuer's entry requires is missing or has another value.
    Configured,
}

impl RequiredClaim {
    /// Returns the reason as a fixed text for the operator.
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

/// The check of RFC 9449 section 4.3 that a proof of possession fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofFault {
    /// The request has no `DPoP` field.
    Missing,
    /// The request has more than one `DPoP` field.
    Repeated,
    /// The proof is not a JWT.
    Form,
    /// `typ` is not `dpop+jwt`.
    Type,
    /// `alg` is not an accepted asymmetric algorithm.
    Algorithm,
    /// `jwk` is not a public key for the algorithm.
    Key,
    /// A claim is missing or has the wrong type.
    Claims,
    /// The key is not the one to which the token is bound.
    OtherKey,
    /// `htm` is not the method of the request.
    Method,
    /// `htu` is not the target of the request.
    Target,
    /// `ath` is not the hash of the access token.
    Token,
    /// The signature is not by the key in the proof.
    Signature,
}

impl ProofFault {
    /// Returns the reason for the operator, as fixed text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "the request has no DPoP field",
            Self::Repeated => "the request has more than one DPoP field",
            Self::Form => "the proof is not a JWT",
            Self::Type => "the proof's typ is not dpop+jwt",
            Self::Algorithm => "the proof's alg is not accepted",
            Self::Key => "the proof's jwk is not a public key for its alg",
            Self::Claims => "a claim of the proof is missing or has the wrong type",
            Self::OtherKey => "the proof is by another key than the one to which the token is bound",
            Self::Method => "the proof is for another method",
            Self::Target => "the proof is for another target",
            Self::Token => "the proof is for another access token",
            Self::Signature => "the proof's signature is not by the key that it contains",
        }
    }
}

/// The reason why the body of a request to an authority's endpoint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// The body is not a JSON object, or the object has a repeated member.
    Json,
    /// The body is not `application/x-www-form-urlencoded`, or has a repeated field.
    Form,
    /// A required field is missing or empty.
    Missing,
    /// A field is not a string.
    WrongType,
    /// A field is too long or contains characters that are not allowed.
    Value,
    /// `deliver` has a value other than `body`.
    Delivery,
}

impl BodyFault {
    /// Returns a sentence for the client.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Json => "The body is not a JSON object with unique members.",
            Self::Form => "The body is not a form with unique fields.",
            Self::Missing => "A required field is missing or empty.",
            Self::WrongType => "A field is not a string.",
            Self::Value => "A field is too long or contains characters that are not allowed.",
            Self::Delivery => "The field deliver may only have the value body.",
        }
    }
}
