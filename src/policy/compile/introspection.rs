//! Compiles `[issuer.introspection]`: how an issuer is asked about tokens, and about which ones.

use super::Faults;
use super::authorities::Authorities;
use super::key_sources;
use super::secrets::resolve;
use crate::authenticate::credential::REFRESH_TOKEN_PREFIX;
use crate::authenticate::{API_KEY_PREFIX, Issuer, TENANT, Trust};
use crate::config::file::{IntrospectionAuth, IntrospectionSection, IssuerSection};
use crate::introspection::{Authentication, Endpoint, IntrospectionSettings, Introspector};
use crate::key_source::metadata_urls;
use crate::outbound::{Networks, Url};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The bounds of `max_age`. For as long, a token that was revoked may still be accepted.
const MAX_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// The largest `max_age` without a finding.
const MAX_AGE_USUAL: Duration = Duration::from_secs(300);
/// The bounds of `negative_max_age`.
const NEGATIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The bounds of `timeout`. A request waits no longer than ten seconds.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The bounds of `concurrent`.
const CONCURRENT: (u32, u32) = (4, 1024);
/// The shortest prefix in bytes. A shorter one could be the beginning of another issuer's tokens by chance.
const PREFIX_MIN: usize = 3;

/// Compiles the introspection of an issuer, if its table has one. The outer result is `None` after a fault. `before` is
/// the trust of the previous policy.
pub(super) fn compile<'f>(
    key: &str,
    table: &'f IssuerSection,
    known: &mut Authorities<'f>,
    before: Option<&Trust>,
    faults: &mut Faults<'_>,
) -> Option<Option<Arc<Introspector>>> {
    let Some(section) = &table.introspection else { return Some(None) };
    let fault_count = faults.fault_count;
    let key = format!("{key}.introspection");
    let at = |name: &str| format!("{key}.{name}");
    let endpoint = endpoint(&key, table, section, faults);
    let authentication = authentication(&key, section, faults);
    let signed_for = signed_for(&key, table, section, faults);
    check_bounds(&key, section, faults);
    check_prefixes(&key, section, faults);
    if !table.discovery && !table.jwks.as_deref().is_some_and(key_sources::is_url) {
        key_sources::check_networks(key.trim_end_matches(".introspection"), &table.private_networks, faults);
    }
    if table.issuer.contains(TENANT) {
        let hint = "use an [[issuer]] for each tenant that is asked about tokens";
        faults.fault("bad_value", &key, "set for an issuer with tenants", hint);
    }
    let has_keys =
        table.jwks.is_some() || table.discovery || table.public_key.is_some() || table.secret.is_some();
    if section.always && !has_keys {
        let hint = "remove this: without keys, the issuer is asked about each of its tokens";
        faults.warn("unused", &at("always"), "true, but the issuer has no keys", hint);
    }
    let (name, is_https) = match &endpoint {
        Some(Endpoint::Url(url)) => ("introspection.endpoint", url.is_https()),
        Some(Endpoint::Metadata(_)) | None => ("discovery", true),
    };
    let (roots, authorities) = match is_https {
        true => known.of(key.trim_end_matches(".introspection"), name, table.ca.as_deref(), faults)?,
        false => (Arc::new(rustls::RootCertStore::empty()), [0; 32]),
    };
    if faults.fault_count > fault_count {
        return None;
    }
    let settings = IntrospectionSettings {
        issuer: Arc::from(&*table.issuer),
        endpoint: endpoint?,
        authentication: authentication?,
        signed_for: signed_for.map(Into::into),
        always: section.always && has_keys,
        prefixes: section.prefixes.iter().map(|prefix| prefix.as_str().into()).collect(),
        max_age: section.max_age.into(),
        negative_max_age: section.negative_max_age.into(),
        timeout: section.timeout.into(),
        rate: section.rate.count.get(),
        per: section.rate.per,
        concurrent: section.concurrent as usize,
        authorities,
        networks: Networks::new(table.private_networks.clone()),
        allows_http: table.allow_http,
    };
    let issuers = before.map_or(&[][..], Trust::issuers);
    let before = issuers.iter().find(|issuer| issuer.name == settings.issuer);
    let before = before.and_then(|issuer| issuer.introspector.as_ref());
    match Introspector::after(settings, roots, before) {
        Ok(introspector) => Some(Some(introspector)),
        Err(why) => {
            faults.fault("tls", &key, why, "please report this: it is an error in the gateway");
            None
        }
    }
}

fn endpoint(
    key: &str,
    table: &IssuerSection,
    section: &IntrospectionSection,
    faults: &mut Faults<'_>,
) -> Option<Endpoint> {
    let at = format!("{key}.endpoint");
    let Some(text) = &section.endpoint else {
        if !table.discovery {
            let hint = "endpoint = \"https://…/introspect\", or discovery = true in the [[issuer]]";
            faults.fault("missing_key", &at, "nothing", hint);
            return None;
        }
        // A fault of the issuer's name is reported with its keys.
        return metadata_urls(&table.issuer).ok().map(Endpoint::Metadata);
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(why) => {
            let hint = "endpoint = \"https://id.example.com/introspect\"";
            faults.fault("bad_value", &at, format!("the URL {why}"), hint);
            return None;
        }
    };
    if !url.is_https() && !table.allow_http {
        let found = format!("{url}: anyone on the path could read tokens and call any token active");
        let hint = "use https, with ca = \"FILE\" for an authority of your own (or set allow_http = true)";
        faults.fault("bad_value", &at, found, hint);
        return None;
    }
    if !url.is_https() && key_sources::is_far(url.host()) {
        let found = format!("{url}: anyone on the path can read tokens and call any token active");
        let hint = "use https, with ca = \"FILE\" for an authority of your own";
        faults.warn("introspection_in_cleartext", &at, found, hint);
    }
    Some(Endpoint::Url(url))
}

fn authentication(
    key: &str,
    section: &IntrospectionSection,
    faults: &mut Faults<'_>,
) -> Option<Authentication> {
    let at = |name: &str| format!("{key}.{name}");
    let secret = match &section.secret {
        Some(secret) => {
            let bytes = Zeroizing::new(resolve(&at("secret"), secret, faults)?);
            match std::str::from_utf8(&bytes).map(|text| (text, HeaderValue::from_str(text))) {
                Ok((text, Ok(_))) if !text.is_empty() => Some(Zeroizing::new(text.to_owned())),
                Ok(_) | Err(_) => {
                    let hint = "use visible ASCII characters";
                    faults.fault(
                        "bad_value",
                        &at("secret"),
                        "characters that no header field may have",
                        hint,
                    );
                    return None;
                }
            }
        }
        None => None,
    };
    let id = section.client_id.as_deref().map(|id| Zeroizing::new(id.to_owned()));
    match (section.auth, id, secret) {
        (IntrospectionAuth::Basic, Some(id), Some(secret)) => Some(Authentication::Basic(id, secret)),
        (IntrospectionAuth::Post, Some(id), Some(secret)) => Some(Authentication::Post(id, secret)),
        (IntrospectionAuth::Bearer, _, Some(secret)) => Some(Authentication::Bearer(secret)),
        (IntrospectionAuth::None, _, None) => Some(Authentication::None),
        (IntrospectionAuth::Basic | IntrospectionAuth::Post, None, _) => {
            let hint =
                "client_id = \"…\", or auth = \"bearer\" or \"none\" if the issuer expects no client id";
            faults.fault("missing_key", &at("client_id"), "nothing", hint);
            None
        }
        (IntrospectionAuth::Basic | IntrospectionAuth::Post | IntrospectionAuth::Bearer, _, None) => {
            faults.fault("missing_key", &at("secret"), "nothing", "secret = \"env:NAME\" or \"file:PATH\"");
            None
        }
        (IntrospectionAuth::None, _, Some(_)) => {
            let hint = "remove the secret, or set auth to \"basic\", \"post\" or \"bearer\"";
            faults.fault("bad_value", &at("auth"), "\"none\", and there is a secret", hint);
            None
        }
    }
}

/// Returns the audience of signed answers: the gateway as the issuer knows it.
fn signed_for(
    key: &str,
    table: &IssuerSection,
    section: &IntrospectionSection,
    faults: &mut Faults<'_>,
) -> Option<String> {
    if !section.jwt {
        return None;
    }
    let has_public = table.jwks.is_some() || table.discovery || table.public_key.is_some();
    if !has_public {
        let hint = "set discovery = true, jwks or public_key of the [[issuer]]";
        faults.fault("one_key_source", &format!("{key}.jwt"), "true, but no key verifies the answers", hint);
    }
    if section.client_id.is_none() {
        let hint = "client_id = \"…\": the `aud` claim of the signed answers";
        faults.fault("missing_key", &format!("{key}.client_id"), "nothing, and jwt is true", hint);
    }
    section.client_id.clone()
}

fn check_bounds(key: &str, section: &IntrospectionSection, faults: &mut Faults<'_>) {
    let mut within = |name: &str, is_within: bool, range: &str| {
        if !is_within {
            faults.fault(
                "bad_value",
                &format!("{key}.{name}"),
                format!("not within {range}"),
                format!("use {range}"),
            );
        }
    };
    let time = |value: Duration, (least, most): (Duration, Duration)| (least..=most).contains(&value);
    let max_age = Duration::from(section.max_age);
    within("max_age", time(max_age, MAX_AGE), "\"1s\" to \"1h\"");
    within("negative_max_age", time(section.negative_max_age.into(), NEGATIVE), "\"1s\" to \"5m\"");
    within("timeout", time(section.timeout.into(), TIMEOUT), "\"100ms\" to \"10s\"");
    within("concurrent", (CONCURRENT.0..=CONCURRENT.1).contains(&section.concurrent), "4 to 1024");
    if max_age > MAX_AGE_USUAL && max_age <= MAX_AGE.1 {
        faults.warn(
            "late_revocation",
            &format!("{key}.max_age"),
            format!("{}: a token that the issuer revokes is accepted for as long", section.max_age),
            "use \"5m\" or less",
        );
    }
}

fn check_prefixes(key: &str, section: &IntrospectionSection, faults: &mut Faults<'_>) {
    for (index, prefix) in section.prefixes.iter().enumerate() {
        let is_of = |other: &str| prefix.starts_with(other) || other.starts_with(prefix.as_str());
        let found = if prefix.len() < PREFIX_MIN {
            format!("\"{prefix}\": shorter than {PREFIX_MIN} bytes")
        } else if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            format!("\"{prefix}\": a character that no token has")
        } else if is_of(REFRESH_TOKEN_PREFIX) || is_of(API_KEY_PREFIX) {
            format!("\"{prefix}\": the gateway's own refresh tokens and API keys begin so")
        } else if is_of("eyJ") {
            format!("\"{prefix}\": every JWT begins so")
        } else {
            continue;
        };
        let hint = "use the beginning of the issuer's opaque tokens, such as \"ory_at_\"";
        faults.fault("bad_value", &format!("{key}.prefixes[{index}]"), found, hint);
    }
}

/// Reports issuers of which the gateway does not know whom to ask about an opaque token.
pub(super) fn overlapping(key: &str, issuer: &Issuer, others: &[Issuer], faults: &mut Faults<'_>) {
    let Some(introspector) = &issuer.introspector else { return };
    let prefixes = &introspector.settings().prefixes;
    for other in others {
        let Some(known) = &other.introspector else { continue };
        let known = &known.settings().prefixes;
        let overlap = prefixes.iter().find(|prefix| {
            known.iter().any(|known| prefix.starts_with(&**known) || known.starts_with(&***prefix))
        });
        let found = match overlap {
            Some(prefix) => format!("\"{prefix}\": tokens of \"{}\" may begin so too", other.name),
            None if prefixes.is_empty() && known.is_empty() => {
                format!(
                    "none, and \"{}\" has none either: an opaque token does not name its issuer",
                    other.name
                )
            }
            None => continue,
        };
        let hint = "set prefixes to the beginnings of each issuer's opaque tokens; one issuer may have none";
        faults.fault("same_prefix", &format!("{key}.introspection.prefixes"), found, hint);
    }
}
