//! Renders a refusal as a page for a person: a sentence without protocol terms, and links to continue.
//!
//! A page loads nothing and runs nothing. It is fixed text, except for the request id, the account's name and the
//! address of the login page, which are escaped.
//!
//! A page contains no secret. It does contain the requested address, in the address of the login page, and an attacker
//! may choose the requested address. If the page also contained a secret, a proxy that compresses responses could
//! reveal it (BREACH).

pub(crate) mod card;

use crate::denial::Denial;
use card::Card;
use http::StatusCode;
use std::borrow::Cow;

/// The links on a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageLinks {
    /// The address of the login page, including the address to return to.
    pub login: Option<String>,
    /// The logged-in account, which lacks the permission.
    pub account: Option<Account>,
    /// Whether the same address works without a login, because the route does not require a token and the response
    /// deletes the cookie.
    pub without_login: bool,
    /// Whether the request can be repeated unchanged.
    pub again: bool,
    /// Whether to show a link to the root of the site.
    pub home: bool,
}

/// An account that is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name of the account.
    pub name: String,
    /// The address of the page for logging out.
    pub page: String,
}

pub(super) fn page(denial: &Denial, status: StatusCode, request_id: &[u8], ways: &PageLinks) -> String {
    let (heading, sentence) = words(denial);
    let mut card = Card::begin(heading, None);
    card.gate().push("<h1>").text(heading).push("</h1>\n<p class=\"why\">").text(&sentence).push("</p>\n");
    if let Some(account) = &ways.account {
        card.push("<p class=\"note\">Logged in as <strong>").text(&account.name).push("</strong></p>\n");
    }
    let mut links: Vec<(&str, &str)> = Vec::new();
    if let Some(login) = &ways.login {
        links.push((login, if ways.account.is_some() { "Use another account" } else { "Log in" }));
    }
    // An empty reference is the address of the current page (RFC 3986 section 4.4).
    if ways.without_login {
        links.push(("", "Continue without logging in"));
    } else if ways.again && passes(status) {
        links.push(("", "Try again"));
    }
    if let Some(account) = &ways.account {
        links.push((&account.page, "Log out"));
    }
    if ways.home {
        links.push(("/", "Go to the start page"));
    }
    for (place, (address, words)) in links.into_iter().enumerate() {
        card.link(address, words, place == 0);
    }
    let reason = status.canonical_reason().unwrap_or("Refused");
    card.push("<footer>\n<p>")
        .push(status.as_str())
        .push(" ")
        .push(reason)
        .push(", <code>")
        .push(denial.code());
    card.push("</code></p>\n<p>Request <code>");
    let id: String = request_id
        .iter()
        .map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' })
        .collect();
    card.text(&id).push("</code></p>\n</footer>\n");
    card.end()
}

/// Returns whether the cause of this status may be temporary.
fn passes(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Formats a duration in words: `17 seconds`, `3 minutes`.
pub(crate) fn span(seconds: u32) -> String {
    let (count, unit) = if seconds < 120 { (seconds, "second") } else { (seconds.div_ceil(60), "minute") };
    let many = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{many}")
}

/// Returns a heading and a sentence for readers who do not know about tokens.
fn words(denial: &Denial) -> (&'static str, Cow<'static, str>) {
    let (heading, sentence) = match denial {
        Denial::BadRequest(_) | Denial::AmbiguousCredentials => (
            "This request is not accepted",
            "The address, or what your browser sent with it, has no clear meaning.",
        ),
        Denial::HeadersTooLarge => (
            "Your browser sent too much",
            "This is most often due to cookies that pile up. Delete the cookies of this site, then try again.",
        ),
        Denial::BodyTooLarge => ("Too large", "The form or file is larger than this site accepts."),
        Denial::RequestTimeout => (
            "That took too long",
            "The request did not arrive in time. Check your connection, then try again.",
        ),
        Denial::Misdirected => {
            ("Open this page again", "Your browser used a connection that is meant for another address.")
        }
        Denial::Maintenance { wait } => {
            let text =
                format!("This page is not available during maintenance. Try again in {}.", span(*wait));
            return ("Under maintenance", text.into());
        }
        Denial::NoRoute | Denial::NotFound => ("Page not found", "There is nothing at this address."),
        Denial::MethodNotAllowed(_) => {
            ("Not possible here", "This address does not accept this kind of request.")
        }
        Denial::MissingToken => ("Log in to continue", "This page is for people who are logged in."),
        Denial::ExpiredToken
        | Denial::RevokedToken
        | Denial::InactiveToken
        | Denial::UnknownToken
        | Denial::RefreshReused => ("Your session has ended", "Log in again to continue."),
        Denial::MalformedToken(_)
        | Denial::UnsupportedAlgorithm
        | Denial::UnknownIssuer
        | Denial::UnknownKey
        | Denial::BadSignature
        | Denial::TokenNotYetValid
        | Denial::WrongAudience
        | Denial::LifetimeTooLong
        | Denial::WrongType
        | Denial::MissingClaim(_)
        | Denial::UnknownApiKey
        | Denial::BoundToken
        | Denial::WrongCertificate
        | Denial::UnboundToken
        | Denial::InvalidProof(_)
        | Denial::UseDpopNonce
        | Denial::ReplayedProof => (
            "Your login is not accepted here",
            "Your session is not valid for this site. Log in again to continue.",
        ),
        Denial::FreshTokenRequired { .. } => {
            ("Confirm your password", "This page asks for a recent login. Log in again to continue.")
        }
        Denial::CsrfMissing | Denial::CsrfMismatch => (
            "This form is not accepted",
            "It was open for too long, or another site sent it. Go back, reload the page and send the form again.",
        ),
        Denial::InsufficientRole | Denial::InsufficientScope(_) | Denial::ClaimMismatch => {
            ("No access", "Your account is not allowed to do this.")
        }
        Denial::InsecureTransport => {
            ("This connection is not encrypted", "Open this page with https in place of http.")
        }
        Denial::RateLimited { wait } => {
            return ("Too many requests", format!("Try again in {}.", span(*wait)).into());
        }
        Denial::TooManyAttempts { wait } => {
            return ("Too many failed attempts", format!("Try again in {}.", span(*wait)).into());
        }
        Denial::Overloaded => {
            ("Busy right now", "This site has more requests than it can answer. Try again in a moment.")
        }
        Denial::LimitUnavailable => (
            "Not available right now",
            "The number of requests cannot be checked at the moment. Try again shortly.",
        ),
        Denial::CheckUnavailable | Denial::StoreUnavailable | Denial::LoginUnavailable => {
            ("Not available right now", "Logins cannot be checked at the moment. Try again shortly.")
        }
        Denial::UpstreamUnavailable => {
            ("Not available right now", "The service behind this page cannot be reached. Try again shortly.")
        }
        Denial::UpstreamTimeout => (
            "No answer in time",
            "The service behind this page took too long to answer. It may have done what you asked for.",
        ),
        Denial::UpstreamFailed => {
            ("Something went wrong", "The service behind this page sent an invalid response.")
        }
        Denial::BadCredentials | Denial::AccountDisabled => ("Login failed", denial.detail()),
        // Only programs receive these refusals.
        Denial::InvalidBody(_)
        | Denial::ProofWithCookies
        | Denial::UnsupportedMediaType
        | Denial::UntrustedProxy
        | Denial::InvalidClient
        | Denial::InvalidScope
        | Denial::UnsupportedGrantType
        | Denial::UnauthorizedClient => ("This request is not accepted", denial.detail()),
    };
    (heading, sentence.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ways() -> PageLinks {
        PageLinks {
            login: Some("/auth/login?next=/a%3Fb&prompt=login".to_owned()),
            account: Some(Account { name: "ada".to_owned(), page: "/auth/login".to_owned() }),
            without_login: false,
            again: true,
            home: true,
        }
    }

    /// Returns the addresses and texts of the links, in order.
    fn links(page: &str) -> Vec<(String, String)> {
        let rest = page.split("<a ").skip(1);
        rest.map(|link| {
            let address = link.split_once("href=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
            let words = link.split_once('>').unwrap().1.split_once('<').unwrap().0.to_owned();
            (address, words)
        })
        .collect()
    }

    #[test]
    fn every_page_names_status_code_and_request_and_speaks_to_people() {
        for denial in Denial::every() {
            let page = page(&denial, denial.status(), b"01J-id", &ways());
            for text in [denial.code(), denial.status().as_str(), "01J-id", "<h1>", "href=\"/\""] {
                assert!(page.contains(text), "{text}");
            }
            let (heading, sentence) = words(&denial);
            assert!(page.contains(&format!("<title>{heading}</title>")), "{heading}");
            assert!(sentence.ends_with('.'), "{sentence}");
            if matches!(denial.status().as_u16(), 401 | 403 | 404 | 429 | 500..) {
                for jargon in ["token", "CSRF", "claim", "scope", "upstream", "JSON"] {
                    let is_of_a_program = matches!(denial, Denial::InvalidClient | Denial::UntrustedProxy);
                    assert!(is_of_a_program || !sentence.contains(jargon), "{jargon}: {sentence}");
                }
            }
        }
    }

    #[test]
    fn each_refusal_offers_the_ways_on_that_help() {
        let reported = |denial: &Denial, ways: &PageLinks| {
            let links = links(&page(denial, denial.status(), b"id", ways));
            links.iter().map(|(_, words)| words.clone()).collect::<Vec<_>>()
        };
        let nobody = PageLinks { account: None, ..ways() };
        assert_eq!(reported(&Denial::MissingToken, &nobody), ["Log in", "Go to the start page"]);
        let guest = PageLinks { without_login: true, ..nobody.clone() };
        assert_eq!(
            reported(&Denial::RevokedToken, &guest),
            ["Log in", "Continue without logging in", "Go to the start page"]
        );
        assert_eq!(
            reported(&Denial::InsufficientRole, &ways()),
            ["Use another account", "Log out", "Go to the start page"]
        );
        let plain = PageLinks { login: None, ..nobody };
        for (denial, again) in [
            (Denial::NoRoute, false),
            (Denial::RateLimited { wait: 7 }, true),
            (Denial::UpstreamUnavailable, true),
            (Denial::UpstreamTimeout, true),
            (Denial::UpstreamFailed, true),
            (Denial::BadRequest(crate::denial::Malformed::DotSegment), false),
        ] {
            let expected: &[&str] =
                if again { &["Try again", "Go to the start page"] } else { &["Go to the start page"] };
            assert_eq!(reported(&denial, &plain), expected, "{denial:?}");
        }
        assert_eq!(reported(&Denial::NoRoute, &PageLinks::default()), [""; 0]);
        let wait = page(&Denial::RateLimited { wait: 7 }, StatusCode::TOO_MANY_REQUESTS, b"id", &plain);
        assert!(wait.contains("Try again in 7 seconds."), "{wait}");
    }

    #[test]
    fn a_span_of_time_is_said_in_words() {
        for (seconds, words) in
            [(1, "1 second"), (61, "61 seconds"), (119, "119 seconds"), (121, "3 minutes")]
        {
            assert_eq!(span(seconds), words);
        }
    }

    #[test]
    fn a_request_id_cannot_open_an_element() {
        let page = page(&Denial::NoRoute, StatusCode::NOT_FOUND, b"<b>&\xff\x1b", &PageLinks::default());
        assert!(page.contains("&lt;b&gt;&amp;??</code>"), "{page}");
    }

    proptest! {
        #[test]
        fn nothing_of_a_request_opens_an_element_or_ends_a_value(text in "[ -~\\x00-\\x1f\u{e9}\u{202e}]{1,40}") {
            let marks = |text: &str| {
                let account = Account { name: text.to_owned(), page: text.to_owned() };
                let ways = PageLinks { login: Some(text.to_owned()), account: Some(account), ..ways() };
                let page = page(&Denial::InsufficientRole, StatusCode::FORBIDDEN, text.as_bytes(), &ways);
                page.matches(['<', '>', '"', '\'']).count()
            };
            prop_assert_eq!(marks(&text), marks("x"));
        }
    }
}
