//! The profile of an issuer's tokens: which claims contain the subject and the audience, which claims a token may lack,
//! and which checks apply in addition to the checks of every token.

use super::claims::{ClaimPath, ClaimValue, audience_matches};
use super::error::{ClaimText, CredentialError, Listed, Quoted, quoted};
use crate::denial::{Denial, RequiredClaim};
use serde_json::{Map, Value};
use std::sync::Arc;

type Claims = Map<String, Value>;

/// The placeholder for the tenant in the name of an issuer that has a name for each tenant.
pub const TENANT: &str = "{tenant}";

/// The profile of an issuer's tokens. The default profile fits most issuers.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The tenants for which the issuer signs under different names.
    pub tenants: Tenants,
    /// The SPIFFE trust domain. The `sub` of each token must be in the domain. A token without `iss` is attributed to
    /// this issuer if its `sub` is in the domain.
    pub trust_domain: Option<Box<str>>,
    /// Whether a token without `iss` is attributed to this issuer. A trust has at most one such issuer.
    pub may_lack_issuer: bool,
    /// Whether a token may lack the audience.
    pub may_lack_audience: bool,
    /// Whether the answer about an introspected token may lack `token_type`.
    pub may_lack_token_type: bool,
    /// The claim that names the subject.
    pub subject: ClaimPath,
    /// The claim that names the audience.
    pub audience: ClaimPath,
    /// The maximum of `exp` minus `iat`, in seconds.
    pub max_lifetime: Option<u64>,
    /// Claims that a token must have.
    pub required: Box<[ClaimPath]>,
    /// Claims that a token must have, each with its accepted values.
    pub claims: Box<[(ClaimPath, Box<[ClaimValue]>)]>,
    /// Whether the roles are the names of an object's members, as Zitadel writes them.
    pub roles_are_keys: bool,
}

/// The names under which one issuer signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// The issuer has one name.
    None,
    /// The issuer has these names, one for each accepted tenant.
    Listed(Box<[Arc<str>]>),
    /// The issuer has a name for each tenant, and every tenant is accepted. The fields are the parts of the name before
    /// and after the tenant.
    Any(Box<str>, Box<str>),
}

impl Default for Profile {
    fn default() -> Self {
        let path = |name: &str| ClaimPath::parse(name).expect("a name of letters is a path");
        Self {
            tenants: Tenants::None,
            trust_domain: None,
            may_lack_issuer: false,
            may_lack_audience: false,
            may_lack_token_type: false,
            subject: path("sub"),
            audience: path("aud"),
            max_lifetime: None,
            required: Box::default(),
            claims: Box::default(),
            roles_are_keys: false,
        }
    }
}

impl Tenants {
    /// Returns the name under which the issuer signs a token with this `iss`; `None` if the issuer does not sign such a
    /// token. `name` is the issuer's name in the policy.
    pub(super) fn name_in(&self, name: &Arc<str>, iss: &str) -> Option<Arc<str>> {
        match self {
            Self::None => (**name == *iss).then(|| name.clone()),
            Self::Listed(names) => names.iter().find(|name| ***name == *iss).cloned(),
            Self::Any(before, after) => {
                let tenant = iss.strip_prefix(&**before)?.strip_suffix(&**after)?;
                is_tenant(tenant).then(|| Arc::from(iss))
            }
        }
    }

    /// Returns one name under which the issuer signs. `name` is the issuer's name in the policy.
    pub fn example(&self, name: &Arc<str>) -> Arc<str> {
        match self {
            Self::None => name.clone(),
            Self::Listed(names) => names.first().unwrap_or(name).clone(),
            Self::Any(before, after) => {
                Arc::from(format!("{before}00000000-0000-0000-0000-000000000000{after}"))
            }
        }
    }

    /// Returns whether a signing key may sign tokens with this `iss`. Entra publishes keys for all tenants and keys for
    /// a single tenant in one set. The `issuer` of a key states the `iss` of the tokens that the key may sign.
    pub(super) fn admits_key(&self, key_issuer: Option<&str>, iss: &str) -> bool {
        match (self, key_issuer) {
            (Self::None, _) | (_, None) => true,
            (Self::Listed(_) | Self::Any(..), Some(of)) => match of.split_once("{tenantid}") {
                Some((before, after)) => {
                    iss.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(is_tenant)
                }
                None => of == iss,
            },
        }
    }
}

/// Returns whether a text may be the name of a tenant: the text is short, and cannot change any other part of the URL
/// that contains it.
pub fn is_tenant(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !text.starts_with('.')
}

impl Profile {
    /// Returns whether this `sub` is in the issuer's trust domain.
    pub(super) fn is_domain_of(&self, subject: Option<&Value>) -> bool {
        let Some(domain) = &self.trust_domain else { return false };
        let id = subject.and_then(Value::as_str).and_then(|subject| subject.strip_prefix("spiffe://"));
        id.and_then(|id| id.strip_prefix(&**domain))
            .is_some_and(|path| path.len() > 1 && path.starts_with('/'))
    }

    /// Checks the requirements that apply only to this issuer's tokens.
    pub(super) fn check(&self, claims: &Claims, iss: &str) -> Result<(), CredentialError> {
        if self.trust_domain.is_some() && !self.is_domain_of(claims.get("sub")) {
            let domain = self.trust_domain.as_deref().unwrap_or_default();
            let sub = ClaimText(claims.get("sub"));
            let detail = format!("sub is {sub}; the issuer signs for spiffe://{domain}/ only");
            return Err(CredentialError::because(Denial::UnknownIssuer, detail));
        }
        // Entra names the tenant in `iss` and in `tid`. The two must agree, because a rule may compare `tid`.
        if self.tenants != Tenants::None
            && let Some(tenant) = claims.get("tid")
            && !tenant.as_str().is_some_and(|tenant| iss.split('/').any(|segment| segment == tenant))
        {
            let detail = format!("tid is {}; iss is {}", ClaimText(Some(tenant)), Quoted(iss));
            return Err(CredentialError::because(Denial::UnknownIssuer, detail));
        }
        self.check_lifetime(claims)?;
        let absent = self.required.iter().find(|path| path.find(claims).is_none_or(Value::is_null));
        if let Some(path) = absent {
            let detail =
                format!("{path} is {}; the issuer's required_claims list it", ClaimText(path.find(claims)));
            return Err(CredentialError::because(Denial::MissingClaim(RequiredClaim::Configured), detail));
        }
        for (path, wanted) in &self.claims {
            let found = path.find(claims);
            let value = found.map(ClaimValue::from);
            if !value.is_some_and(|value| wanted.iter().any(|wanted| value.matches(wanted))) {
                let detail =
                    format!("{path} is {}; wanted: {}", ClaimText(found), Listed(wanted.iter().map(Shown)));
                return Err(CredentialError::because(
                    Denial::MissingClaim(RequiredClaim::Configured),
                    detail,
                ));
            }
        }
        Ok(())
    }

    fn check_lifetime(&self, claims: &Claims) -> Result<(), CredentialError> {
        let Some(max) = self.max_lifetime else { return Ok(()) };
        let seconds = |name: &str| claims.get(name).and_then(Value::as_f64);
        let (Some(issued), Some(expires)) = (seconds("iat"), seconds("exp")) else {
            let (iat, exp) = (ClaimText(claims.get("iat")), ClaimText(claims.get("exp")));
            let detail = format!("iat is {iat} and exp is {exp}; max_lifetime needs both");
            return Err(CredentialError::because(Denial::MissingClaim(RequiredClaim::Issued), detail));
        };
        if expires - issued <= max as f64 {
            return Ok(());
        }
        let detail = format!("exp is {} s after iat; max_lifetime is {max} s", expires - issued);
        Err(CredentialError::because(Denial::LifetimeTooLong, detail))
    }

    /// Checks the audience: at the configured path, and also in `aud` if the token has that claim (RFC 7519 section
    /// 4.1.3). `is_ours` returns whether a value names this gateway.
    pub(super) fn check_audience<'c>(
        &self,
        claims: &'c Claims,
        audiences: &[Box<str>],
        is_ours: impl Fn(&'c str) -> bool,
    ) -> Result<(), CredentialError> {
        let missing = |path: &dyn std::fmt::Display, value: Option<&Value>, instead: &[&str]| {
            let detail = format!("{path} is {}{}", ClaimText(value), super::error::beside(claims, instead));
            CredentialError::because(Denial::MissingClaim(RequiredClaim::Audience), detail)
        };
        let check = |path: &dyn std::fmt::Display, value: &'c Value, instead: &[&str]| {
            let Some(meant) = audience_matches(value, &is_ours) else {
                return Err(missing(path, Some(value), instead));
            };
            if meant {
                return Ok(());
            }
            let wanted = quoted(audiences.iter().map(|audience| &**audience));
            let detail = format!("{path} is {}; wanted: {wanted}", ClaimText(Some(value)));
            Err(CredentialError::because(Denial::WrongAudience, detail))
        };
        let is_usual = self.audience.is_name("aud");
        let instead: &[&str] = if is_usual { &["client_id", "azp"] } else { &["aud"] };
        match self.audience.find(claims) {
            Some(value) => check(&self.audience, value, instead)?,
            None if self.may_lack_audience => {}
            None => return Err(missing(&self.audience, None, instead)),
        }
        match claims.get("aud") {
            Some(value) if !is_usual => check(&"aud", value, &[]),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the subject. `sub` must be text (RFC 7519 section 4.1.2). Any other claim may also contain a whole
    /// number, whose decimal digits are then the subject.
    pub(super) fn subject(&self, claims: &Claims) -> Result<Box<str>, CredentialError> {
        let is_usual = self.subject.is_name("sub");
        let found = self.subject.find(claims);
        let error = |claim: RequiredClaim| {
            let instead: &[&str] = if is_usual { &["client_id", "azp", "common_name"] } else { &["sub"] };
            let beside = match found {
                Some(Value::String(_)) | None => super::error::beside(claims, instead),
                Some(_) => String::new(),
            };
            let detail = format!("{} is {}{beside}", self.subject, ClaimText(found));
            CredentialError::because(Denial::MissingClaim(claim), detail)
        };
        match found {
            Some(Value::String(subject)) if !subject.is_empty() => Ok(subject.as_str().into()),
            Some(Value::Number(number)) if !is_usual && (number.is_u64() || number.is_i64()) => {
                Ok(number.to_string().into())
            }
            Some(Value::String(_)) | None => Err(error(RequiredClaim::Subject)),
            Some(_) => Err(error(RequiredClaim::SubjectText)),
        }
    }
}

/// Displays an accepted value of a claim.
#[derive(Clone)]
struct Shown<'v>(&'v ClaimValue);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ClaimValue::Text(text) => write!(f, "{}", Quoted(text)),
            ClaimValue::Number(number) => write!(f, "{number}"),
            ClaimValue::Bool(flag) => write!(f, "{flag}"),
            ClaimValue::List(_) | ClaimValue::Other => f.write_str("another value"),
        }
    }
}

#[cfg(test)]
mod tests;
