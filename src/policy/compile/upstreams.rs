//! Compiles `[upstream.NAME]`: the servers, and how requests choose and share them.

use super::Faults;
use super::authorities::Authorities;
use super::claims::{Claims, claim_path};
use super::private;
use super::secrets::resolve;
use super::upstream_checks::{check_settings, panic_below};
use super::upstream_tls::{check_use, connector, is_https};
use crate::config::file::{self as config, File, UpstreamSection};
use crate::config::without_password;
use crate::forward::{
    Audience, Balance, Configured, Destination, HashBy, MemberSettings, Nameservers, Protocol, RETRY_WINDOW,
    RetryBudget, Server, Tls, Upstream, UpstreamCounters,
};
use ::aws_lc_rs::hmac;
use http::{HeaderName, Uri};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

/// The upstreams by name. `None` for the built-in echo.
pub(super) type Upstreams = BTreeMap<String, Option<Arc<Upstream>>>;

/// The servers of the previous policy. A server that is also in the new policy keeps its connections and its health.
type Servers = HashMap<ServerIdentity, Arc<Server>>;

/// The name of the upstream, the origin, the nameservers, the digest of the TLS settings, and the protocol. Two upstreams
/// may check the same server differently, so each has its own state of the server.
type ServerIdentity = (Arc<str>, Arc<str>, Nameservers, Option<[u8; 32]>, Protocol);

fn identity(upstream: &str, server: &Server, protocol: Protocol) -> ServerIdentity {
    let tls = server.tls.as_ref().map(|tls| tls.identity);
    (Arc::from(upstream), server.origin.clone(), server.nameservers.clone(), tls, protocol)
}

/// The state of the previous policy.
struct Previous {
    servers: Servers,
    upstreams: HashMap<Arc<str>, Arc<Upstream>>,
    /// The number of cores.
    cores: usize,
}

/// Compiles the upstreams. `cores` is the number of running cores, which a reload does not change.
pub(super) fn compile<'f>(
    file: &'f File,
    claims: &mut Claims,
    before: &[Arc<Upstream>],
    cores: usize,
    roots: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Upstreams {
    let servers = before.iter().flat_map(|upstream| {
        let identity = |server: &Server| identity(&upstream.name, server, upstream.protocol);
        upstream.all_servers().into_iter().map(move |server| (identity(&server), server))
    });
    let upstreams = before.iter().map(|upstream| (upstream.name.clone(), upstream.clone()));
    let previous =
        Previous { servers: servers.collect(), upstreams: upstreams.collect(), cores: cores.max(1) };
    let upstream =
        |(name, table): (&String, _)| (name.clone(), upstream(name, table, &previous, claims, roots, faults));
    file.upstream.iter().map(upstream).collect()
}

/// The audiences of identity proofs, by name of the upstream.
pub(super) type Audiences = BTreeMap<String, Arc<Audience>>;

/// The minimum length of a shared key, in bytes. Equals the output size of the HMAC (RFC 2104 section 3).
const IDENTITY_SECRET_MIN: usize = 32;

pub(super) fn audiences(file: &File, faults: &mut Faults<'_>) -> Audiences {
    let mut audiences = Audiences::new();
    let mut known: HashMap<Vec<u8>, &str> = HashMap::new();
    for (name, table) in &file.upstream {
        let at = format!("upstream.{name}.identity_secret");
        let secret = table.identity_secret.as_ref().and_then(|secret| resolve(&at, secret, faults));
        if let Some(secret) = secret.as_ref().filter(|secret| secret.len() < IDENTITY_SECRET_MIN) {
            let hint = "use at least 256 random bits: openssl rand -hex 32";
            faults.fault("weak_secret", &at, format!("{} bytes", secret.len()), hint);
        }
        if secret.is_some() && file.identity.signature.is_empty() {
            let hint = "set [identity] signature = \"X-Auth-Signature\", or remove the key";
            faults.warn("unused", &at, "a key, but no signature uses it", hint);
        }
        let key = secret.as_ref().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret));
        if let Some(secret) = secret {
            // Two upstreams with the same key could forge identities for each other.
            let first = *known.entry(secret).or_insert(name);
            if first != name {
                let hint = "use a separate key: openssl rand -hex 32";
                faults.warn("same_secret", &at, format!("the same key as upstream.{first}"), hint);
            }
        }
        audiences.insert(name.clone(), Arc::new(Audience::new(Arc::from(&**name), key)));
    }
    audiences
}

fn upstream<'f>(
    name: &str,
    table: &'f UpstreamSection,
    previous: &Previous,
    claims: &mut Claims,
    roots: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Option<Arc<Upstream>> {
    let key = format!("upstream.{name}");
    match (table.builtin.is_some(), table.servers.is_empty()) {
        (true, true) => return None,
        (true, false) => {
            faults.fault(
                "bad_upstream",
                &format!("{key}.servers"),
                "both servers and builtin are set",
                "keep one of the two",
            );
            return None;
        }
        (false, true) => {
            faults.fault("no_servers", &key, "no servers", "servers = [\"http://127.0.0.1:9001\"]");
            return None;
        }
        (false, false) => {}
    }
    let protocol = match table.protocol {
        config::UpstreamProtocol::Http1 => Protocol::Http1,
        config::UpstreamProtocol::Http2 => Protocol::Http2,
    };
    check_use(&key, table, faults);
    let wants_tls = table.servers.iter().any(|server| is_https(server));
    let tls = if wants_tls { connector(&key, table, roots, faults) } else { None };
    let nameservers = nameservers(&key, table, faults);
    let known = |server: Server| {
        let known = previous.servers.get(&identity(name, &server, protocol)).cloned();
        known.unwrap_or_else(|| Arc::new(server))
    };
    let servers = servers(&key, table, (tls.as_ref(), &nameservers), &known, faults);
    for (key, duration) in
        [(format!("{key}.connect_timeout"), table.connect_timeout), (format!("{key}.timeout"), table.timeout)]
    {
        if std::time::Duration::from(duration).is_zero() {
            faults.fault(
                "bad_value",
                &key,
                "0: every request would time out",
                "use a duration such as \"30s\"",
            );
        }
    }
    let connections = usize::try_from(table.connections).unwrap_or(usize::MAX);
    if connections == 0 {
        let hint = "use the maximum number of connections to each server, such as 1000";
        faults.fault("bad_value", &format!("{key}.connections"), "0: no request could be forwarded", hint);
    }
    let check = check_settings(name, table, faults);
    let panic_below = panic_below(&key, table, faults);
    let weights = weights(&key, table, faults);
    let balance = balance(&key, table, claims, faults)?;
    if servers.is_empty() || servers.len() != weights.len() {
        return None;
    }
    let before = previous.upstreams.get(name).map(|upstream| &**upstream);
    let counters = before.map(|before| before.counters.clone());
    let counters =
        counters.unwrap_or_else(|| Arc::new(UpstreamCounters::new(Arc::from(name), previous.cores)));
    let settings = MemberSettings {
        upstream: counters.name().clone(),
        check,
        nameservers,
        slow_start: table.slow_start.into(),
    };
    let configured = servers.into_iter().zip(weights).map(|(server, weight)| {
        let is_expanded =
            (table.resolve == config::Resolve::EveryAddress || server.is_service()) && is_expandable(&server);
        Configured { server, weight, is_expanded }
    });
    // The state of servers with another protocol is not theirs.
    let before = before.filter(|before| before.protocol == protocol);
    let mut upstream = Upstream::new(counters, settings, configured.collect(), before, &known);
    (upstream.connect_timeout, upstream.timeout) = (table.connect_timeout.into(), table.timeout.into());
    upstream.share = connections.div_ceil(previous.cores).max(1);
    (upstream.balance, upstream.protocol, upstream.panic_below) = (balance, protocol, panic_below);
    upstream.retry_budget = retry_budget(&key, table, previous.cores, faults);
    Some(Arc::new(upstream))
}

/// Compiles the servers. Invalid ones are missing in the result.
fn servers(
    key: &str,
    table: &UpstreamSection,
    (tls, nameservers): (Option<&Tls>, &Nameservers),
    known: &dyn Fn(Server) -> Arc<Server>,
    faults: &mut Faults<'_>,
) -> Vec<Arc<Server>> {
    let mut servers = Vec::new();
    for (index, text) in table.servers.iter().enumerate() {
        match server(text, tls) {
            Ok(server) => {
                if let Some(socket) = &server.socket {
                    private::check_socket(&format!("{key}.servers[{index}]"), socket, faults);
                }
                servers.push(match server.has_name() {
                    true => known(server.with_nameservers(nameservers.clone())),
                    false => known(server),
                });
            }
            Err(why) => faults.fault(
                "bad_server",
                &format!("{key}.servers[{index}]"),
                format!("\"{}\": {why}", without_password(text)),
                "use \"http://host:port\" or \"https://host:port\", without a path, or \"unix:/path\"",
            ),
        }
    }
    servers
}

/// Maximum number of nameservers.
const NAMESERVERS_MAX: usize = 8;

/// Returns the nameservers of an upstream.
fn nameservers(key: &str, table: &UpstreamSection, faults: &mut Faults<'_>) -> Nameservers {
    let key = format!("{key}.resolver");
    let mut addresses = Vec::new();
    for (index, text) in table.resolver.iter().enumerate() {
        let address: Option<SocketAddr> =
            text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)));
        match address.filter(|address| address.port() != 0) {
            Some(address) => addresses.push(address),
            None => {
                let hint = "an address of a nameserver, with a port if it is not 53";
                faults.fault("bad_value", &format!("{key}[{index}]"), format!("\"{text}\""), hint);
            }
        }
    }
    if addresses.len() > NAMESERVERS_MAX {
        let hint = format!("use at most {NAMESERVERS_MAX} nameservers");
        faults.fault("too_many", &key, format!("{} nameservers", addresses.len()), hint);
    }
    let has_name = |server: &String| self::server(server, None).is_ok_and(|server| server.has_name());
    if !addresses.is_empty() && !table.servers.iter().any(has_name) {
        let hint = "remove it, or write the servers by their names";
        faults.warn("unused", &key, "nameservers, but no server has a name", hint);
    }
    Nameservers(addresses.into())
}

/// Whether each address of a server's name may be a server. The addresses of `localhost` are one machine, and a service
/// may listen at only one of them.
fn is_expandable(server: &Server) -> bool {
    let host = server.host.trim_end_matches('.').to_ascii_lowercase();
    server.is_service() || server.has_name() && host != "localhost" && !host.ends_with(".localhost")
}

fn retry_budget(key: &str, table: &UpstreamSection, cores: usize, faults: &mut Faults<'_>) -> RetryBudget {
    let percent = u8::try_from(table.retry_percent).ok().filter(|percent| *percent <= 100);
    if percent.is_none() {
        let found = table.retry_percent.to_string();
        faults.fault("bad_value", &format!("{key}.retry_percent"), found, "a percentage from 0 to 100");
    }
    let rate = table.retry_floor;
    let in_window = u128::from(rate.count.get()) * RETRY_WINDOW.as_nanos() / rate.per.as_nanos().max(1);
    // Each core has an equal share of the floor, rounded up.
    let floor = in_window.div_ceil(cores as u128);
    RetryBudget { percent: percent.unwrap_or_default(), floor: u64::try_from(floor).unwrap_or(u64::MAX) }
}

/// The maximum number of servers of an upstream.
const SERVERS_MAX: usize = 1000;
/// The maximum weight of a server.
const WEIGHT_MAX: u16 = 100;

/// Returns a weight for each server.
fn weights(key: &str, table: &UpstreamSection, faults: &mut Faults<'_>) -> Vec<u16> {
    let (count, given) = (table.servers.len(), table.weights.len());
    if count > SERVERS_MAX {
        let hint = format!("use at most {SERVERS_MAX} servers");
        faults.fault("too_many", &format!("{key}.servers"), format!("{count} servers"), hint);
    }
    if given == 0 {
        return vec![1; count];
    }
    if given != count {
        let hint = "one weight for each server, in the same order";
        let found = format!("{given} weights for {count} servers");
        faults.fault("bad_upstream", &format!("{key}.weights"), found, hint);
    }
    let read = |(index, weight): (usize, &u32)| {
        let weight = u16::try_from(*weight).ok().filter(|weight| (1..=WEIGHT_MAX).contains(weight));
        weight.unwrap_or_else(|| {
            let hint = format!("a weight from 1 to {WEIGHT_MAX}; remove a server that must get no requests");
            let found = table.weights[index].to_string();
            faults.fault("bad_value", &format!("{key}.weights[{index}]"), found, hint);
            1
        })
    };
    table.weights.iter().enumerate().map(read).collect()
}

fn balance(
    key: &str,
    table: &UpstreamSection,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Balance> {
    let by_key = format!("{key}.hash_by");
    let is_given = !table.hash_by.is_empty();
    match table.balance {
        config::Balance::Hash if !is_given => {
            let hint = "hash_by = [\"subject\", \"client_ip\"]: the properties that select a server";
            faults.fault("missing_key", &by_key, "nothing", hint);
            return None;
        }
        config::Balance::Hash => {}
        config::Balance::RoundRobin | config::Balance::LeastRequests | config::Balance::TwoChoices
            if is_given =>
        {
            let hint = "balance = \"hash\", or remove this";
            faults.fault("bad_upstream", &by_key, "properties, but the balance is not \"hash\"", hint);
            return None;
        }
        config::Balance::RoundRobin => return Some(Balance::RoundRobin),
        config::Balance::LeastRequests => return Some(Balance::LeastRequests),
        config::Balance::TwoChoices => return Some(Balance::TwoChoices),
    }
    let mut properties = Vec::new();
    for (index, text) in table.hash_by.iter().enumerate() {
        properties.push(hash_by(&format!("{by_key}[{index}]"), text, claims, faults)?);
    }
    Some(Balance::Hash(properties.into()))
}

pub(super) fn hash_by(key: &str, text: &str, claims: &mut Claims, faults: &mut Faults<'_>) -> Option<HashBy> {
    let is_name = |name: &str| name.parse::<HeaderName>().is_ok();
    Some(match text.split_once(':') {
        None if text == "client_ip" => HashBy::ClientIp,
        None if text == "subject" => HashBy::Subject,
        Some(("header", name)) if is_name(name) => HashBy::Header(name.parse().ok()?),
        // The name of a cookie is a token, like that of a header (RFC 6265 section 4.1.1).
        Some(("cookie", name)) if is_name(name) => HashBy::Cookie(name.into()),
        Some(("claim", path)) => HashBy::Claim(claims.id(claim_path(key, path, faults)?)),
        Some(_) | None => {
            let hint = "\"client_ip\", \"subject\", \"header:X-Tenant\", \"cookie:NAME\" or \"claim:tenant\"";
            faults.fault("bad_value", key, format!("\"{text}\""), hint);
            return None;
        }
    })
}

/// Returns a server at a Unix socket. The socket may be created later.
fn socket(text: &str, path: &str) -> Result<Server, String> {
    /// The maximum length of the path, in bytes (unix(7)). A zero byte follows it.
    const PATH_MAX: usize = 107;
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("not the absolute path of a socket".to_owned());
    }
    if path.len() > PATH_MAX {
        return Err(format!("the path is longer than {PATH_MAX} bytes"));
    }
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
        return Err("the file is not a socket".to_owned());
    }
    Ok(Server::at_socket(Arc::from(text), Path::new(path)))
}

fn server(text: &str, tls: Option<&Tls>) -> Result<Server, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(text, path);
    }
    // A URL with a trailing slash after the host equals a URL without a path.
    let text = text.strip_suffix('/').filter(|rest| !rest.ends_with('/')).unwrap_or(text);
    let service = text.strip_prefix("srv+");
    let uri: Uri = service.unwrap_or(text).parse().map_err(|error| format!("not a URL: {error}"))?;
    let (default_port, tls) = match uri.scheme_str() {
        Some("http") => (80, None),
        Some("https") => (443, tls.cloned()),
        Some(other) => return Err(format!("the scheme {other} is not supported")),
        None => return Err("no scheme".to_owned()),
    };
    if uri.path() != "/" || uri.query().is_some() || text.ends_with('/') {
        return Err("has a path or query".to_owned());
    }
    let authority = uri.authority().ok_or("no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user name".to_owned());
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("no host".to_owned());
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str().len() > authority.host().len() => {
            return Err("the port is not a number".to_owned());
        }
        None => default_port,
    };
    if port == 0 {
        return Err("port 0 cannot be connected to".to_owned());
    }
    if service.is_some() {
        if authority.port().is_some() {
            return Err("the records of a service have the ports, so the URL has none".to_owned());
        }
        // `_http._tcp.example.com` is a service of `example.com`.
        let mut domain = host;
        while let Some((_, rest)) = domain.split_once('.').filter(|(label, _)| label.starts_with('_')) {
            domain = rest;
        }
        if domain.is_empty() || domain.parse::<IpAddr>().is_ok() {
            return Err("not the name of a service".to_owned());
        }
        return Ok(Server::of_service(Arc::from(text), host, domain.into(), tls));
    }
    Ok(Server::new(Arc::from(text), host.into(), port, tls))
}

/// Returns the destination that a route names as its upstream. Reports a fault and returns `None` if it does not exist.
pub(super) fn destination(
    key: &str,
    name: &str,
    upstreams: &Upstreams,
    faults: &mut Faults<'_>,
) -> Option<Destination> {
    let at = format!("{key}.upstream");
    if name.is_empty() {
        faults.fault("missing_key", &at, "nothing", "upstream = \"NAME\" of an [upstream.NAME]");
        return None;
    }
    match upstreams.get(name) {
        Some(Some(upstream)) => Some(Destination::Upstream(upstream.clone())),
        // The upstream is the built-in echo, or its fault has already been reported.
        Some(None) => Some(Destination::Echo),
        None => {
            faults.undefined(&at, "upstream", name, upstreams.keys().map(String::as_str));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_at_a_socket_is_an_absolute_path() {
        let server = server("unix:/nonexistent/app.sock", None).unwrap();
        assert_eq!(server.socket.as_deref(), Some(Path::new("/nonexistent/app.sock")));
        assert_eq!(server.authority().unwrap(), "localhost");
        let longest = format!("unix:/{}", "x".repeat(106));
        assert!(super::server(&longest, None).is_ok());
        let file = concat!("unix:", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for text in
            ["unix:", "unix:app.sock", "unix:/", "unix:/a/", "unix:/a\0b", file, &format!("{longest}x")]
        {
            assert!(super::server(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_are_a_scheme_a_host_and_a_port() {
        for (text, host, port) in [
            ("http://127.0.0.1:9001", "127.0.0.1", 9001),
            ("http://[::1]:9001", "::1", 9001),
            ("http://orders", "orders", 80),
            ("http://orders:9001/", "orders", 9001),
            ("srv+http://_http._tcp.orders.test", "orders.test", 0),
            ("srv+https://orders.test/", "orders.test", 0),
        ] {
            let server = server(text, None).unwrap();
            assert_eq!((&*server.host, server.port), (host, port), "{text}");
        }
        for text in [
            "127.0.0.1:9001",
            "ftp://a:1",
            "http://a:1/path",
            "http://a:1//",
            "http://a:1/?",
            "http://a:1?q",
            "http://user@a:1",
            "http://:80",
            "http://a:0",
            "http://a:99999",
            "srv+http://a:1",
            "srv+http://127.0.0.1",
            "srv+http://_a.",
            "srv+unix:/a",
            "http://",
            "",
        ] {
            assert!(server(text, None).is_err(), "{text}");
        }
    }
}
