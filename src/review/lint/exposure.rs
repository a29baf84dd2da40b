//! Reports listeners, certificates and upstream connections that are exposed to the network.

use super::Subject;
use crate::config::file::{File, UpstreamTlsSection};
use crate::config::network::leads_to;
use crate::policy::{Faults, hsts};
use crate::shared::Address;
use std::net::{IpAddr, SocketAddr};

pub(super) fn lint(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let Subject { file, settings, .. } = *subject;
    if let Some(address) = settings.admin.iter().find(|address| !is_own(address)) {
        faults.warn(
            "admin_exposed",
            "server.admin",
            format!(
                "{address}: anyone who can connect can read metrics and decisions, and reload the policy"
            ),
            "use 127.0.0.1, or an address that a firewall restricts to operators",
        );
    }
    shared_state(file, faults);
    let guards = file.authority.is_some() || !file.issuer.is_empty();
    if let Some(address) =
        settings.http.iter().find(|address| !settings.redirect && guards && !is_own(address))
    {
        faults.warn(
            "cleartext_exposed",
            "server.plain",
            format!("\"serve\" on {address}: tokens and cookies cross the network in cleartext"),
            "set plain = \"redirect\", or use an address that only a TLS proxy can reach",
        );
    }
    if let Some(address) =
        settings.https.iter().find(|address| settings.tls.is_self_signed() && !is_own(address))
    {
        faults.warn(
            "self_signed",
            "server.https",
            format!("{address} uses a self-signed certificate, which no client trusts"),
            "set [tls] certificate and key, or acme",
        );
    }
    if !settings.https.is_empty() && file.tls.as_ref().is_some_and(|tls| hsts::is_off(&tls.hsts)) {
        faults.warn(
            "hsts_off",
            "tls.hsts",
            "off: a browser's first request may be sent in cleartext and intercepted",
            "use \"max-age=31536000\", unless other services on this host do not support TLS",
        );
    }
    upstreams(file, faults);
    loops(subject, faults);
}

/// Reports servers of upstreams that are listeners of the gateway. A request would come back to the gateway, again and
/// again, or be redirected to the address that it came from.
fn loops(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let Subject { file, settings, .. } = *subject;
    let listeners = settings.https.iter().map(|listener| ("server.https", *listener));
    let listeners = listeners.chain(settings.http.iter().map(|listener| ("server.http", *listener)));
    for (name, table) in &file.upstream {
        for (index, server) in table.servers.iter().enumerate() {
            let own = listeners.clone().find(|(_, listener)| leads_to(server, *listener));
            if let Some((key, listener)) = own {
                faults.warn(
                    "upstream_is_gateway",
                    &format!("upstream.{name}.servers[{index}]"),
                    format!("{server} is {listener} of {key}, an address of the gateway itself"),
                    format!("use the address of the service, or another port in {key}"),
                );
            }
        }
    }
}

/// Reports unprotected connections to upstreams. An attacker who changes data on such a connection can forge identity
/// headers.
fn upstreams(file: &File, faults: &mut Faults<'_>) {
    let proven = !file.identity.assertion.is_empty();
    for (name, table) in &file.upstream {
        let signed = !file.identity.signature.is_empty() && table.identity_secret.is_some();
        for (index, server) in table.servers.iter().enumerate() {
            let inner = server.strip_prefix("https://").and_then(host).filter(|inner| !is_global(*inner));
            let is_named = table.tls.as_ref().is_some_and(UpstreamTlsSection::is_named);
            if let Some(address) = inner.filter(|_| table.ca.is_none() && !is_named) {
                faults.warn(
                    "address_without_ca",
                    &format!("upstream.{name}.servers[{index}]"),
                    format!(
                        "{address}: public authorities do not sign certificates for this address, so every request would fail"
                    ),
                    "set ca = \"FILE\" to the authority that signed it, or use the name in its certificate",
                );
            }
            let host = server.strip_prefix("http://").and_then(host);
            if let Some(address) = host.filter(|address| is_global(*address) && !proven && !signed) {
                faults.warn(
                    "upstream_in_cleartext",
                    &format!("upstream.{name}.servers[{index}]"),
                    format!(
                        "{address} over http: an attacker on the network path can read requests and forge identities"
                    ),
                    "use https://, or have the service verify [identity] assertion",
                );
            }
        }
    }
}

/// Reports a shared state that others can read or write.
fn shared_state(file: &File, faults: &mut Faults<'_>) {
    let Some(table) = &file.shared else { return };
    let one = table.url.iter().map(|url| ("shared.url".to_owned(), url, table.password.is_some()));
    let listed = |key: &'static str, urls, has_password| {
        let each = <[String]>::iter(urls).enumerate();
        each.map(move |(index, url)| (format!("shared.{key}[{index}]"), url, has_password))
    };
    let sentinels = listed("sentinels", &table.sentinels, table.password.is_some());
    let cluster = listed("cluster", &table.cluster, table.password.is_some());
    for (key, url, has_password) in one.chain(sentinels).chain(cluster) {
        let Ok(Address::Tcp { host, is_tls, .. }) = url.parse() else { continue };
        let address = host.parse::<IpAddr>().ok();
        if address.is_some_and(is_global) && !is_tls {
            faults.warn(
                "shared_in_cleartext",
                &key,
                format!("{host} without TLS: an attacker on the network path can read the password and revoke tokens"),
                "use rediss://",
            );
        }
        let is_own = address.is_some_and(|address| address.is_loopback()) || &*host == "localhost";
        if !has_password && !is_own {
            faults.warn(
                "shared_without_password",
                &key,
                format!("{host} without a password: anyone who can connect can revoke every token"),
                "set password, and user for an ACL user that may use only the keys of the gateways",
            );
        }
    }
}

/// Returns the host of an authority if the host is an IP address.
fn host(authority: &str) -> Option<IpAddr> {
    let authority = authority.trim_end_matches('/');
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    authority.parse::<SocketAddr>().map(|address| address.ip()).ok().or_else(|| bare(authority))
}

/// Whether only local processes can connect to the address.
fn is_own(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// Whether an address is globally reachable: not private (RFC 1918, RFC 4193), link-local, loopback or unspecified.
fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            !(v6.is_loopback() || v6.is_unspecified() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80)
        }
    }
}
