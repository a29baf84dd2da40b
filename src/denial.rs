//! Why a request is refused: one closed list, one variant per code of the contract.
//!
//! A denial carries facts of *ours* (which limit, which scopes a route asks for), never text that a client
//! sent, so that it can be answered and logged without looking. Four total functions say what follows from
//! each: [`Denial::code`], [`Denial::status`], [`Denial::fault`] and [`Denial::challenge`]. None has a
//! wildcard arm: a new variant does not compile until all four have an opinion.

mod detail;

use http::StatusCode;
use std::sync::Arc;

/// A refusal. The variants stand in the order of the stages that make them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    // Reading the request.
    /// The request has two readings, or none.
    BadRequest(Malformed),
    /// More header fields, or bytes of them, than `[server.bounds]` allows.
    HeadersTooLarge,
    /// A body larger than `[server.bounds] body_size`.
    BodyTooLarge,
    /// The client did not send its request in time.
    RequestTimeout,

    // Route.
    /// No route covers the request's host and path.
    NoRoute,
    /// The route exists, but not for this method. Holds the value of `Allow` (RFC 9110 section 10.2.1).
    MethodNotAllowed(Arc<str>),

    // Authenticate.
    /// No credential where one is needed.
    MissingToken,
    /// Credentials in two places.
    AmbiguousCredentials,
    /// Not a JWS in compact form, or its parts cannot be read.
    MalformedToken(TokenPart),
    /// The algorithm is not the key's, or not in the issuer's list.
    UnsupportedAlgorithm,
    /// `iss` names nobody we trust.
    UnknownIssuer,
    /// The issuer has no key for this `kid` and algorithm.
    UnknownKey,
    /// The signature does not verify.
    BadSignature,
    /// `exp` has passed.
    ExpiredToken,
    /// `nbf` or `iat` lies ahead.
    TokenNotYetValid,
    /// `aud` does not name us.
    WrongAudience,
    /// `typ` is not a type of access token that this issuer's tokens may have.
    WrongType,
    /// A claim that must be there is not, or is of the wrong JSON type.
    MissingClaim(RequiredClaim),
    /// The token, its session or its account was revoked.
    RevokedToken,
    /// The route asks for a token from a login with a password, at most so many seconds ago (0: however long ago).
    FreshTokenRequired {
        /// Seconds since the login that the route allows; 0 where it names no bound.
        max_age: u32,
    },
    /// A request with a cookie changes something, and no CSRF token came with it.
    CsrfMissing,
    /// The CSRF token is not the session's, or another site sent the request.
    CsrfMismatch,
    /// Whether a token was revoked cannot be told now.
    CheckUnavailable,

    // Authorize.
    /// None (or not all) of the roles that the route asks for.
    InsufficientRole,
    /// Not all of the scopes that the route asks for. Holds them, space-separated, for the challenge.
    InsufficientScope(Arc<str>),
    /// A claim does not have the value that the route asks for.
    ClaimMismatch,

    // Limit.
    /// Too fast.
    RateLimited {
        /// Whole seconds until the next request can pass, at least 1.
        wait: u32,
    },
    /// A bound of the whole gateway is reached.
    Overloaded,

    // The authority's endpoints.
    /// The body of a request to an endpoint cannot be used.
    InvalidBody(BodyFault),
    /// The body is neither JSON nor a form.
    UnsupportedMediaType,
    /// Who asks for a verdict on another request is no trusted proxy.
    UntrustedProxy,
    /// A credential came in cleartext to a listener that sends clients to TLS, or cookies were asked for over a connection
    /// on which browsers drop them.
    InsecureTransport,
    /// No such user name and password.
    BadCredentials,
    /// The password is right and the account disabled.
    AccountDisabled,
    /// Too many wrong passwords, of this account or from this address.
    TooManyAttempts {
        /// Whole seconds until the next attempt is looked at, at least 1.
        wait: u32,
    },
    /// A refresh token that this gateway did not issue, or has forgotten.
    UnknownToken,
    /// A refresh token that was spent before: its whole family is revoked.
    RefreshReused,
    /// A service that did not prove to be one of the authority's clients.
    InvalidClient,
    /// A service asks for a scope that it was not given.
    InvalidScope,
    /// A service asks for a token in a way that is not known.
    UnsupportedGrantType,
    /// A service asks for what it may not.
    UnauthorizedClient,
    /// What accounts and sessions are kept in is out of reach.
    StoreUnavailable,
    /// Nothing of this name belongs to the caller.
    NotFound,

    // Forward.
    /// No server of the upstream can be reached.
    UpstreamUnavailable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream answered with something that is not HTTP, or broke off before its answer.
    UpstreamFailed,
}

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

/// Whose fault a refusal was: it decides the level of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request's.
    Client,
    /// The gateway's: a bound of ours.
    Gateway,
    /// The upstream's.
    Upstream,
}

/// The `WWW-Authenticate` challenge that goes with a refusal (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge<'d> {
    /// No challenge: a token would not help.
    None,
    /// `Bearer` without an error: no token was sent (section 3.1, last paragraph).
    Bearer,
    /// `Basic`: a service is to prove itself with its id and secret (RFC 6749 section 5.2).
    Basic,
    /// `error="invalid_request"`.
    InvalidRequest,
    /// `error="invalid_token"`.
    InvalidToken,
    /// `error="insufficient_user_authentication"` (RFC 9470), with the bound of the route if it has one.
    StaleLogin(u32),
    /// `error="insufficient_scope"`, with the scopes that would do when it is scopes that are missing.
    InsufficientScope(Option<&'d str>),
}

// A denial travels in `Result`s all along the hot path.
const _: () = assert!(size_of::<Denial>() <= 24);

impl Denial {
    /// The word for this refusal in the body, the log, the metrics and the challenge.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::HeadersTooLarge => "headers_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::MissingToken => "missing_token",
            Self::AmbiguousCredentials => "ambiguous_credentials",
            Self::MalformedToken(_) => "malformed_token",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::ExpiredToken => "expired_token",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::WrongAudience => "wrong_audience",
            Self::WrongType => "wrong_type",
            Self::MissingClaim(_) => "missing_claim",
            Self::RevokedToken => "revoked_token",
            Self::FreshTokenRequired { .. } => "fresh_token_required",
            Self::CsrfMissing => "csrf_missing",
            Self::CsrfMismatch => "csrf_mismatch",
            Self::CheckUnavailable => "check_unavailable",
            Self::InsufficientRole => "insufficient_role",
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::ClaimMismatch => "claim_mismatch",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::InvalidBody(_) => "invalid_body",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UntrustedProxy => "untrusted_proxy",
            Self::InsecureTransport => "insecure_transport",
            Self::BadCredentials => "bad_credentials",
            Self::AccountDisabled => "account_disabled",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::UnknownToken => "unknown_token",
            Self::RefreshReused => "refresh_reused",
            Self::InvalidClient => "invalid_client",
            Self::InvalidScope => "invalid_scope",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::StoreUnavailable => "store_unavailable",
            Self::NotFound => "not_found",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamFailed => "upstream_failed",
        }
    }

    /// The status of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_)
            | Self::AmbiguousCredentials
            | Self::InvalidBody(_)
            | Self::InvalidScope
            | Self::UnsupportedGrantType => StatusCode::BAD_REQUEST,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::MissingToken
            | Self::MalformedToken(_)
            | Self::UnsupportedAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ExpiredToken
            | Self::TokenNotYetValid
            | Self::WrongAudience
            | Self::WrongType
            | Self::MissingClaim(_)
            | Self::RevokedToken
            | Self::FreshTokenRequired { .. }
            | Self::BadCredentials
            | Self::AccountDisabled
            | Self::UnknownToken
            | Self::RefreshReused
            | Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::CsrfMissing
            | Self::CsrfMismatch
            | Self::InsufficientRole
            | Self::InsufficientScope(_)
            | Self::ClaimMismatch
            | Self::UntrustedProxy
            | Self::InsecureTransport
            | Self::UnauthorizedClient => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } | Self::TooManyAttempts { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::CheckUnavailable
            | Self::Overloaded
            | Self::StoreUnavailable
            | Self::UpstreamUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whose fault it was.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::BodyTooLarge
            | Self::RequestTimeout
            | Self::NoRoute
            | Self::MethodNotAllowed(_)
            | Self::MissingToken
            | Self::AmbiguousCredentials
            | Self::MalformedToken(_)
            | Self::UnsupportedAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ExpiredToken
            | Self::TokenNotYetValid
            | Self::WrongAudience
            | Self::WrongType
            | Self::MissingClaim(_)
            | Self::RevokedToken
            | Self::FreshTokenRequired { .. }
            | Self::CsrfMissing
            | Self::CsrfMismatch
            | Self::InsufficientRole
            | Self::InsufficientScope(_)
            | Self::ClaimMismatch
            | Self::RateLimited { .. }
            | Self::InvalidBody(_)
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
            | Self::NotFound => Fault::Client,
            Self::CheckUnavailable | Self::Overloaded | Self::StoreUnavailable => Fault::Gateway,
            Self::UpstreamUnavailable | Self::UpstreamTimeout | Self::UpstreamFailed => Fault::Upstream,
        }
    }

    /// The challenge that the answer carries.
    pub fn challenge(&self) -> Challenge<'_> {
        match self {
            Self::MissingToken => Challenge::Bearer,
            Self::AmbiguousCredentials => Challenge::InvalidRequest,
            Self::MalformedToken(_)
            | Self::UnsupportedAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ExpiredToken
            | Self::TokenNotYetValid
            | Self::WrongAudience
            | Self::WrongType
            | Self::MissingClaim(_)
            | Self::RevokedToken
            | Self::UnknownToken
            | Self::RefreshReused => Challenge::InvalidToken,
            // A login is refused with a challenge too: a 401 must have one (RFC 9110 section 15.5.2).
            Self::BadCredentials | Self::AccountDisabled => Challenge::Bearer,
            Self::InvalidClient => Challenge::Basic,
            Self::FreshTokenRequired { max_age } => Challenge::StaleLogin(*max_age),
            Self::InsufficientScope(scopes) => Challenge::InsufficientScope(Some(scopes)),
            Self::InsufficientRole | Self::ClaimMismatch => Challenge::InsufficientScope(None),
            Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::BodyTooLarge
            | Self::RequestTimeout
            | Self::NoRoute
            | Self::MethodNotAllowed(_)
            | Self::CsrfMissing
            | Self::CsrfMismatch
            | Self::CheckUnavailable
            | Self::RateLimited { .. }
            | Self::Overloaded
            | Self::InvalidBody(_)
            | Self::UnsupportedMediaType
            | Self::UntrustedProxy
            | Self::InsecureTransport
            | Self::TooManyAttempts { .. }
            | Self::InvalidScope
            | Self::UnsupportedGrantType
            | Self::UnauthorizedClient
            | Self::StoreUnavailable
            | Self::NotFound
            | Self::UpstreamUnavailable
            | Self::UpstreamTimeout
            | Self::UpstreamFailed => Challenge::None,
        }
    }

    /// One sentence for the client: fixed text, nothing that helps an attacker.
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::BadRequest(Malformed::WebSocket) => "WebSockets are not forwarded here.",
            Self::BadRequest(_) => "The request cannot be read in one way only.",
            Self::HeadersTooLarge => "The header fields are too many or too large.",
            Self::BodyTooLarge => "The body is too large.",
            Self::RequestTimeout => "The request did not arrive in time.",
            Self::NoRoute => "There is nothing at this address.",
            Self::MethodNotAllowed(_) => "This method is not allowed here.",
            Self::MissingToken => "An access token is needed.",
            Self::AmbiguousCredentials => "Credentials were sent more than once.",
            Self::MalformedToken(_) => "The access token is malformed.",
            Self::UnsupportedAlgorithm => "The access token's algorithm is not accepted.",
            Self::UnknownIssuer => "The access token's issuer is not known.",
            Self::UnknownKey => "The access token's key is not known.",
            Self::BadSignature => "The access token's signature is not valid.",
            Self::ExpiredToken => "The access token has expired.",
            Self::TokenNotYetValid => "The access token is not valid yet.",
            Self::WrongAudience => "The access token is not meant for this service.",
            Self::WrongType => "The access token is not of an accepted type.",
            Self::MissingClaim(_) => "The access token lacks a claim that is needed.",
            Self::RevokedToken => "The access token was revoked.",
            Self::FreshTokenRequired { .. } => "A recent login with a password is needed.",
            Self::CsrfMissing => "A CSRF token is needed.",
            Self::CsrfMismatch => {
                "The CSRF token does not belong to this session, or the request comes from another site."
            }
            Self::CheckUnavailable => "Whether the access token was revoked cannot be told now.",
            Self::InsufficientRole => "The caller's roles do not allow this.",
            Self::InsufficientScope(_) => "The access token's scope does not allow this.",
            Self::ClaimMismatch => "The access token's claims do not allow this.",
            Self::RateLimited { .. } => "Too many requests.",
            Self::Overloaded => "The gateway is at its limit.",
            Self::InvalidBody(fault) => match fault {
                BodyFault::Json => "The body is not one JSON object, each member once.",
                BodyFault::Form => "The body is not a form, each field once.",
                BodyFault::Missing => "A field that is needed is missing or empty.",
                BodyFault::WrongType => "A field is not a string.",
                BodyFault::Value => "A field is too long or holds what it may not.",
            },
            Self::UnsupportedMediaType => "The body must be JSON or a form.",
            Self::UntrustedProxy => "Only a trusted proxy may ask about other requests.",
            Self::InsecureTransport => "Credentials are taken and given over encrypted connections only.",
            Self::BadCredentials => "The user name or the password is wrong.",
            Self::AccountDisabled => "The account is disabled.",
            Self::TooManyAttempts { .. } => "Too many failed attempts; try again later.",
            Self::UnknownToken => "The refresh token is not known.",
            Self::RefreshReused => "The refresh token was used before; its session has been ended.",
            Self::InvalidClient => "The client is not known, or its secret is wrong.",
            Self::InvalidScope => "A scope is not among the client's.",
            Self::UnsupportedGrantType => "The only grant is client_credentials.",
            Self::UnauthorizedClient => "The client may not ask for this.",
            Self::StoreUnavailable => "Accounts and sessions cannot be reached.",
            Self::NotFound => "There is nothing of this name.",
            Self::UpstreamUnavailable => "The service cannot be reached.",
            Self::UpstreamTimeout => "The service did not answer in time.",
            Self::UpstreamFailed => "The service's answer could not be used.",
        }
    }

    /// Whether it follows from the policy and the request's head alone: what a question about a policy can be answered
    /// with.
    pub const fn is_of_policy(&self) -> bool {
        match self {
            Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::NoRoute
            | Self::MethodNotAllowed(_)
            | Self::MissingToken
            | Self::AmbiguousCredentials
            | Self::MalformedToken(_)
            | Self::UnsupportedAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ExpiredToken
            | Self::TokenNotYetValid
            | Self::WrongAudience
            | Self::WrongType
            | Self::MissingClaim(_)
            | Self::FreshTokenRequired { .. }
            | Self::CsrfMissing
            | Self::CsrfMismatch
            | Self::InsufficientRole
            | Self::InsufficientScope(_)
            | Self::ClaimMismatch
            | Self::InsecureTransport => true,
            Self::BodyTooLarge
            | Self::RequestTimeout
            | Self::RevokedToken
            | Self::CheckUnavailable
            | Self::RateLimited { .. }
            | Self::Overloaded
            | Self::InvalidBody(_)
            | Self::UnsupportedMediaType
            | Self::UntrustedProxy
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
            | Self::UpstreamUnavailable
            | Self::UpstreamTimeout
            | Self::UpstreamFailed => false,
        }
    }

    /// One of each variant, in order: what metrics, docs and tests enumerate.
    pub fn every() -> Vec<Self> {
        vec![
            Self::BadRequest(Malformed::Target),
            Self::HeadersTooLarge,
            Self::BodyTooLarge,
            Self::RequestTimeout,
            Self::NoRoute,
            Self::MethodNotAllowed(Arc::from("GET")),
            Self::MissingToken,
            Self::AmbiguousCredentials,
            Self::MalformedToken(TokenPart::Shape),
            Self::UnsupportedAlgorithm,
            Self::UnknownIssuer,
            Self::UnknownKey,
            Self::BadSignature,
            Self::ExpiredToken,
            Self::TokenNotYetValid,
            Self::WrongAudience,
            Self::WrongType,
            Self::MissingClaim(RequiredClaim::Subject),
            Self::RevokedToken,
            Self::FreshTokenRequired { max_age: 600 },
            Self::CsrfMissing,
            Self::CsrfMismatch,
            Self::CheckUnavailable,
            Self::InsufficientRole,
            Self::InsufficientScope(Arc::from("read")),
            Self::ClaimMismatch,
            Self::RateLimited { wait: 1 },
            Self::Overloaded,
            Self::InvalidBody(BodyFault::Missing),
            Self::UnsupportedMediaType,
            Self::UntrustedProxy,
            Self::InsecureTransport,
            Self::BadCredentials,
            Self::AccountDisabled,
            Self::TooManyAttempts { wait: 1 },
            Self::UnknownToken,
            Self::RefreshReused,
            Self::InvalidClient,
            Self::InvalidScope,
            Self::UnsupportedGrantType,
            Self::UnauthorizedClient,
            Self::StoreUnavailable,
            Self::NotFound,
            Self::UpstreamUnavailable,
            Self::UpstreamTimeout,
            Self::UpstreamFailed,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_distinct_word() {
        let codes: Vec<_> = Denial::every().iter().map(Denial::code).collect();
        let mut distinct = codes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), codes.len());
        assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn a_401_always_carries_a_challenge() {
        // RFC 9110 section 15.5.2: a server generating a 401 MUST send WWW-Authenticate.
        for denial in Denial::every() {
            if denial.status() == StatusCode::UNAUTHORIZED {
                assert_ne!(denial.challenge(), Challenge::None, "{}", denial.code());
            }
        }
    }
}
