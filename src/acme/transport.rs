//! Sends the requests of the ACME library through the gateway's own client, with its bounds and its choice of
//! addresses. RFC 8555 section 6.1 requires https.

use super::failure::shown;
use super::{Failure, Settings};
use crate::clock::Now;
use crate::outbound::{self, Answer, Bounds, Client, Error, Url};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use serde_json::Value;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The bounds of one exchange. A directory, an order with 100 domains and a certificate chain are much smaller.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(30), body: 256 * 1024 };
/// The longest time that the gateway waits because a server asks for it. The longest rate limit of Let's Encrypt
/// counts a week.
const WAIT_MAX: u64 = 7 * 86_400;

/// Facts of answers that the library does not return.
#[derive(Debug, Default)]
struct Noted {
    /// The time before which the server wants no further request.
    not_before: Option<u64>,
    /// The URL of the terms of service.
    terms: Option<String>,
}

/// A client for one attempt. Clones share their notes.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    client: Client,
    directory: Url,
    noted: Arc<Mutex<Noted>>,
}

impl Transport {
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        let client = Client::new(outbound::Settings {
            roots: settings.roots.clone(),
            networks: settings.networks.clone(),
            allows_http: false,
            idle: 1,
        });
        let client = client.map_err(|why| Failure::of("tls", why))?;
        Ok(Self { client, directory: settings.directory.clone(), noted: Arc::default() })
    }

    /// Returns the terms of service that the directory names.
    pub(super) fn terms(&self) -> Option<String> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).terms.clone()
    }

    /// Adds the server's `Retry-After` to a failure.
    pub(super) fn explain(&self, mut failure: Failure) -> Failure {
        failure.not_before = self.noted.lock().unwrap_or_else(PoisonError::into_inner).not_before;
        failure
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(Error::Protocol)?;
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let mut headers = parts.headers;
        headers.remove(header::USER_AGENT);
        let answer = self.client.send(parts.method, &url, headers, body, BOUNDS).await?;
        self.admit(&url, answer)
    }

    /// Notes the facts of an answer, and refuses what the library cannot handle.
    pub(super) fn admit(&self, url: &Url, mut answer: Answer) -> Result<BytesResponse, Error> {
        let now = Now::read().unix;
        let not_before = retry_after(&answer.headers, now);
        state_wait(&mut answer.headers, not_before.map(|until| until.saturating_sub(now)));
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.status.is_client_error() || answer.status.is_server_error() {
            noted.not_before = not_before;
            // An error of a proxy in front of the server has no problem document.
            if !is_json(&answer.headers) {
                return Err(Error::Status(answer.status));
            }
        } else if answer.status.is_redirection() && answer.headers.contains_key(header::LOCATION) {
            return Err(answer.ok().err().unwrap_or_else(|| Error::Protocol("a redirect".to_owned())));
        } else if *url == self.directory {
            let directory = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
            // instant-acme 0.8.5 can panic when it uses this URL. It checks the other URLs itself.
            if let Some(Err(why)) = directory["newNonce"].as_str().map(Url::parse) {
                return Err(Error::Protocol(format!("newNonce of the directory: {why}")));
            }
            noted.terms = directory["meta"]["termsOfService"].as_str().map(shown);
        }
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(BytesResponse::from(response))
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let ours = self.clone();
        Box::pin(async move {
            ours.send(request).await.map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

/// Replaces a `Retry-After` by these seconds, or removes one that cannot be read, because instant-acme 0.8.5 can panic when it
/// reads the field.
fn state_wait(headers: &mut HeaderMap, seconds: Option<u64>) {
    if let header::Entry::Occupied(mut entry) = headers.entry(header::RETRY_AFTER) {
        match seconds {
            Some(seconds) => drop(entry.insert(seconds.into())),
            None => drop(entry.remove()),
        }
    }
}

/// Returns the time of a `Retry-After` (RFC 9110 section 10.2.3), at most [`WAIT_MAX`] from `now`.
fn retry_after(headers: &HeaderMap, now: u64) -> Option<u64> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let at = match text.parse::<u64>() {
        Ok(seconds) => now.saturating_add(seconds),
        Err(_) => {
            let date = text.parse::<httpdate::HttpDate>().ok()?;
            std::time::SystemTime::from(date).duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()
        }
    };
    Some(at.clamp(now, now + WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = 1_800_000_000;
        for (text, at) in [
            ("60", Some(now + 60)),
            (" 0 ", Some(now)),
            ("99999999999999", Some(now + WAIT_MAX)),
            ("Fri, 15 Jan 2027 08:00:30 GMT", Some(now + 30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(now)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&headers, now), at, "{text}");
            state_wait(&mut headers, at.map(|until| until - now));
            assert_eq!(retry_after(&headers, now), at, "{text}: as the library gets it");
            assert_eq!(headers.contains_key(header::RETRY_AFTER), at.is_some(), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_problem_document_is_json_and_a_page_is_not() {
        for (kind, json) in [
            ("application/problem+json", true),
            ("application/json; charset=utf-8", true),
            ("text/html", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_json(&headers), json, "{kind}");
        }
    }
}
