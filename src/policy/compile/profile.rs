//! Compiles the settings of `[[issuer]]` for unusual tokens.

use super::Faults;
use super::claim_values::fixed;
use super::claims::claim_path;
use super::secrets::{self, Flaw};
use crate::authenticate::{ClaimPath, ClaimValue, Issuer, Profile, TENANT, Tenants, is_tenant};
use crate::config::file::{IssuerSection, SecretEncoding};
use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::sync::Arc;
use std::time::Duration;

/// The tenant that means every tenant.
const ANY_TENANT: &str = "*";

pub(super) fn compile(key: &str, table: &IssuerSection, faults: &mut Faults<'_>) -> Option<Profile> {
    let at = |name: &str| format!("{key}.{name}");
    let before = faults.fault_count;
    let subject = claim_path(&at("subject"), &table.subject, faults);
    let audience = claim_path(&at("audience_claim"), &table.audience_claim, faults);
    let required: Vec<ClaimPath> = table
        .required_claims
        .iter()
        .enumerate()
        .filter_map(|(i, path)| claim_path(&format!("{}[{i}]", at("required_claims")), path, faults))
        .collect();
    let mut claims: Vec<(ClaimPath, Box<[ClaimValue]>)> = Vec::new();
    for (name, values) in &table.claims {
        let key = format!("{}.{name}", at("claims"));
        if let (Some(path), Some(values)) = (claim_path(&key, name, faults), fixed(&key, values, faults)) {
            claims.push((path, values));
        }
    }
    let max_lifetime = table.max_lifetime.map(Duration::from);
    if max_lifetime.is_some_and(|max| max.as_secs() == 0) {
        let hint = "the longest time from iat to exp to accept, such as \"24h\"";
        faults.fault("bad_value", &at("max_lifetime"), "less than a second", hint);
    }
    let (mut may_lack_issuer, mut may_lack_audience, mut may_lack_token_type) = (false, false, false);
    for (i, claim) in table.may_lack.iter().enumerate() {
        match claim.as_str() {
            "iss" => may_lack_issuer = true,
            "aud" => may_lack_audience = true,
            "token_type" if table.introspection.is_some() => may_lack_token_type = true,
            other => faults.fault(
                "bad_value",
                &format!("{}[{i}]", at("may_lack")),
                format!("\"{other}\""),
                "use \"iss\" or \"aud\" (with introspection also \"token_type\"): a token without another checked claim is never accepted",
            ),
        }
    }
    if may_lack_audience && table.secret.is_none() {
        faults.warn(
            "any_audience",
            &at("may_lack"),
            "\"aud\": a token that the issuer made for any other service is accepted if it names no audience",
            "have the issuer write aud, or set audience_claim to another claim that names this service",
        );
    }
    let trust_domain = table.trust_domain.as_deref();
    if let Some(domain) = trust_domain
        && !is_trust_domain(domain)
    {
        faults.fault(
            "bad_value",
            &at("trust_domain"),
            format!("\"{domain}\" is not a trust domain"),
            "use the name alone, such as \"example.org\" (SPIFFE-ID section 2.1)",
        );
    }
    let tenants = tenants(key, table, faults);
    if faults.fault_count > before {
        return None;
    }
    Some(Profile {
        tenants: tenants?,
        trust_domain: trust_domain.map(Into::into),
        may_lack_issuer,
        may_lack_audience,
        may_lack_token_type,
        subject: subject?,
        audience: audience?,
        max_lifetime: max_lifetime.map(|max| max.as_secs()),
        required: required.into(),
        claims: claims.into(),
        roles_are_keys: table.roles_are_keys,
    })
}

/// Whether text is a trust domain (SPIFFE-ID section 2.1): lower case, without scheme, port and path.
fn is_trust_domain(text: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    (1..=255).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Compiles the names of an issuer. An issuer with tenants has one name for each tenant.
fn tenants(key: &str, table: &IssuerSection, faults: &mut Faults<'_>) -> Option<Tenants> {
    let at = |name: &str| format!("{key}.{name}");
    let (before, after) = match (table.issuer.split_once(TENANT), &table.tenants[..]) {
        (None, []) => return Some(Tenants::None),
        (None, _) => {
            let hint = "issuer = \"https://login.microsoftonline.com/{tenant}/v2.0\", or remove tenants";
            faults.fault("bad_value", &at("tenants"), "the issuer has no {tenant}", hint);
            return None;
        }
        (Some(_), []) => {
            let hint = "tenants = [\"…\"]: the tenants whose tokens are accepted";
            faults.fault("missing_key", &at("tenants"), "nothing, and the issuer has a {tenant}", hint);
            return None;
        }
        (Some(parts), _) => parts,
    };
    // The placeholder must be a whole path segment. Otherwise, the name of a tenant could equal the name of another
    // issuer.
    let is_segment =
        before.ends_with('/') && (after.is_empty() || after.starts_with('/')) && !after.contains(TENANT);
    if !is_segment {
        let hint = "write {tenant} once, between two slashes of the path";
        faults.fault("bad_value", &at("issuer"), "{tenant} is not one segment of the path", hint);
        return None;
    }
    if table.tenants == [ANY_TENANT] {
        faults.warn(
            "any_tenant",
            &at("tenants"),
            "\"*\": everybody can have a tenant, and the tokens of all of them are accepted",
            "list the tenants, unless rules check every caller by a claim that only you can set",
        );
        return Some(Tenants::Any(before.into(), after.into()));
    }
    if let Some(tenant) = table.tenants.iter().find(|tenant| !is_tenant(tenant)) {
        let hint =
            "the id as tokens have it, such as \"aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb\"; or \"*\" alone";
        faults.fault("bad_value", &at("tenants"), format!("\"{tenant}\" is not the id of a tenant"), hint);
        return None;
    }
    let names = table.tenants.iter().map(|tenant| Arc::from(format!("{before}{tenant}{after}")));
    Some(Tenants::Listed(names.collect()))
}

/// Returns the issuer names that `name` refers to, or `None` if it refers to none.
///
/// If `name` is the issuer with its placeholder, returns the names of all listed tenants. The list is empty if every
/// tenant is accepted. If `name` is the name of a tenant, returns only `name`.
pub(super) fn tenant_names(table: &IssuerSection, name: &str) -> Option<Vec<String>> {
    let (before, after) = table.issuer.split_once(TENANT)?;
    let listed = table.tenants.iter().filter(|tenant| **tenant != ANY_TENANT);
    let names: Vec<String> = listed.map(|tenant| format!("{before}{tenant}{after}")).collect();
    match names.iter().any(|known| known == name) {
        true => Some(vec![name.to_owned()]),
        false => (name == table.issuer).then_some(names),
    }
}

/// Reports issuers in `others` that may have the same tokens as `issuer`.
pub(super) fn overlapping(key: &str, issuer: &Issuer, others: &[Issuer], faults: &mut Faults<'_>) {
    let profile = &issuer.profile;
    let names = |issuer: &Issuer| match &issuer.profile.tenants {
        Tenants::None | Tenants::Any(..) => vec![issuer.example_name()],
        Tenants::Listed(names) => names.to_vec(),
    };
    let mut report = |name: &str, found: String, hint: &str| {
        faults.fault("same_issuer", &format!("{key}.{name}"), found, hint);
    };
    for other in others {
        let of_both = |one: &Issuer, other: &Issuer| names(one).into_iter().find(|name| other.is_named(name));
        if let Some(name) = of_both(issuer, other).or_else(|| of_both(other, issuer)) {
            let hint = "use one entry for each issuer, with all its tenants";
            report("issuer", format!("\"{name}\" is also a name of \"{}\"", other.name), hint);
        }
        if profile.may_lack_issuer && other.profile.may_lack_issuer {
            let found = format!("\"iss\": the tokens of \"{}\" may lack it too", other.name);
            report("may_lack", found, "let the tokens of one issuer at most lack iss");
        }
        if profile.trust_domain.is_some() && profile.trust_domain == other.profile.trust_domain {
            let found = format!("the trust domain of \"{}\" too", other.name);
            report(
                "trust_domain",
                found,
                "use one entry for each trust domain, with all its keys in one bundle",
            );
        }
    }
}

/// Decodes a secret from the encoding in the settings.
pub(super) fn decoded(
    key: &str,
    encoding: SecretEncoding,
    secret: Vec<u8>,
    faults: &mut Faults<'_>,
) -> Option<Vec<u8>> {
    let alphabet: &Alphabet = match encoding {
        SecretEncoding::Text => return Some(secret),
        SecretEncoding::Base64 => &STANDARD,
        SecretEncoding::Base64url => &URL_SAFE,
    };
    let padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let Ok(bytes) = GeneralPurpose::new(alphabet, padding).decode(&secret) else {
        let hint = "set secret_encoding to the encoding in which the issuer shows its secret: text, base64, base64url";
        faults.fault("bad_value", key, "the secret is not written in this encoding (not shown)", hint);
        return None;
    };
    if let Some(Flaw::Known(what)) = secrets::flaw(&bytes) {
        faults.fault("weak_secret", key, what, "use at least 256 random bits: openssl rand -base64 32");
        return None;
    }
    Some(bytes)
}
