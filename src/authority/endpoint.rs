//! The authority's endpoints: one small table of where each is and what it asks of its callers.

use crate::authenticate::Access;

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A page to log in with.
    LoginPage,
    /// User name and password for a pair of tokens.
    Login,
    /// A refresh token for a new pair.
    Refresh,
    /// Ends the caller's session.
    Logout,
    /// Ends all sessions of the caller's account.
    LogoutAll,
    /// The identity of the caller.
    Me,
    /// The sessions of the caller's account.
    Sessions,
    /// Ends one of them.
    EndSession,
    /// A service's own access token (RFC 6749 section 4.4).
    Token,
    /// Revokes a token (RFC 7009).
    Revoke,
    /// Tells a service about a token (RFC 7662).
    Introspect,
    /// The public keys (RFC 7517).
    Jwks,
    /// The metadata of the issuer (RFC 8414).
    Metadata,
    /// The verdict on a request that another proxy holds.
    Verify,
}

/// Where an endpoint is, and what it asks.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSpec {
    /// Which one.
    pub endpoint: Endpoint,
    /// In `[authority] paths`, in logs (after `auth:`) and in metrics.
    pub name: &'static str,
    /// Its methods; none: any.
    pub methods: &'static [&'static str],
    /// Its path where the policy does not say another.
    pub path: &'static str,
    /// Whether the gate asks for an access token before the endpoint is reached.
    pub access: Access,
    /// Whether it proves a password or a client's secret, so that the limits of logging in hold for it.
    pub guessable: bool,
    /// Whether services ask it, whose libraries know the answers of OAuth.
    pub for_services: bool,
}

impl Endpoint {
    /// All endpoints.
    pub const ALL: [EndpointSpec; 14] = [
        spec(Self::LoginPage, "login_page", &["GET", "HEAD"], "/auth/login", Access::Public, false),
        spec(Self::Login, "login", &["POST"], "/auth/login", Access::Public, true),
        // A refresh token is its own credential; an access token that has expired must not stand in its way.
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
        // Whatever method the other proxy asks with.
        spec(Self::Verify, "verify", &[], "/auth/verify", Access::Public, false),
    ];

    /// The entry of the table.
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
