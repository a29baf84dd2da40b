//! Compiles `[shared]`: the Redis or Valkey that several gateways share.

use super::Faults;
use super::authorities::Authorities;
use super::secrets::resolve;
use crate::config::file::{File, SharedSection};
use crate::config::secret::Secret;
use crate::key_source::SetSecrets;
use crate::shared::{Address, Login, OnErrors, Servers, SharedSettings, Trusted};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// The bounds of `connect_timeout`.
const CONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// The bounds of `answer_timeout`. A request with a DPoP proof may wait for as long.
const ANSWER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(2));
/// The maximum number of Sentinels, and of named nodes of a cluster.
const SERVERS_MAX: usize = 32;
/// The maximum length of `prefix` in bytes.
const PREFIX_MAX: usize = 64;

/// Compiles the section, if the file has it.
pub(super) fn compile<'f>(
    file: &'f File,
    authorities: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Option<Arc<SharedSettings>> {
    let table = file.shared.as_ref()?;
    let servers = servers(table, faults);
    let login = login("", table.user.as_deref(), table.password.as_ref(), faults);
    let sentinel_login =
        self::login("sentinel_", table.sentinel_user.as_deref(), table.sentinel_password.as_ref(), faults);
    for (key, value, (least, most)) in [
        ("shared.connect_timeout", table.connect_timeout, CONNECT),
        ("shared.answer_timeout", table.answer_timeout, ANSWER),
    ] {
        if !(least..=most).contains(&Duration::from(value)) {
            let hint = format!("use a duration from \"{}ms\" to \"{}s\"", least.as_millis(), most.as_secs());
            faults.fault("bad_value", key, value.to_string(), hint);
        }
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.{}".contains(c);
    let is_short = (1..=PREFIX_MAX).contains(&table.prefix.len());
    // A cluster finds no hash tag in a key whose first braces are empty. The counters of a login need a tag.
    if !is_short || table.prefix.contains("{}") || !table.prefix.chars().all(is_plain) {
        let hint = format!(
            "use 1 to {PREFIX_MAX} letters, digits, dots, dashes, underscores and braces around text"
        );
        faults.fault("bad_value", "shared.prefix", format!("{:?}", table.prefix), hint);
    }
    let keys = set_secrets(table, faults);
    let (servers, key) = servers?;
    let trusted = match uses_tls(&servers) {
        true => Some(trusted(table, key, authorities, faults)?),
        false => None,
    };
    Some(Arc::new(SharedSettings {
        servers,
        login: login?,
        sentinel_login: sentinel_login?,
        trusted,
        prefix: table.prefix.as_str().into(),
        connect_timeout: table.connect_timeout.into(),
        answer_timeout: table.answer_timeout.into(),
        replay: table.replay,
        keys,
        on_error: OnErrors {
            limits: table.on_error.limits,
            login: table.on_error.login,
            revocation: table.on_error.revocation,
            replay: table.on_error.replay,
        },
    }))
}

/// Returns the secrets of the key sets that gateways pass to each other.
fn set_secrets(table: &SharedSection, faults: &mut Faults<'_>) -> Option<Arc<SetSecrets>> {
    let mut long = |key: &str, secret: &Secret| {
        let secret = resolve(key, secret, faults)?;
        if secret.len() < 32 {
            let hint = "use at least 256 random bits: openssl rand -hex 32";
            faults.fault("weak_secret", key, "a secret of fewer than 32 bytes", hint);
        }
        Some(secret)
    };
    let current = table.keys_secret.as_ref().map(|secret| long("shared.keys_secret", secret));
    let other = table.other_keys_secret.as_ref().and_then(|secret| long("shared.other_keys_secret", secret));
    if current.is_none() && other.is_some() {
        let hint = "set it: the gateway passes key sets on with this secret only";
        faults.fault("missing_key", "shared.keys_secret", "nothing, beside other_keys_secret", hint);
    }
    Some(Arc::new(SetSecrets::new(&current??, other.as_deref())))
}

/// Returns the servers, and the key that names them. `None` after a fault.
fn servers(table: &SharedSection, faults: &mut Faults<'_>) -> Option<(Servers, &'static str)> {
    let named = [
        ("url", table.url.is_some()),
        ("sentinels", !table.sentinels.is_empty()),
        ("cluster", !table.cluster.is_empty()),
    ];
    let named: Vec<_> = named.iter().filter(|(_, is_named)| *is_named).map(|(key, _)| *key).collect();
    let &[key] = &*named else {
        let hint = "set one of url (one server), sentinels with master, and cluster";
        let found = if named.is_empty() { "no server".to_owned() } else { named.join(" and ") };
        let id = if named.is_empty() { "missing_key" } else { "bad_value" };
        faults.fault(id, "shared", found, hint);
        return None;
    };
    if key != "sentinels" {
        for (other, is_set) in [
            ("master", table.master.is_some()),
            ("sentinel_user", table.sentinel_user.is_some()),
            ("sentinel_password", table.sentinel_password.is_some()),
        ] {
            if is_set {
                let found = format!("{other} without sentinels");
                faults.fault("bad_value", &format!("shared.{other}"), found, "remove it, or set sentinels");
            }
        }
    }
    match key {
        "url" => {
            let url = table.url.as_deref().unwrap_or_default();
            let address = address("shared.url", url, faults)?;
            Some((Servers::One { address, database: table.database }, "url"))
        }
        "sentinels" => {
            let sentinels = addresses("shared.sentinels", &table.sentinels, faults);
            let Some(master) = table.master.as_deref().filter(|master| !master.is_empty()) else {
                let hint = "the name of the server in `sentinel monitor`";
                faults.fault("missing_key", "shared.master", "no name of the server", hint);
                return None;
            };
            Some((
                Servers::Sentinel { sentinels: sentinels?, master: master.into(), database: table.database },
                "sentinels",
            ))
        }
        _ => {
            if table.database != 0 {
                let found = format!("{} of a cluster", table.database);
                faults.fault("bad_value", "shared.database", found, "remove it: a cluster has database 0");
            }
            Some((Servers::Cluster(addresses("shared.cluster", &table.cluster, faults)?), "cluster"))
        }
    }
}

fn addresses(key: &str, texts: &[String], faults: &mut Faults<'_>) -> Option<Box<[Address]>> {
    if texts.len() > SERVERS_MAX {
        faults.fault(
            "too_many",
            key,
            format!("{} servers", texts.len()),
            format!("use at most {SERVERS_MAX}"),
        );
        return None;
    }
    let each = texts.iter().enumerate();
    let all: Vec<_> =
        each.filter_map(|(index, text)| address(&format!("{key}[{index}]"), text, faults)).collect();
    let is_mixed = all.iter().any(Address::is_tls) && !all.iter().all(Address::is_tls);
    if is_mixed {
        let hint = "use the same scheme for all: the other servers are reached like these";
        faults.fault("bad_value", key, "rediss:// beside another scheme", hint);
    }
    (all.len() == texts.len() && !is_mixed).then(|| all.into())
}

fn address(key: &str, text: &str, faults: &mut Faults<'_>) -> Option<Address> {
    match text.parse() {
        Ok(address) => Some(address),
        Err(why) => {
            // The text may contain a password, so it is not repeated.
            let hint = "\"redis://HOST:PORT\", \"rediss://HOST:PORT\" for TLS, or \"unix:/PATH\"; the user, the \
                        password and the database have keys of their own";
            faults.fault("bad_value", key, why, hint);
            None
        }
    }
}

fn login(
    kind: &str,
    user: Option<&str>,
    password: Option<&Secret>,
    faults: &mut Faults<'_>,
) -> Option<Login> {
    let key = format!("shared.{kind}password");
    let password = match password {
        Some(secret) => match String::from_utf8(resolve(&key, secret, faults)?) {
            Ok(text) => Some(Zeroizing::new(text)),
            Err(_) => {
                faults.fault("bad_value", &key, "a password that is not UTF-8", "use a password in UTF-8");
                return None;
            }
        },
        None => None,
    };
    if user.is_some() && password.is_none() {
        faults.fault("missing_key", &key, format!("no password beside {kind}user"), "set it");
        return None;
    }
    Some(Login { user: user.map(Into::into), password })
}

fn uses_tls(servers: &Servers) -> bool {
    match servers {
        Servers::One { address, .. } => address.is_tls(),
        Servers::Sentinel { sentinels: all, .. } | Servers::Cluster(all) => all.iter().any(Address::is_tls),
    }
}

fn trusted<'f>(
    table: &'f SharedSection,
    key: &str,
    authorities: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Option<Trusted> {
    let (roots, digest_of_roots) = authorities.of("shared", key, table.ca.as_deref(), faults)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions();
    match config {
        Ok(config) => {
            let config = config.with_root_certificates(roots).with_no_client_auth();
            let connector = TlsConnector::from(Arc::new(config));
            Some(Trusted { connector, digest: digest_of_roots })
        }
        Err(error) => {
            let hint = "please report this: it is an error in the gateway";
            faults.fault("tls", "shared", error.to_string(), hint);
            None
        }
    }
}
