//! Defines the table of denials, in the order of the stages that refuse.

use super::reasons::{BodyFault, Malformed, ProofFault, RequiredClaim, TokenPart};
use super::spec::{Challenge, Fault, Grpc, Spec};
use http::StatusCode;
use std::sync::Arc;

/// Generates [`Denial`], its [`Spec`]s and its examples from one table, so no entry can be missing. Each row has a
/// variant, an example value if the variant needs one, and the fields of its [`Spec`].
macro_rules! denials {
    ($(
        $(#[$doc:meta])*
        $name:ident $(($payload:ty))? $({ $($field:tt)* })? $(= $example:expr)? => { $($spec:tt)* }
    )*) => {
        /// The reason why a request is refused. The variants are in the order of the stages that refuse.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Denial {
            $($(#[$doc])* $name $(($payload))? $({ $($field)* })?,)*
        }

        /// The denials without their values. The discriminant is the index in [`Denial::SPECS`].
        #[derive(Clone, Copy)]
        enum Row {
            $($name,)*
        }

        impl Denial {
            /// The number of denials.
            pub const COUNT: usize = [$(Row::$name),*].len();

            /// The spec of each denial, indexed by [`Denial::index`].
            pub const SPECS: &'static [Spec; Self::COUNT] = &[$(Spec { $($spec)* }),*];

            /// Returns the denial's index in [`Denial::SPECS`]. Counters use the same index.
            pub const fn index(&self) -> usize {
                let row = match self {
                    $(Self::$name { .. } => Row::$name,)*
                };
                row as usize
            }

            /// Returns one example of each denial, in order.
            pub fn every() -> [Self; Self::COUNT] {
                [$(denials!(@example $name $($example)?)),*]
            }
        }
    };
    (@example $name:ident) => { Denial::$name };
    (@example $name:ident $example:expr) => { $example };
}

denials! {
    // Stage: reading the request.
    /// The request is ambiguous or malformed.
    BadRequest(Malformed) = Denial::BadRequest(Malformed::Target) => {
        code: "bad_request", status: StatusCode::BAD_REQUEST, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: true,
        detail: "The request is ambiguous or malformed.",
        flask: None,
    }
    /// There are too many header fields, or they are too large (`[server.bounds]`).
    HeadersTooLarge => {
        code: "headers_too_large", status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: true,
        detail: "The request has too many header fields, or they are too large.",
        flask: None,
    }
    /// The body is larger than `[server.bounds] body_size`.
    BodyTooLarge => {
        code: "body_too_large", status: StatusCode::PAYLOAD_TOO_LARGE, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: false,
        detail: "The body is too large.",
        flask: None,
    }
    /// The client did not send its request in time.
    RequestTimeout => {
        code: "request_timeout", status: StatusCode::REQUEST_TIMEOUT, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: false,
        detail: "The request did not arrive in time.",
        flask: None,
    }

    /// The connection may not carry requests for this host (RFC 9110 section 15.5.20).
    Misdirected => {
        code: "misdirected_request", status: StatusCode::MISDIRECTED_REQUEST, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::PermissionDenied, from_policy: true,
        detail: "This connection is not for this host. A new connection is required.",
        flask: None,
    }

    // Stage: route.
    /// No route covers the request's host and path.
    NoRoute => {
        code: "no_route", status: StatusCode::NOT_FOUND, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::Unimplemented, from_policy: true,
        detail: "There is nothing at this address.",
        flask: None,
    }
    /// The route does not allow this method. The text is the value of the `Allow` field (RFC 9110 section 10.2.1).
    MethodNotAllowed(Arc<str>) = Denial::MethodNotAllowed(Arc::from("GET")) => {
        code: "method_not_allowed", status: StatusCode::METHOD_NOT_ALLOWED, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::Unimplemented, from_policy: true,
        detail: "This method is not allowed here.",
        flask: None,
    }

    /// The operator has closed the route for a while.
    Maintenance {
        /// The time until the client should try again, in seconds.
        wait: u32,
    } = Denial::Maintenance { wait: 1 } => {
        code: "maintenance", status: StatusCode::SERVICE_UNAVAILABLE, fault: Fault::Operator,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "This service is under maintenance.",
        flask: None,
    }

    // Stage: authenticate.
    /// The route requires a credential, and the request has none.
    MissingToken => {
        code: "missing_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Bearer, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "An access token is required.",
        // respond/compat.rs completes the message with the places in which the route looks for a token.
        flask: Some((StatusCode::UNAUTHORIZED, "Missing Authorization Header")),
    }
    /// The request has more than one credential.
    AmbiguousCredentials => {
        code: "ambiguous_credentials", status: StatusCode::BAD_REQUEST, fault: Fault::Client,
        challenge: Challenge::InvalidRequest, grpc: Grpc::InvalidArgument, from_policy: true,
        detail: "Credentials were sent more than once.",
        flask: None,
    }
    /// The token is not a JWS in compact form, or one of its parts is malformed.
    MalformedToken(TokenPart) = Denial::MalformedToken(TokenPart::Shape) => {
        code: "malformed_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token is malformed.",
        // This message is for `TokenPart::Shape`. respond/compat.rs has the messages for the other parts.
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Not enough segments")),
    }
    /// The token's algorithm differs from the key's algorithm, or is not in the issuer's list.
    UnsupportedAlgorithm => {
        code: "unsupported_algorithm", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token's algorithm is not accepted.",
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "The specified alg value is not allowed")),
    }
    /// `iss` is not a trusted issuer.
    UnknownIssuer => {
        code: "unknown_issuer", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token's issuer is unknown.",
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Invalid issuer")),
    }
    /// The issuer has no key for this `kid` and algorithm.
    UnknownKey => {
        code: "unknown_key", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token's key is unknown.",
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Signature verification failed")),
    }
    /// The signature does not verify.
    BadSignature => {
        code: "bad_signature", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token's signature is invalid.",
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Signature verification failed")),
    }
    /// `exp` has passed.
    ExpiredToken => {
        code: "expired_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token has expired.",
        flask: Some((StatusCode::UNAUTHORIZED, "Token has expired")),
    }
    /// `nbf` or `iat` lies in the future.
    TokenNotYetValid => {
        code: "token_not_yet_valid", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token is not valid yet.",
        // Flask-JWT-Extended checks `iat` first.
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "The token is not yet valid (iat)")),
    }
    /// The time from `iat` to `exp` is longer than the issuer's `max_lifetime`.
    LifetimeTooLong => {
        code: "lifetime_too_long", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token is valid for longer than is accepted.",
        flask: None,
    }
    /// The audience of the token, normally in `aud`, does not include this gateway.
    WrongAudience => {
        code: "wrong_audience", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token is not intended for this service.",
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Audience doesn't match")),
    }
    /// `typ` is not in the issuer's list, or the token is of another kind, such as a refresh token.
    WrongType => {
        code: "wrong_type", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token's type is not accepted.",
        // If a refresh token is expected, respond/compat.rs uses "Only refresh tokens are allowed".
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Only non-refresh tokens are allowed")),
    }
    /// A required claim is missing, has the wrong JSON type, or has a value that the policy does not accept.
    MissingClaim(RequiredClaim) = Denial::MissingClaim(RequiredClaim::Subject) => {
        code: "missing_claim", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token lacks a required claim.",
        // respond/compat.rs has a message for each claim.
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Missing claim: sub")),
    }
    /// The token, its session or its account was revoked.
    RevokedToken => {
        code: "revoked_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The access token has been revoked.",
        flask: Some((StatusCode::UNAUTHORIZED, "Token has been revoked")),
    }
    /// The issuer says that the token is not active: it is unknown there, has expired or was revoked.
    InactiveToken => {
        code: "inactive_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The access token is unknown, has expired or was revoked.",
        flask: None,
    }
    /// The API key was revoked or never existed.
    UnknownApiKey => {
        code: "unknown_api_key", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The API key is unknown or was revoked.",
        flask: None,
    }
    /// The token is bound to a key of its sender, and was not sent with the scheme `DPoP`.
    BoundToken => {
        code: "bound_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Bound, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token is bound to a key, and needs the scheme DPoP and a proof.",
        flask: None,
    }
    /// The token is bound to a client certificate, and the connection has another one or none (RFC 8705 section 3).
    WrongCertificate => {
        code: "wrong_client_certificate", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token is bound to a client certificate, which this connection does not have.",
        flask: None,
    }
    /// The token is not bound to a key or certificate of its sender, and the route or the scheme `DPoP` requires it.
    UnboundToken => {
        code: "unbound_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Bound, grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The access token must be bound to a key or certificate of its sender.",
        flask: None,
    }
    /// The proof of possession is missing or invalid (RFC 9449 section 4.3).
    InvalidProof(ProofFault) = Denial::InvalidProof(ProofFault::Missing) => {
        code: "invalid_dpop_proof", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Proof("invalid_dpop_proof"), grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The DPoP proof is missing or invalid.",
        flask: None,
    }
    /// The proof of possession needs a nonce of the gateway, or a newer one (RFC 9449 section 9).
    UseDpopNonce => {
        code: "use_dpop_nonce", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Proof("use_dpop_nonce"), grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "The DPoP proof must contain the nonce in the field DPoP-Nonce.",
        flask: None,
    }
    /// The proof of possession was accepted before.
    ReplayedProof => {
        code: "replayed_dpop_proof", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Proof("invalid_dpop_proof"), grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The DPoP proof was used before.",
        flask: None,
    }
    /// The route requires a token from a recent password login.
    FreshTokenRequired {
        /// Maximum age of the login in seconds. 0 accepts any age.
        max_age: u32,
    } = Denial::FreshTokenRequired { max_age: 600 } => {
        code: "fresh_token_required", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::StaleLogin(0), grpc: Grpc::Unauthenticated, from_policy: true,
        detail: "A recent login with a password is required.",
        flask: Some((StatusCode::UNAUTHORIZED, "Fresh token required")),
    }
    /// The request may change state and has a cookie credential, but has no CSRF token.
    CsrfMissing => {
        code: "csrf_missing", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::PermissionDenied, from_policy: true,
        detail: "A CSRF token is required.",
        flask: Some((StatusCode::UNAUTHORIZED, "Missing CSRF token")),
    }
    /// The CSRF token is not the token of the session, or the request comes from another site.
    CsrfMismatch => {
        code: "csrf_mismatch", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::PermissionDenied, from_policy: true,
        detail: "The CSRF token does not belong to this session, or the request comes from another site.",
        flask: Some((StatusCode::UNAUTHORIZED, "CSRF double submit tokens do not match")),
    }
    /// The gateway cannot check the token now, because it lacks the revocations, the issuer's keys, the issuer's answer
    /// about the token, or memory for a proof.
    CheckUnavailable => {
        code: "check_unavailable", status: StatusCode::SERVICE_UNAVAILABLE, fault: Fault::Gateway,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "The gateway cannot check the access token now.",
        flask: None,
    }

    // Stage: authorize.
    /// The caller lacks the roles that the route requires.
    InsufficientRole => {
        code: "insufficient_role", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::InsufficientScope(None), grpc: Grpc::PermissionDenied, from_policy: true,
        detail: "The caller's roles do not allow this.",
        flask: None,
    }
    /// The token lacks a scope that the route requires. The value lists all required scopes for the challenge,
    /// separated by spaces.
    InsufficientScope(Arc<str>) = Denial::InsufficientScope(Arc::from("read")) => {
        code: "insufficient_scope", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::InsufficientScope(None), grpc: Grpc::PermissionDenied, from_policy: true,
        detail: "The access token's scope does not allow this.",
        flask: None,
    }
    /// A claim does not have the value that the route requires.
    ClaimMismatch => {
        code: "claim_mismatch", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::InsufficientScope(None), grpc: Grpc::PermissionDenied, from_policy: true,
        detail: "The access token's claims do not allow this.",
        flask: Some((StatusCode::BAD_REQUEST, "User claims verification failed")),
    }

    // Stage: limit.
    /// The caller exceeds a rate limit.
    RateLimited {
        /// Whole seconds until the next request is admitted, at least 1.
        wait: u32,
    } = Denial::RateLimited { wait: 1 } => {
        code: "rate_limited", status: StatusCode::TOO_MANY_REQUESTS, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::ResourceExhausted, from_policy: false,
        detail: "Too many requests.",
        flask: None,
    }
    /// The fleet cannot be asked about a limit, and `[shared.on_error] limits` is `deny`.
    LimitUnavailable => {
        code: "limit_unavailable", status: StatusCode::SERVICE_UNAVAILABLE, fault: Fault::Gateway,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "The limit of requests cannot be checked at the moment.",
        flask: None,
    }
    /// The gateway has reached a global bound.
    Overloaded => {
        code: "overloaded", status: StatusCode::SERVICE_UNAVAILABLE, fault: Fault::Gateway,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "The gateway is overloaded.",
        flask: None,
    }

    // Endpoints of the authority.
    /// The gateway cannot use the body of a request to an endpoint.
    InvalidBody(BodyFault) = Denial::InvalidBody(BodyFault::Missing) => {
        code: "invalid_body", status: StatusCode::BAD_REQUEST, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: false,
        detail: "The body cannot be used.",
        flask: None,
    }
    /// The request has a proof of possession, and its tokens would be, or are, in cookies.
    ProofWithCookies => {
        code: "proof_with_cookies", status: StatusCode::BAD_REQUEST, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: false,
        detail: "Tokens in cookies cannot be bound to a key. Log in with deliver=body, or without a proof.",
        flask: None,
    }
    /// The body is neither JSON nor a form.
    UnsupportedMediaType => {
        code: "unsupported_media_type", status: StatusCode::UNSUPPORTED_MEDIA_TYPE, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: false,
        detail: "The body must be JSON or a form.",
        flask: None,
    }
    /// The client sent a forward-auth request but is not a trusted proxy.
    UntrustedProxy => {
        code: "untrusted_proxy", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::PermissionDenied, from_policy: false,
        detail: "Only a trusted proxy may ask about other requests.",
        flask: None,
    }
    /// A credential arrived in cleartext on a listener that redirects to HTTPS. Or a client requested cookies over a
    /// connection on which browsers discard them.
    InsecureTransport => {
        code: "insecure_transport", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::PermissionDenied, from_policy: true,
        detail: "Credentials are accepted and issued over encrypted connections only.",
        flask: None,
    }
    /// The user name or the password is wrong.
    BadCredentials => {
        code: "bad_credentials", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Bearer, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The user name or the password is wrong.",
        // The message in the library's documentation, which applications have copied.
        flask: Some((StatusCode::UNAUTHORIZED, "Bad username or password")),
    }
    /// The password is correct, but the account is disabled.
    AccountDisabled => {
        code: "account_disabled", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Bearer, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The account is disabled.",
        // The library's message also contains the user name. The gateway does not echo text from a client.
        flask: Some((StatusCode::UNAUTHORIZED, "Error loading the user")),
    }
    /// Too many wrong passwords were sent for this account or from this address.
    TooManyAttempts {
        /// Whole seconds until the next attempt is checked, at least 1.
        wait: u32,
    } = Denial::TooManyAttempts { wait: 1 } => {
        code: "too_many_attempts", status: StatusCode::TOO_MANY_REQUESTS, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::ResourceExhausted, from_policy: false,
        detail: "Too many failed attempts; try again later.",
        flask: None,
    }
    /// The fleet cannot be asked about failed logins, and `[shared.on_error] login` is `deny`.
    LoginUnavailable => {
        code: "login_unavailable", status: StatusCode::SERVICE_UNAVAILABLE, fault: Fault::Gateway,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "Logins cannot be checked at the moment.",
        flask: None,
    }
    /// The refresh token is unknown: it was not issued here, or its session was deleted.
    UnknownToken => {
        code: "unknown_token", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The refresh token is unknown.",
        flask: Some((StatusCode::UNPROCESSABLE_ENTITY, "Signature verification failed")),
    }
    /// The refresh token was already used. All tokens of its session are now revoked.
    RefreshReused => {
        code: "refresh_reused", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::InvalidToken, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The refresh token was already used; its session has been ended.",
        flask: Some((StatusCode::UNAUTHORIZED, "Token has been revoked")),
    }
    /// The service did not authenticate as a client of the authority.
    InvalidClient => {
        code: "invalid_client", status: StatusCode::UNAUTHORIZED, fault: Fault::Client,
        challenge: Challenge::Basic, grpc: Grpc::Unauthenticated, from_policy: false,
        detail: "The client is unknown, or its secret is wrong.",
        flask: None,
    }
    /// The service requests a scope that it does not have.
    InvalidScope => {
        code: "invalid_scope", status: StatusCode::BAD_REQUEST, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: false,
        detail: "The client was not granted a requested scope.",
        flask: None,
    }
    /// The service requests a token with an unknown grant type.
    UnsupportedGrantType => {
        code: "unsupported_grant_type", status: StatusCode::BAD_REQUEST, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::InvalidArgument, from_policy: false,
        detail: "The only supported grant type is client_credentials.",
        flask: None,
    }
    /// The service may not make this request.
    UnauthorizedClient => {
        code: "unauthorized_client", status: StatusCode::FORBIDDEN, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::PermissionDenied, from_policy: false,
        detail: "The client may not request this.",
        flask: None,
    }
    /// The store of accounts and sessions cannot be reached.
    StoreUnavailable => {
        code: "store_unavailable", status: StatusCode::SERVICE_UNAVAILABLE, fault: Fault::Gateway,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "The store of accounts and sessions cannot be reached.",
        flask: None,
    }
    /// The caller has no object with this name.
    NotFound => {
        code: "not_found", status: StatusCode::NOT_FOUND, fault: Fault::Client,
        challenge: Challenge::None, grpc: Grpc::NotFound, from_policy: false,
        detail: "There is nothing with this name.",
        flask: None,
    }

    // Stage: forward.
    /// No server of the upstream can be reached.
    UpstreamUnavailable => {
        code: "upstream_unavailable", status: StatusCode::SERVICE_UNAVAILABLE, fault: Fault::Upstream,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "The service cannot be reached.",
        flask: None,
    }
    /// The upstream did not respond in time.
    UpstreamTimeout => {
        code: "upstream_timeout", status: StatusCode::GATEWAY_TIMEOUT, fault: Fault::Upstream,
        challenge: Challenge::None, grpc: Grpc::DeadlineExceeded, from_policy: false,
        detail: "The service did not answer in time.",
        flask: None,
    }
    /// The upstream's response is not HTTP, or the connection broke before the response.
    UpstreamFailed => {
        code: "upstream_failed", status: StatusCode::BAD_GATEWAY, fault: Fault::Upstream,
        challenge: Challenge::None, grpc: Grpc::Unavailable, from_policy: false,
        detail: "The service's response was invalid.",
        flask: None,
    }
}
