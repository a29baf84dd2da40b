//! The issuer's settings: compiled from `[authority]`, shared by everything that issues tokens.

use super::endpoint::Endpoint;
use crate::authenticate::{CookieNames, Digest, Revoked, digest_of};
use crate::keyring::Keyring;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The settings of the local issuer, with handles to the live state that they are used with: `keyring` and `revoked`
/// are carried over from one policy to the next.
#[derive(Debug)]
pub struct IssuerSettings {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: Vec<String>,
    /// Its signing keys (live).
    pub keyring: Keyring,
    /// Its revocations (live).
    pub revoked: Arc<Revoked>,
    /// The lifetime of an access token.
    pub access_expires: Duration,
    /// The lifetime of a refresh token.
    pub refresh_expires: Duration,
    /// How long after it was spent a refresh token yields its successor once more.
    pub refresh_grace: Duration,
    /// The maximum lifetime of a session.
    pub session_expires: Duration,
    /// The maximum number of sessions per account.
    pub sessions: u32,
    /// The maximum number of roles in a token; `None`: unlimited.
    pub role_limit: Option<usize>,
    /// Claims taken from account attributes, as (claim, attribute).
    pub claims: Vec<(String, String)>,
    /// Its cookies; `None` if tokens are returned in bodies only.
    pub cookies: Option<Cookies>,
    /// Other origins that may send requests with cookies.
    pub origins: Box<[Box<str>]>,
    /// The URL of the store of accounts and sessions.
    pub store: StoreLocation,
    /// The registered services, by client id.
    pub clients: BTreeMap<String, Client>,
    /// The paths of its endpoints.
    pub paths: Vec<(Endpoint, String)>,
    /// The issuer that it replaces, whose clients must not notice the change.
    pub compat: Option<Compat>,
    /// The metadata document, built on first use; `None` if the issuer is not a URL.
    pub metadata: OnceLock<Option<Bytes>>,
}

impl IssuerSettings {
    /// The path of an endpoint.
    pub fn path(&self, endpoint: Endpoint) -> &str {
        let found = self.paths.iter().find(|(known, _)| *known == endpoint);
        found.map_or(endpoint.spec().path, |(_, path)| path)
    }
}

/// How cookies are set.
#[derive(Clone, Debug)]
pub struct Cookies {
    /// Their names.
    pub names: CookieNames,
    /// Whether a link on another site sends them: `SameSite=Lax` instead of `Strict`.
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

/// An issuer that the authority can stand in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// An application with Flask-JWT-Extended.
    FlaskJwtExtended,
}

/// A registered service.
#[derive(Clone, Debug)]
pub struct Client {
    /// The hash of its secret, which itself is not kept. Secrets are long and random, so a fast hash is enough.
    pub secret: ClientSecret,
    /// The roles of its tokens.
    pub roles: Vec<String>,
    /// The scopes that it may request.
    pub scopes: Vec<String>,
    /// `aud` of its tokens; empty: the authority's.
    pub audience: Vec<String>,
    /// Whether it may introspect tokens.
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

    /// Whether this is the secret, compared in constant time.
    pub fn is(&self, secret: &[u8]) -> bool {
        verify_slices_are_equal(&digest_of(secret), &self.0).is_ok()
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(not shown)")
    }
}
