//! Sends a question (RFC 7662 section 2.1) and returns the answer, which is not read yet.

use super::{Authentication, Endpoint, Introspector};
use crate::clock::Now;
use crate::hex;
use crate::key_source::{FetchError, METADATA_AGE, MetadataMember};
use crate::outbound::{self, Answer, Bounds, Error, Url, quoted};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::time::Instant;
use zeroize::Zeroizing;

/// The maximum size of an answer in bytes. A signed answer fits into a token's maximum length.
const ANSWER_MAX: usize = 64 * 1024;
/// The maximum size of an issuer's metadata in bytes.
const METADATA_MAX: usize = 1 << 20;
/// The media type of signed answers (RFC 9701 section 4).
const SIGNED: &str = "application/token-introspection+jwt";
/// The media type of plain answers.
const JSON: &str = "application/json";

/// An answer that is not read yet. It has the media type that the gateway asked for.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The text: JSON, or a JWT if answers are signed.
    pub body: Bytes,
    /// When the question was sent, in seconds since 1970.
    pub asked: u64,
}

fn at(url: &Url, error: &outbound::Error) -> FetchError {
    let hint = match error {
        Error::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            ": the issuer refuses the gateway's credentials"
        }
        _ => "",
    };
    FetchError { kind: error.kind(), why: format!("{url}: {error}{hint}") }
}

impl Introspector {
    /// Asks the issuer about a token.
    ///
    /// # Errors
    /// Returns an error if there is no answer, or if its media type is not the one that the gateway asked for.
    pub async fn ask(&self, token: &str) -> Result<Answered, FetchError> {
        let bounds = Bounds { time: self.settings.timeout, body: ANSWER_MAX };
        let url = match &self.settings.endpoint {
            Endpoint::Url(url) => url.clone(),
            Endpoint::Metadata(urls) => self.discovered(urls).await?,
        };
        let wanted = if self.settings.signed_for.is_some() { SIGNED } else { JSON };
        let (headers, body) = question(&self.settings.authentication, token, wanted);
        let asked = Now::read().unix;
        let answer = self.client.post(&url, headers, body, bounds).await.and_then(Answer::ok);
        let answer = answer.map_err(|error| {
            // The endpoint may have moved.
            if matches!(error, Error::Status(StatusCode::NOT_FOUND) | Error::Redirect(..) | Error::Connect(_))
            {
                self.state().metadata = None;
            }
            at(&url, &error)
        })?;
        let kind = answer.headers.get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if !essence.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Err(FetchError::of_content(
                &url,
                &format!("the answer is {}, not {wanted}", quoted(essence)),
            ));
        }
        Ok(Answered { body: answer.body, asked })
    }

    /// Returns the endpoint according to the issuer's metadata.
    async fn discovered(&self, urls: &[Url]) -> Result<Url, FetchError> {
        let known = self.state().metadata.clone();
        if let Some((url, _)) = known.filter(|(_, read)| read.elapsed() < METADATA_AGE) {
            return Ok(url);
        }
        let wanted = MetadataMember {
            issuer: &self.settings.issuer,
            name: "introspection_endpoint",
            allows_http: self.settings.allows_http,
        };
        let bounds = Bounds { time: self.settings.timeout, body: METADATA_MAX };
        let found = wanted.fetch(&self.client, urls, bounds).await?;
        self.state().metadata = Some((found.clone(), Instant::now()));
        Ok(found)
    }
}

/// Returns the fields and the form of a question.
fn question(authentication: &Authentication, token: &str, accept: &'static str) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let mut form = String::from("token=");
    encode(&mut form, token);
    form.push_str("&token_type_hint=access_token");
    let credential = match authentication {
        Authentication::None => None,
        Authentication::Basic(id, secret) => {
            // Both are encoded as in a form before they are joined (RFC 6749 section 2.3.1).
            let mut pair = Zeroizing::new(String::new());
            encode(&mut pair, id);
            pair.push(':');
            encode(&mut pair, secret);
            Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair))))
        }
        Authentication::Post(id, secret) => {
            form.push_str("&client_id=");
            encode(&mut form, id);
            form.push_str("&client_secret=");
            encode(&mut form, secret);
            None
        }
        Authentication::Bearer(token) => Some(Zeroizing::new(format!("Bearer {}", &**token))),
    };
    // The compiler of the policy rejects a secret that no field may have.
    if let Some(Ok(mut value)) = credential.map(|text| HeaderValue::from_str(&text)) {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    (headers, Bytes::from(form))
}

/// Appends a value as a form has it: every byte other than a letter, a digit, `-`, `.`, `_` and `~` is a percent code.
fn encode(form: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            form.push(char::from(byte));
        } else {
            hex::push_percent_code(form, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn the_credentials_are_where_the_method_puts_them() {
        let (id, secret) = (|| text("the gateway"), || text("a:b+c/ü"));
        for (authentication, authorization, form) in [
            (Authentication::None, None, ""),
            (
                Authentication::Basic(id(), secret()),
                Some(format!("Basic {}", STANDARD.encode("the%20gateway:a%3Ab%2Bc%2F%C3%BC"))),
                "",
            ),
            (
                Authentication::Post(id(), secret()),
                None,
                "&client_id=the%20gateway&client_secret=a%3Ab%2Bc%2F%C3%BC",
            ),
            (Authentication::Bearer(text("s3cret")), Some("Bearer s3cret".to_owned()), ""),
        ] {
            let (headers, body) = question(&authentication, "a+b=", JSON);
            let sent = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(sent, authorization, "{authentication:?}");
            let expected = format!("token=a%2Bb%3D&token_type_hint=access_token{form}");
            assert_eq!(body, expected.as_bytes(), "{authentication:?}");
            assert!(!format!("{authentication:?} {headers:?}").contains("s3cret"));
        }
    }
}
