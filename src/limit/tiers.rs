//! Rates that depend on a claim of the caller, such as the plan of a customer.
//!
//! Each claim value in the policy has a separate limit with separate buckets. All other callers have the default limit.

use crate::authenticate::{ClaimId, ClaimValue, Principal};

/// The limits of a claim's values, each of which is an `L`.
#[derive(Debug)]
pub struct Tiers<L> {
    /// The claim that selects the rate.
    pub claim: ClaimId,
    /// The values of the claim, and the limit for each value.
    pub tiers: Box<[(Box<str>, L)]>,
}

impl<L> Tiers<L> {
    /// Returns the limit that applies to a caller, and the claim value that selects it. Returns `None` if the default
    /// applies.
    ///
    /// Only a text selects a limit. If the claim is a list, two services could choose different elements.
    pub(super) fn of(&self, principal: Option<&Principal>) -> Option<&(Box<str>, L)> {
        match principal?.claim(self.claim)? {
            ClaimValue::Text(text) => self.tiers.iter().find(|(value, _)| *value == *text),
            ClaimValue::Number(_) | ClaimValue::Bool(_) | ClaimValue::List(_) | ClaimValue::Other => None,
        }
    }

    /// Returns the limit of a value.
    pub(super) fn named(&self, value: &str) -> Option<&L> {
        self.tiers.iter().find(|(known, _)| **known == *value).map(|(_, limit)| limit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{By, Limit, LimitKey, Standing, admit};
    use super::*;
    use crate::denial::Denial;
    use governor::clock::FakeRelativeClock;
    use http::HeaderMap;
    use serde_json::{Value, json};
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Duration;

    fn limit(burst: u32, clock: &FakeRelativeClock) -> Limit<FakeRelativeClock> {
        let one = NonZeroU32::MIN;
        let burst = NonZeroU32::new(burst).unwrap();
        Limit::with_clock("api".into(), By::Subject, one, Duration::from_secs(60), burst, 128, clock.clone())
    }

    fn tiered(clock: &FakeRelativeClock, gold: u32) -> Limit<FakeRelativeClock> {
        let tiers = Box::new([("gold".into(), limit(gold, clock)), ("silver".into(), limit(3, clock))]);
        limit(1, clock).with_tiers(Tiers { claim: ClaimId(0), tiers })
    }

    fn caller(subject: &str, plan: Option<&Value>) -> Principal {
        let claims = Box::new([plan.map(ClaimValue::from)]);
        Principal { subject: subject.into(), claims, ..Principal::for_tests() }
    }

    /// Charges requests until one is refused. Returns the number of admitted requests.
    fn passed(limits: &[Arc<Limit<FakeRelativeClock>>], principal: Option<&Principal>) -> usize {
        let (headers, address) = (HeaderMap::new(), "192.0.2.1".parse().unwrap());
        let key = LimitKey { address, headers: &headers, route: "r", principal };
        let ask = || match admit(limits, &key, &mut Standing::default()) {
            Ok(()) => true,
            Err(Denial::RateLimited { .. }) => false,
            Err(denial) => panic!("{denial:?}"),
        };
        (0..20).take_while(|_| ask()).count()
    }

    #[test]
    fn only_a_named_value_that_is_text_selects_another_rate() {
        let clock = FakeRelativeClock::default();
        let limits = [Arc::new(tiered(&clock, 5))];
        for (number, (plan, count)) in [
            (Some(json!("gold")), 5),
            (Some(json!("silver")), 3),
            (Some(json!("Gold")), 1),
            (Some(json!("gold ")), 1),
            (Some(json!("platinum")), 1),
            (Some(json!("")), 1),
            (Some(json!(["gold"])), 1),
            (Some(json!(["gold", "silver"])), 1),
            (Some(json!(7)), 1),
            (Some(json!({ "gold": 1 })), 1),
            (None, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let who = caller(&format!("u{number}"), plan.as_ref());
            assert_eq!(passed(&limits, Some(&who)), count, "{plan:?}");
        }
        assert_eq!(passed(&limits, None), 1, "nobody has no plan");
        assert_eq!(limits[0].refused(), 12, "the refusals of all rates are one number");
    }

    #[test]
    fn callers_of_one_plan_have_buckets_of_their_own_and_a_reload_keeps_them() {
        let clock = FakeRelativeClock::default();
        let before = [Arc::new(tiered(&clock, 5))];
        let gold = json!("gold");
        let (ada, bob) = (caller("ada", Some(&gold)), caller("bob", Some(&gold)));
        assert_eq!(passed(&before, Some(&ada)), 5);
        assert_eq!(passed(&before, Some(&bob)), 5);
        let same = [Arc::new(tiered(&clock, 5).carry_over(&before[0], true))];
        assert_eq!(passed(&same, Some(&ada)), 0, "a reload does not refill a bucket");
        let other = [Arc::new(tiered(&clock, 6).carry_over(&before[0], true))];
        assert_eq!(passed(&other, Some(&ada)), 6, "another rate is another limit");
        let keys = [Arc::new(tiered(&clock, 5).carry_over(&before[0], false))];
        assert_eq!(passed(&keys, Some(&ada)), 5);
    }
}
