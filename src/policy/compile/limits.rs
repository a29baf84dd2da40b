//! Compiles `[rate_limit.NAME]`, and resolves references to rate limits.

use super::Faults;
use super::claims::{Claims, claim_path};
use crate::config::file::{File, OnError, RateLimitSection};
use crate::config::units::Rate;
use crate::limit::{By, Fleet, FleetSecret, Limit, Limits, Sharing, Tiers};
use crate::policy::Policy;
use crate::shared::SharedSettings;
use http::HeaderName;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) type NamedLimits = BTreeMap<String, Arc<Limit>>;

/// The maximum number of limits. Each limit in use needs 1 MiB of memory.
const LIMITS_MAX: usize = 1000;
/// The maximum number of rates that a claim can select in one limit.
const TIERS_MAX: usize = 32;

/// The fleet that shares limits, and the settings of the shared state.
pub(super) struct Shared<'s> {
    pub(super) fleet: Option<&'s Arc<Fleet>>,
    pub(super) settings: Option<&'s SharedSettings>,
}

impl Shared<'_> {
    /// Returns how the fleet shares a limit; `None` if each gateway counts for itself.
    fn of(&self, key: &str, table: &RateLimitSection, faults: &mut Faults<'_>) -> Option<Sharing> {
        let (exact_key, shared_key) = (format!("{key}.exact"), format!("{key}.shared"));
        let has_section = faults.loaded.file.shared.is_some();
        if table.exact && (table.shared == Some(false) || !has_section) {
            let found =
                if has_section { "true, but shared is false" } else { "true, but there is no [shared]" };
            let hint = "remove it: a limit of one gateway is exact anyway";
            faults.fault("bad_value", &exact_key, found, hint);
        } else if table.shared == Some(true) && !has_section {
            let hint = "add a [shared] with the Redis or Valkey of the gateways, or remove the key";
            faults.fault("bad_value", &shared_key, "true, but there is no [shared]", hint);
        }
        let (fleet, settings) = self.fleet.zip(self.settings).filter(|_| table.shared != Some(false))?;
        let password = settings.login.password.as_ref().map_or("", |password| password.as_str());
        Some(Sharing {
            fleet: fleet.clone(),
            is_exact: table.exact,
            applies_alone: settings.on_error.limits == OnError::Allow,
            by: table.by.as_str().into(),
            secret: FleetSecret::derive(&settings.prefix, password),
        })
    }
}

/// Compiles the limits of the file and the default limits in use (`presets`). An unchanged limit of the previous policy
/// (`before`) keeps its counts.
pub(super) fn compile(
    file: &File,
    presets: &BTreeMap<String, RateLimitSection>,
    shared: &Shared<'_>,
    claims: &mut Claims,
    before: Option<&Policy>,
    faults: &mut Faults<'_>,
) -> NamedLimits {
    let known: HashMap<&str, &Limit> = before
        .iter()
        .flat_map(|before| before.limits.iter())
        .map(|limit| (&**limit.name(), &**limit))
        .collect();
    let mut limits = NamedLimits::new();
    let count: usize = file.rate_limit.values().map(|table| 1 + table.rates.len()).sum();
    if count > LIMITS_MAX {
        faults.fault(
            "too_many",
            "rate_limit",
            format!("{count} rate limits and rates by claim"),
            format!(
                "use at most {LIMITS_MAX}: each has its own table, and one limit counts every client separately"
            ),
        );
    }
    for (name, table) in file.rate_limit.iter().chain(presets) {
        let key = format!("rate_limit.{name}");
        if !is_plain_name(name) {
            faults.fault(
                "bad_name",
                &key,
                format!("\"{name}\""),
                "use at most 64 letters, digits, '-', '_' and '.': the name appears in a header",
            );
            continue;
        }
        let sharing = shared.of(&key, table, faults);
        if let Some(limit) = limit(&key, name, table, sharing.as_ref(), claims, faults) {
            let limit = match known.get(name.as_str()).zip(before) {
                Some((known, before)) => {
                    let same_keys = counts_alike(limit.by(), claims, known.by(), before);
                    limit.carry_over(known, same_keys)
                }
                None => limit,
            };
            limits.insert(name.clone(), Arc::new(limit));
        }
    }
    limits
}

/// Whether limits of two policies count by the same property. Claims are compared by path.
fn counts_alike(by: &By, claims: &Claims, known: &By, before: &Policy) -> bool {
    match (by, known) {
        (By::Claim(ours), By::Claim(theirs)) => {
            let theirs = before.trust.claims().get(usize::from(theirs.0));
            theirs.is_some_and(|theirs| theirs.to_string() == claims.name(*ours))
        }
        (By::ClientIp | By::Subject | By::Route | By::Header(_) | By::Claim(_), _) => by == known,
    }
}

fn limit(
    key: &str,
    name: &str,
    table: &RateLimitSection,
    sharing: Option<&Sharing>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Limit> {
    let by_key = format!("{key}.by");
    let by = match table.by.split_once(':') {
        None => match table.by.as_str() {
            "client_ip" => By::ClientIp,
            "subject" => By::Subject,
            "route" => By::Route,
            _ => return bad_by(&by_key, &table.by, faults),
        },
        Some(("header", header)) => match header.parse::<HeaderName>() {
            Ok(header) => By::Header(header),
            Err(_) => return bad_by(&by_key, &table.by, faults),
        },
        Some(("claim", path)) => By::Claim(claims.id(claim_path(&by_key, path, faults)?)),
        Some(_) => return bad_by(&by_key, &table.by, faults),
    };
    let rate = table.rate.or_else(|| {
        faults.fault("missing_key", &format!("{key}.rate"), "nothing", "rate = \"100/s\" (or /m, /h, /d)");
        None
    })?;
    let burst = match table.burst {
        None => rate.count,
        Some(burst) => match NonZeroU32::new(burst) {
            Some(burst) => burst,
            None => {
                faults.fault(
                    "bad_value",
                    &format!("{key}.burst"),
                    "0: every request would be refused",
                    "use a number of at least 1",
                );
                return None;
            }
        },
    };
    let limit = Limit::new(Arc::from(name), by.clone(), rate.count, rate.per, burst);
    let limit = shared(limit, sharing, None);
    match tiers(key, name, table, (&by, sharing), claims, faults)? {
        Some(tiers) => Some(limit.with_tiers(tiers)),
        None => Some(limit),
    }
}

/// Makes a limit one that the fleet shares, if it does.
fn shared(limit: Limit, sharing: Option<&Sharing>, tier: Option<&str>) -> Limit {
    match sharing {
        Some(sharing) => limit.shared(sharing, tier),
        None => limit,
    }
}

/// Compiles the rates that a claim selects. Returns `Some(None)` if the limit has no such rates. Returns `None` if a
/// key has a fault.
fn tiers(
    key: &str,
    name: &str,
    table: &RateLimitSection,
    (by, sharing): (&By, Option<&Sharing>),
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Option<Tiers<Limit>>> {
    let (claim_key, rates_key) = (format!("{key}.rate_claim"), format!("{key}.rates"));
    let path = match (&table.rate_claim, table.rates.is_empty()) {
        (None, true) => return Some(None),
        (Some(path), false) => path,
        (None, false) => {
            let hint = "rate_claim = \"plan\": the claim whose values have these rates";
            faults.fault("missing_key", &claim_key, "nothing, but there are rates", hint);
            return None;
        }
        (Some(_), true) => {
            let hint = "rates = { gold = \"100/s\" }: the rates by the value of the claim";
            faults.fault("missing_key", &rates_key, "nothing, but rate_claim is set", hint);
            return None;
        }
    };
    if !by.needs_caller() {
        let hint = "by = \"subject\" or \"claim:PATH\": the claim is known once the token is verified";
        faults.fault("bad_value", &claim_key, format!("set, but by is \"{}\"", table.by), hint);
        return None;
    }
    if table.rates.len() > TIERS_MAX {
        let found = format!("{} rates", table.rates.len());
        faults.fault("too_many", &rates_key, found, format!("use at most {TIERS_MAX} for one limit"));
        return None;
    }
    let claim = claims.id(claim_path(&claim_key, path, faults)?);
    let tier = |(value, rate): (&String, &Rate)| {
        let limit = Limit::new(Arc::from(name), by.clone(), rate.count, rate.per, rate.count);
        (value.as_str().into(), shared(limit, sharing, Some(value)))
    };
    Some(Some(Tiers { claim, tiers: table.rates.iter().map(tier).collect() }))
}

fn bad_by<T>(key: &str, found: &str, faults: &mut Faults<'_>) -> Option<T> {
    faults.fault(
        "bad_value",
        key,
        format!("\"{found}\""),
        "one of client_ip, subject, route, header:NAME, claim:PATH",
    );
    None
}

pub(super) fn chosen_limits(
    key: &str,
    names: &[String],
    limits: &NamedLimits,
    faults: &mut Faults<'_>,
) -> Limits {
    let mut chosen = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match limits.get(name) {
            Some(limit) => chosen.push(limit.clone()),
            // The limit is in the file but has a fault, which has already been reported.
            None if faults.loaded.file.rate_limit.contains_key(name) => {}
            None => {
                let defined = limits.keys().map(String::as_str);
                faults.undefined(&format!("{key}[{index}]"), "rate limit", name, defined);
            }
        }
    }
    Limits::sort(chosen)
}

fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}
