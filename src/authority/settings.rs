//! The issuer's settings, compiled from the `[authority]` section.

use super::endpoint::Endpoint;
use crate::authenticate::{CookieNames, Digest, Revoked, digest_of};
use crate::keyring::Keyring;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The settings of the local issuer. `keyring` and `revoked` are handles to live state, which a new policy takes over
/// from the previous policy.
#[derive(Debug)]
pub struct IssuerSettings {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: Vec<String>,
    /// The signing keys, as a handle to live state.
    pub keyring: Keyring,
    /// The revocations, as a handle to live state.
    pub revoked: Arc<Revoked>,
    /// The lifetime of an access token.
    pub access_expires: Duration,
    /// The lifetime of a refresh token.
    pub refresh_expires: Duration,
    /// The time that a spent refresh token still yields its successor.
    pub refresh_grace: Duration,
    /// The maximum lifetime of a session.
    pub session_expires: Duration,
    /// The maximum number of sessions per account.
    pub sessions: u32,
    /// The maximum number of roles in a token; `None` for no limit.
    pub role_limit: Option<usize>,
    /// `client_id` of tokens that belong to accounts, if the policy sets it.
    pub client_id: Option<String>,
    /// Claims taken from account attributes, as (claim, attribute).
    pub claims: Vec<(String, String)>,
    /// The settings of cookies; `None` if tokens are only returned in bodies.
    pub cookies: Option<Cookies>,
    /// The origins of other sites that may send requests with cookies.
    pub origins: Box<[Box<str>]>,
    /// The URL of the store of accounts and sessions.
    pub store: StoreLocation,
    /// The registered services, by client id.
    pub clients: BTreeMap<String, Client>,
    /// The endpoints whose paths the policy sets, each with its path.
    pub paths: Vec<(Endpoint, String)>,
    /// The issuer that the authority replaces. Its clients must not notice the change.
    pub compat: Option<Compat>,
    /// The metadata document, built on first use; `None` if the issuer is not a URL.
    pub metadata: OnceLock<Option<Bytes>>,
}

impl IssuerSettings {
    /// Returns the path of an endpoint.
    pub fn path(&self, endpoint: Endpoint) -> &str {
        let found = self.paths.iter().find(|(known, _)| *known == endpoint);
        found.map_or(endpoint.spec().path, |(_, path)| path)
    }
}

/// The settings of cookies.
#[derive(Clone, Debug)]
pub struct Cookies {
    /// The names of the cookies.
    pub names: CookieNames,
    /// Whether the cookies are `SameSite=Lax` instead of `Strict`. With `Lax`, the browser also sends the cookies after
    /// a link on another site.
    pub lax: bool,
}

/// The URL of the store. It may contain a password, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreLocation(pub String);

impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.split(':').next().unwrap_or_default())
    }
}

/// An issuer that the authority can replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// An application that issues tokens with Flask-JWT-Extended.
    FlaskJwtExtended,
}

/// A registered service.
#[derive(Clone, Debug)]
pub struct Client {
    /// The hash of the service's secret. Secrets are long and random, so a fast hash is enough.
    pub secret: ClientSecret,
    /// The roles in the service's tokens.
    pub roles: Vec<String>,
    /// The scopes that the service may request.
    pub scopes: Vec<String>,
    /// `aud` of the service's tokens; if empty, the authority's own `aud`.
    pub audience: Vec<String>,
    /// Whether the service may introspect tokens.
    pub introspect: bool,
}

/// The SHA-256 of a client's secret.
#[derive(Clone)]
pub struct ClientSecret(Digest);

impl ClientSecret {
    /// Hashes a secret.
    pub fn of(secret: &[u8]) -> Self {
        Self(digest_of(secret))
    }

    /// Whether `secret` is the client's secret. Compares in constant time.
    pub fn is(&self, secret: &[u8]) -> bool {
        verify_slices_are_equal(&digest_of(secret), &self.0).is_ok()
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(not shown)")
    }
}
