//! The tightest limit of a request, and the fields of the response that report it.

use super::bucket::{self, Limit};
use super::charge::{Charge, whole_seconds};
use crate::counter::CoreValue;
use crate::denial::Denial;
use governor::Quota;
use governor::clock::Clock;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The response field with the name and quota of the reported limit (draft-ietf-httpapi-ratelimit-headers).
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The response field with the remaining quota of the reported limit (draft-ietf-httpapi-ratelimit-headers).
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// A request's tightest limit: the limit that refused the request, otherwise the limit with the fewest requests left.
#[derive(Debug, Default)]
pub struct Standing<'l> {
    tightest: Option<Tightest<'l>>,
    /// The limit about which the fleet could not be asked.
    unavailable: Option<&'l str>,
}

#[derive(Debug)]
struct Tightest<'l> {
    name: &'l str,
    quota: Quota,
    policy: &'l CoreValue,
    prefix: &'l [u8],
    remaining: u32,
    /// The seconds until one more request is available: parameter `t` in draft-ietf-httpapi-ratelimit-headers-10,
    /// section 4.1.
    next: u64,
}

impl<'l> Tightest<'l> {
    fn of<C: Clock>(limit: &'l Limit<C>, remaining: u32, next: u64) -> Self {
        let (name, quota) = (&**limit.name(), limit.quota());
        Self { name, quota, policy: limit.policy(), prefix: limit.prefix(), remaining, next }
    }
}

impl<'l> Standing<'l> {
    /// Takes the result of a limit. Returns the denial if the limit refuses the request.
    #[inline]
    pub(super) fn take<C: Clock>(&mut self, limit: &'l Limit<C>, charge: Charge) -> Result<(), Denial> {
        match charge {
            Charge::Admitted { remaining, next } => {
                self.note(limit, remaining, whole_seconds(next));
                Ok(())
            }
            Charge::Unavailable => {
                self.unavailable = Some(limit.name());
                Err(Denial::LimitUnavailable)
            }
            Charge::Refused { wait } => {
                // `RateLimit` (parameter `t`) and `Retry-After` contain the same number.
                let wait = u32::try_from(whole_seconds(wait)).unwrap_or(u32::MAX).max(1);
                self.tightest = Some(Tightest::of(limit, 0, u64::from(wait)));
                Err(Denial::RateLimited { wait })
            }
        }
    }

    fn note<C: Clock>(&mut self, limit: &'l Limit<C>, remaining: u32, next: u64) {
        if self.tightest.as_ref().is_none_or(|tightest| remaining < tightest.remaining) {
            self.tightest = Some(Tightest::of(limit, remaining, next));
        }
    }

    /// Returns the name and quota of the limit that refused the request, for the operator.
    pub fn refused_by(&self) -> Option<String> {
        if let Some(name) = self.unavailable {
            return Some(format!("the limit {name} cannot be checked: the shared state does not answer"));
        }
        let tightest = self.tightest.as_ref()?;
        Some(format!("the limit {} has no request left: {}", tightest.name, bucket::describe(tightest.quota)))
    }

    /// Sets `RateLimit-Policy` and `RateLimit` in the headers of a response of this core, if a limit applied to the request.
    pub fn write(&self, headers: &mut HeaderMap, core: usize) {
        let Some(tightest) = &self.tightest else { return };
        headers.insert(RATELIMIT_POLICY, tightest.policy.of(core));
        let (mut remaining, mut next) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (remaining, next) = (remaining.format(tightest.remaining), next.format(tightest.next));
        // The vector has the exact capacity, so its conversion to a header value does not copy it.
        let mut value = Vec::with_capacity(tightest.prefix.len() + remaining.len() + 3 + next.len());
        value.extend_from_slice(tightest.prefix);
        value.extend_from_slice(remaining.as_bytes());
        value.extend_from_slice(b";t=");
        value.extend_from_slice(next.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(value));
        headers.insert(
            RATELIMIT,
            value.expect("a limit's prefix is part of a header value already, and digits"),
        );
    }
}
