//! Describes for the operator the places in which a request has credentials that the gateway cannot use.

use super::credential::{CookieNames, authorization, cookie, token};
use super::error::CredentialError;
use super::sources::{Source, Sources};
use crate::denial::{Denial, TokenPart};
use crate::route::Head;

/// Builds the error for a request with more than one credential, or with one that does not have the form of its place.
/// The description contains no credential.
#[cold]
pub(super) fn describe(
    denial: Denial,
    head: &Head<'_>,
    sources: &Sources,
    cookies: Option<&CookieNames>,
) -> CredentialError {
    let mut spots = spots(head, sources, cookies).into_iter();
    let detail = match &denial {
        Denial::AmbiguousCredentials => {
            let used: Vec<String> = spots.filter_map(Spot::used).collect();
            Some(format!("more than one credential: {}", used.join(", ")))
        }
        Denial::MalformedToken(TokenPart::Field) => spots.find_map(Spot::flaw),
        _ => None,
    };
    match detail {
        Some(detail) => CredentialError::because(denial, detail),
        None => denial.into(),
    }
}

/// A place in which a route looks for a credential.
struct Spot<'r> {
    /// The name of the place.
    name: String,
    /// The description of a value without the form that the place requires.
    form: String,
    /// The credential in this place.
    found: Result<Option<&'r [u8]>, Denial>,
}

impl Spot<'_> {
    /// Returns the name of the place if it has a credential.
    fn used(self) -> Option<String> {
        match self.found {
            Ok(None) => None,
            Err(Denial::AmbiguousCredentials) => Some(format!("{} twice", self.name)),
            Ok(Some(_)) | Err(_) => Some(self.name),
        }
    }

    /// Returns why the credential in this place is not one token.
    fn flaw(self) -> Option<String> {
        match self.found {
            Ok(None) => None,
            Ok(Some(credential)) if token(credential).is_ok() => None,
            Ok(Some([])) => Some(format!("{} is empty", self.name)),
            Ok(Some(_)) if self.name == AUTHORIZATION => Some(self.form),
            Ok(Some(_)) => Some(format!("{} contains a character that no token contains", self.name)),
            Err(_) => Some(self.form),
        }
    }
}

/// The name of the usual place, in which the scheme precedes the token.
const AUTHORIZATION: &str = "Authorization";

/// Returns the places that the route searches, in the order of the search.
fn spots<'r>(head: &Head<'r>, sources: &Sources, cookies: Option<&CookieNames>) -> Vec<Spot<'r>> {
    let mut spots = Vec::new();
    if sources.header {
        let found = authorization(head.headers).map(|found| found.map(|(credential, _)| credential));
        let form = TokenPart::Field.reason().to_owned();
        spots.push(Spot { name: AUTHORIZATION.to_owned(), form, found });
    }
    if let (true, Some(names)) = (sources.cookie, cookies) {
        let name = format!("the cookie {}", names.access);
        spots.push(Spot { form: name.clone(), name, found: cookie(head.headers, &names.access) });
    }
    for source in &sources.others {
        let (name, form) = match source {
            Source::Header(named) => {
                (named.name.to_string(), format!("{} does not begin with {:?}", named.name, named.prefix))
            }
            Source::WebSocket(marker) => (
                format!("Sec-WebSocket-Protocol after {marker}"),
                format!("Sec-WebSocket-Protocol has no token after {marker}"),
            ),
            Source::ApiKey(name) => (
                format!("{name} (or Authorization: ApiKey)"),
                "Authorization is not ApiKey, one space, one key".to_owned(),
            ),
            // These places require no form.
            Source::Cookie(name) => (format!("the cookie {name}"), String::new()),
            Source::Query(name) => (format!("the query field {name}"), String::new()),
            Source::Certificate => continue,
        };
        spots.push(Spot { name, form, found: source.find(head) });
    }
    spots
}
