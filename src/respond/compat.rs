//! Renders refusals as Flask-JWT-Extended does, for `[authority] compat = "flask-jwt-extended"`.
//!
//! Every refusal has the library's body (`{"msg": ...}`). If the library (version 4.7) has the same refusal, the
//! response uses the library's status (401, 422 or 400) and message. Clients compare the messages. Otherwise the
//! response uses the gateway's status and sentence. The challenge and all other header fields are kept, because the
//! library's clients ignore them.

use super::accept::Format;
use super::problem::answer;
use crate::authenticate::{NamedHeader, Source, Sources};
use crate::denial::{BodyFault, Denial, RequiredClaim, TokenPart};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use std::borrow::Cow;

/// The facts about a request on which the library's message depends, besides the route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompatRequest {
    /// Whether `Authorization` is present and not blank.
    authorization: bool,
}

impl CompatRequest {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let said = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        Self { authorization: said.is_some_and(|said| !said.trim_ascii().is_empty()) }
    }

    /// Renders a refusal. `places` are the places in which the route looks for a token. Returns `None` if the client
    /// cannot read JSON (gRPC).
    pub(crate) fn refuse(
        self,
        denial: &Denial,
        format: Format,
        places: &SearchedPlaces<'_>,
        method: &Method,
    ) -> Option<Response<Bytes>> {
        match format {
            // Browsers get JSON too. The library has no pages, and some of its clients send `Accept: text/html`.
            Format::Json | Format::Html => {}
            Format::Grpc | Format::GrpcWeb => return None,
        }
        let words = words(denial, &TokenSearch { request: self, places: *places });
        let body = format!("{}\n", serde_json::json!({ "msg": words })).into_bytes();
        Some(answer(denial, status(denial), "application/json", body, method))
    }
}

/// The places in which a route looks for a token.
#[derive(Clone, Copy, Debug)]
pub struct SearchedPlaces<'p> {
    /// The route's sources. `None` if no route was found.
    pub sources: Option<&'p Sources>,
    /// The name of the cookie that holds the token.
    pub cookie: Option<&'p str>,
    /// Whether the route expects a refresh token.
    pub refresh: bool,
}

/// The facts for the message about a missing token.
struct TokenSearch<'p> {
    request: CompatRequest,
    places: SearchedPlaces<'p>,
}

impl TokenSearch<'_> {
    /// Returns the library's message for a request without a token. It names each searched place, in the order of the
    /// library's documentation.
    fn missing(&self) -> String {
        let mut places = Vec::new();
        let mut details = Vec::new();
        let SearchedPlaces { sources, cookie, .. } = self.places;
        if sources.is_none_or(|sources| sources.header) {
            places.push("headers");
            details.push(if self.request.authorization {
                "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'"
                    .to_owned()
            } else {
                "Missing Authorization Header".to_owned()
            });
        }
        if let (true, Some(name)) = (sources.is_none_or(|sources| sources.cookie), cookie) {
            places.push("cookies");
            details.push(format!("Missing cookie \"{name}\""));
        }
        for source in sources.iter().flat_map(|sources| &sources.others) {
            let (place, detail) = match source {
                Source::Header(NamedHeader { name, prefix })
                    if *name == header::AUTHORIZATION && self.request.authorization =>
                {
                    let scheme = prefix.trim_end();
                    let detail = format!(
                        "Missing '{scheme}' type in 'Authorization' header. Expected 'Authorization: {scheme} <JWT>'"
                    );
                    ("headers", detail)
                }
                Source::Header(NamedHeader { name, .. }) if *name == header::AUTHORIZATION => {
                    ("headers", "Missing Authorization Header".to_owned())
                }
                Source::Header(NamedHeader { name, .. }) => ("headers", format!("Missing {name} Header")),
                Source::Cookie(name) => ("cookies", format!("Missing cookie \"{name}\"")),
                // The library has no API keys and reads no subprotocols.
                Source::ApiKey(name) => ("headers", format!("Missing {name} Header")),
                Source::Certificate => ("headers", "Missing client certificate".to_owned()),
                Source::WebSocket(_) => ("headers", "Missing sec-websocket-protocol Header".to_owned()),
                // The misspelling is in the library's message.
                Source::Query(name) => ("query_string", format!("Missing '{name}' query paramater")),
            };
            places.push(place);
            details.push(detail);
        }
        match (places.split_last(), &details[..]) {
            (Some((last, first)), [_, _, ..]) => {
                format!("Missing JWT in {} or {last} ({})", first.join(", "), details.join("; "))
            }
            (_, [only]) => only.clone(),
            (_, _) => "Missing Authorization Header".to_owned(),
        }
    }
}

/// Returns the library's status for the denial, or else the gateway's.
fn status(denial: &Denial) -> StatusCode {
    denial.spec().flask.map_or(denial.status(), |(status, _)| status)
}

/// Returns the library's message for the denial, or else the gateway's sentence.
fn words(denial: &Denial, search: &TokenSearch<'_>) -> Cow<'static, str> {
    Cow::Borrowed(match denial {
        Denial::MissingToken => return Cow::Owned(search.missing()),
        Denial::MalformedToken(part) => match part {
            TokenPart::Field => "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'",
            TokenPart::Shape | TokenPart::Length => "Not enough segments",
            TokenPart::Header => "Invalid header padding",
            TokenPart::Claims => "Invalid payload padding",
            // The library does not distinguish a signature of the wrong length from a wrong signature.
            TokenPart::Signature => "Signature verification failed",
            TokenPart::Critical => "Unsupported critical extension",
        },
        Denial::MissingClaim(claim) => match claim {
            RequiredClaim::Issuer => "Token is missing the \"iss\" claim",
            RequiredClaim::Audience => "Token is missing the \"aud\" claim",
            RequiredClaim::Expiry => "Token is missing the \"exp\" claim",
            RequiredClaim::Subject => "Missing claim: sub",
            RequiredClaim::SubjectText => "Subject must be a string",
            RequiredClaim::Issued => "Missing claim: iat",
            RequiredClaim::Configured => "Missing claim",
            RequiredClaim::Time => "Issued At claim (iat) must be an integer.",
        },
        Denial::WrongType if search.places.refresh => "Only refresh tokens are allowed",
        Denial::InvalidBody(BodyFault::Missing) => "Missing username, password or token",
        other => other.spec().flask.map_or(other.detail(), |(_, message)| message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn search(authorization: bool, sources: Option<&Sources>, cookie: Option<&'static str>) -> String {
        // All arguments outlive the call, so one lifetime is enough.
        TokenSearch {
            request: CompatRequest { authorization },
            places: SearchedPlaces { sources, cookie, refresh: false },
        }
        .missing()
    }

    #[test]
    fn a_missing_token_is_reported_for_each_source() {
        let only = |header, cookie, query: Option<&str>| Sources {
            header,
            cookie,
            others: query.map(|name| Source::Query(name.into())).into_iter().collect(),
        };
        let header = "Missing Authorization Header";
        let scheme =
            "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'";
        let cookie = "Missing cookie \"access_token_cookie\"";
        let named = Some("access_token_cookie");
        assert_eq!(search(false, None, None), header);
        assert_eq!(search(true, None, None), scheme);
        assert_eq!(search(false, Some(&only(false, true, None)), named), cookie);
        assert_eq!(search(true, Some(&only(false, true, None)), named), cookie);
        assert_eq!(
            search(false, Some(&Sources::default()), named),
            format!("Missing JWT in headers or cookies ({header}; {cookie})")
        );
        assert_eq!(
            search(true, Some(&only(true, true, Some("jwt"))), named),
            format!(
                "Missing JWT in headers, cookies or query_string ({scheme}; {cookie}; Missing 'jwt' query paramater)"
            )
        );
        let of = |name: &'static str, prefix: &str| {
            let named = NamedHeader { name: HeaderName::from_static(name), prefix: prefix.into() };
            Sources { others: Box::new([Source::Header(named)]), ..only(false, false, None) }
        };
        let own = of("x-token", "");
        assert_eq!(search(false, Some(&own), named), "Missing x-token Header");
        let jwt = of("authorization", "JWT ");
        assert_eq!(search(false, Some(&jwt), named), header);
        assert_eq!(
            search(true, Some(&jwt), named),
            "Missing 'JWT' type in 'Authorization' header. Expected 'Authorization: JWT <JWT>'"
        );
    }

    #[test]
    fn no_status_of_the_library_is_one_of_success_and_none_of_ours_for_other_things_changes() {
        for denial in Denial::every() {
            let status = status(&denial);
            assert!(status.is_client_error() || status.is_server_error(), "{}", denial.code());
            if !matches!(denial.status().as_u16(), 401 | 403) {
                assert_eq!(status, denial.status(), "{}", denial.code());
            }
        }
    }

    #[test]
    fn every_refusal_has_words_that_hold_nothing_of_the_request() {
        for denial in Denial::every() {
            let places = SearchedPlaces { sources: None, cookie: None, refresh: true };
            let search = TokenSearch { request: CompatRequest { authorization: true }, places };
            assert!(!words(&denial, &search).is_empty(), "{}", denial.code());
        }
    }
}
