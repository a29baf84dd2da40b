//! Fetches a key set. If the policy names metadata, the metadata is fetched first. The request for the key set contains
//! the validator of the last set, so that an unchanged set is not sent again.

use super::discovery::endpoint_of;
use super::{KeySource, Location};
use crate::outbound::{self, Answer, Bounds, Client, Error, Url, quoted};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::fmt;
use std::time::{Duration, Instant};

/// The bounds of one exchange. A set of a hundred large keys has 60 kB.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), body: 1 << 20 };
/// The time for which the URL from an issuer's metadata is used before the metadata are read again.
pub(crate) const METADATA_AGE: Duration = Duration::from_secs(3600);
/// The longest `ETag` that is sent back.
const ETAG_MAX: usize = 512;

/// The answer to a fetch.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// A key set, not parsed yet.
    Set {
        /// The text of the key set.
        body: Bytes,
        /// The URL of the key set.
        url: Url,
        /// The `ETag` of the response.
        etag: Option<HeaderValue>,
        /// The time for which the set may be used without another fetch, if the response states it.
        fresh: Option<Duration>,
    },
    /// The last set is still current.
    NotModified {
        /// As for `Set`.
        fresh: Option<Duration>,
    },
}

impl Fetched {
    /// Returns the time for which the set may be used without another fetch, if the response states it.
    pub const fn fresh(&self) -> Option<Duration> {
        match self {
            Self::Set { fresh, .. } | Self::NotModified { fresh } => *fresh,
        }
    }
}

/// The reason why a fetch gave no set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// A short name for metrics.
    pub kind: &'static str,
    /// The reason, for the operator.
    pub why: String,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl FetchError {
    fn at(url: &Url, error: &outbound::Error) -> Self {
        Self { kind: error.kind(), why: format!("{url}: {error}") }
    }

    pub(crate) fn of_content(url: &Url, why: &str) -> Self {
        Self { kind: "content", why: format!("{url}: {why}") }
    }
}

impl KeySource {
    /// Fetches the set. The fetch may need several exchanges, each with its bounds.
    ///
    /// # Errors
    /// Returns an error if there is no answer, or if the answer is neither a document nor a confirmation of the last
    /// set.
    pub async fn fetch(&self) -> Result<Fetched, FetchError> {
        let url = match &self.settings.location {
            Location::KeySet(url) => url.clone(),
            Location::Metadata(urls) => self.discovered(urls).await?,
        };
        let known = self.state().validator(&url);
        let mut headers = accept("application/jwk-set+json, application/json");
        if let Some(etag) = &known {
            headers.insert(header::IF_NONE_MATCH, etag.clone());
        }
        let answer = self.client.get(&url, headers, BOUNDS).await;
        let fetched = answer.and_then(|answer| read(answer, url.clone(), known.is_some()));
        fetched.map_err(|error| {
            // The keys may have moved.
            self.state().metadata = None;
            FetchError::at(&url, &error)
        })
    }

    /// Returns the URL of the key set according to the issuer's metadata.
    async fn discovered(&self, urls: &[Url]) -> Result<Url, FetchError> {
        let known = self.state().metadata.clone();
        if let Some((url, _)) = known.filter(|(_, read)| read.elapsed() < METADATA_AGE) {
            return Ok(url);
        }
        let wanted = MetadataMember {
            issuer: self.settings.owner.name(),
            name: "jwks_uri",
            allows_http: self.settings.allows_http,
        };
        let found = wanted.fetch(&self.client, urls, BOUNDS).await?;
        self.state().metadata = Some((found.clone(), Instant::now()));
        Ok(found)
    }
}

/// A URL in an issuer's metadata.
pub(crate) struct MetadataMember<'m> {
    /// The issuer, which the metadata must name.
    pub(crate) issuer: &'m str,
    /// The name of the member that contains the URL.
    pub(crate) name: &'static str,
    /// Whether the URL may be `http`.
    pub(crate) allows_http: bool,
}

impl MetadataMember<'_> {
    /// Fetches the metadata and returns the URL. Tries `urls` in turn until one of them answers.
    ///
    /// # Errors
    /// Returns an error if no URL serves metadata of the issuer, or if the metadata do not contain an allowed URL.
    pub(crate) async fn fetch(
        &self,
        client: &Client,
        urls: &[Url],
        bounds: Bounds,
    ) -> Result<Url, FetchError> {
        let mut failed = None;
        for url in urls {
            let answer = client.get(url, accept("application/json"), bounds).await.and_then(Answer::ok);
            let outcome = match answer {
                Ok(answer) => endpoint_of(&answer.body, self.issuer, self.name)
                    .map_err(|why| FetchError::of_content(url, &why)),
                Err(error) => {
                    let is_answer = matches!(error, Error::Status(_) | Error::Redirect(..));
                    let error = FetchError::at(url, &error);
                    if !is_answer {
                        return Err(failed.unwrap_or(error));
                    }
                    Err(error)
                }
            };
            match outcome {
                Ok(found) if !found.is_https() && !self.allows_http => {
                    let shown = quoted(found.to_string().as_bytes());
                    let why = format!("{} {shown}: {}", self.name, Error::Cleartext);
                    return Err(FetchError::of_content(url, &why));
                }
                Ok(found) => return Ok(found),
                // Most issuers use the first form, so its error is reported.
                Err(error) => failed = Some(failed.unwrap_or(error)),
            }
        }
        let none = || FetchError { kind: "content", why: "there is no URL for the metadata".to_owned() };
        Err(failed.unwrap_or_else(none))
    }
}

fn accept(types: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(types))])
}

fn read(answer: Answer, url: Url, is_conditional: bool) -> Result<Fetched, Error> {
    let fresh = fresh_for(&answer.headers);
    if answer.status == StatusCode::NOT_MODIFIED && is_conditional {
        return Ok(Fetched::NotModified { fresh });
    }
    let Answer { headers, body, .. } = answer.ok()?;
    let etag = headers.get(header::ETAG).filter(|etag| etag.len() <= ETAG_MAX).cloned();
    Ok(Fetched::Set { body, url, etag, fresh })
}

/// Returns how long an answer may be used: `max-age` less `Age` (RFC 9111 sections 4.2.1 and 5.2.2). Returns `None`
/// without `max-age`, and if the answer forbids caching, as key servers often do. The interval of the policy then
/// applies.
fn fresh_for(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |text: &str| text.trim().trim_matches('"').parse::<u32>().ok();
    let fields = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|field| field.to_str().ok());
    let mut max_age = None;
    for directive in fields.flat_map(|field| field.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match &*name.trim().to_ascii_lowercase() {
            "no-cache" | "no-store" => return None,
            "max-age" => max_age = max_age.or(seconds(value)),
            _ => {}
        }
    }
    let age = headers.get(header::AGE).and_then(|age| seconds(age.to_str().ok()?)).unwrap_or(0);
    Some(Duration::from_secs(max_age?.saturating_sub(age).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_that_of_the_field_less_the_age() {
        for (control, age, fresh) in [
            ("max-age=600", "", Some(600)),
            ("public, Max-Age=600, must-revalidate", "100", Some(500)),
            ("max-age=600", "700", Some(0)),
            ("max-age=\"600\"", "", Some(600)),
            ("no-cache", "", None),
            ("max-age=600, no-store", "", None),
            ("max-age=soon", "", None),
            ("max-age=99999999999999", "", None),
            ("private", "", None),
            ("", "", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, control.parse().unwrap());
            if !age.is_empty() {
                headers.insert(header::AGE, age.parse().unwrap());
            }
            assert_eq!(fresh_for(&headers), fresh.map(Duration::from_secs), "{control} {age}");
        }
    }
}
