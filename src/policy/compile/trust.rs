//! Compiles `[[issuer]]`: the trusted issuers.

use super::authorities::Authorities;
use super::claims::claim_path;
use super::key_sources::{self, KeySources};
use super::secrets::resolve;
use super::{Faults, introspection, profile};
use crate::authenticate::{
    API_KEY_ISSUER, Algorithm, CLIENT_CERTIFICATE_ISSUER, ClaimPath, Issuer, KeySet, Profile, Trust,
};
use crate::authority::IssuerSettings;
use crate::config::file::{File, IssuerSection};
use crate::config::stable_file;
use crate::config::units::ByteSize;
use std::sync::Arc;
use std::time::Duration;

/// The maximum size of a key file.
const KEY_FILE_MAX: ByteSize = ByteSize::bytes(1 << 20);
/// The maximum of `leeway`. A longer leeway makes expiry meaningless.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// Compiles the trusted issuers, the local one first.
pub(super) fn issuers<'f>(
    file: &'f File,
    authority: Option<&IssuerSettings>,
    before: Option<&Trust>,
    authorities: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Vec<Issuer> {
    let known = before.map_or(&[][..], Trust::issuers);
    let known = known.iter().filter_map(|issuer| issuer.source.clone());
    let mut sources = KeySources::after(file, known.collect(), authorities);
    let mut issuers: Vec<Issuer> = Vec::new();
    if let Some(authority) = authority {
        match local_issuer(authority) {
            Ok(issuer) => issuers.push(issuer),
            Err(why) => faults.fault(
                "no_signing_key",
                "authority",
                why,
                "restore the key file that the gateway created",
            ),
        }
    }
    for (index, table) in file.issuer.iter().enumerate() {
        let key = format!("issuer[{index}]");
        if issuers.iter().any(|known| *known.name == table.issuer) {
            faults.fault(
                "same_issuer",
                &format!("{key}.issuer"),
                format!("\"{}\" is listed twice", table.issuer),
                "use one entry for each issuer, with all its keys in one key set",
            );
            continue;
        }
        if let Some(issuer) = issuer(&key, table, &mut sources, before, faults) {
            profile::overlapping(&key, &issuer, &issuers, faults);
            introspection::overlapping(&key, &issuer, &issuers, faults);
            issuers.push(issuer);
        }
    }
    issuers
}

/// Returns the local authority as an issuer. Its tokens are verified like the tokens of any other issuer.
fn local_issuer(settings: &IssuerSettings) -> Result<Issuer, String> {
    let path = |text: &str| ClaimPath::parse(text);
    Ok(Issuer {
        name: Arc::from(&*settings.issuer),
        audience: settings.audience.iter().map(|audience| audience.as_str().into()).collect(),
        audience_of_clients: settings
            .clients
            .values()
            .flat_map(|client| &client.audience)
            .map(|audience| audience.as_str().into())
            .collect(),
        algorithms: vec![settings.keyring.algorithm()],
        keys: settings.keyring.key_set().map_err(|fault| fault.to_string())?,
        source: None,
        introspector: None,
        leeway: 0,
        local: true,
        roles: path("roles")?,
        scopes: path("scope")?,
        types: Box::new(["at+jwt".into()]),
        profile: Profile::default(),
    })
}

fn issuer<'f>(
    key: &str,
    table: &'f IssuerSection,
    sources: &mut KeySources<'_, 'f>,
    known: Option<&Trust>,
    faults: &mut Faults<'_>,
) -> Option<Issuer> {
    let at = |name: &str| format!("{key}.{name}");
    let before = faults.fault_count;
    if table.issuer.is_empty() {
        faults.fault(
            "missing_key",
            &at("issuer"),
            "nothing",
            "issuer = \"https://id.example.com/\", exactly as in the `iss` claim",
        );
    }
    if table.issuer == API_KEY_ISSUER || table.issuer.starts_with(CLIENT_CERTIFICATE_ISSUER) {
        let hint = "use the issuer's own name: this name is reserved for API keys and client certificates";
        faults.fault("bad_value", &at("issuer"), format!("\"{}\" is reserved", table.issuer), hint);
    }
    let lacks_audience = table.may_lack.iter().any(|claim| claim == "aud");
    if table.audience.is_empty() && !lacks_audience {
        faults.fault(
            "no_audience",
            &at("audience"),
            "not set: a token for any other service of this issuer would be accepted",
            "audience = [\"…\"]: the `aud` claim of tokens for this gateway",
        );
    }
    if Duration::from(table.leeway) > LEEWAY_MAX {
        faults.fault(
            "bad_value",
            &at("leeway"),
            "more than 10m",
            "use the largest clock difference to expect, such as \"30s\"",
        );
    }
    let is_by_url = table.discovery || table.jwks.as_deref().is_some_and(key_sources::is_url);
    let has_keys = table.jwks.is_some() || is_by_url || table.public_key.is_some() || table.secret.is_some();
    // An issuer that is asked about its tokens needs no keys.
    let needs_keys = has_keys || table.introspection.is_none();
    if table.algorithms.is_empty() && needs_keys {
        faults.fault(
            "missing_key",
            &at("algorithms"),
            "nothing",
            "algorithms = [\"RS256\"]: the issuer's signature algorithms",
        );
    }
    let algorithms: Vec<Algorithm> = table
        .algorithms
        .iter()
        .enumerate()
        .filter_map(|(i, text)| parse_algorithm(&format!("{}[{i}]", at("algorithms")), text, faults))
        .collect();
    let roles = claim_path(&at("roles"), &table.roles, faults);
    let scopes = claim_path(&at("scopes"), &table.scopes, faults);
    let profile = profile::compile(key, table, faults);
    let introspector = introspection::compile(key, table, sources.authorities, known, faults);
    let (keys, source) = match (algorithms.is_empty(), is_by_url) {
        _ if !needs_keys => (Some(KeySet::default()), None),
        (true, _) => (None, None),
        (false, false) => (keys(key, table, &algorithms, faults), None),
        (false, true) if one_source(key, table, faults) => {
            sources.source(key, table, &algorithms, faults).unzip()
        }
        (false, true) => (None, None),
    };
    if faults.fault_count > before {
        return None;
    }
    Some(Issuer {
        name: Arc::from(&*table.issuer),
        audience: table.audience.iter().map(|audience| audience.as_str().into()).collect(),
        audience_of_clients: Box::new([]),
        algorithms,
        keys: keys?,
        source,
        introspector: introspector?,
        leeway: Duration::from(table.leeway).as_secs(),
        local: false,
        roles: roles?,
        scopes: scopes?,
        types: table.types.iter().map(|text| text.as_str().into()).collect(),
        profile: profile?,
    })
}

pub(super) fn parse_algorithm(key: &str, text: &str, faults: &mut Faults<'_>) -> Option<Algorithm> {
    match text.parse() {
        Ok(algorithm) => Some(algorithm),
        Err(_) => {
            faults.fault(
                "unknown_algorithm",
                key,
                format!("\"{text}\""),
                "use HS, RS or PS with 256, 384 or 512, ES256, ES384, ES512, EdDSA (Ed25519 means the same here), ML-DSA-44, ML-DSA-65 or ML-DSA-87; \"none\" is not accepted",
            );
            None
        }
    }
}

/// Whether exactly one key source is set. Reports a fault otherwise.
fn one_source(key: &str, table: &IssuerSection, faults: &mut Faults<'_>) -> bool {
    let given = [table.jwks.is_some(), table.discovery, table.public_key.is_some(), table.secret.is_some()];
    let sources = given.iter().filter(|given| **given).count();
    if sources != 1 {
        faults.fault(
            "one_key_source",
            key,
            if sources == 0 {
                "no key is set: no token of this issuer could be verified"
            } else {
                "more than one key source is set"
            },
            "set exactly one of jwks = \"FILE or URL\", discovery = true, public_key = \"file:FILE\", secret = \"env:NAME\"",
        );
    }
    sources == 1
}

fn keys(
    key: &str,
    table: &IssuerSection,
    algorithms: &[Algorithm],
    faults: &mut Faults<'_>,
) -> Option<KeySet> {
    let at = |name: &str| format!("{key}.{name}");
    if !one_source(key, table, faults) {
        return None;
    }
    key_sources::unused(key, table, faults);
    let kid = table.kid.as_deref();
    if let Some(secret) = &table.secret {
        if !algorithms.iter().all(|algorithm| algorithm.has_secret()) {
            faults.fault(
                "mixed_keys",
                &at("algorithms"),
                "a public-key algorithm with a shared secret",
                "use algorithms = [\"HS256\"] (or HS384, HS512) with secret: one issuer must not mix secrets and public keys (RFC 8725 section 3.1)",
            );
            return None;
        }
        let [algorithm] = algorithms else {
            faults.fault(
                "mixed_keys",
                &at("algorithms"),
                format!("{} algorithms for one secret", algorithms.len()),
                "list the one algorithm that the issuer signs with: a key has one algorithm (RFC 8725 section 3.1)",
            );
            return None;
        };
        let bytes = resolve(&at("secret"), secret, faults)?;
        let bytes = profile::decoded(&at("secret"), table.secret_encoding, bytes, faults)?;
        let mut set = KeySet::default();
        return match set.add_secret(kid, *algorithm, &bytes) {
            Ok(()) => Some(set),
            Err(why) => {
                faults.fault(
                    "weak_secret",
                    &at("secret"),
                    why,
                    "use random bits, as many as the hash has: openssl rand -hex 32 (HS384: 48, HS512: 64)",
                );
                None
            }
        };
    }
    if let Some(reference) = &table.public_key {
        let bytes = resolve(&at("public_key"), reference, faults)?;
        let mut set = KeySet::default();
        return match set.add_pem(kid, &bytes, algorithms) {
            Ok(()) => Some(set),
            Err(why) => {
                faults.fault(
                    "bad_key",
                    &at("public_key"),
                    why,
                    "use a PEM public key (BEGIN PUBLIC KEY) for one of the issuer's algorithms",
                );
                None
            }
        };
    }
    let text = table.jwks.as_deref()?;
    let path = faults.file(text);
    let bytes = stable_file::read(&path, KEY_FILE_MAX).map_err(|why| why.to_string());
    let set = bytes
        .and_then(|bytes| KeySet::from_jwks(&bytes, algorithms))
        .map_err(|why| format!("{}: {why}", path.display()));
    match set {
        Ok((set, skipped)) => {
            for why in skipped {
                faults.warn(
                    "skipped_key",
                    &at("jwks"),
                    why,
                    "no action is needed unless tokens signed with it must be accepted",
                );
            }
            Some(set)
        }
        Err(why) => {
            faults.fault("bad_key", &at("jwks"), why, "a file with a JSON Web Key Set (RFC 7517 section 5), by its path from the folder of the policy file");
            None
        }
    }
}
