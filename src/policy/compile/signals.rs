//! Compiles `[signals.NAME]`: the receivers of signals and the routes of their endpoints.

use super::Faults;
use super::authorities::Authorities;
use super::counters::CounterRegistry;
use super::endpoint_limits;
use super::key_sources::{self, KeySources, Times, Wish};
use super::limits::{NamedLimits, chosen_limits};
use super::route_list::{RouteList, on_each, own_route};
use super::secrets::resolve;
use crate::authenticate::{Issuer, KeySet, Tenants, digest_of};
use crate::config::file::{File, OpaqueSubject, SignalsSection};
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::key_source::{Location, Owner};
use crate::limit::Limits;
use crate::outbound::{Client, Networks, Settings, Url};
use crate::policy::{Handler, Policy, Route};
use crate::route::{Fields, HostPattern, Matcher, Methods, PathPattern};
use crate::signals::{Opaque, Poll, Receiver, SignalKeys, SignalKind};
use http::HeaderValue;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The maximum number of receivers. Each receiver that polls uses a connection and a task.
const RECEIVERS_MAX: usize = 100;
/// The maximum size of a transmitter's key file.
const KEY_FILE_MAX: ByteSize = ByteSize::bytes(1 << 20);
/// The default `max_lifetime` of an issuer that sends signals, in seconds (one day).
const LIFETIME: u64 = 24 * 3600;
/// The maximum of `max_lifetime` for an issuer that sends signals, in seconds. Each revocation stays in memory for this
/// time.
const LIFETIME_MAX: u64 = 30 * 24 * 3600;

/// Compiles the receivers, and limits the lifetime of their issuers' tokens. A receiver of the previous policy
/// (`before`) keeps its state.
pub(super) fn compile<'f>(
    file: &'f File,
    issuers: &mut [Issuer],
    before: Option<&Policy>,
    authorities: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Vec<Arc<Receiver>> {
    if file.signals.len() > RECEIVERS_MAX {
        let found = format!("{} receivers of signals", file.signals.len());
        faults.fault("too_many", "signals", found, format!("use at most {RECEIVERS_MAX}"));
    }
    let known = before.map_or(&[][..], |before| &before.receivers);
    for issuer in issuers.iter_mut().filter(|issuer| !issuer.local) {
        if file.signals.values().any(|table| *issuer.name == *table.issuer) {
            issuer.profile.max_lifetime.get_or_insert(LIFETIME);
        }
    }
    let sources = known.iter().filter_map(|receiver| Some(receiver.keys.own_source()?.0.clone()));
    let mut sources = KeySources::after(file, sources.collect(), authorities);
    let compiled = file.signals.iter().filter_map(|(name, table)| {
        let mut receiver = receiver(name, table, issuers, &mut sources, faults)?;
        if let Some(known) =
            known.iter().find(|known| *known.name == **name && known.issuer == receiver.issuer)
        {
            receiver.state = known.state.clone();
        }
        Some(Arc::new(receiver))
    });
    compiled.collect()
}

/// Returns the names of the issuers that send signals.
pub(super) fn senders(receivers: &[Arc<Receiver>]) -> Box<[Arc<str>]> {
    let names: BTreeSet<&Arc<str>> = receivers.iter().map(|receiver| &receiver.issuer).collect();
    names.into_iter().cloned().collect()
}

fn receiver<'f>(
    name: &str,
    table: &'f SignalsSection,
    issuers: &[Issuer],
    sources: &mut KeySources<'_, 'f>,
    faults: &mut Faults<'_>,
) -> Option<Receiver> {
    let key = format!("signals.{name}");
    let at = |name: &str| format!("{key}.{name}");
    let before = faults.fault_count;
    if table.issuer.is_empty() {
        let hint = "issuer = \"https://id.example.com/\", as in an [[issuer]]";
        faults.fault("missing_key", &at("issuer"), "nothing", hint);
    }
    let issuer = issuers.iter().find(|issuer| !issuer.local && *issuer.name == *table.issuer);
    // An issuer that is in the file but not in the list has a fault, which has already been reported.
    let is_in_file = file_has(faults, &table.issuer);
    if issuer.is_none() && !is_in_file && !table.issuer.is_empty() {
        let known = issuers.iter().filter(|issuer| !issuer.local).map(|issuer| &*issuer.name);
        faults.undefined(&at("issuer"), "issuer", &table.issuer, known);
    }
    if table.audience.is_empty() {
        faults.fault(
            "no_audience",
            &at("audience"),
            "not set: signals for another receiver of the issuer would be accepted",
            "audience = [\"…\"]: the `aud` claim of security event tokens; for logout, the client id",
        );
    }
    if table.push.is_none() && table.logout.is_none() && table.poll.is_none() {
        let hint = "push = \"/signals/NAME\", poll = \"https://…\" or logout = \"/signals/NAME/logout\"";
        faults.fault("missing_key", &key, "no way in which signals arrive", hint);
    }
    if let Some(issuer) = issuer {
        if issuer.profile.max_lifetime.is_some_and(|life| life > LIFETIME_MAX) {
            let found = "an issuer whose max_lifetime is more than 30 days, and a mark must last as long";
            faults.fault("bad_value", &at("issuer"), found, "set max_lifetime of the issuer to 30d or less");
        }
        if issuer.profile.tenants != Tenants::None {
            let hint = "use an [[issuer]] for each tenant that sends signals";
            faults.fault("bad_value", &at("issuer"), "an issuer with tenants", hint);
        }
    }
    let fetches = table.poll.is_some() || table.jwks.as_deref().is_some_and(key_sources::is_url);
    for (name, unused, what) in [
        ("push_secret", table.push_secret.is_some() && table.push.is_none(), "push"),
        ("poll_secret", table.poll_secret.is_some() && table.poll.is_none(), "poll"),
        ("ca", table.ca.is_some() && !fetches, "poll"),
        ("private_networks", !table.private_networks.is_empty() && !fetches, "poll"),
        ("allow_http", table.allow_http && !fetches, "poll"),
        (
            "rate_limits",
            table.rate_limits.is_some() && table.push.is_none() && table.logout.is_none(),
            "push",
        ),
    ] {
        if unused {
            let hint = format!("set {what}, or remove this");
            faults.warn("unused", &at(name), format!("set, but {what} is not"), hint);
        }
    }
    let keys = keys(name, table, issuer, sources, faults);
    let push_secret =
        table.push_secret.as_ref().map(|secret| resolve(&at("push_secret"), secret, faults).map(digest_of));
    let poll = table.poll.as_ref().map(|url| poll(&key, url, table, sources.authorities, faults));
    if faults.fault_count > before {
        return None;
    }
    let issuer = issuer?;
    let push_secret = match push_secret {
        Some(secret) => Some(secret?),
        None => None,
    };
    let poll = match poll {
        Some(poll) => Some(poll?),
        None => None,
    };
    Some(Receiver {
        name: Arc::from(name),
        issuer: issuer.name.clone(),
        transmitter: Arc::from(table.transmitter.as_deref().unwrap_or(&table.issuer)),
        audience: table.audience.iter().map(|audience| audience.as_str().into()).collect(),
        keys: keys?,
        push_secret,
        poll,
        opaque: match table.opaque {
            Some(OpaqueSubject::Subject) => Opaque::Subject,
            Some(OpaqueSubject::Session) => Opaque::Session,
            None => Opaque::Unknown,
        },
        has_sid: table.has_sid,
        state: Arc::default(),
    })
}

fn file_has(faults: &Faults<'_>, issuer: &str) -> bool {
    faults.loaded.file.issuer.iter().any(|table| table.issuer == issuer)
}

/// Returns the keys of a receiver. Returns `None` after a fault, or if there is no issuer. The issuer defines the
/// algorithms.
fn keys<'f>(
    name: &str,
    table: &'f SignalsSection,
    issuer: Option<&Issuer>,
    sources: &mut KeySources<'_, 'f>,
    faults: &mut Faults<'_>,
) -> Option<SignalKeys> {
    let issuer = issuer?;
    let algorithms = &issuer.algorithms[..];
    let key = format!("signals.{name}");
    let at = format!("{key}.jwks");
    // An issuer that is asked about all its tokens needs neither keys nor algorithms. Its signals are signed.
    let has_keys = issuer.source.is_some() || !issuer.keys.is_empty();
    if algorithms.is_empty() || !has_keys && table.jwks.is_none() {
        let found = match table.jwks.is_none() {
            true => "not set, and the issuer has no keys: no signal could be verified",
            false => "set, but the issuer has no algorithms: no signal could be verified",
        };
        let hint = "set jwks of the signals, and algorithms = [\"RS256\"] in the [[issuer]]";
        faults.fault("no_key", &at, found, hint);
        return None;
    }
    let Some(text) = table.jwks.as_deref() else { return Some(SignalKeys::OfIssuer) };
    if key_sources::is_url(text) {
        let url = key_sources::key_set_url(&at, text, table.allow_http, faults)?;
        if !url.is_https() && key_sources::is_far(url.host()) {
            faults.warn(
                "keys_in_cleartext",
                &at,
                format!("anyone on the path to {} can replace the keys and sign signals", url.host()),
                "use https, with ca = \"FILE\" for an authority of your own",
            );
        }
        let times = faults.loaded.file.issuer.iter().find(|issuer| issuer.issuer == table.issuer)?;
        let times = Times::of(times);
        let wish = Wish {
            owner: Owner::Signals(Arc::from(name)),
            location: Location::KeySet(url),
            ca: table.ca.as_deref(),
            networks: &table.private_networks,
            allows_http: table.allow_http,
            times,
        };
        let (keys, source) = sources.find((&key, "jwks"), &wish, algorithms, faults)?;
        return Some(SignalKeys::fetched(source, keys));
    }
    let path = faults.file(text);
    let bytes = stable_file::read(&path, KEY_FILE_MAX).map_err(|why| why.to_string());
    match bytes.and_then(|bytes| KeySet::from_jwks(&bytes, algorithms)) {
        Ok((keys, _skipped)) => Some(SignalKeys::Fixed(keys)),
        Err(why) => {
            let found = format!("{}: {why}", path.display());
            faults.fault("bad_key", &at, found, "a file with a JSON Web Key Set (RFC 7517 section 5), by its path from the folder of the policy file");
            None
        }
    }
}

fn poll<'f>(
    key: &str,
    text: &str,
    table: &'f SignalsSection,
    authorities: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Option<Poll> {
    let at = format!("{key}.poll");
    let hint = "the https URL of the stream's poll endpoint";
    let url = match Url::parse(text) {
        Ok(url) if url.is_https() || table.allow_http => url,
        Ok(_) => {
            let hint = "use https, or set allow_http = true for a test";
            faults.fault(
                "bad_value",
                &at,
                "an http URL: anyone who can read it could withhold signals",
                hint,
            );
            return None;
        }
        Err(why) => {
            faults.fault("bad_value", &at, why, hint);
            return None;
        }
    };
    let authorization = match &table.poll_secret {
        None => None,
        Some(secret) => {
            let key = format!("{key}.poll_secret");
            let bytes = resolve(&key, secret, faults)?;
            match HeaderValue::from_bytes(&[b"Bearer ", &bytes[..]].concat()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    Some(value)
                }
                Err(_) => {
                    let hint = "use visible ASCII characters";
                    faults.fault("bad_value", &key, "characters that no header field may have", hint);
                    return None;
                }
            }
        }
    };
    let roots = match url.is_https() {
        true => authorities.of(key, "poll", table.ca.as_deref(), faults)?.0,
        false => Arc::new(rustls::RootCertStore::empty()),
    };
    let networks = Networks::new(table.private_networks.clone());
    let settings = Settings { roots, networks, allows_http: table.allow_http, idle: 1 };
    match Client::new(settings) {
        Ok(client) => Some(Poll { url, authorization, client }),
        Err(why) => {
            faults.fault("bad_value", &at, why, hint);
            None
        }
    }
}

/// Adds the routes of the endpoints, for every host in the file.
pub(super) fn routes(
    file: &File,
    receivers: &[Arc<Receiver>],
    limits: &NamedLimits,
    registry: &CounterRegistry,
    list: &mut RouteList,
    faults: &mut Faults<'_>,
) {
    let hosts = list.hosts();
    for (name, table) in &file.signals {
        let limits = match &table.rate_limits {
            Some(names) => chosen_limits(&format!("signals.{name}.rate_limits"), names, limits, faults),
            None => Limits::sort(limits.get(endpoint_limits::SIGNALS.name).cloned().into_iter().collect()),
        };
        for (path, key, kind) in [
            (&table.push, "push", SignalKind::EventToken),
            (&table.logout, "logout", SignalKind::LogoutToken),
        ] {
            let Some(path) = path else { continue };
            let pattern = match PathPattern::parse(path) {
                Ok(pattern) if !path.contains(['{', '}']) => pattern,
                Ok(_) => {
                    let hint = "use a path without parameters, such as /signals/idp";
                    faults.fault("bad_path", &format!("signals.{name}.{key}"), format!("\"{path}\""), hint);
                    continue;
                }
                Err(fault) => {
                    faults.fault("bad_path", &format!("signals.{name}.{key}"), fault.found(), fault.remedy());
                    continue;
                }
            };
            // A receiver with a fault has no routes. The policy is then not served.
            let Some(receiver) = receivers.iter().find(|receiver| *receiver.name == **name) else { continue };
            let Ok(methods) = Methods::parse(&["POST"]) else { continue };
            let name = match kind {
                SignalKind::EventToken => format!("signals:{name}"),
                SignalKind::LogoutToken => format!("signals:{name}:logout"),
            };
            let (host, fields) = (HostPattern::Any, Fields::default());
            let matcher = Matcher { host, path: pattern, methods, fields };
            let handler = Handler::Receive(receiver.clone(), kind);
            let route = own_route(name, matcher.clone(), handler, registry);
            list.add_own(Route { limits: limits.clone(), ..route }, on_each(&hosts, &matcher));
        }
    }
}
