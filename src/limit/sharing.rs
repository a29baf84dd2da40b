//! Limits that a fleet of gateways shares: their settings, and the limits that ask the fleet about each request.

use super::fleet::Fleet;
use super::lease::Terms;
use aws_lc_rs::digest::{SHA256, digest};
use governor::Quota;
use std::hash::Hasher;
use std::sync::Arc;

/// The settings of a limit that the fleet shares.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// Whether each request asks the fleet and waits for the answer.
    pub is_exact: bool,
    /// Whether this gateway applies the limit alone if the fleet cannot be asked. Otherwise it refuses requests.
    pub applies_alone: bool,
    /// The key by which the limit counts, as the policy states it.
    pub by: Arc<str>,
    /// The key of all fingerprints. It is the same on all gateways.
    pub secret: FleetSecret,
}

/// The key of the fingerprints that all gateways use. Redis stores the fingerprints, and the key keeps others from
/// computing the fingerprint of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FleetSecret(u64, u64);

impl std::fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetSecret")
    }
}

impl FleetSecret {
    /// Derives the key from the settings that all gateways of a fleet have in common.
    pub fn derive(prefix: &str, password: &str) -> Self {
        let text = ["portcullis: fingerprints of limits", prefix, password].join("\0");
        let digest = digest(&SHA256, text.as_bytes());
        let (first, rest) = digest.as_ref().split_at(8);
        let number =
            |bytes: &[u8]| bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Self(number(first), number(rest))
    }
}

impl Sharing {
    /// Returns a hasher that computes the same fingerprints on all gateways.
    #[expect(deprecated, reason = "the one keyed hasher of the standard library with a fixed algorithm")]
    pub(super) fn hasher(&self) -> std::hash::SipHasher {
        std::hash::SipHasher::new_with_keys(self.secret.0, self.secret.1)
    }

    /// Returns the terms of a limit, and the number that identifies it in the fleet. Limits with another rate have other
    /// buckets.
    pub(super) fn terms(&self, name: &str, tier: Option<&str>, quota: Quota) -> (Terms, u64) {
        let interval = u64::try_from(quota.replenish_interval().as_nanos()).unwrap_or(u64::MAX).max(1);
        let terms = Terms { interval, burst: quota.burst_size().get() };
        let mut hasher = self.hasher();
        for part in [name, tier.unwrap_or_default(), &self.by] {
            hasher.write(part.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.write_u8(u8::from(tier.is_some()));
        hasher.write_u64(interval);
        hasher.write_u32(terms.burst);
        (terms, hasher.finish())
    }

    /// Whether both count with the same fingerprints in the same fleet.
    pub(super) fn counts_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fleet, &other.fleet) && self.secret == other.secret && self.by == other.by
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{By, Limit, LimitKey, Standing, admit};
    use http::HeaderMap;
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn sharing(by: &str, password: &str) -> Sharing {
        Sharing {
            fleet: Arc::new(Fleet::for_tests(3)),
            is_exact: false,
            applies_alone: true,
            by: by.into(),
            secret: FleetSecret::derive("portcullis", password),
        }
    }

    fn limit(sharing: &Sharing) -> Limit {
        let burst = NonZeroU32::new(20).unwrap();
        let limit = Limit::new("x".into(), By::ClientIp, NonZeroU32::MIN, Duration::from_secs(3600), burst);
        limit.shared(sharing, None)
    }

    /// Charges requests until one is refused. Returns the number of admitted requests.
    fn passed(limit: Limit) -> usize {
        let (limits, headers) = ([Arc::new(limit)], HeaderMap::new());
        let key = LimitKey {
            address: "192.0.2.1".parse().unwrap(),
            headers: &headers,
            route: "r",
            principal: None,
        };
        (0..50).take_while(|_| admit(&limits, &key, &mut Standing::default()).is_ok()).count()
    }

    #[test]
    fn gateways_with_the_same_settings_have_the_same_fingerprints() {
        let quota = limit(&sharing("client_ip", "a")).quota();
        let of = |by: &str, password: &str, name: &str, tier| {
            let sharing = sharing(by, password);
            let mut hasher = sharing.hasher();
            hasher.write(b"192.0.2.1");
            (sharing.terms(name, tier, quota).1, hasher.finish())
        };
        let one = of("client_ip", "a", "x", None);
        assert_eq!(of("client_ip", "a", "x", None), one);
        for other in [
            of("subject", "a", "x", None),
            of("client_ip", "a", "y", None),
            of("client_ip", "a", "x", Some("")),
            of("client_ip", "a", "x", Some("gold")),
        ] {
            assert_ne!(other.0, one.0);
        }
        let (identity, fingerprint) = of("client_ip", "b", "x", None);
        assert!(
            identity != one.0 && fingerprint != one.1,
            "without the password nobody computes fingerprints"
        );
        // A value that a gateway of another version or architecture computes too.
        assert_eq!(format!("{:016x}", one.1), "48507e399edafdb8");
    }

    #[test]
    fn a_reload_keeps_the_counts_unless_the_sharing_changes() {
        let before = sharing("client_ip", "a");
        let used = || {
            let first = limit(&before);
            let twin = limit(&before).carry_over(&first, true);
            assert_eq!(passed(twin), 16, "the credit of one of three gateways");
            first
        };
        assert_eq!(passed(limit(&before).carry_over(&used(), true)), 0);
        let exact = Sharing { is_exact: true, ..before.clone() };
        assert_eq!(passed(limit(&exact).carry_over(&used(), true)), 0);
        let password = Sharing { secret: FleetSecret::derive("portcullis", "b"), ..before.clone() };
        assert_eq!(passed(limit(&password).carry_over(&used(), true)), 16);
        let burst = NonZeroU32::new(20).unwrap();
        let own = Limit::new("x".into(), By::ClientIp, NonZeroU32::MIN, Duration::from_secs(3600), burst);
        assert_eq!(passed(own.carry_over(&used(), true)), 20);
    }
}
