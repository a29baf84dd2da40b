//! How a person goes on whose request was refused: to the login page by itself, or by the links of the refusal's page.

use crate::authenticate::{Access, Place, credential};
use crate::authority::{Endpoint, NEXT_MAX, PROMPT, PROMPT_LOGIN, Terms, encoded};

use crate::decision::Refusal;
use crate::denial::Denial;
use crate::policy::{Policy, Route};
use crate::record::Record;
use crate::respond::page::Account;
use crate::respond::{Format, Ways, is_navigation};
use crate::route::Head;
use http::{HeaderValue, StatusCode};

/// Notes how the person goes on, for the answer. A program is refused and nothing else.
#[cold]
pub fn guide(policy: &Policy, route: &Route, head: &Head<'_>, refusal: &Refusal, record: &mut Record) {
    if record.format() != Format::Html || !route.admission.sources.cookie {
        return;
    }
    // Without cookies there is no login page.
    let Some(terms) = policy.terms.as_deref().filter(|terms| terms.cookies.is_some()) else { return };
    let denial = &refusal.denial;
    let is_navigation = is_navigation(head.method, head.headers);
    match denial.status() {
        StatusCode::UNAUTHORIZED => {
            // Who is logged in, and not freshly so, would be sent straight back.
            let must_prove = matches!(denial, Denial::FreshTokenRequired { .. });
            let Some(login) = login(terms, head, must_prove, record) else { return };
            if route.login_page && is_navigation {
                // An address of ours is made of visible ASCII.
                return HeaderValue::try_from(login).map(|login| record.send_to_login(login)).unwrap_or(());
            }
            let mut ways = Ways { login: Some(login), ..Ways::default() };
            if is_navigation && is_dead(denial) && is_of_cookie(policy, route, head) {
                record.access_is_over();
                ways.without_login = route.admission.access == Access::Optional;
            }
            record.offer(ways);
        }
        StatusCode::FORBIDDEN => {
            let Some((principal, Place::Cookie)) = &refusal.caller else { return };
            let name = principal.subject.to_string();
            let page =
                format!("{}{}", site(head, record).unwrap_or_default(), terms.path(Endpoint::LoginPage));
            let login = login(terms, head, true, record);
            record.offer(Ways { login, account: Some(Account { name, page }), ..Ways::default() });
        }
        _ => {}
    }
}

/// Whether a token that is refused so is never accepted again. A cookie with such a token only keeps its browser out of pages
/// that it could see without one.
fn is_dead(denial: &Denial) -> bool {
    matches!(
        denial,
        Denial::MalformedToken(_)
            | Denial::UnsupportedAlgorithm
            | Denial::UnknownIssuer
            | Denial::UnknownKey
            | Denial::BadSignature
            | Denial::ExpiredToken
            | Denial::WrongAudience
            | Denial::WrongType
            | Denial::MissingClaim(_)
            | Denial::RevokedToken
    )
}

/// Whether the credential that was refused came in the authority's cookie.
fn is_of_cookie(policy: &Policy, route: &Route, head: &Head<'_>) -> bool {
    let found = credential::find(head, &route.admission.sources, policy.trust.cookies());
    matches!(found, Ok(Some((_, Place::Cookie))))
}

/// The login page, and the way back from there. `must_prove`: to be asked for a password though there is a session.
fn login(terms: &Terms, head: &Head<'_>, must_prove: bool, record: &Record) -> Option<String> {
    let mut fields = Vec::new();
    let asked = match head.query {
        Some(query) => format!("{}?{query}", head.path),
        None => head.path.clone().into_owned(),
    };
    // A longer address would make one that browsers and servers refuse, and what was posted cannot be asked for again: the
    // person comes to the root instead.
    if asked.len() <= NEXT_MAX && is_repeatable(head) {
        fields.push(format!("next={}", encoded(&asked)));
    }
    if must_prove {
        fields.push(format!("{PROMPT}={PROMPT_LOGIN}"));
    }
    let question = if fields.is_empty() { "" } else { "?" };
    let page = terms.path(Endpoint::LoginPage);
    Some(format!("{}{page}{question}{}", site(head, record)?, fields.join("&")))
}

fn is_repeatable(head: &Head<'_>) -> bool {
    matches!(*head.method, http::Method::GET | http::Method::HEAD)
}

/// What stands before a path of ours in a link. A proxy that asks for a verdict may read a bare path as one of ours (Traefik
/// does).
fn site(head: &Head<'_>, record: &Record) -> Option<String> {
    match record.verdict() {
        None => Some(String::new()),
        Some(_) => Some(format!("{}://{}", record.caller().scheme.as_str(), head.authority()?)),
    }
}
