//! A request to an endpoint, read: all that the authority's thread is told of it.

use super::endpoint::Endpoint;
use super::fields::Fields;
use super::settings::{Compat, IssuerSettings};
use crate::authenticate::credential::{REFRESH_TOKEN_PREFIX, bearer, cookie};
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
    /// Which.
    pub endpoint: Endpoint,
    /// The terms in force when it was asked.
    pub settings: Arc<IssuerSettings>,
    /// Its method.
    pub method: Method,
    /// The client's address.
    pub address: IpAddr,
    /// How the client sees it sent.
    pub scheme: Scheme,
    /// Host and port, as the client named them.
    pub authority: String,
    /// The request id, as in the log.
    pub request_id: String,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its query.
    pub query: Option<String>,
    /// The parameter of its path.
    pub id: Option<String>,
    /// The fields of its body.
    pub fields: Fields,
    /// Whether nothing in it says that another site's page sent it.
    pub own_site: bool,
    /// Who the gate found to be asking.
    pub caller: Option<Holder>,
    /// The access token that it asks about, if it is good.
    pub inspected: Option<InspectedToken>,
    /// When it came.
    pub now: Now,
}

/// Who holds the access token of a request: a principal that may leave its core.
#[derive(Clone, Debug)]
pub struct Holder {
    /// `sub`.
    pub subject: String,
    /// `iss`.
    pub issuer: Arc<str>,
    /// `jti`.
    pub token_id: Option<String>,
    /// `sid`, of a token of the local authority.
    pub session: Option<String>,
    /// Whether the local authority issued the token.
    pub is_local: bool,
    /// Whether the token is a service's own.
    pub is_service: bool,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// Until when the token holds, seconds since 1970.
    pub expires: u64,
    /// The token's `exp`. The token may be accepted for less time if its life is not on record yet.
    pub ends: u64,
    /// Whether it comes from a login.
    pub fresh: bool,
    /// Whether it came in a cookie.
    pub by_cookie: bool,
}

/// An access token of a request to introspect or revoke, verified by the gate and not revoked.
#[derive(Clone, Debug)]
pub struct InspectedToken {
    /// Its claims.
    pub claims: Map<String, Value>,
    /// Whether the local authority made it.
    pub is_local: bool,
}

impl Holder {
    /// Of this principal.
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
    /// Who holds a token of the local authority that the request shows; those of another issuer end nothing here.
    ///
    /// # Errors
    /// [`Denial::MissingToken`], [`Denial::UnknownIssuer`].
    pub fn holder(&self) -> Result<&Holder, Denial> {
        let holder = self.caller.as_ref().ok_or(Denial::MissingToken)?;
        if holder.is_local { Ok(holder) } else { Err(Denial::UnknownIssuer) }
    }

    /// The account whose token the request shows. A service has no sessions, and none of the account that is named like it.
    ///
    /// # Errors
    /// What [`EndpointRequest::holder`] says; [`Denial::UnauthorizedClient`].
    pub fn account(&self) -> Result<&Holder, Denial> {
        let holder = self.holder()?;
        if holder.is_service { Err(Denial::UnauthorizedClient) } else { Ok(holder) }
    }

    /// The refresh token that the request shows, and whether it came in a cookie.
    ///
    /// # Errors
    /// [`Denial::AmbiguousCredentials`] where there are two; what [`bearer`] says of `Authorization`, where it is looked at.
    pub fn refresh_token(&self) -> Result<Option<(&str, bool)>, Denial> {
        let field = self.fields.optional("refresh_token")?;
        let cookie = match &self.settings.cookies {
            Some(cookies) => cookie(&self.headers, &cookies.names.refresh)?,
            None => None,
        };
        // What is no text is no token of ours either; it is refused as one.
        let text = |token| std::str::from_utf8(token).unwrap_or("?");
        match (field, self.refresh_bearer()?, cookie) {
            (None, None, None) => Ok(None),
            (Some(token), None, None) => Ok(Some((token, false))),
            (None, Some(token), None) => Ok(Some((text(token), false))),
            (None, None, Some(token)) => Ok(Some((text(token), true))),
            (_, _, _) => Err(Denial::AmbiguousCredentials),
        }
    }

    /// What stands in `Authorization` where clients of another issuer put their refresh tokens: at its refresh whatever it
    /// is, so that an access token is told to be none; at its logout, where an access token is as good, a refresh token only.
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

    /// What the client says it is: for the list of sessions, cut to a line.
    pub fn agent(&self) -> String {
        let agent = self.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        agent.unwrap_or_default().chars().take(200).collect()
    }
}
