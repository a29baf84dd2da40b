//! Resolves the names of servers, with the lifetimes of the answers.
//!
//! The hosts file, the search domains and the nameservers are those of the system (hosts(5), resolv.conf(5)), unless the
//! policy names nameservers. The files are read for each lookup, so a change needs no restart. The library's own search is
//! not used: it asks for a search domain before it looks into the hosts file, and takes a failure for an answer.

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver, system_conf};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Maximum time of a lookup.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// Maximum number of search domains, as in glibc before 2.26. More are ignored.
const SEARCH_MAX: usize = 6;

/// The nameservers of an upstream. If empty, those of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Nameservers(pub(crate) Box<[SocketAddr]>);

/// The addresses of a name. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The addresses in ascending order, each once.
    pub(crate) all: Vec<IpAddr>,
    /// The time for which the addresses are valid.
    pub(crate) lifetime: Duration,
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
    /// # Errors
    /// Returns [`LookupError::NoAddress`] only if a nameserver says so.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Addresses, LookupError> {
        match tokio::time::timeout(LOOKUP_MAX, self.ask(name)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(LookupError::Failed(format!("no answer within {LOOKUP_MAX:?}"))),
        }
    }

    async fn ask(&self, name: &str) -> Result<Addresses, LookupError> {
        let failed = |why: &dyn fmt::Display| LookupError::Failed(why.to_string());
        let name = Name::from_str_relaxed(name).map_err(|error| failed(&error))?;
        let (config, options, hosts) = if self.is_system() {
            // A file may be on a slow folder.
            tokio::task::spawn_blocking(system).await.map_err(|error| failed(&error))?
        } else {
            (self.config(), ResolverOpts::default(), Hosts::default())
        };
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Some(lookup) = hosts.lookup_static_host(&Query::query(name.clone(), kind)) {
                let found = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                if let Some(addresses) = addresses(found, lookup.valid_until()) {
                    return Ok(addresses);
                }
            }
        }
        let candidates = candidates(&name, &config, options.ndots, self.is_system());
        let resolver = build(config, options).map_err(|error| failed(&error))?;
        for kind in [RecordType::A, RecordType::AAAA] {
            for candidate in &candidates {
                match resolver.lookup(candidate.clone(), kind).await {
                    Ok(lookup) => {
                        let found = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                        if let Some(addresses) = addresses(found, lookup.valid_until()) {
                            return Ok(addresses);
                        }
                    }
                    Err(error) if error.is_no_records_found() && !is_failure(&error) => {}
                    // Another candidate or family would give addresses that the name does not have.
                    Err(error) => return Err(failed(&error)),
                }
            }
        }
        Err(LookupError::NoAddress)
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
fn addresses(found: impl Iterator<Item = IpAddr>, until: Instant) -> Option<Addresses> {
    let is_usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    let mut all: Vec<_> = found.filter(is_usable).collect();
    all.sort_unstable();
    all.dedup();
    let lifetime = until.saturating_duration_since(Instant::now());
    (!all.is_empty()).then_some(Addresses { all, lifetime })
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
        assert_eq!(addresses([parse("::")].into_iter(), later), None);
    }

    #[test]
    fn the_hosts_file_comes_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(Nameservers::default().lookup("LocalHost")).unwrap();
        assert_eq!(found.all, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
}
