//! Callers that a client certificate identifies.
//!
//! The handshake has verified the certificate. The policy says which of its names is the subject, and which roles the
//! subject has.

use super::api_key::API_KEY_SUBJECT;
use super::claims::{ClaimPath, ClaimValue};
use super::confirmation::Confirmation;
use super::digest::{Digest, digest_of, digest_of_facts};
use super::dpop::Thumbprint;
use super::error::{CredentialError, Quoted, quoted};
use super::identity::IdentityHeaders;
use super::principal::{Principal, Shape, Shapes};
use crate::denial::{Denial, TokenPart};
use crate::tls::{ClientCertificate, Names};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The beginning of the issuer of a caller with a client certificate. The name of the `[client_certificates.NAME]`
/// follows. No `[[issuer]]` may have such a name, so no token has it.
pub const CLIENT_CERTIFICATE_ISSUER: &str = "urn:portcullis:client-certificate:";
/// The subject that stands for every subject in a table of roles.
const EVERYBODY: &str = "*";

/// The name of a certificate that becomes the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// The only alternative name that is a URI.
    Uri,
    /// The only alternative name that is a host.
    Dns,
    /// The only alternative name that is an email address.
    Email,
    /// The only common name.
    CommonName,
}

impl SubjectName {
    fn of(self, names: &Names) -> (&'static str, &[Box<str>]) {
        match self {
            Self::Uri => ("URIs", &names.uris),
            Self::Dns => ("hosts", &names.dns),
            Self::Email => ("email addresses", &names.emails),
            Self::CommonName => ("common names", &names.common),
        }
    }

    /// Returns the names of a certificate with this subject, for an explanation.
    fn names(self, subject: &str) -> Names {
        let list = vec![subject.into()];
        match self {
            Self::Uri => Names { uris: list, ..Names::default() },
            Self::Dns => Names { dns: list, ..Names::default() },
            Self::Email => Names { emails: list, ..Names::default() },
            Self::CommonName => Names { common: list, ..Names::default() },
        }
    }
}

/// The callers with a certificate of one `[client_certificates.NAME]`.
#[derive(Clone, Debug)]
pub struct CertificateCallers {
    pub(super) rule: Arc<str>,
    issuer: Arc<str>,
    subject: SubjectName,
    roles: BTreeMap<String, Vec<String>>,
    /// The digest of all facts above. A core caches a principal under it and the certificate, so a change of the facts
    /// makes a new principal.
    pub(super) identity: Digest,
}

impl CertificateCallers {
    /// Creates the callers of a table with this name.
    pub fn new(rule: &str, subject: SubjectName, roles: BTreeMap<String, Vec<String>>) -> Self {
        let facts = format!("{rule:?} {subject:?} {roles:?}");
        let identity = digest_of_facts("client certificates", facts.as_bytes());
        let issuer = format!("{CLIENT_CERTIFICATE_ISSUER}{rule}");
        Self { rule: rule.into(), issuer: issuer.into(), subject, roles, identity }
    }

    /// Returns the issuer of the callers.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// Returns the table of a described caller with these roles, and a certificate of this subject.
    pub(crate) fn describe(&self, subject: &str, roles: Option<Vec<String>>) -> (Self, ClientCertificate) {
        let mut table = self.roles.clone();
        if let Some(roles) = roles {
            table = BTreeMap::from([(subject.to_owned(), roles)]);
        }
        let callers = Self::new(&self.rule, self.subject, table);
        let names = self.subject.names(subject);
        let thumbprint = digest_of(format!("described {subject}"));
        (callers, ClientCertificate { rule: self.rule.clone(), names, thumbprint, ends: u64::MAX })
    }

    /// Returns the caller with this certificate.
    ///
    /// # Errors
    /// Returns [`Denial::MalformedToken`] if the certificate does not have exactly one subject.
    pub(super) fn principal(
        &self,
        certificate: &ClientCertificate,
        paths: &[ClaimPath],
        identity: &IdentityHeaders,
    ) -> Result<Principal, CredentialError> {
        let (kind, found) = self.subject.of(&certificate.names);
        // A certificate with two names would identify two callers. The roles of one could be wrong for the other.
        let [subject] = found else {
            let detail = format!(
                "the client certificate has {} {kind}, not one: {}",
                found.len(),
                quoted(found.iter().map(|name| &**name))
            );
            return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail));
        };
        let fault = match () {
            () if subject.is_empty() => Some("cannot be read"),
            // Services that look only at the subject could take the caller for an API key.
            () if subject.starts_with(API_KEY_SUBJECT) => Some("is the subject of an API key"),
            () => None,
        };
        if let Some(fault) = fault {
            let detail = format!("the name of the client certificate ({kind}) {fault}: {}", Quoted(subject));
            return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail));
        }
        let of = |name: &str| self.roles.get(name).into_iter().flatten();
        let mut roles: Vec<Box<str>> = Vec::new();
        for role in of(EVERYBODY).chain(of(subject)) {
            if !roles.iter().any(|known| **known == **role) {
                roles.push(role.as_str().into());
            }
        }
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), (*self.issuer).into());
        claims.insert("sub".to_owned(), (**subject).into());
        claims.insert("roles".to_owned(), roles.iter().map(|role| Value::from(&**role)).collect());
        let mut principal = Principal {
            issuer: self.issuer.clone(),
            subject: subject.clone(),
            roles: roles.into(),
            shapes: Shapes { roles: Shape::List, scopes: Shape::List },
            claims: paths.iter().map(|path| path.find(&claims).map(ClaimValue::from)).collect(),
            expires: certificate.ends.saturating_add(1),
            confirmation: Some(Confirmation::Certificate(Thumbprint(certificate.thumbprint))),
            ..Principal::nobody()
        };
        principal.headers = identity.render(&principal).ok_or_else(|| {
            let detail =
                format!("the subject {} of the client certificate is not a header value", Quoted(subject));
            CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail)
        })?;
        Ok(principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::verify_certificate::verify_certificate as authenticate;
    use crate::authenticate::{TokenCache, Trust};
    use crate::clock::Now;

    const BILLING: &str = "spiffe://example.org/billing";

    fn certificate(rule: &str, uris: &[&str]) -> ClientCertificate {
        let uris = uris.iter().map(|uri| Box::from(*uri)).collect();
        let names = Names { uris, common: vec!["billing".into()], ..Names::default() };
        ClientCertificate { rule: rule.into(), names, thumbprint: [7; 32], ends: 200 }
    }

    fn trust(subject: SubjectName, roles: &[(&str, &[&str])]) -> Trust {
        let roles = roles.iter().map(|(subject, roles)| {
            ((*subject).to_owned(), roles.iter().map(|role| (*role).to_owned()).collect())
        });
        let callers = CertificateCallers::new("partners", subject, roles.collect());
        let paths = ["iss", "sub"].map(|path| ClaimPath::parse(path).unwrap());
        Trust::new(Vec::new(), paths.to_vec(), IdentityHeaders::default())
            .with_certificate_callers(vec![callers])
    }

    fn ask(certificate: &ClientCertificate, trust: &Trust) -> Result<(String, Vec<String>), Denial> {
        authenticate(certificate, trust, Now::at(100), &mut TokenCache::new(4))
            .map(|principal| {
                let roles = principal.roles.iter().map(ToString::to_string).collect();
                (principal.subject.to_string(), roles)
            })
            .map_err(|refused| refused.denial)
    }

    #[test]
    fn the_subject_is_the_only_name_of_its_kind_and_has_its_roles_and_those_of_everybody() {
        let roles: &[(&str, &[&str])] = &[("*", &["partner"]), (BILLING, &["biller", "partner"])];
        let malformed = Err(Denial::MalformedToken(TokenPart::Claims));
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let by_uri = trust(SubjectName::Uri, roles);
        for (uris, expected) in [
            (&[BILLING][..], Ok((BILLING.to_owned(), texts(&["partner", "biller"])))),
            (
                &["spiffe://example.org/other"],
                Ok(("spiffe://example.org/other".to_owned(), texts(&["partner"]))),
            ),
            (&[], malformed.clone()),
            (&[BILLING, "spiffe://example.org/other"], malformed.clone()),
            (&[""], malformed.clone()),
            (&["apikey:billing"], malformed),
        ] {
            assert_eq!(ask(&certificate("partners", uris), &by_uri), expected, "{uris:?}");
        }
        let by_name = trust(SubjectName::CommonName, roles);
        let expected = Ok(("billing".to_owned(), texts(&["partner"])));
        assert_eq!(ask(&certificate("partners", &[BILLING]), &by_name), expected);
        assert_eq!(ask(&certificate("others", &[BILLING]), &by_name), Err(Denial::MissingToken));
    }

    #[test]
    fn a_cached_caller_has_the_roles_of_the_current_policy() {
        let certificate = certificate("partners", &[BILLING]);
        let before = trust(SubjectName::Uri, &[(BILLING, &["biller"])]);
        let after = trust(SubjectName::Uri, &[]).carry_over(&before);
        assert_eq!(after.epoch(), before.epoch());
        let mut tokens = TokenCache::new(4);
        let mut roles = |trust: &Trust| {
            authenticate(&certificate, trust, Now::at(100), &mut tokens)
                .map(|found| found.roles.len())
                .unwrap()
        };
        assert_eq!([roles(&before), roles(&before), roles(&after), roles(&before)], [1, 1, 0, 1]);
    }

    #[test]
    fn a_caller_is_bound_to_the_certificate_and_ends_with_it() {
        let trust = trust(SubjectName::Uri, &[]);
        let certificate = certificate("partners", &[BILLING]);
        let principal = authenticate(&certificate, &trust, Now::at(100), &mut TokenCache::new(4)).unwrap();
        assert_eq!(&*principal.issuer, "urn:portcullis:client-certificate:partners");
        assert_eq!(principal.confirmation, Some(Confirmation::Certificate(Thumbprint([7; 32]))));
        assert_eq!(principal.expires, 201, "the last second of the certificate is valid");
    }
}
