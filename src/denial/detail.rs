//! Finer reasons for refusals, for the operator.

use super::{Denial, Malformed, RequiredClaim, TokenPart};

impl Denial {
    /// A finer reason than the denial code, for the operator: fixed text. If the refusing code knows the values found
    /// and expected, its own text takes precedence.
    pub const fn finer(&self) -> Option<&'static str> {
        match self {
            Self::BadRequest(malformed) => Some(match malformed {
                Malformed::EncodedSeparator => "the path holds an encoded slash or backslash",
                Malformed::Backslash => "the path holds a backslash",
                Malformed::ControlByte => "the path holds a control character",
                Malformed::DotSegment => "the path holds a hidden dot segment, or climbs above its root",
                Malformed::EmptySegment => "the path holds an empty segment (//)",
                Malformed::OtherRoute => {
                    "the path is another route's but for case, a last slash, parameters (;), dots or blanks, or a second encoding"
                }
                Malformed::PercentCode => "the path contains a % that is not a percent code",
                Malformed::NotUtf8 => "the path is not UTF-8",
                Malformed::Fragment => "the request target holds a fragment (#)",
                Malformed::Target => "the request target is neither a path nor an absolute URI",
                Malformed::PathTooLong => "the path is too long",
                Malformed::Host => "the host is missing, repeated or not a host",
                Malformed::HostMismatch => "Host and the target's authority differ",
                Malformed::Framing => "the body's framing is ambiguous or broke off",
                Malformed::OriginalMissing => {
                    "the proxy does not name the original method, scheme, host and target: see docs/forward-auth.md"
                }
                Malformed::OriginalTwice => "the original request is named twice, or not in one way",
                Malformed::OriginalSpelling => "the path holds dot segments, which the proxy would forward",
                Malformed::OriginalOverride => {
                    "the proxy passes on a field that names another method, target or caller: see docs/forward-auth.md"
                }
                Malformed::WebSocket => "a WebSocket handshake, and the gateway does not forward WebSockets",
            }),
            Self::MalformedToken(part) => Some(match part {
                TokenPart::Field => "Authorization is not one scheme, one space, one token",
                TokenPart::Shape => "the token is not three parts",
                TokenPart::Length => "the token is too long",
                TokenPart::Header => "the token's header cannot be read",
                TokenPart::Claims => "the token's claims cannot be read",
                TokenPart::Signature => "the token's signature is not of its algorithm's form",
                TokenPart::Critical => "the token's header has critical members (crit)",
            }),
            Self::MissingClaim(claim) => Some(match claim {
                RequiredClaim::Issuer => "iss is missing or not a string",
                RequiredClaim::Subject => "sub is missing or empty",
                RequiredClaim::SubjectText => "sub is not a string",
                RequiredClaim::Audience => "aud is missing or neither string nor list of strings",
                RequiredClaim::Expiry => "exp is missing or not a number",
                RequiredClaim::Time => "nbf or iat is not a number",
            }),
            Self::HeadersTooLarge
            | Self::BodyTooLarge
            | Self::RequestTimeout
            | Self::NoRoute
            | Self::MethodNotAllowed(_)
            | Self::MissingToken
            | Self::AmbiguousCredentials
            | Self::UnsupportedAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ExpiredToken
            | Self::TokenNotYetValid
            | Self::WrongAudience
            | Self::WrongType
            | Self::RevokedToken
            | Self::FreshTokenRequired { .. }
            | Self::CsrfMissing
            | Self::CsrfMismatch
            | Self::CheckUnavailable
            | Self::UnsupportedMediaType
            | Self::UntrustedProxy
            | Self::InsecureTransport
            | Self::BadCredentials
            | Self::AccountDisabled
            | Self::TooManyAttempts { .. }
            | Self::UnknownToken
            | Self::RefreshReused
            | Self::InvalidClient
            | Self::InvalidScope
            | Self::UnsupportedGrantType
            | Self::UnauthorizedClient
            | Self::StoreUnavailable
            | Self::NotFound
            | Self::InvalidBody(_)
            | Self::InsufficientRole
            | Self::InsufficientScope(_)
            | Self::ClaimMismatch
            | Self::RateLimited { .. }
            | Self::Overloaded
            | Self::UpstreamUnavailable
            | Self::UpstreamTimeout
            | Self::UpstreamFailed => None,
        }
    }
}
