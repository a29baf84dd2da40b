//! What the policy says of issuing: compiled from `[authority]`, shared by all that issue.

use super::endpoint::Endpoint;
use crate::authenticate::{CookieNames, Digest, Revoked, digest_of};
use crate::keyring::Keyring;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The terms on which the local authority issues.
#[derive(Debug)]
pub struct IssuerSettings {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: Vec<String>,
    /// Its signing keys.
    pub keyring: Keyring,
    /// What it revoked.
    pub revoked: Arc<Revoked>,
    /// How long an access token lives.
    pub access_expires: Duration,
    /// How long a refresh token lives.
    pub refresh_expires: Duration,
    /// For how long after it was spent a refresh token gets its successor once more.
    pub refresh_grace: Duration,
    /// The absolute end of a session.
    pub session_expires: Duration,
    /// How many sessions an account may have.
    pub sessions: u32,
    /// How many roles a token carries; none: all that the account has.
    pub role_limit: Option<usize>,
    /// Claims from attributes of accounts: claim, attribute.
    pub claims: Vec<(String, String)>,
    /// Its cookies, if it gives any.
    pub cookies: Option<Cookies>,
    /// Origins from which requests with cookies may come beside their own.
    pub origins: Box<[Box<str>]>,
    /// Where accounts and sessions are kept: a URL.
    pub store: StoreLocation,
    /// The services that it knows.
    pub clients: BTreeMap<String, Client>,
    /// Where its endpoints are.
    pub paths: Vec<(Endpoint, String)>,
    /// Whose clients are not to notice that they talk to another issuer.
    pub compat: Option<Compat>,
    /// What it tells everybody about itself, once somebody asked; none where its issuer is no URL.
    pub metadata: OnceLock<Option<Bytes>>,
}

impl IssuerSettings {
    /// Where an endpoint is.
    pub fn path(&self, endpoint: Endpoint) -> &str {
        let found = self.paths.iter().find(|(known, _)| *known == endpoint);
        found.map_or(endpoint.spec().path, |(_, path)| path)
    }
}

/// How cookies are given.
#[derive(Clone, Debug)]
pub struct Cookies {
    /// Their names.
    pub names: CookieNames,
    /// Whether a link from another site brings them along: `SameSite=Lax` instead of `Strict`.
    pub lax: bool,
}

/// Where accounts and sessions are kept. It may hold a password, and shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreLocation(pub String);

impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.split(':').next().unwrap_or_default())
    }
}

/// Another issuer whose clients are not to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// An application with Flask-JWT-Extended.
    FlaskJwtExtended,
}

/// A service that the authority knows.
#[derive(Clone, Debug)]
pub struct Client {
    /// What its secret hashes to: the secret itself is kept nowhere. It is random and long, so that a fast hash will do.
    pub secret: ClientSecret,
    /// The roles of its tokens.
    pub roles: Vec<String>,
    /// The scopes that it may ask for.
    pub scopes: Vec<String>,
    /// `aud` of its tokens; empty: the authority's own.
    pub audience: Vec<String>,
    /// Whether it may ask about tokens.
    pub introspect: bool,
}

/// The SHA-256 of a client's secret.
#[derive(Clone)]
pub struct ClientSecret(Digest);

impl ClientSecret {
    /// Of this secret.
    pub fn of(secret: &[u8]) -> Self {
        Self(digest_of(secret))
    }

    /// Whether this is the secret.
    pub fn is(&self, secret: &[u8]) -> bool {
        verify_slices_are_equal(&digest_of(secret), &self.0).is_ok()
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(not shown)")
    }
}
