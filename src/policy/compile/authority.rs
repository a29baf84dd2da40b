//! Compiles `[authority]`: the settings and endpoint paths of the local authority.

use super::secrets::resolve;
use super::trust::parse_algorithm;
use super::{Faults, private};
use crate::authenticate::{CookieNames, ED25519, Revoked, SignalMarks};
use crate::authority::{
    Client, ClientSecret, Compat, Cookies, Endpoint, IssuerSettings, RESERVED_CLAIMS, StoreLocation,
};
use crate::config::file::{self, AuthoritySection, File, SameSite, SigningKeys};
use crate::config::place::nearest;
use crate::config::secret::Secret;
use crate::config::values::RoleLimit;
use crate::keyring::{KeyStorage, Keyring, MissingKey, SIGNING, Schedule, SealSecrets};
use crate::route::PathPattern;
use crate::store::check_url;
use http::HeaderName;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Access tokens with a longer lifetime are reported. Until a token expires, a leaked token can be used and its
/// revocation must be remembered.
const ACCESS_EXPIRES_MUCH: Duration = Duration::from_secs(3600);
/// The maximum of `refresh_grace`. A longer grace period helps attackers and no retry.
const GRACE_MAX: Duration = Duration::from_secs(300);
/// The minimum time between key rotations. Verifiers must fetch a new key before it is used.
const ROTATE_MIN: Duration = Duration::from_secs(60 * 60);
/// The maximum number of old keys. Each key is published to all verifiers while tokens that it signed are valid.
const KEYS_AT_ONCE: u32 = 16;

/// Compiles the settings of the local authority. Keeps the keys and revocations of the previous policy (`before`). The
/// revocations by signals (`marks`) are kept even if the previous policy had no authority.
pub(super) fn compile(
    file: &File,
    missing_key: MissingKey,
    before: Option<&IssuerSettings>,
    marks: &Arc<SignalMarks>,
    faults: &mut Faults<'_>,
) -> Option<IssuerSettings> {
    let table = file.authority.as_ref()?;
    if table.issuer.is_empty() {
        let hint = "issuer = \"https://id.example.com\": the `iss` claim of its tokens";
        faults.fault("missing_key", "authority.issuer", "nothing", hint);
    }
    if table.audience.is_empty() {
        let hint = "audience = [\"orders\"]: the `aud` claim of its tokens";
        faults.fault("missing_key", "authority.audience", "nothing", hint);
    }
    lifetimes(table, faults);
    let claims = claims(table, faults);
    let clients = clients(table, faults);
    let paths = paths(table, faults);
    let origins = origins("authority.origins", &table.origins, faults);
    let compat = table.compat.map(|file::Compat::FlaskJwtExtended| Compat::FlaskJwtExtended);
    let store = store(table, faults);
    let keyring = keyring(table, store.as_ref(), missing_key, before, faults)?;
    let cookies =
        table.cookies.then(|| Cookies { names: cookie_names(compat), lax: table.same_site == SameSite::Lax });
    Some(IssuerSettings {
        issuer: table.issuer.clone(),
        audience: table.audience.clone(),
        keyring,
        revoked: match before {
            Some(before) => before.revoked.clone(),
            None => Arc::new(Revoked::sharing(marks.clone())),
        },
        access_expires: table.access_expires.into(),
        refresh_expires: table.refresh_expires.into(),
        refresh_grace: table.refresh_grace.into(),
        session_expires: table.session_expires.into(),
        sessions: table.sessions,
        role_limit: match table.role_limit {
            RoleLimit::All => None,
            RoleLimit::AtMost(count) => Some(count),
        },
        client_id: client_id(table, faults),
        claims,
        cookies,
        origins,
        store: store?,
        clients,
        paths,
        compat,
        metadata: OnceLock::new(),
    })
}

fn lifetimes(table: &AuthoritySection, faults: &mut Faults<'_>) {
    for (key, duration) in [
        ("authority.access_expires", table.access_expires),
        ("authority.refresh_expires", table.refresh_expires),
        ("authority.session_expires", table.session_expires),
    ] {
        if Duration::from(duration).as_secs() == 0 {
            let hint = "use a duration of at least a second, such as \"15m\"";
            faults.fault("bad_value", key, "0: no token would ever be valid", hint);
        }
    }
    if Duration::from(table.access_expires) > ACCESS_EXPIRES_MUCH {
        faults.warn(
            "long_access_token",
            "authority.access_expires",
            format!("{}: a stolen access token stays usable for that long", table.access_expires),
            "use 15m to 60m; refresh tokens keep a session alive for longer",
        );
    }
    if Duration::from(table.refresh_grace) > GRACE_MAX {
        faults.fault(
            "bad_value",
            "authority.refresh_grace",
            format!("{}: a stolen refresh token could be used unnoticed for that long", table.refresh_grace),
            "use a few seconds, enough for a retry or a second tab; at most \"5m\"",
        );
    }
    if table.sessions == 0 {
        faults.fault(
            "bad_value",
            "authority.sessions",
            "0: nobody could log in",
            "use a number of at least 1",
        );
    }
}

fn claims(table: &AuthoritySection, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    for (claim, attribute) in &table.claims {
        let key = format!("authority.claims.{claim}");
        if RESERVED_CLAIMS.contains(&claim.as_str()) {
            faults.fault("bad_name", &key, "the authority sets this claim itself", "use another claim name");
        }
        if claim.is_empty() || attribute.is_empty() {
            faults.fault(
                "bad_value",
                &key,
                "an empty name",
                "CLAIM = \"ATTRIBUTE\", such as tenant = \"tenant\"",
            );
        }
    }
    table.claims.iter().map(|(claim, attribute)| (claim.clone(), attribute.clone())).collect()
}

fn clients(table: &AuthoritySection, faults: &mut Faults<'_>) -> BTreeMap<String, Client> {
    let mut clients = BTreeMap::new();
    for (id, client) in &table.client {
        let key = format!("authority.client.{id}");
        let secret_key = format!("{key}.secret");
        if !is_client_id(id) {
            faults.fault("bad_name", &key, format!("\"{id}\""), CLIENT_ID_FORM);
            continue;
        }
        let Some(secret) = &client.secret else {
            faults.fault("missing_key", &secret_key, "nothing", "secret = \"env:NAME\" or \"file:PATH\"");
            continue;
        };
        let Some(secret) = resolve(&secret_key, secret, faults) else { continue };
        if secret.len() < 32 {
            let hint = "use at least 32 random characters: openssl rand -hex 32";
            faults.fault("weak_secret", &secret_key, format!("{} bytes", secret.len()), hint);
            continue;
        }
        clients.insert(
            id.clone(),
            Client {
                secret: ClientSecret::of(&secret),
                roles: client.roles.clone(),
                scopes: client.scopes.clone(),
                audience: client.audience.clone(),
                introspect: client.introspect,
            },
        );
    }
    clients
}

/// The form of a client id, for hints.
const CLIENT_ID_FORM: &str = "use at most 128 characters of visible ASCII without a colon";

/// Returns whether the text is a client id. It must be valid in a Basic credential and in a form, so it is visible ASCII
/// without a colon (RFC 6749 appendix A.1).
fn is_client_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// Returns `client_id` of tokens that belong to accounts. It must differ from the id of each service: a rule that asks for
/// that service would otherwise accept every account (RFC 9068 section 5).
fn client_id(table: &AuthoritySection, faults: &mut Faults<'_>) -> Option<String> {
    let id = table.client_id.as_deref()?;
    if !is_client_id(id) {
        faults.fault("bad_name", "authority.client_id", format!("\"{id}\""), CLIENT_ID_FORM);
    }
    if table.client.contains_key(id) {
        let found = format!("\"{id}\" is also the id of a service, whose tokens could not be distinguished");
        faults.fault(
            "bad_name",
            "authority.client_id",
            found,
            "use a name that no [authority.client.NAME] has",
        );
    }
    Some(id.to_owned())
}

/// Returns the endpoints whose paths differ from the default, with their paths.
fn paths(table: &AuthoritySection, faults: &mut Faults<'_>) -> Vec<(Endpoint, String)> {
    let mut paths = Vec::new();
    for (name, path) in &table.paths {
        let key = format!("authority.paths.{name}");
        let Some(facts) = Endpoint::ALL.iter().find(|facts| facts.name == name) else {
            let names: Vec<_> = Endpoint::ALL.iter().map(|facts| facts.name).collect();
            let near =
                nearest(name, &names).map(|near| format!("the nearest is {near}; ")).unwrap_or_default();
            let hint = format!("{near}the endpoints are {}", names.join(", "));
            faults.fault("unknown_name", &key, format!("unknown endpoint \"{name}\""), hint);
            continue;
        };
        match PathPattern::parse(path) {
            Ok(pattern) => {
                let params: Vec<&str> = pattern.params().iter().map(|param| &**param).collect();
                let wanted: &[&str] = if facts.endpoint == Endpoint::EndSession { &["id"] } else { &[] };
                if params == wanted {
                    paths.push((facts.endpoint, path.clone()));
                } else {
                    let hint = format!("use the parameters of {}, and no others", facts.path);
                    faults.fault("bad_path", &key, format!("\"{path}\""), hint);
                }
            }
            Err(fault) => faults.fault("bad_path", &key, fault.found(), fault.remedy()),
        }
    }
    // The metadata path ends in the path of the issuer (RFC 8414 section 3.1).
    let issuer_path =
        table.issuer.splitn(4, '/').nth(3).map(|path| path.trim_end_matches('/')).unwrap_or_default();
    if !issuer_path.is_empty() && !paths.iter().any(|(endpoint, _)| *endpoint == Endpoint::Metadata) {
        let path = format!("{}/{issuer_path}", Endpoint::Metadata.spec().path);
        match PathPattern::parse(&path) {
            Ok(pattern) if pattern.params().is_empty() => paths.push((Endpoint::Metadata, path)),
            Ok(_) | Err(_) => faults.fault(
                "bad_path",
                "authority.issuer",
                format!("the path \"/{issuer_path}\" cannot be routed"),
                "use a URL with a plain path, or without one",
            ),
        }
    }
    paths
}

/// Compiles the list of origins of this key.
pub(super) fn origins(key: &str, written: &[String], faults: &mut Faults<'_>) -> Box<[Box<str>]> {
    for (index, origin) in written.iter().enumerate() {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let plain = |rest: &str| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*', ' ']);
        if !rest.is_some_and(plain) || *origin != origin.to_ascii_lowercase() {
            faults.fault(
                "bad_value",
                &format!("{key}[{index}]"),
                format!("\"{origin}\""),
                "use scheme and host as a browser sends them in Origin: \"https://app.example.com\"",
            );
        }
    }
    written.iter().map(|origin| origin.as_str().into()).collect()
}

fn store(table: &AuthoritySection, faults: &mut Faults<'_>) -> Option<StoreLocation> {
    let key = "authority.store";
    let Some(secret) = &table.store else {
        let path = faults.state_dir().join("portcullis.db");
        return Some(StoreLocation(format!("sqlite:{}", path.display())));
    };
    // A URL in a file probably contains a password, so the permissions of the file are checked.
    if let Secret::File(path) = secret {
        private::check_mode(key, &faults.unwatched_path(path), faults);
    }
    // A database URL without a password is not a secret and may be a literal.
    let text = match faults.secret(secret).map(String::from_utf8) {
        Ok(Ok(text)) => text.trim().to_owned(),
        Ok(Err(_)) => {
            faults.fault("bad_value", key, "not UTF-8", "use sqlite:PATH or postgres://USER@HOST/DATABASE");
            return None;
        }
        Err(why) => {
            faults.fault(
                "no_secret",
                key,
                why,
                "use sqlite:PATH, postgres://..., or \"env:NAME\" for a variable that holds it",
            );
            return None;
        }
    };
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        if let Err(wrong) = check_url(&text) {
            faults.fault("bad_value", key, wrong.to_string(), "use postgres://USER@HOST/DATABASE");
            return None;
        }
        return Some(StoreLocation(text));
    }
    match text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = path.trim_start_matches("//");
            // The files of SQLite beside the database have its content, too.
            for beside in ["-wal", "-shm", "-journal"] {
                faults.unwatched_path(&format!("{path}{beside}"));
            }
            Some(StoreLocation(format!("sqlite:{}", faults.unwatched_path(path).display())))
        }
        None => {
            // The text may be a password, or settings of libpq with one.
            let scheme = text.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| {
                scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":+-.".contains(&byte))
            });
            let found = match scheme {
                Some(scheme) => format!("\"{scheme}:\""),
                None => "not a URL (not shown)".to_owned(),
            };
            faults.fault("bad_value", key, found, "use sqlite:PATH or postgres://USER@HOST/DATABASE");
            None
        }
    }
}

/// Returns the names of the cookies that an authority sets, if it sets any.
pub(super) fn cookie_names(compat: Option<Compat>) -> CookieNames {
    match compat {
        None => CookieNames::default(),
        Some(Compat::FlaskJwtExtended) => CookieNames {
            access: "access_token_cookie".into(),
            refresh: "refresh_token_cookie".into(),
            csrf: "csrf_access_token".into(),
            csrf_refresh: Some("csrf_refresh_token".into()),
            csrf_header: HeaderName::from_static("x-csrf-token"),
            ..CookieNames::default()
        },
    }
}

fn keyring(
    table: &AuthoritySection,
    store: Option<&StoreLocation>,
    missing_key: MissingKey,
    before: Option<&IssuerSettings>,
    faults: &mut Faults<'_>,
) -> Option<Keyring> {
    // Ed25519 and EdDSA are the same algorithm. The authority uses EdDSA, which more verifiers know.
    if table.algorithm == ED25519 {
        faults.fault(
            "unknown_algorithm",
            "authority.algorithm",
            "\"Ed25519\": the authority names this algorithm EdDSA",
            "use algorithm = \"EdDSA\"",
        );
        return None;
    }
    let algorithm = parse_algorithm("authority.algorithm", &table.algorithm, faults)?;
    if !SIGNING.contains(&algorithm) {
        let names: Vec<_> = SIGNING.iter().map(|known| known.as_str()).collect();
        faults.fault(
            "unknown_algorithm",
            "authority.algorithm",
            format!("\"{algorithm}\": the authority verifies tokens of other issuers with it, and does not sign with it"),
            format!("use one of {}", names.join(", ")),
        );
        return None;
    }
    let secret = match (algorithm.has_secret(), &table.secret) {
        (true, None) => {
            let hint = "secret = \"file:PATH\" or \"env:NAME\"";
            faults.fault(
                "missing_key",
                "authority.secret",
                format!("not set, but {algorithm} requires it"),
                hint,
            );
            return None;
        }
        (true, Some(secret)) => Some(resolve("authority.secret", secret, faults)?),
        (false, Some(_)) => {
            faults.fault(
                "useless_key",
                "authority.secret",
                format!("a secret is set, but the gateway creates the key for algorithm = \"{algorithm}\""),
                "remove it, or set algorithm = \"HS256\"",
            );
            return None;
        }
        (false, None) => None,
    };
    let schedule = schedule(table.access_expires.into(), table.rotate_keys.into(), faults);
    let dir = faults.state_dir();
    let secrets = seal_secrets(table, algorithm.has_secret(), faults)?;
    let storage = match secrets {
        None => KeyStorage::Folder(&dir),
        Some(secrets) => KeyStorage::Store(&store?.0, secrets),
    };
    let before =
        before.and_then(|before| before.keyring.carry_over(&storage, algorithm, secret.as_deref(), schedule));
    if before.is_some() {
        return before;
    }
    let (place, hint) = match &storage {
        KeyStorage::Folder(_) => {
            ("state.dir", "make [state] dir belong to the gateway's user (chown), with mode 700")
        }
        KeyStorage::Store(..) => ("authority.signing_keys", "see docs/keys.md, \"Keys in the store\""),
    };
    match Keyring::open(storage, algorithm, secret.as_deref(), missing_key) {
        Ok(keyring) => Some(keyring.with_schedule(schedule)),
        Err(fault) => {
            faults.fault("no_signing_key", place, fault.to_string(), hint);
            None
        }
    }
}

/// Returns the secrets of signing keys in the store, or `Some(None)` if the keys are in the state folder. Returns `None`
/// after a fault.
fn seal_secrets(
    table: &AuthoritySection,
    has_secret: bool,
    faults: &mut Faults<'_>,
) -> Option<Option<SealSecrets>> {
    const KEY: &str = "authority.signing_keys_secret";
    const OTHER: &str = "authority.other_signing_keys_secret";
    let (current, other) = (&table.signing_keys_secret, &table.other_signing_keys_secret);
    if table.signing_keys == SigningKeys::Folder {
        for (key, secret) in [(KEY, current), (OTHER, other)] {
            if secret.is_some() {
                let hint = "remove it, or set signing_keys = \"store\"";
                faults.fault(
                    "useless_key",
                    key,
                    "a secret is set, but keys in the state folder are not encrypted",
                    hint,
                );
            }
        }
        return Some(None);
    }
    if has_secret {
        let found = format!("\"store\", but {} signs with authority.secret", table.algorithm);
        faults.fault(
            "useless_key",
            "authority.signing_keys",
            found,
            "remove it, or use algorithm = \"ES256\"",
        );
        return None;
    }
    let Some(current) = current else {
        let hint = "signing_keys_secret = \"env:NAME\" or \"file:PATH\", the same for all gateways";
        faults.fault("missing_key", KEY, "not set, but keys in the store are encrypted with it", hint);
        return None;
    };
    let mut long = |key: &str, secret: &Secret| {
        let secret = resolve(key, secret, faults)?;
        if secret.len() < 32 {
            let hint = "use at least 256 random bits: openssl rand -hex 32";
            faults.fault("weak_secret", key, "a secret of fewer than 32 bytes", hint);
            return None;
        }
        Some(secret)
    };
    let current = long(KEY, current);
    let other = match other {
        Some(other) => Some(long(OTHER, other)?),
        None => None,
    };
    match SealSecrets::new(&current?, other.as_deref()) {
        Ok(secrets) => Some(Some(secrets)),
        Err(fault) => {
            faults.fault("no_signing_key", KEY, fault.to_string(), "");
            None
        }
    }
}

/// Returns the rotation schedule of the signing key.
fn schedule(access_expires: Duration, rotate_keys: Duration, faults: &mut Faults<'_>) -> Schedule {
    if !rotate_keys.is_zero() && rotate_keys < ROTATE_MIN {
        faults.fault(
            "bad_value",
            "authority.rotate_keys",
            "less than 1h: a key is published ten minutes before it is used",
            "use a duration such as \"30d\", or \"0s\" for never",
        );
    } else if !rotate_keys.is_zero() && access_expires > rotate_keys * KEYS_AT_ONCE {
        faults.fault(
            "bad_value",
            "authority.rotate_keys",
            format!("more than {KEYS_AT_ONCE} keys would have valid tokens at once"),
            "use a longer time, or a shorter access_expires",
        );
    }
    Schedule { access_expires, rotate_keys }
}
