//! The trailers of a request. They reach the upstream only if the route lists their names.

use crate::field_list::members;
use crate::http1::RequestFraming;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use std::sync::Arc;

/// The maximum number of trailers of a request that are forwarded.
const LINES_MAX: usize = 16;
/// The maximum size of the names and values of these trailers, in bytes.
const BYTES_MAX: usize = 8 * 1024;

/// The names of the trailers that may follow the body of one request.
#[derive(Clone, Debug)]
pub(crate) struct RequestTrailers(Arc<[HeaderName]>);

/// The request has too many trailers, or they are too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) struct TooManyTrailers;

impl RequestTrailers {
    /// Returns the trailers that may follow a streamed body. `listed` are the names that the route lists.
    ///
    /// A body with a length has no trailers over HTTP/1.1 (RFC 9112 section 6.1). Over HTTP/2 it can have both; the length
    /// is then forwarded, unless the client announces a listed trailer.
    #[cold]
    pub(in crate::forward) fn of(
        listed: &Arc<[HeaderName]>,
        parts: &Parts,
        framing: RequestFraming,
    ) -> Option<Self> {
        let is_named = |field: &HeaderName, name: &HeaderName| {
            members(&parts.headers, field).any(|member| member.eq_ignore_ascii_case(name.as_str().as_bytes()))
        };
        // `Connection` also names trailers that are not forwarded (RFC 9110 section 7.6.1).
        let is_removed = |name: &&HeaderName| is_named(&header::CONNECTION, name);
        let names = match listed.iter().any(|name| is_removed(&name)) {
            false => listed.clone(),
            true => listed.iter().filter(|name| !is_removed(name)).cloned().collect(),
        };
        let may_follow = match framing {
            RequestFraming::None => false,
            RequestFraming::Chunked => true,
            RequestFraming::Length(_) => {
                parts.version == Version::HTTP_2 && names.iter().any(|name| is_named(&header::TRAILER, name))
            }
        };
        (may_follow && !names.is_empty()).then_some(Self(names))
    }

    /// Returns the value of `Trailer` (RFC 9110 section 6.6.2).
    pub(in crate::forward) fn announcement(&self) -> Option<HeaderValue> {
        let names: Vec<&str> = self.0.iter().map(HeaderName::as_str).collect();
        HeaderValue::try_from(names.join(", ")).ok()
    }

    /// Removes all other trailers.
    ///
    /// # Errors
    /// Refuses trailers beyond the bounds. A part of them could mislead the upstream.
    pub(in crate::forward) fn select(&self, mut trailers: HeaderMap) -> Result<HeaderMap, TooManyTrailers> {
        let unlisted: Vec<HeaderName> =
            trailers.keys().filter(|name| !self.0.contains(name)).cloned().collect();
        for name in unlisted {
            trailers.remove(name);
        }
        let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if trailers.len() > LINES_MAX || bytes > BYTES_MAX {
            return Err(TooManyTrailers);
        }
        Ok(trailers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_listed_trailers_within_the_bounds_pass(
            listed in proptest::collection::btree_set(0..6usize, 1..4),
            sent in proptest::collection::vec((0..6usize, 0..3000usize), 0..20),
        ) {
            let name = |number: &usize| HeaderName::try_from(format!("x-{number}")).unwrap();
            let list = RequestTrailers(listed.iter().map(name).collect());
            let mut trailers = HeaderMap::new();
            for (number, length) in &sent {
                trailers.append(name(number), HeaderValue::try_from("v".repeat(*length)).unwrap());
            }
            let passing: Vec<_> = sent.iter().filter(|(number, _)| listed.contains(number)).collect();
            let bytes: usize = passing.iter().map(|(_, length)| 3 + length).sum();
            match list.select(trailers.clone()) {
                Ok(left) => {
                    prop_assert!(passing.len() <= LINES_MAX && bytes <= BYTES_MAX);
                    prop_assert_eq!(left.len(), passing.len());
                    for number in &listed {
                        let lines = |map: &HeaderMap| -> Vec<_> {
                            map.get_all(name(number)).iter().cloned().collect()
                        };
                        prop_assert_eq!(lines(&left), lines(&trailers));
                    }
                }
                Err(TooManyTrailers) => prop_assert!(passing.len() > LINES_MAX || bytes > BYTES_MAX),
            }
        }
    }
}
