//! Compiles key URLs: `jwks` and `discovery` of `[[issuer]]`, and `jwks` of `[signals.NAME]`.

use super::Faults;
use super::authorities::Authorities;
use crate::authenticate::{Algorithm, KeySet};
use crate::clock::Now;
use crate::config::file::{File, IssuerSection};
use crate::config::network::Cidr;
use crate::key_source::{Copy, KeySource, Location, Owner, SourceSettings, metadata_urls};
use crate::outbound::{Networks, Url};
use crate::route::host::is_own_machine;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The minimum and maximum of `jwks_refresh`.
const REFRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// The maximum of `jwks_max_age`. An issuer that is unreachable for a month has probably closed.
const MAX_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The minimum and maximum of `jwks_cooldown`.
const COOLDOWN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));

/// Whether `jwks` is a URL. Otherwise, it is the path of a file.
pub(super) fn is_url(jwks: &str) -> bool {
    ["https:", "http:"]
        .iter()
        .any(|scheme| jwks.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// Reports settings that have no effect without a key URL.
pub(super) fn unused(key: &str, table: &IssuerSection, faults: &mut Faults<'_>) {
    if table.introspection.is_some() {
        return;
    }
    let keys = [
        ("ca", table.ca.is_some()),
        ("private_networks", !table.private_networks.is_empty()),
        ("allow_http", table.allow_http),
    ];
    for (name, _) in keys.iter().filter(|(_, is_set)| *is_set) {
        let hint = "set jwks = \"https://…\" or discovery = true, or remove this";
        faults.warn("unused", &format!("{key}.{name}"), "the issuer's keys are not fetched from a URL", hint);
    }
}

/// The key sources of the new policy and of the previous policy.
pub(super) struct KeySources<'k, 'f> {
    before: Vec<Arc<KeySource>>,
    state: &'f str,
    pub(super) authorities: &'k mut Authorities<'f>,
}

/// The settings of a key URL in a policy.
pub(super) struct Wish<'f> {
    pub(super) owner: Owner,
    pub(super) location: Location,
    pub(super) ca: Option<&'f str>,
    pub(super) networks: &'f [Cidr],
    pub(super) allows_http: bool,
    pub(super) times: Times,
}

/// The times of fetches, and the maximum age of keys.
pub(super) struct Times {
    refresh: Duration,
    max_age: Duration,
    cooldown: Duration,
}

impl Times {
    pub(super) fn of(table: &IssuerSection) -> Self {
        Self {
            refresh: table.jwks_refresh.into(),
            max_age: table.jwks_max_age.into(),
            cooldown: table.jwks_cooldown.into(),
        }
    }
}

impl<'k, 'f> KeySources<'k, 'f> {
    /// Creates a collection from the sources of the previous policy.
    pub(super) fn after(
        file: &'f File,
        before: Vec<Arc<KeySource>>,
        authorities: &'k mut Authorities<'f>,
    ) -> Self {
        Self { before, state: &file.state.dir, authorities }
    }

    /// Returns the key source of an issuer and its last valid key set. The set is empty if none was fetched yet.
    pub(super) fn source(
        &mut self,
        key: &str,
        table: &'f IssuerSection,
        algorithms: &[Algorithm],
        faults: &mut Faults<'_>,
    ) -> Option<(KeySet, Arc<KeySource>)> {
        let fault_count = faults.fault_count;
        let (name, location) = location(key, table, faults)?;
        check_times(key, table, faults);
        let wish = Wish {
            owner: Owner::Issuer(Arc::from(&*table.issuer)),
            location,
            ca: table.ca.as_deref(),
            networks: &table.private_networks,
            allows_http: table.allow_http,
            times: Times::of(table),
        };
        let found = self.find((key, name), &wish, algorithms, faults)?;
        (faults.fault_count == fault_count).then_some(found)
    }

    /// Returns the key source for the given settings and its last valid key set. `key` is the key of the table. `name`
    /// is the setting with the location.
    pub(super) fn find(
        &mut self,
        (key, name): (&str, &str),
        wish: &Wish<'f>,
        algorithms: &[Algorithm],
        faults: &mut Faults<'_>,
    ) -> Option<(KeySet, Arc<KeySource>)> {
        let fault_count = faults.fault_count;
        if algorithms.iter().any(|algorithm| algorithm.has_secret()) {
            faults.fault(
                "mixed_keys",
                &format!("{key}.algorithms"),
                "a shared secret by URL: anyone who can read the key set could sign tokens",
                "use the issuer's public-key algorithms, such as [\"RS256\"] (RFC 8725 section 3.1)",
            );
        }
        check_networks(key, wish.networks, faults);
        let (roots, authorities) = self.authorities.of(key, name, wish.ca, faults)?;
        if faults.fault_count > fault_count {
            return None;
        }
        let state: PathBuf = faults.unwatched_path(self.state);
        let copy = Copy::path(&state, &wish.owner, &wish.location);
        let settings = SourceSettings {
            owner: wish.owner.clone(),
            location: wish.location.clone(),
            authorities,
            networks: Networks::new(wish.networks.to_vec()),
            allows_http: wish.allows_http,
            refresh: wish.times.refresh,
            max_age: wish.times.max_age,
            cooldown: wish.times.cooldown,
            copy,
        };
        let before = self.before.iter().find(|before| before.settings().owner == settings.owner);
        let now = Now::read();
        match KeySource::after(settings, roots, before, now) {
            Ok(source) => {
                let good = source.good(now);
                let keys = good.and_then(|good| KeySet::from_jwks(&good.body, algorithms).ok());
                Some((keys.map(|(keys, _)| keys).unwrap_or_default(), source))
            }
            Err(why) => {
                faults.fault("tls", key, why, "please report this: it is an error in the gateway");
                None
            }
        }
    }
}

/// Returns the location of an issuer's keys, and the name of the setting that contains it.
fn location(key: &str, table: &IssuerSection, faults: &mut Faults<'_>) -> Option<(&'static str, Location)> {
    let (name, place) = match &table.jwks {
        Some(text) => {
            let url = key_set_url(&format!("{key}.jwks"), text, table.allow_http, faults)?;
            ("jwks", Ok((url.clone(), Location::KeySet(url))))
        }
        None => {
            let urls = metadata_urls(&table.issuer);
            let urls =
                urls.and_then(|urls| Ok((urls.first().cloned().ok_or("no URL")?, Location::Metadata(urls))));
            ("discovery", urls)
        }
    };
    let at = format!("{key}.{name}");
    let (url, location) = match place {
        Ok(place) => place,
        Err(why) => {
            let found = format!("true, but the issuer \"{}\" {why}", table.issuer);
            faults.fault("bad_value", &at, found, "set jwks to the URL or the file of the key set");
            return None;
        }
    };
    let url = encrypted(&at, url, table.allow_http, faults)?;
    if table.allow_http && (name == "discovery" || !url.is_https()) && is_far(url.host()) {
        faults.warn(
            "keys_in_cleartext",
            &format!("{key}.allow_http"),
            format!("true: anyone on the path to {} can replace the keys and sign tokens", url.host()),
            "use https, with ca = \"FILE\" for an authority of your own",
        );
    } else if table.allow_http && url.is_https() {
        faults.warn("unused", &format!("{key}.allow_http"), "true, but the URL is https", "remove this");
    }
    Some((name, location))
}

/// Returns the URL of a key set.
pub(super) fn key_set_url(at: &str, text: &str, allows_http: bool, faults: &mut Faults<'_>) -> Option<Url> {
    match Url::parse(text) {
        Ok(url) => encrypted(at, url, allows_http, faults),
        Err(why) => {
            let hint = "jwks = \"https://id.example.com/jwks.json\"";
            faults.fault("bad_value", at, format!("the URL {why}"), hint);
            None
        }
    }
}

/// Returns the URL if it uses https or the policy allows cleartext.
fn encrypted(at: &str, url: Url, allows_http: bool, faults: &mut Faults<'_>) -> Option<Url> {
    if url.is_https() || allows_http {
        return Some(url);
    }
    faults.fault(
        "bad_value",
        at,
        format!("{url}: anyone on the path could replace the keys"),
        "use https, with ca = \"FILE\" for an authority of your own (or set allow_http = true)",
    );
    None
}

fn check_times(key: &str, table: &IssuerSection, faults: &mut Faults<'_>) {
    let refresh = Duration::from(table.jwks_refresh);
    let mut within = |name: &str, time: Duration, (least, most): (Duration, Duration), range: &str| {
        if time < least || time > most {
            faults.fault(
                "bad_value",
                &format!("{key}.{name}"),
                format!("not within {range}"),
                format!("use {range}"),
            );
        }
    };
    within("jwks_refresh", refresh, REFRESH, "\"1s\" to \"24h\"");
    within("jwks_max_age", table.jwks_max_age.into(), (refresh, MAX_AGE_MAX), "jwks_refresh to \"30d\"");
    within("jwks_cooldown", table.jwks_cooldown.into(), COOLDOWN, "\"100ms\" to \"5m\"");
}

/// Reports networks that contain every address.
pub(super) fn check_networks(key: &str, networks: &[Cidr], faults: &mut Faults<'_>) {
    for (index, network) in networks.iter().enumerate() {
        if network.is_everything() {
            faults.fault(
                "bad_value",
                &format!("{key}.private_networks[{index}]"),
                format!("{network}: all addresses, including the metadata of cloud platforms"),
                "use the networks in which the issuer is, such as \"10.96.0.0/12\"",
            );
        }
    }
}

/// Whether requests to a host cross a network.
pub(super) fn is_far(host: &str) -> bool {
    !is_own_machine(host) && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
