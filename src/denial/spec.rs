//! What follows from a denial.

use http::StatusCode;

/// What follows from a denial, whatever values it holds.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The code in the body, the log, the metrics and the challenge.
    pub code: &'static str,
    /// The status of the answer.
    pub status: StatusCode,
    /// Whose fault it was.
    pub fault: Fault,
    /// The challenge, without the values of the denial.
    pub challenge: Challenge<'static>,
    /// The status of a gRPC answer.
    pub grpc: Grpc,
    /// Whether it follows from the policy and the head of the request alone, so that `explain` can return it.
    pub from_policy: bool,
    /// One sentence for the client: fixed text that does not help an attacker.
    pub detail: &'static str,
    /// The status and the message of Flask-JWT-Extended for the same refusal, if that library makes it.
    pub flask: Option<(StatusCode, &'static str)>,
}

/// Whose fault a refusal is. It decides the level of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request's.
    Client,
    /// The gateway's: one of its own bounds.
    Gateway,
    /// The upstream's.
    Upstream,
}

/// A status of the gRPC protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grpc {
    /// `INVALID_ARGUMENT`.
    InvalidArgument,
    /// `NOT_FOUND`.
    NotFound,
    /// `PERMISSION_DENIED`.
    PermissionDenied,
    /// `RESOURCE_EXHAUSTED`.
    ResourceExhausted,
    /// `UNIMPLEMENTED`.
    Unimplemented,
    /// `UNAVAILABLE`.
    Unavailable,
    /// `UNAUTHENTICATED`.
    Unauthenticated,
}

impl Grpc {
    /// The number, as `grpc-status` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "3",
            Self::NotFound => "5",
            Self::PermissionDenied => "7",
            Self::ResourceExhausted => "8",
            Self::Unimplemented => "12",
            Self::Unavailable => "14",
            Self::Unauthenticated => "16",
        }
    }
}

/// The `WWW-Authenticate` challenge that goes with a refusal (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge<'d> {
    /// No challenge: a token would not help.
    None,
    /// `Bearer` without an error: no token was sent (section 3.1, last paragraph).
    Bearer,
    /// `Basic`: a service must authenticate with its id and secret (RFC 6749 section 5.2).
    Basic,
    /// `error="invalid_request"`.
    InvalidRequest,
    /// `error="invalid_token"`.
    InvalidToken,
    /// `error="insufficient_user_authentication"` (RFC 9470), with the route's bound in seconds, if it has one.
    StaleLogin(u32),
    /// `error="insufficient_scope"`, with the required scopes if scopes are missing.
    InsufficientScope(Option<&'d str>),
}
