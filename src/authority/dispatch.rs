//! Dispatches each request to the function of its endpoint, and renders refusals.

use super::counters::LoginOutcome;
use super::endpoint::Endpoint;
use super::request::EndpointRequest;
use super::runtime::Authority;
use super::{login, page, refresh, service, session};
use crate::denial::Denial;
use bytes::Bytes;
use http::Response;
use std::sync::Arc;

impl Authority {
    /// Answers a request on the authority's own thread. For an endpoint for services, a refusal is a response with the
    /// denial as an extension.
    ///
    /// # Errors
    /// The denial, for any other endpoint.
    pub async fn answer(self: &Arc<Self>, request: EndpointRequest) -> Result<Response<Bytes>, Denial> {
        let endpoint = request.endpoint;
        // Refuse a cross-site login before it enters the queue or counts as a login attempt.
        if endpoint == Endpoint::Login && !request.own_site {
            self.counters.logins.add(LoginOutcome::Invalid);
            return page::login_response(&request, Err(Denial::CsrfMismatch));
        }
        let Some(place) = self.queue.enter(endpoint.spec().access) else {
            return refused(endpoint, Denial::Overloaded);
        };
        let authority = self.clone();
        let answered = self.on_own_thread(async move {
            // Hold the place in the queue until the work is done, even if the client disconnects earlier.
            let _place = place;
            match request.endpoint {
                Endpoint::LoginPage => page::show(&authority, request).await,
                Endpoint::Login => page::login_response(&request, login::login(&authority, &request).await),
                Endpoint::Refresh => refresh::refresh(&authority, request).await,
                Endpoint::Logout => session::logout(&authority, request).await,
                Endpoint::LogoutAll => session::logout_all(&authority, request).await,
                Endpoint::Sessions => session::list(&authority, request).await,
                Endpoint::EndSession => session::end(&authority, request).await,
                Endpoint::Me => session::me(&request),
                Endpoint::Token => service::token(&authority, &request).await,
                Endpoint::Introspect => service::introspect(&authority, &request).await,
                Endpoint::Revoke => service::revoke(&authority, &request).await,
                // The core that received the request answers these endpoints itself.
                Endpoint::Jwks | Endpoint::Metadata | Endpoint::Verify => Err(Denial::NotFound),
            }
        });
        answered.await.or_else(|denial| refused(endpoint, denial))
    }
}

/// Renders the refusal of an endpoint for services in the form of OAuth.
///
/// # Errors
/// Returns the denial unchanged for every other endpoint.
pub fn refused(endpoint: Endpoint, denial: Denial) -> Result<Response<Bytes>, Denial> {
    if endpoint.spec().for_services { Ok(service::refusal(denial)) } else { Err(denial) }
}
