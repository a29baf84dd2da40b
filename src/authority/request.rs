//! A parsed request to an endpoint.

use super::endpoint::Endpoint;
use super::fields::Fields;
use super::settings::{Compat, IssuerSettings};
use crate::authenticate::credential::{REFRESH_TOKEN_PREFIX, bearer, cookie};
use crate::authenticate::dpop::CheckedProof;
use crate::authenticate::{Place, Principal};
use crate::clock::Now;
use crate::denial::Denial;
use crate::peer::Scheme;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::sync::Arc;

/// A request to an endpoint.
#[derive(Debug)]
pub struct EndpointRequest {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The settings that were in force when the request arrived.
    pub settings: Arc<IssuerSettings>,
    /// The request's method.
    pub method: Method,
    /// The client's address.
    pub address: IpAddr,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// The host and port that the client requested.
    pub authority: String,
    /// The request id, as in the log.
    pub request_id: String,
    /// The request's header fields.
    pub headers: HeaderMap,
    /// The query of the request's target, without `?`.
    pub query: Option<String>,
    /// The value of the path parameter `{id}`.
    pub id: Option<String>,
    /// The fields of the request's body.
    pub fields: Fields,
    /// Whether the request comes from this site or from no page at all, according to its headers.
    pub own_site: bool,
    /// The authenticated caller, if there is one.
    pub caller: Option<Holder>,
    /// The proof of possession of a key, if any. It is checked but not yet remembered.
    pub proof: Option<CheckedProof>,
    /// The claims of the access token to introspect, if it is valid. The claims of the access token to revoke, if the
    /// authority has signed it.
    pub inspected: Option<Map<String, Value>>,
    /// When the whole request had arrived.
    pub now: Now,
}

/// The holder of a request's access token. Unlike a principal, it may be sent to another thread.
#[derive(Clone, Debug)]
pub struct Holder {
    /// `sub`.
    pub subject: String,
    /// `iss`.
    pub issuer: Arc<str>,
    /// `jti`.
    pub token_id: Option<String>,
    /// `sid`; only for a token of the local authority.
    pub session: Option<String>,
    /// Whether the local authority issued the token.
    pub is_local: bool,
    /// Whether the token was issued to a service rather than to an account.
    pub is_service: bool,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// When the gateway stops accepting the token, in seconds since 1970.
    pub expires: u64,
    /// The token's `exp`. It is later than `expires` if the token's lifetime is not recorded yet.
    pub ends: u64,
    /// Whether the token was issued at a login with a password.
    pub fresh: bool,
    /// Whether the token was sent in a cookie.
    pub by_cookie: bool,
}

impl Holder {
    /// Copies the principal. `place`: where the request contains the token.
    pub fn of(principal: &Principal, place: Place) -> Self {
        let owned = |names: &[Box<str>]| names.iter().map(|name| name.to_string()).collect();
        let local = principal.local.as_deref();
        Self {
            subject: principal.subject.to_string(),
            issuer: principal.issuer.clone(),
            token_id: principal.token_id.as_deref().map(str::to_owned),
            session: local.and_then(|local| local.session.as_deref()).map(str::to_owned),
            is_local: local.is_some(),
            is_service: local.is_some_and(|local| local.service),
            roles: owned(&principal.roles),
            scopes: owned(&principal.scopes),
            expires: principal.expires,
            ends: local.map_or(principal.expires, |local| local.ends),
            fresh: principal.fresh,
            by_cookie: place == Place::Cookie,
        }
    }
}

impl EndpointRequest {
    /// Returns the holder of the request's access token. Rejects tokens of other issuers, because they have no session
    /// here.
    ///
    /// # Errors
    /// [`Denial::MissingToken`], [`Denial::UnknownIssuer`].
    pub fn holder(&self) -> Result<&Holder, Denial> {
        let holder = self.caller.as_ref().ok_or(Denial::MissingToken)?;
        if holder.is_local { Ok(holder) } else { Err(Denial::UnknownIssuer) }
    }

    /// Returns the holder of the request's access token, which must belong to an account. A service must not access the
    /// sessions of an account with the same name.
    ///
    /// # Errors
    /// The errors of [`EndpointRequest::holder`]; [`Denial::UnauthorizedClient`] for a service's token.
    pub fn account(&self) -> Result<&Holder, Denial> {
        let holder = self.holder()?;
        if holder.is_service { Err(Denial::UnauthorizedClient) } else { Ok(holder) }
    }

    /// Returns the request's refresh token, and whether it was sent in a cookie.
    ///
    /// # Errors
    /// [`Denial::AmbiguousCredentials`] if the request has two refresh tokens; the errors of [`bearer`] if
    /// `Authorization` is read.
    pub fn refresh_token(&self) -> Result<Option<(&str, bool)>, Denial> {
        let field = self.fields.optional("refresh_token")?;
        let cookie = match &self.settings.cookies {
            Some(cookies) => cookie(&self.headers, &cookies.names.refresh)?,
            None => None,
        };
        // `?` is refused as a malformed token.
        let text = |token| std::str::from_utf8(token).unwrap_or("?");
        match (field, self.refresh_bearer()?, cookie) {
            (None, None, None) => Ok(None),
            (Some(token), None, None) => Ok(Some((token, false))),
            (None, Some(token), None) => Ok(Some((text(token), false))),
            (None, None, Some(token)) => Ok(Some((text(token), true))),
            (_, _, _) => Err(Denial::AmbiguousCredentials),
        }
    }

    /// Returns the refresh token in `Authorization`, where clients of a replaced issuer send it.
    ///
    /// The refresh endpoint accepts any token here, so that an access token is refused as the wrong type. Other
    /// endpoints accept only a refresh token, because `Authorization` may contain an access token.
    fn refresh_bearer(&self) -> Result<Option<&[u8]>, Denial> {
        match (self.settings.compat, self.endpoint) {
            (Some(Compat::FlaskJwtExtended), Endpoint::Refresh) => bearer(&self.headers),
            (Some(Compat::FlaskJwtExtended), Endpoint::Logout) => {
                let shown = bearer(&self.headers)?;
                Ok(shown.filter(|token| token.starts_with(REFRESH_TOKEN_PREFIX.as_bytes())))
            }
            (Some(Compat::FlaskJwtExtended) | None, _) => Ok(None),
        }
    }

    /// Returns the client's `User-Agent`, cut to 200 characters for the list of sessions.
    pub fn agent(&self) -> String {
        let agent = self.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        agent.unwrap_or_default().chars().take(200).collect()
    }
}
