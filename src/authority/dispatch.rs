//! Which function answers which endpoint, and in what form an endpoint refuses.

use super::ask::Ask;
use super::endpoint::Endpoint;
use super::runtime::Authority;
use super::{login, page, refresh, service, session};
use crate::denial::Denial;
use bytes::Bytes;
use http::Response;
use std::sync::Arc;

impl Authority {
    /// Does the work of an endpoint on the authority's own thread. What services are refused has a form of its own, and
    /// says why by its [`Refused`].
    ///
    /// # Errors
    /// Why the request is refused.
    pub async fn answer(self: &Arc<Self>, ask: Ask) -> Result<Response<Bytes>, Denial> {
        let endpoint = ask.endpoint;
        // A request from another site's page gets an answer, but takes no place in the queue and spends no login
        // attempt of the user.
        if endpoint == Endpoint::Login && !ask.own_site {
            self.counters.logins.add("invalid");
            return page::login_answer(&ask, Err(Denial::CsrfMismatch));
        }
        let Some(place) = self.queue.enter(endpoint.facts().access) else {
            return refused(endpoint, Denial::Overloaded);
        };
        let authority = self.clone();
        let answered = self.on_own_thread(async move {
            // Held until the work is done, even if the client disconnects earlier.
            let _place = place;
            match ask.endpoint {
                Endpoint::LoginPage => page::show(&authority, ask).await,
                Endpoint::Login => page::login_answer(&ask, login::login(&authority, &ask).await),
                Endpoint::Refresh => refresh::refresh(&authority, ask).await,
                Endpoint::Logout => session::logout(&authority, ask).await,
                Endpoint::LogoutAll => session::logout_all(&authority, ask).await,
                Endpoint::Sessions => session::list(&authority, ask).await,
                Endpoint::EndSession => session::end(&authority, ask).await,
                Endpoint::Me => session::me(&ask),
                Endpoint::Token => service::token(&authority, &ask).await,
                Endpoint::Introspect => service::introspect(&authority, &ask).await,
                Endpoint::Revoke => service::revoke(&authority, &ask).await,
                // Both are answered, and a verdict is given, on the core that was asked.
                Endpoint::Jwks | Endpoint::Metadata | Endpoint::Verify => Err(Denial::NotFound),
            }
        });
        answered.await.or_else(|denial| refused(endpoint, denial))
    }
}

/// A refusal of an endpoint: in a form of its own where that is asked by services.
///
/// # Errors
/// The same refusal, where it is not.
pub fn refused(endpoint: Endpoint, denial: Denial) -> Result<Response<Bytes>, Denial> {
    if endpoint.facts().for_services { Ok(service::refusal(denial)) } else { Err(denial) }
}
