//! Defines the reasons for closing a connection whose PROXY header is not accepted. They are a metrics label and a log
//! value.

use crate::counter::Counter;

/// The reason why a connection was closed before TLS or HTTP read any byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyFailure {
    /// The peer is not one of the load balancers that may send a header.
    Untrusted,
    /// The connection does not begin with a header.
    Missing,
    /// The header is malformed.
    Malformed,
    /// The header did not arrive in time.
    Timeout,
    /// The load balancer closed the connection before the end of the header.
    Closed,
}

impl ProxyFailure {
    /// All reasons, in the order of their counters.
    pub(crate) const ALL: [Self; 5] =
        [Self::Untrusted, Self::Missing, Self::Malformed, Self::Timeout, Self::Closed];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct ProxyFailures([Counter; ProxyFailure::ALL.len()]);

impl ProxyFailures {
    pub(crate) fn of(&self, failure: ProxyFailure) -> &Counter {
        &self.0[failure as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        let failures = ProxyFailures::default();
        for (place, failure) in ProxyFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place, "{failure:?}");
            failures.of(failure).add(1);
            assert_eq!(failures.of(failure).get(), 1, "{failure:?}");
        }
    }
}
