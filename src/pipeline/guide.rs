//! Helps a person to continue after a refusal, by a redirect to the login page or by links on the refusal page.

use super::exchange::Exchange;
use super::rejection::{DeadCookies, Guidance, SchemeOffer};
use crate::authenticate::{Access, Place, credential};
use crate::authority::{Endpoint, IssuerSettings, NEXT_MAX, PROMPT, PROMPT_LOGIN, encoded};
use crate::authorize::{Check, Refusal};
use crate::denial::Denial;
use crate::policy::{Policy, Route};
use crate::respond::page::Account;
use crate::respond::{Format, PageLinks, is_navigation, is_repeatable};
use crate::route::Head;
use http::{HeaderValue, StatusCode};

/// Returns the guidance for a client after a refusal. A person gets links or a redirect. A program gets challenge
/// parameters with the URL of the resource's metadata.
#[cold]
pub(super) fn guide(
    policy: &Policy,
    exchange: &Exchange,
    route: &Route,
    head: &Head<'_>,
    refusal: &Refusal,
) -> Option<Guidance> {
    let challenge = challenge(policy, exchange, route, head, &refusal.denial);
    let dpop = dpop_offer(policy, route, head, &refusal.denial);
    let api_keys = api_key_offer(route, &refusal.denial, dpop);
    let guidance = guide_person(policy, exchange, route, head, refusal);
    if challenge.is_none() && dpop == SchemeOffer::None && api_keys == SchemeOffer::None {
        return guidance;
    }
    Some(Guidance { challenge, dpop, api_keys, ..guidance.unwrap_or_default() })
}

/// Returns how the answer offers API keys. Beside a challenge for tokens they are offered only to a caller that has yet
/// to authenticate.
fn api_key_offer(route: &Route, denial: &Denial, dpop: SchemeOffer) -> SchemeOffer {
    let sources = &route.credential_policy.sources;
    match (sources.takes_api_keys(), sources.header) {
        (false, _) => SchemeOffer::None,
        (true, false) => SchemeOffer::Only,
        (true, true) if denial.status() == StatusCode::UNAUTHORIZED && dpop != SchemeOffer::Only => {
            SchemeOffer::Beside
        }
        (true, true) => SchemeOffer::None,
    }
}

/// Returns how the answer offers DPoP. A client that used the scheme `DPoP`, or a route that requires a bound token, gets
/// only the challenge for DPoP.
fn dpop_offer(policy: &Policy, route: &Route, head: &Head<'_>, denial: &Denial) -> SchemeOffer {
    let sources = &route.credential_policy.sources;
    // No proof of a key replaces a certificate.
    if !sources.header || matches!(denial, Denial::WrongCertificate) {
        return SchemeOffer::None;
    }
    let is_bound = |check: &Check| matches!(check, Check::Bound);
    let uses_dpop =
        || matches!(credential::find(head, sources, policy.trust.cookies()), Ok(Some((_, Place::Dpop))));
    if route.rule.checks().iter().any(is_bound) || uses_dpop() {
        SchemeOffer::Only
    } else if policy.trust.dpop().settings().announce {
        SchemeOffer::Beside
    } else {
        SchemeOffer::None
    }
}

/// Returns the challenge parameters for a protected resource. They contain the URL of the metadata (RFC 9728 section
/// 5.1). A 401 also contains the scopes that the route requires (RFC 6750 section 3).
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

/// Returns the guidance for a person, or `None` if the client is a program.
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
    // Without cookies, there is no login page.
    let settings = policy.issuer_settings.as_deref().filter(|settings| settings.cookies.is_some())?;
    let denial = &refusal.denial;
    let is_navigation = is_navigation(head.method, head.headers);
    match denial.status() {
        StatusCode::UNAUTHORIZED => {
            // The login page must ask for the password. Otherwise it would redirect a user with an old login back to
            // this route at once.
            let must_prove = matches!(denial, Denial::FreshTokenRequired { .. });
            let login = login(settings, head, must_prove, exchange)?;
            if route.login_page && is_navigation {
                // The address of the login page is visible ASCII, so the conversion succeeds.
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

/// Returns whether a token that was refused for this reason can never be accepted. A cookie with such a token is
/// useless, and prevents the browser from opening pages that need no login.
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
            | Denial::BoundToken
            | Denial::WrongCertificate
            | Denial::RevokedToken
            | Denial::InactiveToken
    )
}

/// Returns whether the refused token was in the authority's cookie.
fn is_of_cookie(policy: &Policy, route: &Route, head: &Head<'_>) -> bool {
    let found = credential::find(head, &route.credential_policy.sources, policy.trust.cookies());
    matches!(found, Ok(Some((_, Place::Cookie))))
}

/// Returns the address of the login page, with the requested page in `next`. With `must_prove`, the login page asks for
/// the password even if the user has a session.
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
    // Without `next`, the user returns to the site's root after the login. A long address could exceed the limits of
    // browsers and servers. A browser cannot repeat a posted form by opening an address.
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

/// Returns the scheme and host for a link to one of the gateway's paths. They are needed only in a verdict: the other
/// proxy may resolve a path against the gateway's host (Traefik does).
fn site(head: &Head<'_>, exchange: &Exchange) -> Option<String> {
    match exchange.verdict {
        None => Some(String::new()),
        Some(_) => Some(format!("{}://{}", exchange.caller.scheme.as_str(), head.authority()?)),
    }
}
