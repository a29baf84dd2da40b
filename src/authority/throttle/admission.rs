//! Admits an attempt to log in by the counts of this gateway and of its fleet.
//!
//! Each gateway applies its own counts first, whatever Redis holds. Redis can refuse more attempts and never admit one
//! that the gateway itself refuses.

use super::Throttle;
use super::fleet::FleetCounters;
use crate::authority::counters::{ByOutcome, FleetLogin};
use crate::config::file::OnError;
use crate::shared::Link;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An attempt to log in.
#[derive(Clone, Copy, Debug)]
pub(in crate::authority) struct Attempt<'a> {
    /// The client's address.
    pub(in crate::authority) address: IpAddr,
    /// The name of the account, which may not exist.
    pub(in crate::authority) account: &'a str,
    /// Whether somebody has logged in to this account from this address before.
    pub(in crate::authority) known: bool,
}

/// The gateways that count together.
pub(in crate::authority) struct Fleet<'a> {
    /// The connection to their shared state.
    pub(in crate::authority) link: Arc<Link>,
    /// The issuer that they have in common.
    pub(in crate::authority) issuer: &'a str,
    /// Counts the outcomes.
    pub(in crate::authority) outcomes: &'a ByOutcome<FleetLogin, 4>,
}

/// The reason why an attempt is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::authority) enum Refused {
    /// The time to wait.
    Wait(Duration),
    /// The shared state does not answer, and the policy requires its answer.
    Unavailable,
}

/// An admitted attempt. It counts as a failure, unless a method takes the failure back.
#[derive(Debug)]
pub(in crate::authority) struct Admitted<'a> {
    throttle: &'a Throttle,
    attempt: Attempt<'a>,
    fleet: Option<FleetCounters>,
    /// Whether Redis has certainly counted the attempt.
    is_counted: bool,
}

impl Throttle {
    /// Admits a check of a password now. With a fleet, waits for one answer of Redis, at most until its deadline.
    ///
    /// # Errors
    /// The time to wait, or that the fleet cannot be asked.
    pub(in crate::authority) async fn admit<'a>(
        &'a self,
        attempt: Attempt<'a>,
        fleet: Option<Fleet<'_>>,
    ) -> Result<Admitted<'a>, Refused> {
        let Attempt { address, account, known } = attempt;
        // Counts nothing yet: an attempt that the fleet refuses must not make the delay of this gateway longer.
        let wait = self.wait(address, account, known, Instant::now());
        if !wait.is_zero() {
            return Err(Refused::Wait(wait));
        }
        let (mut counters, mut is_counted) = (None, false);
        if let Some(Fleet { link, issuer, outcomes }) = fleet {
            let on_error = link.settings().on_error.login;
            let asked = FleetCounters::new(link, issuer, &attempt);
            let (outcome, refused) = match (asked.try_attempt().await, on_error) {
                (Ok(None), _) => (FleetLogin::Admitted, None),
                (Ok(Some(wait)), _) => (FleetLogin::Throttled, Some(Refused::Wait(wait))),
                (Err(_), OnError::Deny) => (FleetLogin::Denied, Some(Refused::Unavailable)),
                (Err(_), OnError::Allow) => (FleetLogin::Alone, None),
            };
            outcomes.add(outcome);
            if let Some(refused) = refused {
                return Err(refused);
            }
            (counters, is_counted) = (Some(asked), outcome == FleetLogin::Admitted);
        }
        let admitted = Admitted { throttle: self, attempt, fleet: counters, is_counted };
        // Other attempts may have been counted in the meantime.
        match self.try_attempt(address, account, known, Instant::now()) {
            Ok(()) => Ok(admitted),
            Err(wait) => {
                admitted.withdraw_from_fleet();
                Err(Refused::Wait(wait))
            }
        }
    }
}

impl Admitted<'_> {
    /// Reports a correct password: see [`Throttle::succeeded`].
    pub(in crate::authority) fn succeeded(self) {
        let Attempt { address, account, known } = self.attempt;
        self.throttle.succeeded(address, account, known);
        if let Some(fleet) = self.fleet {
            fleet.succeeded(self.is_counted);
        }
    }

    /// Takes the attempt back: see [`Throttle::withdrawn`].
    pub(in crate::authority) fn withdrawn(self) {
        let Attempt { address, account, known } = self.attempt;
        self.throttle.withdrawn(address, account, known);
        self.withdraw_from_fleet();
    }

    fn withdraw_from_fleet(self) {
        if let Some(fleet) = self.fleet.filter(|_| self.is_counted) {
            fleet.withdrawn();
        }
    }
}
