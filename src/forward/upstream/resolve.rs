//! Resolves the names of servers, with the lifetimes of the answers.
//!
//! The hosts file, the search domains and the nameservers are those of the system (hosts(5), resolv.conf(5)), unless the
//! policy names nameservers. The files are read for each lookup, so a change needs no restart. The library's own search is
//! not used: it asks for a search domain before it looks into the hosts file, and takes a failure for an answer.

use super::balance::hash_of_name;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver, system_conf};
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Maximum time of a lookup. The hosts of a service are looked up at the same time, and together take as long again.
pub(crate) const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// The time between two lookups of a service that has hosts without an answer.
const MISSING_RETRY: Duration = Duration::from_secs(5);
/// Maximum number of search domains, as in glibc before 2.26. More are ignored.
const SEARCH_MAX: usize = 6;
/// Maximum number of hosts in SRV records of one name. More are ignored.
const TARGETS_MAX: usize = 20;
/// The greatest weight that an SRV record gives a server, as in the policy.
const WEIGHT_MAX: u32 = 100;

/// The nameservers of an upstream. If empty, those of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Nameservers(pub(crate) Box<[SocketAddr]>);

/// A name to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question<'n> {
    /// The addresses of a host. The port is that of the policy.
    Host(&'n str, u16),
    /// The hosts and ports of a service (SRV, RFC 2782).
    Service(&'n str),
}

/// An address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The weight in an SRV record, from 1 to 100.
    pub(crate) weight: Option<u16>,
    /// The hash of the host in an SRV record. 0 for other names.
    pub(crate) host: u64,
}

/// The addresses of a name. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The addresses in ascending order, each once.
    pub(crate) all: Vec<Endpoint>,
    /// The time for which the addresses are valid.
    pub(crate) lifetime: Duration,
    /// The hosts of a service whose addresses are not known.
    pub(crate) missing: Vec<MissingHost>,
}

/// A host of a service whose addresses are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingHost {
    pub(crate) name: Box<str>,
    pub(crate) hash: u64,
    pub(crate) error: LookupError,
}

/// The reason why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// The nameserver says that the name has no address.
    NoAddress,
    /// No nameserver gave a valid answer.
    Failed(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("the name has no address"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Nameservers {
    /// Whether the nameservers are those of the system.
    pub(crate) fn is_system(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the IPv4 addresses of a name, or its IPv6 addresses if it has no IPv4 address. The two families of a name
    /// are usually addresses of the same servers.
    ///
    /// A service has the addresses of those hosts that are resolved. Once one is, the others have `patience` left.
    ///
    /// # Errors
    /// Returns [`LookupError::NoAddress`] only if a nameserver says so.
    pub(crate) async fn lookup(
        &self,
        question: Question<'_>,
        patience: Duration,
    ) -> Result<Addresses, LookupError> {
        let parsed = |name| Name::from_str_relaxed(name).map_err(failed);
        match question {
            Question::Host(name, port) => {
                let name = parsed(name)?;
                let found = within(async { Lookup::new(self).await?.host(&name).await }).await?;
                let endpoint =
                    |address| Endpoint { address: SocketAddr::new(address, port), weight: None, host: 0 };
                let all = found.all.into_iter().map(endpoint).collect();
                Ok(Addresses { all, lifetime: found.lifetime, missing: Vec::new() })
            }
            Question::Service(name) => {
                let name = parsed(name)?;
                let asked = async {
                    let lookup = Lookup::new(self).await?;
                    let targets = lookup.first(&name, RecordType::SRV, targets).await?;
                    Ok((lookup, targets.ok_or(LookupError::NoAddress)?))
                };
                let (lookup, targets) = within(asked).await?;
                lookup.service(targets, patience).await
            }
        }
    }

    /// Describes the nameservers for the log.
    pub(crate) async fn describe(&self) -> String {
        let list = |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<_>>().join(", ");
        if !self.is_system() {
            return list(&mut self.0.iter().map(ToString::to_string));
        }
        // A file may be on a slow folder.
        match tokio::task::spawn_blocking(system).await {
            Ok((config, ..)) => list(&mut config.name_servers().iter().map(|server| server.ip.to_string())),
            Err(_) => String::new(),
        }
    }

    fn config(&self) -> ResolverConfig {
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            NameServerConfig::new(address.ip(), true, connections.into())
        };
        ResolverConfig::from_name_servers(self.0.iter().map(server).collect())
    }
}

fn failed(why: impl fmt::Display) -> LookupError {
    LookupError::Failed(why.to_string())
}

fn no_answer() -> LookupError {
    LookupError::Failed(format!("no answer within {LOOKUP_MAX:?}"))
}

async fn within<T>(asked: impl Future<Output = Result<T, LookupError>>) -> Result<T, LookupError> {
    tokio::time::timeout(LOOKUP_MAX, asked).await.unwrap_or_else(|_elapsed| Err(no_answer()))
}

/// The settings and the connections of one lookup.
struct Lookup {
    hosts: Hosts,
    resolver: TokioResolver,
    config: ResolverConfig,
    dots: usize,
    searches: bool,
}

/// The addresses of a host, in ascending order.
struct Found {
    all: Vec<IpAddr>,
    lifetime: Duration,
}

impl Lookup {
    async fn new(nameservers: &Nameservers) -> Result<Self, LookupError> {
        let searches = nameservers.is_system();
        let (config, options, hosts) = if searches {
            // A file may be on a slow folder.
            tokio::task::spawn_blocking(system).await.map_err(failed)?
        } else {
            (nameservers.config(), ResolverOpts::default(), Hosts::default())
        };
        let dots = options.ndots;
        let resolver = build(config.clone(), options).map_err(failed)?;
        Ok(Self { hosts, resolver, config, dots, searches })
    }

    async fn host(&self, name: &Name) -> Result<Found, LookupError> {
        let kinds = [RecordType::A, RecordType::AAAA];
        for kind in kinds {
            if let Some(lookup) = self.hosts.lookup_static_host(&Query::query(name.clone(), kind)) {
                let found = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                if let Some(found) = addresses(found, lookup.valid_until()) {
                    return Ok(found);
                }
            }
        }
        for kind in kinds {
            if let Some(found) = self
                .first(name, kind, |records, until| {
                    addresses(records.iter().filter_map(|record| record.data.ip_addr()), until)
                })
                .await?
            {
                return Ok(found);
            }
        }
        Err(LookupError::NoAddress)
    }

    /// Returns the addresses of a service's hosts. A host that gives no answer does not delay the others.
    async fn service(&self, targets: Targets, patience: Duration) -> Result<Addresses, LookupError> {
        let Targets { all: targets, lifetime } = targets;
        let mut results: Vec<_> = targets.iter().map(|_| Err(no_answer())).collect();
        let mut asked: Vec<_> =
            targets.iter().map(|target| Box::pin(self.host(&target.host))).enumerate().collect();
        let mut deadline = pin!(tokio::time::sleep(LOOKUP_MAX));
        poll_fn(|cx| {
            asked.retain_mut(|(at, host)| {
                let Poll::Ready(result) = host.as_mut().poll(cx) else { return true };
                let last = tokio::time::Instant::now() + patience;
                if result.is_ok() && last < deadline.deadline() {
                    deadline.as_mut().reset(last);
                }
                results[*at] = result;
                false
            });
            if asked.is_empty() { Poll::Ready(()) } else { deadline.as_mut().poll(cx) }
        })
        .await;
        drop(asked);
        let mut addresses = Addresses { all: Vec::new(), lifetime, missing: Vec::new() };
        for (target, result) in targets.iter().zip(results) {
            let name = target.host.to_string();
            let hash = hash_of_name(&name);
            match result {
                Ok(found) => {
                    let endpoint = |address| Endpoint {
                        address: SocketAddr::new(address, target.port),
                        weight: Some(target.weight),
                        host: hash,
                    };
                    addresses.all.extend(found.all.into_iter().map(endpoint));
                    addresses.lifetime = addresses.lifetime.min(found.lifetime);
                }
                Err(error) => addresses.missing.push(MissingHost { name: name.into(), hash, error }),
            }
        }
        addresses.all.sort_unstable();
        addresses.all.dedup_by_key(|endpoint| endpoint.address);
        // The order of records changes with each answer.
        addresses.missing.sort_by(|one, other| one.name.cmp(&other.name));
        addresses.missing.dedup_by(|one, other| one.name == other.name);
        let mut failures = addresses.missing.iter().filter(|host| host.error != LookupError::NoAddress);
        match failures.next() {
            Some(host) if addresses.all.is_empty() => {
                return Err(failed(format!("{}: {}", host.name, host.error)));
            }
            Some(_) => addresses.lifetime = addresses.lifetime.min(MISSING_RETRY),
            None => {}
        }
        if addresses.all.is_empty() { Err(LookupError::NoAddress) } else { Ok(addresses) }
    }

    /// Returns the first records of this kind that `read` accepts, of the names to look up.
    async fn first<T>(
        &self,
        name: &Name,
        kind: RecordType,
        read: impl Fn(&[Record], Instant) -> Option<T>,
    ) -> Result<Option<T>, LookupError> {
        for candidate in candidates(name, &self.config, self.dots, self.searches) {
            match self.resolver.lookup(candidate, kind).await {
                Ok(lookup) => {
                    if let Some(found) = read(lookup.answers(), lookup.valid_until()) {
                        return Ok(Some(found));
                    }
                }
                Err(error) if error.is_no_records_found() && !is_failure(&error) => {}
                // Another candidate or family would give addresses that the name does not have.
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(None)
    }
}

/// A host of a service.
struct Target {
    host: Name,
    port: u16,
    weight: u16,
}

struct Targets {
    all: Vec<Target>,
    lifetime: Duration,
}

/// Returns the hosts with the best priority, and weights from 1 to 100 in the proportion of the records (RFC 2782).
fn targets(records: &[Record], until: Instant) -> Option<Targets> {
    let all = || {
        records.iter().filter_map(|record| match &record.data {
            // The root means that the service is not offered.
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some(srv),
            _ => None,
        })
    };
    let priority = all().map(|srv| srv.priority).min()?;
    let best = || all().filter(|srv| srv.priority == priority);
    let greatest = best().map(|srv| u32::from(srv.weight)).max().unwrap_or_default().max(1);
    let target = |srv: &SRV| {
        let mut host = srv.target.clone();
        host.set_fqdn(true);
        let weight = (u32::from(srv.weight) * WEIGHT_MAX).div_ceil(greatest).max(1);
        Target { host, port: srv.port, weight: weight.try_into().unwrap_or(1) }
    };
    let all = best().take(TARGETS_MAX).map(target).collect();
    Some(Targets { all, lifetime: until.saturating_duration_since(Instant::now()) })
}

/// Returns whether the nameserver failed. The library reports a failure without records like a name without records.
fn is_failure(error: &NetError) -> bool {
    use hickory_resolver::net::DnsError;
    use hickory_resolver::proto::op::ResponseCode;
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            !matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError)
        }
        _ => true,
    }
}

/// Reads the settings of the system. Without a usable resolv.conf, the nameserver is the local one.
fn system() -> (ResolverConfig, ResolverOpts, Hosts) {
    let (config, options) = system_conf::read_system_conf().unwrap_or_else(|_| {
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        (ResolverConfig::from_name_servers(vec![local]), ResolverOpts::default())
    });
    (config, options, Hosts::from_system().unwrap_or_default())
}

fn build(config: ResolverConfig, options: ResolverOpts) -> Result<TokioResolver, NetError> {
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let options = builder.options_mut();
    (options.cache_size, options.use_hosts_file) = (0, ResolveHosts::Never);
    builder.build()
}

/// Returns the names to look up, each with its domain (resolv.conf(5), `search` and `ndots`).
fn candidates(name: &Name, config: &ResolverConfig, dots: usize, searches: bool) -> Vec<Name> {
    let mut whole = name.clone();
    whole.set_fqdn(true);
    if name.is_fqdn() || !searches {
        return vec![whole];
    }
    let domains = match config.search() {
        [] => config.domain().map_or(&[][..], std::slice::from_ref),
        domains => domains,
    };
    let domains = domains.iter().take(SEARCH_MAX);
    let mut names: Vec<Name> = domains.filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
    names.iter_mut().for_each(|name| name.set_fqdn(true));
    let is_first = usize::from(name.num_labels()) > dots;
    let at = if is_first { 0 } else { names.len() };
    names.insert(at, whole);
    names
}

/// Sorts addresses. Drops addresses that belong to no server: 0.0.0.0 is the answer of filters to blocked names, and would
/// reach the gateway's own machine.
fn addresses(found: impl Iterator<Item = IpAddr>, until: Instant) -> Option<Found> {
    let is_usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    let mut all: Vec<_> = found.filter(is_usable).collect();
    all.sort_unstable();
    all.dedup();
    let lifetime = until.saturating_duration_since(Instant::now());
    (!all.is_empty()).then_some(Found { all, lifetime })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, search: &[&str], dots: usize, searches: bool) -> Vec<String> {
        let search = search.iter().map(|name| Name::from_ascii(name).unwrap()).collect();
        let config = ResolverConfig::from_parts(None, search, Vec::new());
        let name = Name::from_str_relaxed(name).unwrap();
        candidates(&name, &config, dots, searches).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn search_domains_apply_to_names_with_few_dots_first_and_to_others_last() {
        let search = ["ns.svc.test.", "svc.test."];
        assert_eq!(names("app", &search, 1, true), ["app.ns.svc.test.", "app.svc.test.", "app."]);
        assert_eq!(names("a.b", &search, 1, true), ["a.b.", "a.b.ns.svc.test.", "a.b.svc.test."]);
        assert_eq!(names("a.b", &search, 5, true)[2], "a.b.");
        assert_eq!(names("a.b.", &search, 5, true), ["a.b."]);
        assert_eq!(names("app", &search, 1, false), ["app."], "own nameservers get the name as it is");
    }

    #[test]
    fn addresses_are_in_order_and_none_is_everywhere() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let found = ["10.0.0.2", "0.0.0.0", "10.0.0.1", "10.0.0.2", "224.0.0.1"].map(parse);
        let later = Instant::now() + Duration::from_secs(9);
        assert_eq!(addresses(found.into_iter(), later).unwrap().all, ["10.0.0.1", "10.0.0.2"].map(parse));
        assert!(addresses([parse("::")].into_iter(), later).is_none());
    }

    #[test]
    fn the_hosts_file_comes_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lookup =
            async { Nameservers::default().lookup(Question::Host("LocalHost", 80), LOOKUP_MAX).await };
        let local = Endpoint { address: (Ipv4Addr::LOCALHOST, 80).into(), weight: None, host: 0 };
        assert_eq!(runtime.block_on(lookup).unwrap().all, [local]);
    }

    #[test]
    fn the_hosts_with_the_best_priority_count_and_weights_keep_their_proportion() {
        let read = |records: &[(u16, u16, u16, &str)]| -> Vec<(String, u16)> {
            let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
                let srv = SRV::new(*priority, *weight, *port, Name::from_ascii(host).unwrap());
                Record::from_rdata(Name::root(), 5, RData::SRV(srv))
            };
            let records: Vec<_> = records.iter().map(record).collect();
            let found = targets(&records, Instant::now());
            let found = found.map(|found| found.all).unwrap_or_default();
            found
                .into_iter()
                .map(|target| (format!("{}{}", target.host, target.port), target.weight))
                .collect()
        };
        let own = |all: &[(&str, u16)]| {
            all.iter().map(|(host, weight)| ((*host).to_owned(), *weight)).collect::<Vec<_>>()
        };
        let records = [(2, 9, 80, "c."), (1, 65_535, 81, "a."), (1, 0, 82, "b."), (1, 13_107, 83, "d.")];
        assert_eq!(read(&records), own(&[("a.81", 100), ("b.82", 1), ("d.83", 20)]));
        assert_eq!(read(&[(0, 0, 80, "a."), (0, 0, 81, "b.")]), own(&[("a.80", 1), ("b.81", 1)]));
        assert_eq!(read(&[(0, 0, 0, ".")]), own(&[]));
    }
}
