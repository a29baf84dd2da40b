//! Defines the fixed properties of a denial.

use http::StatusCode;

/// The properties of a denial that do not depend on its values.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The code in the body, the log, the metrics and the challenge.
    pub code: &'static str,
    /// The status of the response.
    pub status: StatusCode,
    /// The party that is at fault.
    pub fault: Fault,
    /// The challenge, without values of the denial such as required scopes.
    pub challenge: Challenge<'static>,
    /// The status of a gRPC response.
    pub grpc: Grpc,
    /// Whether the denial depends only on the policy and the request's head. If so, `explain` can return it.
    pub from_policy: bool,
    /// A sentence for the client. It is a fixed text that does not help an attacker.
    pub detail: &'static str,
    /// The status and message of Flask-JWT-Extended for the same refusal. `None` if the library has no such refusal.
    pub flask: Option<(StatusCode, &'static str)>,
}

/// The party at fault for a refusal. It determines the severity of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client: the request is not acceptable.
    Client,
    /// The gateway: it reached a bound, or its store is unavailable.
    Gateway,
    /// The upstream.
    Upstream,
    /// Nobody: the operator has closed the route on purpose.
    Operator,
}

/// A status of the gRPC protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grpc {
    /// `CANCELLED`.
    Cancelled,
    /// `INVALID_ARGUMENT`.
    InvalidArgument,
    /// `DEADLINE_EXCEEDED`.
    DeadlineExceeded,
    /// `NOT_FOUND`.
    NotFound,
    /// `PERMISSION_DENIED`.
    PermissionDenied,
    /// `RESOURCE_EXHAUSTED`.
    ResourceExhausted,
    /// `UNIMPLEMENTED`.
    Unimplemented,
    /// `INTERNAL`.
    Internal,
    /// `UNAVAILABLE`.
    Unavailable,
    /// `UNAUTHENTICATED`.
    Unauthenticated,
}

impl Grpc {
    /// Returns the number for `grpc-status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "1",
            Self::InvalidArgument => "3",
            Self::DeadlineExceeded => "4",
            Self::NotFound => "5",
            Self::PermissionDenied => "7",
            Self::ResourceExhausted => "8",
            Self::Unimplemented => "12",
            Self::Internal => "13",
            Self::Unavailable => "14",
            Self::Unauthenticated => "16",
        }
    }
}

/// The `WWW-Authenticate` challenge of a refusal (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge<'d> {
    /// No challenge, because a token would not help.
    None,
    /// `Bearer` without an error, because the request had no token (section 3.1, last paragraph).
    Bearer,
    /// `Basic`, for a service that authenticates with its id and secret (RFC 6749 section 5.2).
    Basic,
    /// `error="invalid_request"`.
    InvalidRequest,
    /// `error="invalid_token"`.
    InvalidToken,
    /// `DPoP` with `error="invalid_token"`, because only a token that is bound to its sender can be used (RFC 9449
    /// section 7.1).
    Bound,
    /// `DPoP` with this error, because of the proof.
    Proof(&'static str),
    /// `error="insufficient_user_authentication"` (RFC 9470). The value is the maximum age of the login in seconds, or
    /// 0 for no maximum.
    StaleLogin(u32),
    /// `error="insufficient_scope"`. The value is the list of required scopes, if a scope is missing.
    InsufficientScope(Option<&'d str>),
}
