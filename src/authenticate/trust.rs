//! The trusted issuers: their keys, and the paths of the claims in their tokens.

use super::api_key::ApiKeys;
use super::claims::ClaimPath;
use super::client_certificate::CertificateCallers;
use super::credential::CookieNames;
use super::dpop::{Dpop, DpopSettings};
use super::identity::IdentityHeaders;
use super::jws::canonical_type;
use super::keys::{Algorithm, Key, KeySet};
use super::principal::Principal;
use super::profile::Profile;
use super::revoked::Revoked;
use super::token_stats::TokenStats;
use crate::clock::Now;
use crate::denial::Denial;
use crate::introspection::Introspector;
use crate::key_source::KeySource;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of seconds by which the clocks of gateways that share the local authority may differ without a refusal of new
/// tokens.
const GATEWAYS_LEAD: u64 = 5;

/// An issuer of tokens.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The issuer's name. A token's `iss` must be exactly this name or, for an issuer with tenants, the name of an
    /// accepted tenant.
    pub name: Arc<str>,
    /// The accepted values of `aud`. A token must have at least one of them, compared exactly.
    pub audience: Box<[Box<str>]>,
    /// Further values of `aud` in tokens that the local authority issues to its clients. The gateway rejects these
    /// tokens on its routes, but introspection and revocation accept them.
    pub audience_of_clients: Box<[Box<str>]>,
    /// The accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// The verification keys.
    pub keys: KeySet,
    /// The source of the keys, if they are fetched. `keys` is then empty until the first fetch.
    pub source: Option<Arc<KeySource>>,
    /// The questions to the issuer, if it is asked about tokens (RFC 7662). An issuer without keys is asked about all of
    /// its tokens.
    pub introspector: Option<Arc<Introspector>>,
    /// The tolerated clock difference in seconds.
    pub leeway: u64,
    /// The path of the claim that lists the roles.
    pub roles: ClaimPath,
    /// The path of the claim that lists the scopes.
    pub scopes: ClaimPath,
    /// Whether the issuer is the local authority, whose tokens have more claims and can be revoked.
    pub local: bool,
    /// The accepted values of `typ`, in lower case and without `application/`. `""` accepts a header without `typ`.
    pub types: Box<[Box<str>]>,
    /// The claims that contain the subject and the audience, and the additional requirements for the issuer's tokens.
    pub profile: Profile,
}

impl Issuer {
    /// Returns how far in the future a token's `iat`, `nbf` and `auth_time` may be, in seconds. The local authority has no
    /// leeway, so that none of its tokens outlives its `exp`, but it runs on several gateways, whose clocks differ.
    pub fn lead_max(&self) -> u64 {
        if self.local { self.leeway.max(GATEWAYS_LEAD) } else { self.leeway }
    }

    /// Returns whether the issuer signs tokens with this `iss`.
    pub fn is_named(&self, iss: &str) -> bool {
        self.profile.tenants.name_in(&self.name, iss).is_some()
    }

    /// Returns an `iss` that the issuer's tokens may have: the issuer's only name, or the name of one tenant.
    pub fn example_name(&self) -> Arc<str> {
        self.profile.tenants.example(&self.name)
    }

    /// Adds the claims that every token of this issuer has and that `claims` lack, with accepted values. An explanation
    /// of a caller with assumed claims uses this function, because such a caller is described only by the claims that
    /// rules check.
    pub fn complete(&self, claims: &mut Map<String, Value>, now: u64) {
        let profile = &self.profile;
        if let Some(audience) = self.audience.first() {
            profile.audience.put(claims, (**audience).into());
            claims.entry("aud").or_insert_with(|| (**audience).into());
        }
        if profile.max_lifetime.is_some() {
            claims.entry("iat").or_insert_with(|| now.into());
        }
        // A described caller is always named by `sub`, so the subject is copied to the claim that the issuer's tokens
        // use.
        if let Some(subject) = claims.get("sub").cloned() {
            profile.subject.put(claims, subject);
        }
        for (path, values) in &profile.claims {
            if let Some(value) = values.first() {
                path.put(claims, value.to_json());
            }
        }
        for path in &profile.required {
            path.put(claims, Value::Bool(true));
        }
        if let Some(domain) = &profile.trust_domain {
            let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("workload").to_owned();
            if !subject.starts_with("spiffe://") {
                claims.insert("sub".to_owned(), format!("spiffe://{domain}/{subject}").into());
            }
        }
    }

    /// Returns the questions to the issuer, if it is asked about tokens whose signature the gateway does not verify.
    pub(super) fn judge(&self) -> Option<&Arc<Introspector>> {
        self.introspector.as_ref().filter(|_| self.source.is_none() && self.keys.is_empty())
    }

    /// Returns whether both issuers produce the same result for every token.
    fn verifies_like(&self, other: &Self) -> bool {
        // The pattern lists all fields, so that a new field cannot be forgotten here.
        let Self {
            name,
            audience,
            audience_of_clients,
            algorithms,
            keys,
            // The source itself verifies nothing; its fetched keys are in `keys`.
            source: _,
            introspector,
            leeway,
            roles,
            scopes,
            local,
            types,
            profile,
        } = self;
        *name == other.name
            && *audience == other.audience
            && *audience_of_clients == other.audience_of_clients
            && *algorithms == other.algorithms
            && keys.covers(&other.keys)
            && other.keys.covers(keys)
            && same_introspector(introspector.as_ref(), other.introspector.as_ref())
            && *leeway == other.leeway
            && *roles == other.roles
            && *scopes == other.scopes
            && *local == other.local
            && *types == other.types
            && *profile == other.profile
    }
}

/// The trusted issuers, with the settings for verification.
#[derive(Clone, Debug)]
pub struct Trust {
    issuers: Box<[Issuer]>,
    /// The statistics of each issuer, in the order of `issuers`.
    seen: Box<[Arc<TokenStats>]>,
    claims: Box<[ClaimPath]>,
    identity: IdentityHeaders,
    cookies: Option<CookieNames>,
    removed_cookies: Option<CookieNames>,
    origins: Box<[Box<str>]>,
    /// The additional origins from which requests with a cookie of another program are accepted.
    foreign_origins: Box<[Box<str>]>,
    revoked: Arc<Revoked>,
    /// The names of the issuers that send signals.
    signalled: Box<[Arc<str>]>,
    api_keys: Option<Arc<ApiKeys>>,
    certificate_callers: Arc<[CertificateCallers]>,
    dpop: Dpop,
    epoch: u64,
}

impl Trust {
    /// Creates the settings with a new epoch. Tokens that were verified under another epoch are verified again.
    pub fn new(mut issuers: Vec<Issuer>, claims: Vec<ClaimPath>, identity: IdentityHeaders) -> Self {
        for issuer in &mut issuers {
            issuer.types = issuer.types.iter().map(|kind| canonical_type(kind).into()).collect();
        }
        Self {
            seen: issuers.iter().map(|_| Arc::default()).collect(),
            issuers: issuers.into(),
            claims: claims.into(),
            identity,
            cookies: None,
            removed_cookies: None,
            origins: Box::new([]),
            foreign_origins: Box::new([]),
            revoked: Arc::default(),
            signalled: Box::new([]),
            api_keys: None,
            certificate_callers: Arc::new([]),
            dpop: Dpop::default(),
            epoch: next_epoch(),
        }
    }

    /// Returns this trust with other keys for one issuer. The epoch changes only if a key was removed; otherwise,
    /// tokens that were verified with the previous keys remain valid.
    #[must_use]
    pub fn with_keys(&self, issuer: &str, keys: &KeySet) -> Self {
        let mut changed = self.clone();
        for issuer in changed.issuers.iter_mut().filter(|known| *known.name == *issuer) {
            if !keys.covers(&issuer.keys) {
                changed.epoch = next_epoch();
            }
            issuer.keys = keys.keeping(&issuer.keys);
        }
        changed
    }

    /// Returns this trust with the last good set of a source, for the issuers that have it. Without a good set they have
    /// no keys.
    #[must_use]
    pub fn with_fetched(&self, source: &Arc<KeySource>, now: Now) -> Self {
        let issuers = self.issuers.iter();
        let ours =
            issuers.filter(|issuer| issuer.source.as_ref().is_some_and(|known| Arc::ptr_eq(known, source)));
        ours.fold(self.clone(), |trust, issuer| {
            let keys =
                source.good(now).and_then(|good| KeySet::from_jwks(&good.body, &issuer.algorithms).ok());
            trust.with_keys(&issuer.name, &keys.map(|(keys, _)| keys).unwrap_or_default())
        })
    }

    /// Takes over the statistics and the remembered proofs from the trust of the previous policy. If both trusts produce
    /// the same result for every token, the epoch is taken over too, so that cached verifications remain valid.
    #[must_use]
    pub fn carry_over(mut self, before: &Self) -> Self {
        self.dpop = self.dpop.carry_over(&before.dpop);
        for (issuer, seen) in self.issuers.iter().zip(&mut self.seen) {
            let mut known = before.issuers.iter().zip(&before.seen);
            if let Some((_, known)) = known.find(|(known, _)| known.name == issuer.name) {
                *seen = known.clone();
            }
        }
        for issuer in &mut self.issuers {
            if let Some(known) = before.issuers.iter().find(|known| known.name == issuer.name) {
                issuer.keys = issuer.keys.keeping(&known.keys);
            }
        }
        if self.verifies_like(before) {
            self.epoch = before.epoch;
        }
        self
    }

    /// Returns this trust, in an epoch that is not older than that of `before`, which it replaces. The keys of `before` may
    /// have changed since this trust was created. `has_same_file`: whether the API keys of both are from the same file.
    #[must_use]
    pub fn succeeding(mut self, before: &Self, has_same_file: bool) -> Self {
        if self.epoch < before.epoch {
            self.epoch = next_epoch();
        }
        // A key may have been revoked while this trust was made.
        if has_same_file
            && let (Some(ours), Some(theirs)) = (&self.api_keys, &before.api_keys)
            && theirs.is_later_than(ours)
        {
            self.api_keys = Some(theirs.clone());
        }
        self
    }

    /// Returns whether both trusts produce the same result for every token.
    fn verifies_like(&self, other: &Self) -> bool {
        // The pattern lists all fields, so that a new field cannot be forgotten here.
        let Self {
            issuers,
            claims,
            identity,
            signalled,
            api_keys,
            // Every request is checked against these, also with a cached token.
            cookies: _,
            removed_cookies: _,
            origins: _,
            foreign_origins: _,
            revoked: _,
            certificate_callers: _,
            dpop: _,
            // These verify nothing.
            seen: _,
            epoch: _,
        } = self;
        let is_same = |(ours, theirs): (&Issuer, &Issuer)| ours.verifies_like(theirs);
        *claims == other.claims
            && *identity == other.identity
            && *signalled == other.signalled
            // API keys reserve subjects of tokens. Every request looks its own key up.
            && api_keys.is_some() == other.api_keys.is_some()
            && issuers.len() == other.issuers.len()
            && issuers.iter().zip(&other.issuers).all(is_same)
    }

    /// Returns this trust with separate statistics, so that tokens verified for explanations are not counted.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        let seen = self.issuers.iter().map(|_| Arc::default()).collect();
        Self { seen, dpop: self.dpop.observing(), ..self.clone() }
    }

    /// Returns this trust with `key` as the only key of every issuer. To explain a decision about assumed claims, the
    /// caller signs a token that contains these claims with a temporary key. The token then passes the same
    /// verification that serves requests.
    #[must_use]
    pub fn assuming(&self, key: &KeySet) -> Self {
        let mut assuming = self.uncounted();
        for issuer in &mut assuming.issuers {
            issuer.keys = key.clone();
            issuer.algorithms = vec![Algorithm::HS256];
            issuer.introspector = None;
        }
        assuming.dpop = self.dpop.assuming();
        assuming.epoch = next_epoch();
        assuming
    }

    /// Sets the settings for proofs of possession.
    #[must_use]
    pub fn with_dpop(self, settings: DpopSettings) -> Self {
        Self { dpop: Dpop::new(settings), ..self }
    }

    /// Returns the verifier of proofs of possession.
    pub fn dpop(&self) -> &Dpop {
        &self.dpop
    }

    /// Adds the settings of a local authority: the names of its cookies (if it sets any), the additional origins from
    /// which requests with cookies are accepted, and its revocations.
    pub fn with_local(
        mut self,
        cookies: Option<CookieNames>,
        origins: Box<[Box<str>]>,
        revoked: Arc<Revoked>,
    ) -> Self {
        self.cookies = cookies;
        self.origins = origins;
        self.revoked = revoked;
        self
    }

    /// Sets the names of the cookies that no upstream receives: those of a local authority, even if it sets none now.
    /// Browsers keep the cookies of earlier logins.
    #[must_use]
    pub fn removing_cookies(self, names: CookieNames) -> Self {
        Self { removed_cookies: Some(names), ..self }
    }

    /// Adds origins from which requests with a cookie of another program are accepted, besides those of the local
    /// authority.
    #[must_use]
    pub fn with_foreign_origins(mut self, origins: &[Box<str>]) -> Self {
        self.foreign_origins = self.origins.iter().chain(origins).cloned().collect();
        self
    }

    /// Adds the issuers that send signals, and the marks.
    #[must_use]
    pub fn with_signals(mut self, signalled: Box<[Arc<str>]>, revoked: Arc<Revoked>) -> Self {
        self.signalled = signalled;
        self.revoked = revoked;
        self
    }

    /// Returns whether signals revoke the tokens of an issuer.
    pub(super) fn is_signalled(&self, issuer: &Issuer) -> bool {
        self.signalled.contains(&issuer.name)
    }

    /// Returns the names of the local authority's cookies, if it sets any.
    pub fn cookies(&self) -> Option<&CookieNames> {
        self.cookies.as_ref()
    }

    /// Returns the names of the cookies that no upstream receives, if there is a local authority.
    pub fn removed_cookies(&self) -> Option<&CookieNames> {
        self.removed_cookies.as_ref()
    }

    /// Returns the additional origins from which requests with cookies are accepted.
    pub(super) fn origins(&self) -> &[Box<str>] {
        &self.origins
    }

    /// Returns the additional origins from which requests with a cookie of another program are accepted.
    pub(super) fn foreign_origins(&self) -> &[Box<str>] {
        &self.foreign_origins
    }

    /// Returns this trust with these API keys. The epoch stays, because each request looks its key up.
    #[must_use]
    pub fn with_api_keys(&self, keys: Arc<ApiKeys>) -> Self {
        Self { api_keys: Some(keys), ..self.clone() }
    }

    /// Returns the API keys in force; `None` if the policy accepts none.
    pub fn api_keys(&self) -> Option<&ApiKeys> {
        self.api_keys.as_deref()
    }

    /// Sets the callers with client certificates. The epoch stays, because cores cache these callers by all their facts.
    #[must_use]
    pub fn with_certificate_callers(self, callers: Vec<CertificateCallers>) -> Self {
        Self { certificate_callers: callers.into(), ..self }
    }

    /// Returns the callers with client certificates.
    pub fn certificate_callers(&self) -> &[CertificateCallers] {
        &self.certificate_callers
    }

    /// Returns the revocations.
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Checks that a caller who was admitted before would still be admitted: the token has not expired, and neither the
    /// token, its key and its issuer, nor the API key was revoked.
    ///
    /// # Errors
    /// [`Denial::ExpiredToken`], [`Denial::RevokedToken`] or [`Denial::UnknownApiKey`]; [`Denial::CheckUnavailable`]
    /// while marks or keys may be missing.
    pub(crate) fn still_admits(&self, caller: &Principal, now: Now) -> Result<(), Denial> {
        if now.unix >= caller.expires {
            return Err(Denial::ExpiredToken);
        }
        if let Some(digest) = &caller.api_key
            && !self.api_keys.as_ref().is_some_and(|keys| keys.has(digest))
        {
            return Err(Denial::UnknownApiKey);
        }
        if let Some(key) = &caller.key
            && caller.trusted_at.get() != self.epoch
        {
            self.still_trusts(caller, key)?;
            caller.trusted_at.set(self.epoch);
        }
        self.revoked.admit_any(caller)
    }

    /// Checks that the key and the issuer of a token that was verified before are still trusted.
    #[cold]
    fn still_trusts(&self, caller: &Principal, key: &Key) -> Result<(), Denial> {
        let Some((issuer, ..)) = self.issuer(&caller.issuer) else { return Err(Denial::RevokedToken) };
        match () {
            // The last set of keys has become too old, or the keys of another place are not fetched yet.
            () if issuer.source.is_some() && issuer.keys.is_empty() => Err(Denial::CheckUnavailable),
            () if !issuer.keys.contains(key) || !issuer.algorithms.contains(&key.algorithm()) => {
                Err(Denial::RevokedToken)
            }
            // The facts by which signals revoke the token were not kept, because its issuer sent none.
            () if self.is_signalled(issuer) && caller.signalled.is_none() => Err(Denial::CheckUnavailable),
            () => Ok(()),
        }
    }

    /// Returns the issuer whose tokens may have this `iss`, the `iss`, and the issuer's statistics.
    pub(super) fn issuer(&self, iss: &str) -> Option<(&Issuer, Arc<str>, &TokenStats)> {
        let mut both = self.issuers.iter().zip(&self.seen);
        both.find_map(|(issuer, seen)| {
            Some((issuer, issuer.profile.tenants.name_in(&issuer.name, iss)?, &**seen))
        })
    }

    /// Returns the issuer of a token without `iss`: the issuer whose SPIFFE trust domain contains `sub`, otherwise the
    /// issuer whose tokens may lack `iss`.
    pub(super) fn issuer_without_name(
        &self,
        subject: Option<&Value>,
    ) -> Option<(&Issuer, Arc<str>, &TokenStats)> {
        let all = || self.issuers.iter().zip(&self.seen);
        let by_domain = all().find(|(issuer, _)| issuer.profile.is_domain_of(subject));
        let found = by_domain.or_else(|| all().find(|(issuer, _)| issuer.profile.may_lack_issuer));
        found.map(|(issuer, seen)| (issuer, issuer.name.clone(), &**seen))
    }

    /// Returns the issuer that is asked about a token without a signature: the issuer with a prefix of the token,
    /// otherwise the only issuer without prefixes. A token in the form of a JWS needs a prefix.
    pub(super) fn issuer_of_opaque(&self, token: &str) -> Option<(&Issuer, &TokenStats, &Arc<Introspector>)> {
        let is_jws = || token.split('.').count() == 3;
        let mut general = None;
        for (issuer, seen) in self.issuers.iter().zip(&self.seen) {
            let Some(introspector) = &issuer.introspector else { continue };
            let prefixes = &introspector.settings().prefixes;
            if prefixes.iter().any(|prefix| token.starts_with(&**prefix)) {
                return Some((issuer, &**seen, introspector));
            }
            if prefixes.is_empty() && !is_jws() {
                general = Some((issuer, &**seen, introspector));
            }
        }
        general
    }

    /// Returns the name and the statistics of each issuer.
    pub fn seen(&self) -> impl Iterator<Item = (&Arc<str>, &TokenStats)> {
        self.issuers.iter().zip(&self.seen).map(|(issuer, seen)| (&issuer.name, &**seen))
    }

    /// Returns the issuer with this name in the policy.
    pub fn issuer_named(&self, name: &str) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| *issuer.name == *name)
    }

    /// Returns the issuers, for listing.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Returns the paths of the claims that the policy uses, indexed by `ClaimId`.
    pub fn claims(&self) -> &[ClaimPath] {
        &self.claims
    }

    /// Returns the names of the identity headers.
    pub fn identity(&self) -> &IdentityHeaders {
        &self.identity
    }

    /// Returns the epoch, which only grows from one trust in force to the next. The epoch changes when a key is removed, when
    /// the issuers, their settings, the claims in use, the names of the identity headers or the senders of signals change,
    /// and when API keys begin or cease to be used.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

fn same_introspector(one: Option<&Arc<Introspector>>, other: Option<&Arc<Introspector>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn next_epoch() -> u64 {
    static EPOCHS: AtomicU64 = AtomicU64::new(1);
    EPOCHS.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trust_has_an_epoch_of_its_own() {
        let trust = || Trust::new(Vec::new(), Vec::new(), IdentityHeaders::default());
        assert_ne!(trust().epoch(), trust().epoch());
    }

    #[test]
    fn the_epoch_changes_when_a_key_goes_and_not_when_one_comes() {
        let keys = |names: &[(&str, u8)]| {
            let mut set = KeySet::default();
            names
                .iter()
                .for_each(|(id, byte)| set.add_secret(Some(id), Algorithm::HS256, &[*byte; 32]).unwrap());
            set
        };
        let issuer = |name: &str| Issuer {
            name: Arc::from(name),
            audience: Box::new(["a".into()]),
            audience_of_clients: Box::new([]),
            algorithms: vec![Algorithm::HS256],
            keys: keys(&[("1", 1), ("2", 2)]),
            source: None,
            introspector: None,
            leeway: 0,
            local: false,
            roles: ClaimPath::parse("roles").unwrap(),
            scopes: ClaimPath::parse("scope").unwrap(),
            types: Box::new([]),
            profile: Profile::default(),
        };
        let trust = Trust::new(vec![issuer("a"), issuer("b")], Vec::new(), IdentityHeaders::default());
        for (name, set, is_kept) in [
            ("the same", &[("1", 1), ("2", 2)][..], true),
            ("one more", &[("3", 3), ("2", 2), ("1", 1)], true),
            ("one less", &[("1", 1)], false),
            ("one for another", &[("1", 1), ("3", 3)], false),
            ("other material under the same id", &[("1", 1), ("2", 3)], false),
            ("the same material under another id", &[("1", 1), ("3", 2)], false),
        ] {
            let changed = trust.with_keys("a", &keys(set));
            assert_eq!(changed.epoch() == trust.epoch(), is_kept, "{name}");
            let counts: Vec<_> = changed.issuers().iter().map(|issuer| issuer.keys.iter().count()).collect();
            assert_eq!(counts, [set.len(), 2], "{name}");
        }
        assert_eq!(trust.with_keys("c", &keys(&[])).epoch(), trust.epoch(), "nobody of that name");
    }

    #[test]
    fn the_epoch_of_a_trust_that_replaces_another_is_not_older() {
        let trust = || Trust::new(Vec::new(), Vec::new(), IdentityHeaders::default());
        // A key was removed while the policy of the first one was compiled.
        let (compiled, current) = (trust(), trust());
        let succeeding = compiled.clone().succeeding(&current, false);
        assert!(compiled.epoch() < current.epoch() && current.epoch() < succeeding.epoch());
        assert_eq!(current.clone().succeeding(&compiled, false).epoch(), current.epoch());
    }

    #[test]
    fn a_trust_that_replaces_another_keeps_api_keys_that_were_read_later_from_the_same_file() {
        let trust = || Trust::new(Vec::new(), Vec::new(), IdentityHeaders::default());
        let [earlier, later] = [(); 2].map(|()| Arc::new(ApiKeys::after([], None)));
        let number_of = |trust: &Trust| trust.api_keys().map(std::ptr::from_ref);
        let (compiled, current) = (trust().with_api_keys(earlier), trust().with_api_keys(later));
        assert_eq!(number_of(&compiled.clone().succeeding(&current, true)), number_of(&current));
        assert_eq!(number_of(&compiled.clone().succeeding(&current, false)), number_of(&compiled));
        assert_eq!(number_of(&current.clone().succeeding(&compiled, true)), number_of(&current));
        assert_eq!(number_of(&trust().succeeding(&current, true)), None, "the policy accepts none any more");
    }
}
