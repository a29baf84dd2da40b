//! Shows a person how to continue after a refusal: a redirect to the login page, or links on the refusal page.

use super::exchange::Exchange;
use super::rejection::{DeadCookies, Guidance};
use crate::authenticate::{Access, Place, credential};
use crate::authority::{Endpoint, IssuerSettings, NEXT_MAX, PROMPT, PROMPT_LOGIN, encoded};
use crate::authorize::{Check, Refusal};
use crate::denial::Denial;
use crate::policy::{Policy, Route};
use crate::respond::page::Account;
use crate::respond::{Format, PageLinks, is_navigation, is_repeatable};
use crate::route::Head;
use http::{HeaderValue, StatusCode};

/// Returns the guidance for a client after a refusal. A person gets links or a redirect. A program gets the challenge
/// parameters from which it finds the issuer.
#[cold]
pub(super) fn guide(
    policy: &Policy,
    exchange: &Exchange,
    route: &Route,
    head: &Head<'_>,
    refusal: &Refusal,
) -> Option<Guidance> {
    let challenge = challenge(policy, exchange, route, head, &refusal.denial);
    let guidance = guide_person(policy, exchange, route, head, refusal);
    if challenge.is_none() {
        return guidance;
    }
    Some(Guidance { challenge, ..guidance.unwrap_or_default() })
}

/// Returns the challenge parameters for a path of a protected resource: the URL of the metadata (RFC 9728 section
/// 5.1), and on a 401 the scopes that the route requires (RFC 6750 section 3).
fn challenge(
    policy: &Policy,
    exchange: &Exchange,
    route: &Route,
    head: &Head<'_>,
    denial: &Denial,
) -> Option<String> {
    let relayed = exchange.relayed.as_deref().and_then(|relayed| relayed.host.as_deref());
    let resource = policy.resource_of(relayed.or(head.host.as_deref())?, &head.path)?;
    let scopes = route.rule.checks().iter().find_map(|check| match check {
        Check::Scopes { challenge, .. } => Some(challenge),
        _ => None,
    });
    let scope = match (denial.status(), scopes) {
        (StatusCode::UNAUTHORIZED, Some(scopes)) => format!(", scope=\"{scopes}\""),
        _ => String::new(),
    };
    Some(format!("{scope}, resource_metadata=\"{}\"", resource.metadata_url))
}

/// Returns the guidance for a person; `None` if the client is a program.
fn guide_person(
    policy: &Policy,
    exchange: &Exchange,
    route: &Route,
    head: &Head<'_>,
    refusal: &Refusal,
) -> Option<Guidance> {
    if exchange.format != Format::Html || !route.credential_policy.sources.cookie {
        return None;
    }
    // Without cookies there is no login page.
    let settings = policy.issuer_settings.as_deref().filter(|settings| settings.cookies.is_some())?;
    let denial = &refusal.denial;
    let is_navigation = is_navigation(head.method, head.headers);
    match denial.status() {
        StatusCode::UNAUTHORIZED => {
            // If the login page did not ask for the password, it would redirect a user with an old login straight back
            // to this route.
            let must_prove = matches!(denial, Denial::FreshTokenRequired { .. });
            let login = login(settings, head, must_prove, exchange)?;
            if route.login_page && is_navigation {
                // The address of the login page consists of visible ASCII, so the conversion succeeds.
                let redirect = HeaderValue::try_from(login).ok();
                return Some(Guidance { redirect, ..Guidance::default() });
            }
            let mut ways = PageLinks { login: Some(login), ..PageLinks::default() };
            let mut deletes = None;
            if is_navigation && is_dead(denial) && is_of_cookie(policy, route, head) {
                deletes = Some(DeadCookies::Access);
                ways.without_login = route.credential_policy.access == Access::Optional;
            }
            Some(Guidance { ways, deletes, ..Guidance::default() })
        }
        StatusCode::FORBIDDEN => {
            let Some((principal, Place::Cookie)) = &refusal.caller else { return None };
            let name = principal.subject.to_string();
            let site = site(head, exchange).unwrap_or_default();
            let page = format!("{site}{}", settings.path(Endpoint::LoginPage));
            let login = login(settings, head, true, exchange);
            let ways = PageLinks { login, account: Some(Account { name, page }), ..PageLinks::default() };
            Some(Guidance { ways, ..Guidance::default() })
        }
        _ => None,
    }
}

/// Whether a token that was refused for this reason can never be accepted. A cookie with such a token is useless, and
/// it prevents its browser from opening pages that need no login.
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
            | Denial::LifetimeTooLong
            | Denial::WrongType
            | Denial::MissingClaim(_)
            | Denial::RevokedToken
    )
}

/// Whether the refused token was in the authority's cookie.
fn is_of_cookie(policy: &Policy, route: &Route, head: &Head<'_>) -> bool {
    let found = credential::find(head, &route.credential_policy.sources, policy.trust.cookies());
    matches!(found, Ok(Some((_, Place::Cookie))))
}

/// Returns the address of the login page, with the requested page as the page to return to. With `must_prove`, the
/// login page asks for a password even if the user has a session.
fn login(
    settings: &IssuerSettings,
    head: &Head<'_>,
    must_prove: bool,
    exchange: &Exchange,
) -> Option<String> {
    let mut fields = Vec::new();
    let asked = match head.query {
        Some(query) => format!("{}?{query}", head.path),
        None => head.path.clone().into_owned(),
    };
    // Without `next`, the person returns to the root after the login. `next` is omitted if the address would exceed the
    // limits of browsers and servers. It is also omitted for a posted form, because a browser cannot repeat a form by
    // opening an address.
    if asked.len() <= NEXT_MAX && is_repeatable(head.method) {
        fields.push(format!("next={}", encoded(&asked)));
    }
    if must_prove {
        fields.push(format!("{PROMPT}={PROMPT_LOGIN}"));
    }
    let question = if fields.is_empty() { "" } else { "?" };
    let page = settings.path(Endpoint::LoginPage);
    Some(format!("{}{page}{question}{}", site(head, exchange)?, fields.join("&")))
}

/// Returns the scheme and host that precede the gateway's own paths in a link. Both are omitted unless a proxy asks
/// for a verdict: such a proxy may resolve a path without a host against the gateway (Traefik does).
fn site(head: &Head<'_>, exchange: &Exchange) -> Option<String> {
    match exchange.verdict {
        None => Some(String::new()),
        Some(_) => Some(format!("{}://{}", exchange.caller.scheme.as_str(), head.authority()?)),
    }
}
