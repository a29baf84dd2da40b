//! The fixed properties of a denial.

use http::StatusCode;

/// The properties of a denial that do not depend on the values that it holds.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The code in the body, the log, the metrics and the challenge.
    pub code: &'static str,
    /// The status of the response.
    pub status: StatusCode,
    /// The party that is at fault.
    pub fault: Fault,
    /// The challenge, without the values of the denial.
    pub challenge: Challenge<'static>,
    /// The status of a gRPC response.
    pub grpc: Grpc,
    /// Whether the denial depends only on the policy and the head of the request, so that `explain` can return it.
    pub from_policy: bool,
    /// One sentence for the client: a fixed text that does not help an attacker.
    pub detail: &'static str,
    /// The status and the message of Flask-JWT-Extended for the same refusal; `None` if that library has no such
    /// refusal.
    pub flask: Option<(StatusCode, &'static str)>,
}

/// The party that is at fault for a refusal. It determines the level of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client, because of its request.
    Client,
    /// The gateway, because one of its bounds was reached or its store cannot be used.
    Gateway,
    /// The upstream.
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
    /// Returns the number that `grpc-status` contains.
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

/// The `WWW-Authenticate` challenge of a refusal (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge<'d> {
    /// No challenge, since a token would not help.
    None,
    /// `Bearer` without an error, because no token was sent (section 3.1, last paragraph).
    Bearer,
    /// `Basic`, because a service must authenticate with its id and secret (RFC 6749 section 5.2).
    Basic,
    /// `error="invalid_request"`.
    InvalidRequest,
    /// `error="invalid_token"`.
    InvalidToken,
    /// `error="insufficient_user_authentication"` (RFC 9470), with the maximum age of the login in seconds; 0 for no
    /// maximum.
    StaleLogin(u32),
    /// `error="insufficient_scope"`, with the required scopes if scopes are missing.
    InsufficientScope(Option<&'d str>),
}
