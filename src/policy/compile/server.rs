//! Compiles `[server]`, `[tls]` and `[log]`: the listeners, their bounds and the common settings.

use super::authorities::Authorities;
use super::{Faults, acme, certificates, hsts, private};
use crate::config::file::{self, File};
use crate::config::network::Cidr;
use crate::config::values::TlsVersion;
use crate::counter::CoreValue;
use crate::forward::foreign::{self, Kind};
use crate::forward::{BodyBounds, X_REQUEST_ID};
use crate::journal::{Level, Style};
use crate::peer::forwarded::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::policy::{Front, ProxyProtocol, ServerSettings};
use crate::route::head::HeadBounds;
use crate::route::host::canonical_host;
use crate::route::path::Slashes;
use crate::tls::{MinVersion, TlsSettings};
use crate::worker_settings::{AccessLog, WorkerSettings};
use http::HeaderName;
use http::header::FORWARDED;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The maximum number of workers. Each worker is a thread. A larger number is almost certainly a typo.
const CORES_MAX: usize = 1024;
/// The maximum number of recent decisions in memory. The log can keep more.
const DECISIONS_MAX: usize = 100_000;

pub(super) fn front(file: &File, tls: &TlsSettings, faults: &mut Faults<'_>) -> Front {
    let bounds = &file.server.bounds;
    if file.server.trusted_proxies.iter().any(|network| network.is_everything()) {
        faults.warn(
            "trusts_everybody",
            "server.trusted_proxies",
            "the network contains every address: any client could impersonate any other",
            "list the addresses of the proxies in front of the gateway",
        );
    }
    let hsts = file.tls.as_ref().map_or(file::TlsSection::default().hsts, |tls| tls.hsts.clone());
    let hsts = match hsts.as_str() {
        "" => None,
        text => match hsts::parse(text) {
            Ok(value) => Some(CoreValue::new(value)),
            Err(why) => {
                let found = format!("{why}, so browsers would ignore it");
                faults.fault(
                    "bad_value",
                    "tls.hsts",
                    found,
                    "for example \"max-age=31536000; includeSubDomains\"",
                );
                None
            }
        },
    };
    Front {
        head_bounds: HeadBounds { header_count: bounds.headers, header_bytes: bounds.header_size.as_usize() },
        body_bounds: BodyBounds {
            size: bounds.body_size.as_u64(),
            timeout: bounds.body_timeout.into(),
            min_rate: bounds.min_rate.as_u64(),
        },
        slashes: match file.server.paths {
            file::Paths::Strict => Slashes::Strict,
            file::Paths::Merge => Slashes::Merge,
        },
        trusted_proxies: file.server.trusted_proxies.clone().into(),
        admin_hosts: admin_hosts(file, faults),
        hsts,
        pass: passed_headers(file, faults),
        keeps_decisions: file.policy.decisions > 0,
        redirect: file.server.plain == file::Plain::Redirect && !file.server.https.addresses().is_empty(),
        client_rules: tls.is_guarded().then(|| Box::new(tls.client_rules())),
        reads_origin: !file.cors.is_empty()
            || file.authority.as_ref().is_some_and(|authority| !authority.origins.is_empty()),
    }
}

/// Returns the hosts in `admin_hosts`, in canonical spelling.
fn admin_hosts(file: &File, faults: &mut Faults<'_>) -> Box<[Box<str>]> {
    let mut hosts = Vec::new();
    for (index, written) in file.server.admin_hosts.iter().enumerate() {
        match canonical_host(written) {
            Ok(host) => hosts.push(host.into_owned().into_boxed_str()),
            Err(_) => faults.fault(
                "bad_value",
                &format!("server.admin_hosts[{index}]"),
                format!("\"{written}\""),
                "use a host without scheme and port, such as \"gateway.internal\"",
            ),
        }
    }
    hosts.into()
}

/// Returns the headers in `[identity] pass`. They are forwarded if a trusted proxy sends them.
fn passed_headers(file: &File, faults: &mut Faults<'_>) -> Box<[HeaderName]> {
    let mut passing = Vec::new();
    for (index, text) in file.identity.pass.iter().enumerate() {
        let key = format!("identity.pass[{index}]");
        let Ok(name) = text.parse::<HeaderName>() else {
            let hint = "for example \"X-Forwarded-Client-Cert\"";
            faults.fault("bad_header", &key, format!("\"{text}\" is not a header name"), hint);
            continue;
        };
        let is_written =
            [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REQUEST_ID]
                .contains(&name);
        match foreign::classify(name.as_str()) {
            Some((Kind::Method | Kind::Target | Kind::Proxy, _)) => faults.fault(
                "bad_header",
                &key,
                format!("\"{text}\" can make an upstream see a different request"),
                "list only fields about the client or its connection",
            ),
            Some(_) if is_written || name == FORWARDED => faults.fault(
                "bad_header",
                &key,
                format!("\"{text}\" is read and written by the gateway itself"),
                "remove it: trusted_proxies is sufficient",
            ),
            Some(_) => passing.push(name),
            None => faults.fault(
                "bad_header",
                &key,
                format!("\"{text}\" is forwarded from every client anyway"),
                "remove it: docs/identity.md lists the fields that the gateway strips",
            ),
        }
    }
    if !passing.is_empty() && file.server.trusted_proxies.is_empty() {
        faults.warn(
            "unused",
            "identity.pass",
            "applies to trusted proxies only, and [server] trusted_proxies is empty",
            "add the proxy that sends these fields, or remove this",
        );
    }
    passing.into()
}

/// Returns the number of recent decisions to keep. A decision uses up to 2 KiB.
fn decisions(file: &File, faults: &mut Faults<'_>) -> usize {
    let decisions = file.policy.decisions;
    if decisions > DECISIONS_MAX {
        faults.fault(
            "bad_value",
            "policy.decisions",
            format!("{decisions}: more than the gateway keeps in memory"),
            format!("use a number up to {DECISIONS_MAX}; 0 keeps none"),
        );
    }
    decisions.min(DECISIONS_MAX)
}

/// Compiles the settings. The caller adds the files to watch, because the rest of the policy names them.
pub(super) fn settings<'f>(
    file: &'f File,
    authorities: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> ServerSettings {
    let server = &file.server;
    let https = server.https.addresses().to_vec();
    let http = server.http.addresses().to_vec();
    if https.is_empty() && http.is_empty() {
        faults.fault(
            "nothing_served",
            "server",
            "neither https nor http has an address",
            "set an address for at least one of them",
        );
    }
    same_address(server, faults);
    let proxy_protocol = proxy_protocol(server, faults);
    let redirect = redirect(server, faults);
    check_bounds(&server.bounds, faults);
    let certificates = certificates::compile(file, faults);
    let acme = acme::compile(file, authorities, faults);
    private::check_state_dir(file, faults);
    ServerSettings {
        watch: None,
        cores: cores(server, faults),
        https,
        http,
        admin: server.admin.addresses().to_vec(),
        redirect,
        public_port: server.public_port,
        proxy_protocol,
        tls: certificates,
        acme,
        min_version: match file.tls.clone().unwrap_or_default().min_version {
            TlsVersion::Tls12 => MinVersion::Tls12,
            TlsVersion::Tls13 => MinVersion::Tls13,
        },
        state_dir: faults.state_dir(),
        level: match file.log.level {
            file::LogLevel::Error => Level::Error,
            file::LogLevel::Warn => Level::Warn,
            file::LogLevel::Info => Level::Info,
            file::LogLevel::Debug => Level::Debug,
        },
        worker: worker_settings(file, faults),
    }
}

/// Returns whether cleartext requests are redirected to TLS, and checks the port to which they are.
fn redirect(server: &file::ServerSection, faults: &mut Faults<'_>) -> bool {
    let (https, http) = (server.https.addresses(), server.http.addresses());
    let redirect = server.plain == file::Plain::Redirect;
    if redirect && https.is_empty() && !http.is_empty() {
        faults.fault(
            "nothing_to_redirect_to",
            "server.plain",
            "\"redirect\", but [server] https is off",
            "turn https on, or set plain = \"serve\"",
        );
    }
    if server.public_port == Some(0) {
        faults.fault(
            "bad_value",
            "server.public_port",
            "0 is not a port",
            "use the port that clients connect to, such as 443",
        );
    }
    if https.len() > 1
        && redirect
        && server.public_port.is_none()
        && https.iter().any(|address| address.port() != https[0].port())
    {
        faults.warn(
            "redirect_port",
            "server.https",
            format!("several ports: cleartext requests are redirected to the first, {}", https[0].port()),
            "set public_port to the port that clients connect to, or list that port first",
        );
    }
    redirect
}

/// Checks the bounds of connections and requests.
fn check_bounds(bounds: &file::BoundsSection, faults: &mut Faults<'_>) {
    for (key, duration) in [
        ("server.bounds.header_timeout", Duration::from(bounds.header_timeout)),
        ("server.bounds.body_timeout", bounds.body_timeout.into()),
        ("server.bounds.idle_timeout", bounds.idle_timeout.into()),
    ] {
        if duration.is_zero() {
            faults.fault(
                "bad_value",
                key,
                "0: every request would time out",
                "use a duration such as \"30s\"",
            );
        }
    }
    if bounds.header_size.as_usize() < 1024 {
        faults.fault(
            "bad_value",
            "server.bounds.header_size",
            "less than 1KiB",
            "use at least \"1KiB\"; the default is \"32KiB\"",
        );
    }
    for (key, number) in [
        ("server.bounds.headers", bounds.headers),
        ("server.bounds.connections", bounds.connections),
        ("server.bounds.requests", bounds.requests),
        ("server.bounds.streams", bounds.streams as usize),
    ] {
        if number == 0 {
            faults.fault("bad_value", key, "0: no request could be served", "use a number of at least 1");
        }
    }
}

/// Returns the number of cores.
fn cores(server: &file::ServerSection, faults: &mut Faults<'_>) -> usize {
    match server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers if workers <= CORES_MAX => workers,
        workers => {
            let hint = format!("use at most {CORES_MAX}, or 0 for one per CPU core");
            faults.fault("bad_value", "server.workers", workers.to_string(), hint);
            1
        }
    }
}

/// Compiles the settings of each core.
fn worker_settings(file: &File, faults: &mut Faults<'_>) -> WorkerSettings {
    let (server, bounds) = (&file.server, &file.server.bounds);
    let human = match file.log.format {
        file::LogFormat::Human => true,
        file::LogFormat::Json => false,
        file::LogFormat::Auto => std::io::stdout().is_terminal(),
    };
    WorkerSettings {
        header_timeout: bounds.header_timeout.into(),
        idle_timeout: bounds.idle_timeout.into(),
        body_timeout: bounds.body_timeout.into(),
        min_rate: bounds.min_rate.as_u64(),
        header_size: bounds.header_size.as_usize(),
        header_count: bounds.headers,
        is_asked: file.authority.is_some() && !server.trusted_proxies.is_empty(),
        streams: bounds.streams,
        connections_max: bounds.connections,
        requests_max: bounds.requests as u64,
        drain_delay: server.drain_delay.into(),
        drain: server.drain.into(),
        access: match file.log.access {
            file::LogAccess::On => AccessLog::On,
            file::LogAccess::Refusals => AccessLog::Refusals,
            file::LogAccess::Off => AccessLog::Off,
        },
        style: if human { Style::Human } else { Style::Json },
        decisions: decisions(file, faults),
    }
}

/// Compiles `[server.proxy_protocol]`.
fn proxy_protocol(server: &file::ServerSection, faults: &mut Faults<'_>) -> ProxyProtocol {
    let Some(table) = &server.proxy_protocol else { return ProxyProtocol::default() };
    if table.from.is_empty() {
        let hint = "list the addresses of the load balancers";
        faults.fault("missing_key", "server.proxy_protocol.from", "every connection would be closed", hint);
    }
    if table.from.iter().any(Cidr::is_everything) {
        faults.warn(
            "trusts_everybody",
            "server.proxy_protocol.from",
            "the network contains every address: any client could claim any address",
            "list the addresses of the load balancers in front of the gateway",
        );
    }
    let from: Arc<[Cidr]> = table.from.clone().into();
    let of = |is_proxied: bool| is_proxied.then(|| from.clone());
    ProxyProtocol { https: of(table.https), http: of(table.http) }
}

/// Reports listeners with the same address. For port 0, the system chooses a free port for each listener.
fn same_address(server: &file::ServerSection, faults: &mut Faults<'_>) {
    let mut known: Vec<(SocketAddr, &str)> = Vec::new();
    for (key, listen) in
        [("server.https", &server.https), ("server.http", &server.http), ("server.admin", &server.admin)]
    {
        for address in listen.addresses().iter().filter(|address| address.port() != 0) {
            match known.iter().find(|(other, _)| other == address) {
                Some((_, other)) => {
                    let found = format!("{address} is also an address of {other}");
                    faults.fault("same_address", key, found, "use another port for one of them");
                }
                None => known.push((*address, key)),
            }
        }
    }
}
