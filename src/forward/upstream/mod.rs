//! Upstreams, from the description of one server to the order in which a request tries all of them.
//!
//! A [`Server`] has an address, its health, and the settings of its connections (`connect`). `check` asks a server
//! whether it works. `members` are the servers of an [`Upstream`], some of which are the addresses of a name
//! (`resolve`). `order` lists them for one request, by the upstream's [`Balance`].

pub(in crate::forward) mod balance;
pub(in crate::forward) mod check;
pub(in crate::forward) mod connect;
pub(in crate::forward) mod connect_error;
pub(in crate::forward) mod counters;
mod health;
pub(in crate::forward) mod members;
mod order;
pub(in crate::forward) mod pins;
pub(in crate::forward) mod resolve;
pub(in crate::forward) mod retry_budget;
pub(in crate::forward) mod server;
pub(in crate::forward) mod server_id;
pub(in crate::forward) mod stream;
mod turns;

use balance::Balance;
use counters::UpstreamCounters;
use members::{Configured, Current, Group, MemberSettings, Members, Names};
use retry_budget::RetryBudget;
use server::{Protocol, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A group of servers that are interchangeable for a client.
#[derive(Debug)]
pub struct Upstream {
    /// The upstream's name in the policy.
    pub(crate) name: Arc<str>,
    /// The servers.
    group: Group,
    /// The timeout for opening a connection, including the TLS handshake.
    pub(crate) connect_timeout: Duration,
    /// The timeout for the head of the answer, and then for each read of its body.
    pub(crate) timeout: Duration,
    /// The maximum number of connections of one core to each server, including idle ones.
    pub(crate) share: usize,
    /// The upstream's counters.
    pub(crate) counters: Arc<UpstreamCounters>,
    /// The way in which a request chooses its first server.
    pub(crate) balance: Balance,
    /// The protocol of all servers.
    pub(crate) protocol: Protocol,
    /// The number of requests that may be repeated.
    pub(crate) retry_budget: RetryBudget,
    /// The time in which a server that has come back gets its whole share again.
    pub(crate) slow_start: Duration,
    /// All servers are used if fewer than this percentage of them is not set aside.
    pub(crate) panic_below: u8,
    /// Whether the log already reports that this upstream sets cookies with the gateway's names.
    cookies_reported: AtomicBool,
}

impl Upstream {
    /// Creates an upstream. It has the same name as `counters`. `before` is the upstream in the previous policy, and
    /// `known` returns the equal server of the previous policy, if there is one.
    pub(crate) fn new(
        counters: Arc<UpstreamCounters>,
        settings: MemberSettings,
        servers: Vec<Configured>,
        before: Option<&Self>,
        known: &dyn Fn(Server) -> Arc<Server>,
    ) -> Self {
        Self {
            name: counters.name().clone(),
            slow_start: settings.slow_start,
            group: Group::new(counters.cores(), settings, servers, before.map(|before| &before.group), known),
            connect_timeout: Duration::ZERO,
            timeout: Duration::ZERO,
            share: 1,
            counters,
            balance: Balance::RoundRobin,
            protocol: Protocol::Http1,
            retry_budget: RetryBudget { percent: 100, floor: u64::MAX },
            panic_below: 0,
            cookies_reported: AtomicBool::new(false),
        }
    }

    /// Returns the servers at this moment.
    pub(crate) fn members(&self) -> Current<'_> {
        self.group.current()
    }

    /// Returns the servers at this moment, for a request of this core. A request uses one result to its end.
    #[inline]
    pub(in crate::forward) fn members_of(&self, core: usize) -> Current<'_> {
        self.group.of_core(core)
    }

    /// Returns the servers with names, if each of their addresses is a server.
    pub(crate) fn names(&self) -> Option<&Arc<Names>> {
        match &self.group {
            Group::Fixed(_) => None,
            Group::Named(names) => Some(names),
        }
    }

    /// Returns the servers at this moment, and those of the policy.
    pub(crate) fn all_servers(&self) -> Vec<Arc<Server>> {
        let mut servers = self.members().servers.to_vec();
        if let Group::Named(names) = &self.group {
            servers.extend(names.configured().iter().map(|configured| configured.server.clone()));
        }
        servers
    }

    /// Returns the addresses of the servers in the policy, in canonical form.
    pub(crate) fn addresses(&self) -> Vec<String> {
        match &self.group {
            Group::Fixed(members) => members.servers.iter().map(|server| server.address()).collect(),
            Group::Named(names) => {
                names.configured().iter().map(|configured| configured.server.address()).collect()
            }
        }
    }

    /// Returns true on the first call only, so that the log reports the cookies once even if every answer sets them.
    pub(in crate::forward) fn is_first_report_of_cookies(&self) -> bool {
        !self.cookies_reported.swap(true, Ordering::Relaxed)
    }

    /// Takes one retry of a core's request from the budget. Returns whether the request may be sent again.
    #[cold]
    pub(in crate::forward) fn take_retry(&self, core: usize) -> bool {
        let counts = self.counters.of(core);
        counts.is_none_or(|counts| counts.take_retry(self.retry_budget, Instant::now()))
    }

    /// Whether so few servers are left that all are used, also those that are set aside.
    pub(crate) fn is_in_panic(&self, now: Instant) -> bool {
        let members = self.members();
        let aside = members.servers.iter().filter(|server| server.is_set_aside(now)).count();
        self.is_panic(&members, aside)
    }

    /// Whether all servers are used if this number is set aside.
    pub(in crate::forward) fn is_panic(&self, members: &Members, aside: usize) -> bool {
        let count = members.servers.len();
        aside > 0 && (count - aside) * 100 < count * usize::from(self.panic_below)
    }
}
