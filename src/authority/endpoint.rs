//! The table of the authority's endpoints.

use crate::authenticate::Access;

/// An endpoint of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Shows the login page.
    LoginPage,
    /// Exchanges a user name and a password for an access token and a refresh token.
    Login,
    /// Exchanges a refresh token for a new pair of tokens.
    Refresh,
    /// Ends the caller's session.
    Logout,
    /// Ends all sessions of the caller's account.
    LogoutAll,
    /// Returns the identity of the caller.
    Me,
    /// Lists the sessions of the caller's account.
    Sessions,
    /// Ends one session of the caller's account.
    EndSession,
    /// Issues an access token to a service (RFC 6749 section 4.4).
    Token,
    /// Revokes a token (RFC 7009).
    Revoke,
    /// Reports the state of a token to a service (RFC 7662).
    Introspect,
    /// Returns the public keys (RFC 7517).
    Jwks,
    /// Returns the metadata of the issuer (RFC 8414).
    Metadata,
    /// Returns the gateway's decision on a request that another proxy has received.
    Verify,
}

/// The path, the methods and the requirements of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSpec {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The name in `[authority] paths` and in metrics. Logs show `auth:NAME`.
    pub name: &'static str,
    /// The accepted methods. Empty for all methods.
    pub methods: &'static [&'static str],
    /// The default path.
    pub path: &'static str,
    /// Whether the gate requires an access token before the request reaches the endpoint.
    pub access: Access,
    /// Whether the endpoint checks a password or a client secret. If so, the login limits apply.
    pub guessable: bool,
    /// Whether services call the endpoint. Refusals then have the form of OAuth.
    pub for_services: bool,
}

impl Endpoint {
    /// All endpoints, in the order of the variants.
    pub const ALL: [EndpointSpec; 14] = [
        spec(Self::LoginPage, "login_page", &["GET", "HEAD"], "/auth/login", Access::Public, false),
        spec(Self::Login, "login", &["POST"], "/auth/login", Access::Public, true),
        // Public, because an expired access token must not prevent a refresh.
        spec(Self::Refresh, "refresh", &["POST"], "/auth/refresh", Access::Public, false),
        spec(Self::Logout, "logout", &["POST"], "/auth/logout", Access::Public, false),
        spec(Self::LogoutAll, "logout_all", &["POST"], "/auth/logout-all", Access::Authenticated, false),
        spec(Self::Me, "me", &["GET", "HEAD"], "/auth/me", Access::Authenticated, false),
        spec(Self::Sessions, "sessions", &["GET", "HEAD"], "/auth/sessions", Access::Authenticated, false),
        spec(
            Self::EndSession,
            "end_session",
            &["DELETE"],
            "/auth/sessions/{id}",
            Access::Authenticated,
            false,
        ),
        spec(Self::Token, "token", &["POST"], "/auth/token", Access::Public, true),
        spec(Self::Revoke, "revoke", &["POST"], "/auth/revoke", Access::Public, true),
        spec(Self::Introspect, "introspect", &["POST"], "/auth/introspect", Access::Public, true),
        spec(Self::Jwks, "jwks", &["GET", "HEAD"], "/.well-known/jwks.json", Access::Public, false),
        spec(
            Self::Metadata,
            "metadata",
            &["GET", "HEAD"],
            "/.well-known/oauth-authorization-server",
            Access::Public,
            false,
        ),
        // The other proxy may use any method.
        spec(Self::Verify, "verify", &[], "/auth/verify", Access::Public, false),
    ];

    /// Returns the endpoint's entry in the table.
    pub fn spec(self) -> EndpointSpec {
        Self::ALL[self as usize]
    }
}

const fn spec(
    endpoint: Endpoint,
    name: &'static str,
    methods: &'static [&'static str],
    path: &'static str,
    access: Access,
    guessable: bool,
) -> EndpointSpec {
    let for_services = matches!(endpoint, Endpoint::Token | Endpoint::Revoke | Endpoint::Introspect);
    EndpointSpec { endpoint, name, methods, path, access, guessable, for_services }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_finds_its_own_facts() {
        for spec in Endpoint::ALL {
            assert_eq!(spec.endpoint.spec().name, spec.name);
        }
    }
}
