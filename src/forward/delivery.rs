//! The forwarding settings of a route, and the choice between upstreams that share its requests.
//!
//! The choice depends on the request and the policy only, so all gateways and all cores choose the same upstream. It
//! comes after the decision: every upstream of a route has the route's rule.

use super::head::edits::{AnswerFields, Edits};
use super::head::proof::Audience;
use super::head::rewrite::Rewrite;
use super::notes::Notes;
use super::upstream::Upstream;
use super::upstream::balance::{HashBy, KeyFacts, hash_of_name, key_of_request, rank};
use super::upstream::counters::UpstreamCounters;
use crate::request_id::RequestId;
use crate::route::Fields;
use crate::route::field::Field;
use http::HeaderName;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The time that a WebSocket may be silent, unless its route says otherwise. Most services send pings more often.
const WEBSOCKET_SILENCE: Duration = Duration::from_secs(300);

/// The destination of a route's requests.
#[derive(Clone, Debug)]
pub enum Destination {
    /// The servers of an upstream.
    Upstream(Arc<Upstream>),
    /// The built-in echo.
    Echo,
}

/// The forwarding settings of a route.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) destination: Destination,
    /// The other upstreams that share the requests of the route.
    pub(crate) split: Option<Box<Split>>,
    /// The copies of requests for another upstream.
    pub(crate) mirror: Option<Box<Mirror>>,
    /// The changes to the path and the host for the upstream.
    pub(crate) rewrite: Option<Box<Rewrite>>,
    /// The changes to the fields of requests.
    pub(crate) request_fields: Option<Box<Edits>>,
    /// The names of the trailers of requests that the upstream receives.
    pub(crate) request_trailers: Option<Arc<[HeaderName]>>,
    /// The changes to the fields of the upstream's answers.
    pub(crate) answer_fields: Option<Box<AnswerFields>>,
    /// Whether the client's `Authorization` header is forwarded unchanged.
    pub(crate) pass_authorization: bool,
    /// Whether the upstream receives the verified token in `Authorization`.
    pub(crate) forward_token: bool,
    /// The timeout of the route. It overrides the upstream's timeout.
    pub(crate) timeout: Option<Duration>,
    /// Whether the route forwards WebSockets.
    pub(crate) websocket: bool,
    /// Whether WebSockets, long answers and long uploads end with the caller's token.
    pub(crate) ends_with_token: bool,
    /// The maximum time without a byte of an answer's body, or in either direction of a WebSocket.
    pub(crate) silence: Option<Duration>,
    /// The upstream's audience, for the proofs of identity.
    pub(crate) audience: Arc<Audience>,
}

/// The copies of a route's requests.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) audience: Arc<Audience>,
    /// The percentage of the requests that are copied.
    pub(crate) percent: u16,
    /// The largest body that is copied, in bytes. If 0, only requests with a safe method and without a body are copied.
    pub(crate) body: usize,
}

/// The upstreams that share the requests of a route with the route's own upstream.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    /// The upstreams that a property of a request selects. The first match gets the request.
    pub(crate) selected: Box<[(Selector, Delivery)]>,
    /// The upstreams that share all other requests.
    pub(crate) shares: Box<[(Share, Delivery)]>,
    /// The share of the route's own upstream.
    pub(crate) own: Share,
    /// The properties by which requests stay with one upstream: the first that a request has. If empty, the upstream is
    /// drawn for each request.
    pub(crate) by: Box<[HashBy]>,
}

/// A property that selects an upstream.
#[derive(Clone, Debug)]
pub(crate) enum Selector {
    /// The request has these header fields.
    Headers(Fields),
    /// The subject of the token is one of these.
    Subjects(Box<[Box<str>]>),
    /// The caller has one of these roles.
    Roles(Box<[Box<str>]>),
}

/// The share of an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    percent: u16,
    name: Arc<str>,
    hash: u64,
}

impl Share {
    pub(crate) fn new(name: &str, percent: u16) -> Self {
        Self { percent, name: Arc::from(name), hash: hash_of_name(name) }
    }
}

impl Selector {
    fn matches(&self, facts: KeyFacts<'_>) -> bool {
        match self {
            // A field that two servers could read differently selects nothing.
            Self::Headers(fields) => fields.iter().all(|(name, value)| {
                Field::read(facts.headers, name).word().map(str::as_bytes) == Some(value.as_bytes())
            }),
            Self::Subjects(subjects) => {
                facts.principal.is_some_and(|principal| subjects.contains(&principal.subject))
            }
            Self::Roles(roles) => facts
                .principal
                .is_some_and(|principal| principal.roles.iter().any(|role| roles.contains(role))),
        }
    }
}

impl Split {
    /// Returns the upstream for a request, or `None` for the route's own upstream. `id` is absent if the request is
    /// hypothetical; a request that would be drawn then goes to the route's own upstream.
    pub(crate) fn choose(&self, facts: KeyFacts<'_>, id: Option<RequestId>) -> Option<&Delivery> {
        if let Some((_, delivery)) = self.selected.iter().find(|(selector, _)| selector.matches(facts)) {
            return Some(delivery);
        }
        let key = match &*self.by {
            [] => key_of_request(&id?.trace_id()),
            by => by.iter().find_map(|property| property.key(facts))?,
        };
        // By weighted rendezvous hashing, a larger share takes requests over and gives none away.
        let place = |share: &Share| (share.percent > 0).then(|| rank(key, share.hash, share.percent));
        let best = self.shares.iter().filter_map(|(share, delivery)| Some((place(share)?, delivery)));
        let (highest, delivery) = best.max_by_key(|(rank, _)| *rank)?;
        place(&self.own).is_none_or(|own| highest > own).then_some(delivery)
    }
}

impl Delivery {
    /// Returns the settings for the upstream that gets a request.
    #[inline]
    pub(crate) fn of_request<'f>(
        &self,
        facts: impl FnOnce() -> KeyFacts<'f>,
        id: RequestId,
        notes: &mut Notes,
    ) -> &Self {
        match &self.split {
            None => self,
            Some(split) => {
                let chosen = split.choose(facts(), Some(id));
                notes.split = match chosen {
                    Some(delivery) => delivery.counters().cloned(),
                    None => self.counters().cloned(),
                };
                chosen.unwrap_or(self)
            }
        }
    }

    /// Returns the longest wait for the head of an answer.
    #[inline]
    pub(crate) fn answer_timeout(&self, upstream: &Upstream) -> Duration {
        self.timeout.unwrap_or(upstream.timeout)
    }

    /// Returns the longest silence in the body of an answer.
    #[inline]
    pub(crate) fn answer_silence(&self, upstream: &Upstream) -> Duration {
        self.silence.unwrap_or_else(|| self.answer_timeout(upstream))
    }

    /// Returns the longest silence of a WebSocket in both directions.
    pub(crate) fn websocket_silence(&self) -> Duration {
        self.silence.unwrap_or(WEBSOCKET_SILENCE)
    }

    /// Returns the counters of the upstream. `None` for the built-in echo.
    pub(crate) fn counters(&self) -> Option<&Arc<UpstreamCounters>> {
        match &self.destination {
            Destination::Upstream(upstream) => Some(&upstream.counters),
            Destination::Echo => None,
        }
    }

    /// Returns the settings of all upstreams that may get requests of the route.
    pub(crate) fn alternatives(&self) -> impl Iterator<Item = &Self> {
        let split = self.split.as_deref();
        let selected = split.into_iter().flat_map(|split| &split.selected).map(|(_, delivery)| delivery);
        let shares = split.into_iter().flat_map(|split| &split.shares).map(|(_, delivery)| delivery);
        std::iter::once(self).chain(selected).chain(shares)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[Box<str>]| names.join(", ");
        match self {
            Self::Headers(fields) => fields.fmt(f),
            Self::Subjects(subjects) => write!(f, "subject {}", list(subjects)),
            Self::Roles(roles) => write!(f, "role {}", list(roles)),
        }
    }
}

impl fmt::Display for Mirror {
    /// Formats the copies for operators: `10 % of the requests without a body to shop_test`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upstream, percent, body, .. } = self;
        match body {
            0 => write!(f, "{percent} % of the safe requests without a body to {}", upstream.name),
            body => write!(f, "{percent} % of the requests with at most {body} bytes to {}", upstream.name),
        }
    }
}

impl fmt::Display for Split {
    /// Formats the shares for operators: `shop (90 %), shop_next (x-canary: 1), shop_next (10 %)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} %)", self.own.name, self.own.percent)?;
        for (selector, delivery) in &self.selected {
            write!(f, ", {} ({selector})", delivery.audience.name)?;
        }
        for (share, _) in &self.shares {
            write!(f, ", {} ({} %)", share.name, share.percent)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
