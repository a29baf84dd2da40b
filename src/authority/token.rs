//! Access tokens of the local authority (RFC 9068).

use super::settings::Compat;
use crate::authenticate::Thumbprint;
use crate::clock::Now;
use crate::keyring::Keyring;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Header, encode};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The content of an access token.
#[derive(Clone, Debug, Default)]
pub struct AccessClaims {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: Vec<String>,
    /// `sub`.
    pub subject: String,
    /// `roles`; omitted if empty.
    pub roles: Vec<String>,
    /// `scope`; omitted if empty.
    pub scopes: Vec<String>,
    /// The time from `iat` to `exp`, in whole seconds.
    pub expires_in: Duration,
    /// `sid`: the session of the token.
    pub session: Option<String>,
    /// `gen`: the account's generation; omitted if 0.
    pub generation: i64,
    /// `fresh`: whether the user has just entered a password. Omitted if false, unless `compat` adds it.
    pub fresh: bool,
    /// `auth_time`: when the user last entered a password, in seconds since 1970.
    pub authenticated: Option<u64>,
    /// `csrf`: the CSRF value; only in a token that is set as a cookie.
    pub csrf: Option<String>,
    /// `client_id`: the service to which the token was issued.
    pub client: Option<String>,
    /// `cnf.jkt`: the key of the client that may use the token; `None` for a bearer token.
    pub key: Option<Thumbprint>,
    /// The library whose token format clients expect. `mint` adds its claims.
    pub compat: Option<Compat>,
    /// Other claims. A name in `RESERVED_CLAIMS` is rejected.
    pub extra: Map<String, Value>,
}

/// Claims that the authority sets or that verifiers interpret. Account attributes and configured claims must not use
/// these names.
pub const RESERVED_CLAIMS: [&str; 17] = [
    "iss",
    "aud",
    "sub",
    "iat",
    "nbf",
    "exp",
    "jti",
    "roles",
    "scope",
    "sid",
    "gen",
    "fresh",
    "auth_time",
    "csrf",
    "client_id",
    "cnf",
    "type",
];

/// Mints a signed access token.
///
/// # Errors
/// A sentence that names an invalid claim, or the failure to sign.
pub fn mint(keyring: &Keyring, claims: AccessClaims, now: Now) -> Result<String, String> {
    if claims.subject.is_empty() {
        return Err("a token needs a subject".to_owned());
    }
    if let Some(name) = claims.extra.keys().find(|name| RESERVED_CLAIMS.contains(&name.as_str())) {
        return Err(format!("the claim {name} is not free: it has an option, or is the authority's own"));
    }
    if let Some(scope) =
        claims.scopes.iter().find(|scope| scope.is_empty() || scope.contains(char::is_whitespace))
    {
        return Err(format!("\"{scope}\" is not a scope: scopes are separated by spaces"));
    }
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| "the system's random numbers failed".to_owned())?;
    let mut payload = claims.extra;
    payload.insert("iss".into(), claims.issuer.into());
    let audience = match &claims.audience[..] {
        [one] => json!(one),
        several => json!(several),
    };
    payload.insert("aud".into(), audience);
    payload.insert("sub".into(), claims.subject.into());
    payload.insert("iat".into(), now.unix.into());
    payload.insert("exp".into(), now.unix.saturating_add(claims.expires_in.as_secs()).into());
    payload.insert("jti".into(), URL_SAFE_NO_PAD.encode(id).into());
    if !claims.roles.is_empty() {
        payload.insert("roles".into(), claims.roles.into());
    }
    if !claims.scopes.is_empty() {
        payload.insert("scope".into(), claims.scopes.join(" ").into());
    }
    let mut insert = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            payload.insert(name.to_owned(), value);
        }
    };
    insert("sid", claims.session.map(Value::from));
    insert("gen", (claims.generation != 0).then(|| claims.generation.into()));
    insert("fresh", claims.fresh.then_some(Value::Bool(true)));
    insert("auth_time", claims.authenticated.map(Value::from));
    insert("csrf", claims.csrf.map(Value::from));
    insert("client_id", claims.client.map(Value::from));
    insert("cnf", claims.key.map(confirmation));
    if claims.compat == Some(Compat::FlaskJwtExtended) {
        // Flask-JWT-Extended writes these claims into each token, and its clients may read them.
        insert("type", Some("access".into()));
        insert("fresh", Some(claims.fresh.into()));
        insert("nbf", Some(now.unix.into()));
    }
    sign(keyring, "at+jwt", &payload, now)
}

/// Returns the `cnf` of a token that is bound to this key (RFC 9449 section 6.1).
pub(super) fn confirmation(key: Thumbprint) -> Value {
    json!({ "jkt": key.to_string() })
}

/// Signs claims as a JWT with the header `typ` set to `kind`.
///
/// # Errors
/// A sentence if the key cannot sign.
pub fn sign(keyring: &Keyring, kind: &str, claims: &Map<String, Value>, now: Now) -> Result<String, String> {
    let key = keyring.signing(now);
    let algorithm = key.algorithm();
    let mut header =
        Header::new(algorithm.as_library().ok_or_else(|| format!("cannot sign with {algorithm}"))?);
    header.typ = Some(kind.to_owned());
    header.kid = Some(key.id().to_owned());
    encode(&header, claims, key.encoding()).map_err(|error| format!("cannot sign: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::{Algorithm, ClaimPath, IdentityHeaders, Issuer, Profile, Trust, verify};
    use crate::denial::Denial;
    use crate::keyring::{KeyStorage, MissingKey};
    use std::path::PathBuf;
    use std::sync::Arc;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn claims(subject: &str) -> AccessClaims {
        AccessClaims {
            issuer: "https://id.example.com".into(),
            audience: vec!["orders".into()],
            subject: subject.into(),
            roles: vec!["clerk".into()],
            scopes: vec!["a:read".into(), "b".into()],
            expires_in: Duration::from_secs(60),
            ..AccessClaims::default()
        }
    }

    fn trust(keyring: &Keyring) -> Trust {
        let path = |text: &str| ClaimPath::parse(text).unwrap();
        let issuer = Issuer {
            name: Arc::from("https://id.example.com"),
            audience: Box::new(["orders".into()]),
            audience_of_clients: Box::new([]),
            algorithms: vec![keyring.algorithm()],
            keys: keyring.key_set().unwrap(),
            source: None,
            introspector: None,
            leeway: 0,
            local: false,
            roles: path("roles"),
            scopes: path("scope"),
            types: Box::new(["at+jwt".into()]),
            profile: Profile::default(),
        };
        Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default())
    }

    #[test]
    fn a_minted_token_of_any_algorithm_is_accepted_until_it_expires() {
        let folder = Folder::new("mint");
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::HS256] {
            let state = folder.0.join(algorithm.as_str());
            let secret = (algorithm == Algorithm::HS256).then_some(&[7_u8; 32][..]);
            let keyring =
                Keyring::open(KeyStorage::Folder(&state), algorithm, secret, MissingKey::Create).unwrap();
            let token = mint(&keyring, claims("ada"), Now::at(1000)).unwrap();
            let trust = trust(&keyring);
            let principal = verify(&token, &trust, Now::at(1059)).unwrap();
            assert_eq!((&*principal.subject, principal.roles.len(), principal.scopes.len()), ("ada", 1, 2));
            assert_eq!(verify(&token, &trust, Now::at(1060)).unwrap_err().denial, Denial::ExpiredToken);
            assert_eq!(verify(&token, &trust, Now::at(999)).unwrap_err().denial, Denial::TokenNotYetValid);
        }
    }

    #[test]
    fn extra_claims_cannot_replace_the_authoritys_own() {
        let keyring = Keyring::open(
            KeyStorage::Folder(&Folder::new("own").0),
            Algorithm::HS256,
            Some(&[7; 32]),
            MissingKey::Create,
        )
        .unwrap();
        for name in RESERVED_CLAIMS {
            let mut claims = claims("ada");
            claims.extra.insert(name.into(), json!("x"));
            assert!(mint(&keyring, claims, Now::at(0)).is_err(), "{name}");
        }
        assert!(mint(&keyring, claims(""), Now::at(0)).is_err());
    }
}
