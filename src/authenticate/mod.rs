//! Authenticates callers: finds the credential of a request, verifies it and returns the principal.

mod api_key;
mod binding;
mod cache;
pub mod claims;
mod client_certificate;
mod confirmation;
mod cookie;
pub mod credential;
pub(crate) mod csrf;
mod digest;
pub mod dpop;
mod error;
mod identity;
mod identity_fields;
mod introspected;
pub(crate) mod json;
mod jws;
mod keys;
mod mark;
mod pending;
mod places;
mod postponed;
pub mod principal;
mod profile;
mod request_parts;
mod revocation_news;
mod revoked;
mod signal_marks;
pub(crate) mod sources;
mod statement;
pub(crate) mod token_stats;
mod trust;
mod verify;
mod verify_api_key;
mod verify_certificate;

pub use api_key::{
    API_KEY_ISSUER, API_KEY_PREFIX, API_KEY_SUBJECT, ApiKey, ApiKeyFacts, ApiKeys,
    check_form as check_api_key, generate as generate_api_key, hint_of,
};
pub use cache::{ApiKeyOutcome, TokenCache};
pub use claims::{ClaimId, ClaimPath, ClaimValue};
pub(crate) use claims::{LOGOUT_EVENT, audience_matches, numeric_date};
pub use client_certificate::{CLIENT_CERTIFICATE_ISSUER, CertificateCallers, SubjectName};
pub use confirmation::Confirmation;
pub use credential::{CookieNames, Place, bearer, token};
pub use digest::{Digest, digest_of};
pub use dpop::{Dpop, DpopSettings, Thumbprint};
pub use error::CredentialError;
pub use identity::{IdentityHeaders, fold_eq};
pub use identity_fields::IdentityFields;
pub use introspected::{read_introspection, signer_of};
pub use keys::{Algorithm, ED25519, Key, KeySet};
pub(crate) use mark::mark_seconds;
pub use mark::{MARK_DIGEST_BYTES, Mark, MarkDigest, MarkedClaim, SignalMark, Signalled};
pub use pending::{InVain, Pending};
pub use principal::Principal;
pub use profile::{Profile, TENANT, Tenants, is_tenant};
pub use request_parts::Credentials;
pub use revocation_news::RevocationNews;
pub use revoked::{MARK_MARGIN, Revoked};
pub use signal_marks::{SIGNAL_MARKS_MAX, SignalMarks};
pub use sources::{NamedHeader, Source, Sources};
pub use statement::{Statement, has_type};
pub use trust::{Issuer, Trust};
pub(crate) use verify::service_of;
pub use verify::{claims_of, verify};

use crate::clock::Now;
use crate::denial::{Denial, TokenPart};
use http::header::AUTHORIZATION;
use postponed::take_turn;
use serde_json::{Map, Value};
use std::rc::Rc;
use verify::{Recipient, own_claims, verify_for};
use verify_api_key::verify_api_key;
use verify_certificate::verify_certificate;

/// Whether a route requires the caller's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone may call the route, and credentials are ignored.
    Public,
    /// A token is optional, but an invalid token is refused and never ignored.
    Optional,
    /// A valid token is required. This is the default.
    Authenticated,
}

/// A route's policy for credentials.
#[derive(Clone, Debug)]
pub struct CredentialPolicy {
    /// Whether a token is required.
    pub access: Access,
    /// The places where a token may be.
    pub sources: Sources,
}

impl From<Access> for CredentialPolicy {
    /// Creates a policy that accepts tokens in the default places.
    fn from(access: Access) -> Self {
        Self { access, sources: Sources::default() }
    }
}

/// Authenticates the caller of a request. A token that this core has already verified in the same trust epoch is not
/// verified again, but the revocation check runs for every request.
///
/// # Errors
/// Returns why the credential was rejected, or that a credential is required.
pub fn authenticate(
    credential_policy: &CredentialPolicy,
    trust: &Trust,
    credentials: &Credentials<'_>,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Option<(Rc<Principal>, Place)>, CredentialError> {
    let access = credential_policy.access;
    if access == Access::Public {
        return Ok(None);
    }
    let head = credentials.head;
    let (sources, cookies) = (&credential_policy.sources, trust.cookies());
    let found = match credential::find(head, sources, cookies) {
        Ok(found) => found,
        Err(denial) => return Err(places::describe(denial, head, sources, cookies)),
    };
    let Some((credential, place)) = found else {
        if let Some(certificate) = credentials.certificate
            && credential_policy.sources.takes_certificates()
        {
            let caller = verify_certificate(certificate, trust, now, tokens)?;
            csrf::check_certificate(credentials, trust.foreign_origins())?;
            return Ok(Some((caller, Place::Certificate)));
        }
        return match access {
            // A caller whose `Authorization` field contains an unsupported credential must not be treated as anonymous.
            Access::Optional if head.headers.contains_key(AUTHORIZATION) => {
                Err(absent(Denial::MalformedToken(TokenPart::Field), credentials, credential_policy, trust))
            }
            Access::Optional | Access::Public => Ok(None),
            Access::Authenticated => Err(absent(Denial::MissingToken, credentials, credential_policy, trust)),
        };
    };
    if place == Place::ApiKey {
        return Ok(Some((verify_api_key(credential, trust, now, tokens)?, place)));
    }
    let known_digest = credentials.known_token.and_then(|known| known.digest(credential));
    let digest = known_digest.unwrap_or_else(|| digest_of(credential));
    let mut turns = credentials.turns;
    let principal = match tokens.get(&digest, trust.epoch(), now) {
        Some(principal) => {
            if let (Some(known), None) = (credentials.known_token, known_digest) {
                known.remember(credential, digest);
            }
            principal
        }
        None => {
            let token =
                token(credential).map_err(|denial| places::describe(denial, head, sources, cookies))?;
            let verified = verify_for(Recipient::Gateway, token, trust, now, &mut turns);
            let verified = verified.inspect_err(|refused| {
                if let (Some(known), Some(Pending::Turn(_))) =
                    (credentials.known_token, refused.pending.as_deref())
                {
                    known.remember(credential, digest);
                }
            })?;
            let principal = Rc::new(verified);
            tokens.insert(digest, principal.clone());
            principal
        }
    };
    trust.revoked().admit_any(&principal)?;
    if principal.confirmation.is_some() || place == Place::Dpop {
        if place == Place::Dpop {
            take_turn(&mut turns)?;
        }
        binding::check(trust.dpop(), credentials, &principal, place, &digest, now)?;
    }
    match (place, trust.cookies()) {
        (Place::Cookie, Some(names)) => {
            csrf::check(credentials, names, trust.origins(), principal.local.as_deref())?;
        }
        (Place::ForeignCookie, _) => csrf::check_foreign(credentials, trust.foreign_origins())?,
        (
            Place::Header
            | Place::Dpop
            | Place::Cookie
            | Place::Named
            | Place::WebSocket
            | Place::ApiKey
            | Place::Certificate
            | Place::Query,
            _,
        ) => {}
    }
    Ok(Some((principal, place)))
}

/// The field of a query that may contain a token (RFC 6750 section 2.3).
const TOKEN_FIELD: &str = "access_token";

/// Builds the error for a request without a credential in the places of its route. If the request has a credential in
/// another place, the error describes that credential to the operator.
#[cold]
fn absent(
    denial: Denial,
    credentials: &Credentials<'_>,
    credential_policy: &CredentialPolicy,
    trust: &Trust,
) -> CredentialError {
    let (head, sources) = (credentials.head, &credential_policy.sources);
    if let Some(field) = head.headers.get(AUTHORIZATION) {
        let scheme = credential::scheme_of(field.as_bytes());
        let looks = if sources.header { "" } else { "; the route takes no token from Authorization" };
        return CredentialError::because(denial, format!("Authorization has {scheme}{looks}"));
    }
    let has = |name: &str| matches!(credential::cookie(head.headers, name), Ok(Some(_)));
    match trust.cookies() {
        Some(names) if !sources.cookie && has(&names.access) => {
            let detail = format!("the route takes no token from a cookie, and {} is there", names.access);
            CredentialError::because(denial, detail)
        }
        Some(names) if sources.cookie && has(&names.refresh) => CredentialError::because(
            denial,
            format!(
                "the cookie {}, which expires with its token, is missing; {} is there",
                names.access, names.refresh
            ),
        ),
        Some(_) | None if credentials.certificate.is_some() => {
            let detail = "the connection has a client certificate, which the route does not take";
            CredentialError::because(denial, detail)
        }
        Some(_) | None if sources::query_field(head.query, TOKEN_FIELD) != Ok(None) => {
            let detail =
                format!("the query has {TOKEN_FIELD}, and the route takes no token from there (sources)");
            CredentialError::because(denial, detail)
        }
        Some(_) | None => denial.into(),
    }
}

/// Verifies an access token from an introspection request, with the same checks as for a caller's token. The audiences of
/// the local authority's clients are accepted too, since only the authority can introspect the tokens of these clients.
///
/// # Errors
/// Returns why the token was rejected.
pub fn examine(text: &[u8], trust: &Trust, now: Now) -> Result<Principal, CredentialError> {
    let principal = verify_for(Recipient::Anyone, token(text)?, trust, now, &mut None)?;
    trust.revoked().admit_any(&principal)?;
    Ok(principal)
}

/// Returns the claims of an access token in a revocation request. `None` if the local authority has not signed the token.
pub fn revocable(text: &[u8], trust: &Trust) -> Option<Map<String, Value>> {
    own_claims(token(text).ok()?, trust).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{KnownToken, Scheme};
    use crate::route::Head;
    use crate::turns::Turns;
    use http::HeaderMap;
    use std::sync::Arc;

    const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
    const OTHER: &[u8; 32] = b"fedcba9876543210fedcba9876543210";

    fn trust(secret: &[u8]) -> Trust {
        let path = |text: &str| ClaimPath::parse(text).unwrap();
        let mut keys = KeySet::default();
        keys.add_secret(None, Algorithm::HS256, secret).unwrap();
        let issuer = Issuer {
            name: Arc::from("i"),
            audience: Box::new(["a".into()]),
            audience_of_clients: Box::new([]),
            algorithms: vec![Algorithm::HS256],
            keys,
            source: None,
            introspector: None,
            leeway: 5,
            local: false,
            roles: path("roles"),
            scopes: path("scope"),
            types: Box::new(["JWT".into()]),
            profile: Profile::default(),
        };
        Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default())
    }

    /// Returns a token that is valid from 100 to 200, plus the leeway on both sides.
    fn good() -> String {
        let claims = serde_json::json!({ "iss": "i", "aud": "a", "sub": "s", "nbf": 100, "exp": 200 });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
        format!("Bearer {}", jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap())
    }

    fn head(headers: &HeaderMap) -> Head<'_> {
        Head {
            method: &http::Method::GET,
            host: Some("h".into()),
            port: None,
            path: "/".into(),
            query: None,
            headers,
        }
    }

    fn ask(
        access: Access,
        trust: &Trust,
        headers: &HeaderMap,
        now: u64,
        tokens: &mut TokenCache,
    ) -> Result<Option<(Rc<Principal>, Place)>, Denial> {
        let head = head(headers);
        let credentials = Credentials::new(&head, Scheme::Https);
        authenticate(&access.into(), trust, &credentials, Now::at(now), tokens)
            .map_err(|refused| refused.denial)
    }

    fn fields(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, field.parse().unwrap());
        }
        headers
    }

    #[test]
    fn each_access_takes_each_credential_as_the_table_says() {
        let trust = trust(SECRET);
        let (good, bad) = (&*good(), &*format!("{}A", good()));
        let malformed = |part| Err(Denial::MalformedToken(part));
        for (credential, optional, authenticated) in [
            (&[][..], Ok(false), Err(Denial::MissingToken)),
            (&[good], Ok(true), Ok(true)),
            (&[bad], malformed(TokenPart::Signature), malformed(TokenPart::Signature)),
            (&["Bearer"], malformed(TokenPart::Field), malformed(TokenPart::Field)),
            (&["Basic dTpw"], malformed(TokenPart::Field), Err(Denial::MissingToken)),
            (&[good, good], Err(Denial::AmbiguousCredentials), Err(Denial::AmbiguousCredentials)),
        ] {
            for (access, expected) in [
                (Access::Public, Ok(false)),
                (Access::Optional, optional),
                (Access::Authenticated, authenticated),
            ] {
                let mut tokens = TokenCache::new(4);
                let mut outcome = || {
                    ask(access, &trust, &fields(credential), 150, &mut tokens)
                        .map(|principal| principal.is_some())
                };
                assert_eq!(outcome(), expected, "{access:?} {credential:?}");
                assert_eq!(outcome(), expected, "{access:?} {credential:?}, a second time");
            }
        }
    }

    #[test]
    fn a_token_that_is_remembered_is_refused_when_a_new_one_would_be() {
        let (trust, headers) = (trust(SECRET), fields(&[&good()]));
        let mut tokens = TokenCache::new(4);
        for (time, expected) in [
            (150, Ok("s".into())),
            (94, Err(Denial::TokenNotYetValid)),
            (95, Ok("s".into())),
            (204, Ok("s".into())),
            (205, Err(Denial::ExpiredToken)),
            (150, Ok("s".into())),
        ] {
            let outcome = |tokens: &mut TokenCache| {
                ask(Access::Authenticated, &trust, &headers, time, tokens)
                    .map(|principal| principal.unwrap().0.subject.clone())
            };
            assert_eq!(outcome(&mut tokens), expected, "{time}");
            assert_eq!(outcome(&mut TokenCache::new(4)), expected, "{time}, never seen");
        }
        assert!(tokens.hits() > 0);
    }

    #[test]
    fn a_token_that_waits_for_its_turn_is_hashed_once() {
        let token = format!("{}.{}.AAAA", b64(br#"{"alg":"RS256"}"#), b64(br#"{"iss":"i"}"#));
        let headers = fields(&[&format!("Bearer {token}")]);
        let head = head(&headers);
        let (known, turns) = (KnownToken::default(), Turns::default());
        let credentials = Credentials {
            known_token: Some(&known),
            turns: Some(&turns),
            ..Credentials::new(&head, Scheme::Https)
        };
        let policy = CredentialPolicy::from(Access::Authenticated);
        let mut tokens = TokenCache::new(4);
        let refused =
            authenticate(&policy, &trust(SECRET), &credentials, Now::at(150), &mut tokens).unwrap_err();
        assert_eq!(refused.pending, None, "the first one has its turn at once");
        assert_eq!(known.digest(token.as_bytes()), None, "a refused token is not remembered");
        let refused =
            authenticate(&policy, &trust(SECRET), &credentials, Now::at(150), &mut tokens).unwrap_err();
        assert_eq!(refused.pending, Some(Box::new(Pending::Turn(turns.clone()))));
        assert_eq!(known.digest(token.as_bytes()), Some(digest_of(&token)));
    }

    fn b64(bytes: &[u8]) -> String {
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes)
    }

    #[test]
    fn a_token_verified_under_one_trust_is_verified_again_under_another() {
        let headers = fields(&[&good()]);
        let mut tokens = TokenCache::new(4);
        let mut outcome = |trust: &Trust| {
            ask(Access::Authenticated, trust, &headers, 150, &mut tokens).map(|p| p.is_some())
        };
        let ours = trust(SECRET);
        assert_eq!(outcome(&ours), Ok(true));
        assert_eq!(outcome(&ours), Ok(true));
        assert_eq!(outcome(&trust(OTHER)), Err(Denial::BadSignature), "its key was taken away");
        assert_eq!(outcome(&ours), Ok(true));
    }
}
