//! Creates proofs of the caller's identity, for upstreams that share a network with other services.
//!
//! A proof is a JWT signed by the local authority, or an HMAC over the identity fields. A service can check the HMAC in
//! ten lines of code, without a library.
//!
//! The gateway creates one JWT per caller and upstream, and reuses it for half its life. If the policy binds the JWT to
//! the request, the gateway creates one per request. The gateway does not accept the JWT as an access token, because
//! the JWT has a different type.

use super::fields::FieldSink;
use super::identity_choice::IdentityChoice;
use crate::authenticate::principal::Proven;
use crate::authenticate::{ClaimId, ClaimValue, Principal};
use crate::clock::Now;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// Maximum lifetime of an assertion, in seconds. It allows for a slow network and small clock differences.
const LIFE: u64 = 60;
/// The `typ` of assertions (RFC 8725 section 3.11).
pub const TYPE: &str = "assertion+jwt";

/// Signs claims as a JWT of [`TYPE`], with the key in use at the given time. Returns `None` if signing fails.
pub type Signer = Arc<dyn Fn(&Map<String, Value>, Now) -> Option<String> + Send + Sync>;

/// The proofs of identity that the policy configures.
#[derive(Debug, Default)]
pub struct Proofs {
    /// Creates the JWT.
    pub assertion: Option<Assertor>,
    /// The name of the header field for the HMAC. Only upstreams with a key receive it.
    pub signature: Option<HeaderName>,
}

/// Creates assertions: JWTs that prove a caller's identity to an upstream.
pub struct Assertor {
    /// The name of the header field for the assertion.
    pub header: HeaderName,
    /// The value of `iss`.
    pub issuer: Box<str>,
    /// The claims of the caller to copy into the assertion, with their names.
    pub claims: Box<[(Box<str>, ClaimId)]>,
    /// Whether each assertion is bound to one request by `htm` and `htu`, the names of RFC 9449.
    pub binds: bool,
    /// Signs with the authority's key.
    pub sign: Signer,
}

impl fmt::Debug for Assertor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertor")
            .field("header", &self.header)
            .field("binds", &self.binds)
            .finish_non_exhaustive()
    }
}

/// The receiver of a proof: an upstream.
#[derive(Debug)]
pub struct Audience {
    /// The value of `aud`: the upstream's name in the policy.
    pub name: Arc<str>,
    /// The secret that the upstream and the gateway share.
    pub key: Option<hmac::Key>,
    /// The part of the identity that the upstream receives on this route. `None` means the whole identity.
    pub(crate) choice: Option<IdentityChoice>,
    /// The cache key of an assertion: the choice, a line break, and the upstream's name. A choice contains no line
    /// break, so two audiences never have the same key.
    kept_as: Arc<str>,
}

impl Audience {
    /// Creates the audience of an upstream that receives the whole identity.
    pub fn new(name: Arc<str>, key: Option<hmac::Key>) -> Self {
        let kept_as = Arc::from(format!("\n{name}"));
        Self { name, key, choice: None, kept_as }
    }

    /// Returns the audience of the same upstream for a route that sends only a part of the identity.
    #[must_use]
    pub fn receiving(&self, choice: IdentityChoice) -> Self {
        let kept_as = Arc::from(format!("{}\n{}", choice.key(), self.name));
        Self { name: self.name.clone(), key: self.key.clone(), choice: Some(choice), kept_as }
    }

    /// Writes the identity fields that the upstream receives.
    pub(in crate::forward) fn write_headers(&self, sink: &mut impl FieldSink, principal: &Principal) {
        match &self.choice {
            None => sink.set_lines(principal.headers.lines()),
            Some(choice) => choice.of(&principal.headers).for_each(|(name, value)| sink.set(name, value)),
        }
    }
}

/// The inputs for the proofs of one request.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'r> {
    /// The proofs that the policy configures.
    pub proofs: &'r Proofs,
    /// The audience of assertions.
    pub audience: &'r Audience,
    /// The request's method.
    pub method: &'r Method,
    /// The path and query that the upstream receives.
    pub target: &'r PathAndQuery,
    /// The time of the request.
    pub now: Now,
}

impl Proof<'_> {
    /// Writes the configured proofs into the header fields.
    pub fn write(&self, sink: &mut impl FieldSink, principal: &Principal) {
        if let Some(assertor) = &self.proofs.assertion
            && let Some(value) = self.assertion(assertor, principal)
        {
            sink.set(&assertor.header, &value);
        }
        if let (Some(name), Some(key)) = (&self.proofs.signature, &self.audience.key) {
            sink.set(name, &self.signature(key, principal));
        }
    }

    fn assertion(&self, assertor: &Assertor, principal: &Principal) -> Option<HeaderValue> {
        if assertor.binds {
            return self.made(assertor, principal).map(|(value, _)| value);
        }
        let audience = &self.audience.kept_as;
        let mut kept = principal.proofs.borrow_mut();
        if let Some(known) = kept.iter().find(|known| known.audience == *audience)
            && (known.made..known.until).contains(&self.now.unix)
        {
            return Some(known.value.clone());
        }
        let (value, until) = self.made(assertor, principal)?;
        kept.retain(|known| known.audience != *audience);
        // The list holds at most one assertion for each upstream and each choice.
        let made = self.now.unix;
        kept.push(Proven { audience: audience.clone(), value: value.clone(), made, until });
        Some(value)
    }

    /// Creates an assertion. Also returns the time until which the assertion may be reused: half of its life.
    fn made(&self, assertor: &Assertor, principal: &Principal) -> Option<(HeaderValue, u64)> {
        let now = self.now.unix;
        // An assertion never outlives the caller's token.
        let expires = now.saturating_add(LIFE).min(principal.expires);
        let mut id = [0; 16];
        rand::fill(&mut id).ok()?;
        let mut claims = Map::new();
        let whole = IdentityChoice {
            subject: true,
            roles: true,
            scopes: true,
            issuer: true,
            ..IdentityChoice::default()
        };
        let choice = self.audience.choice.as_ref();
        let sends_claim = |claim: &ClaimId| choice.is_none_or(|choice| choice.claims.contains(claim));
        for (name, claim) in assertor.claims.iter().filter(|(_, claim)| sends_claim(claim)) {
            if let Some(value) = principal.claim(*claim).and_then(json) {
                claims.insert(name.to_string(), value);
            }
        }
        let sends = choice.unwrap_or(&whole);
        let names =
            |list: &[Box<str>]| Value::from(list.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        claims.insert("iss".into(), (*assertor.issuer).into());
        claims.insert("aud".into(), (*self.audience.name).into());
        if sends.subject {
            claims.insert("sub".into(), (*principal.subject).into());
        }
        claims.insert("iat".into(), now.into());
        claims.insert("exp".into(), expires.into());
        claims.insert("jti".into(), URL_SAFE_NO_PAD.encode(id).into());
        // The subject alone does not identify the caller, because two issuers may use the same subject.
        if sends.issuer {
            claims.insert("idp".into(), (*principal.issuer).into());
        }
        if sends.roles && !principal.roles.is_empty() {
            claims.insert("roles".into(), names(&principal.roles));
        }
        if sends.scopes && !principal.scopes.is_empty() {
            claims.insert("scope".into(), principal.scopes.join(" ").into());
        }
        if assertor.binds {
            claims.insert("htm".into(), self.method.as_str().into());
            claims.insert("htu".into(), self.target.as_str().into());
        }
        let mut value = HeaderValue::try_from((assertor.sign)(&claims, self.now)?).ok()?;
        value.set_sensitive(true);
        Some((value, now + expires.saturating_sub(now) / 2))
    }

    /// Returns `v1;t=TIME;h=NAMES;s=HMAC`. The HMAC covers the lines that docs/identity.md specifies. No value contains
    /// a line break: identity values are encoded, and a method or target cannot contain a line break.
    fn signature(&self, key: &hmac::Key, principal: &Principal) -> HeaderValue {
        let mut fields: Vec<_> = match &self.audience.choice {
            None => principal.headers.iter().collect(),
            Some(choice) => choice.of(&principal.headers).collect(),
        };
        fields.sort_unstable_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        let mut text = format!("v1\n{}\n{}\n{}\n", self.now.unix, self.method, self.target).into_bytes();
        let mut names = String::new();
        for (name, value) in fields {
            text.extend_from_slice(name.as_str().as_bytes());
            text.push(b':');
            text.extend_from_slice(value.as_bytes());
            text.push(b'\n');
            if !names.is_empty() {
                names.push(',');
            }
            names.push_str(name.as_str());
        }
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(key, &text));
        let value = format!("v1;t={};h={names};s={tag}", self.now.unix);
        HeaderValue::try_from(value).expect("names of fields, digits and base64url")
    }
}

fn json(value: &ClaimValue) -> Option<Value> {
    match value {
        ClaimValue::Text(text) => Some((**text).into()),
        ClaimValue::Number(number) => Some(number.clone().into()),
        ClaimValue::Bool(flag) => Some((*flag).into()),
        ClaimValue::List(values) => Some(values.iter().filter_map(json).collect()),
        ClaimValue::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::IdentityFields;
    use http::HeaderMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn principal(expires: u64) -> Principal {
        Principal {
            issuer: Arc::from("https://idp"),
            roles: Box::new(["clerk".into(), "a,b".into()]),
            claims: Box::new([Some(ClaimValue::Text("acme".into())), None]),
            expires,
            headers: IdentityFields::new(vec![
                (HeaderName::from_static("x-auth-subject"), HeaderValue::from_static("ada")),
                (HeaderName::from_static("x-auth-roles"), HeaderValue::from_static("clerk,a%2Cb")),
            ]),
            ..Principal::for_tests()
        }
    }

    /// Returns proofs that are not signed, and a counter of the signer's calls.
    fn proofs(binds: bool) -> (Proofs, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let assertor = Assertor {
            header: HeaderName::from_static("x-auth-assertion"),
            issuer: "https://id".into(),
            claims: Box::new([("tenant".into(), ClaimId(0)), ("plan".into(), ClaimId(1))]),
            binds,
            sign: Arc::new(move |claims, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                Some(Value::Object(claims.clone()).to_string())
            }),
        };
        let signature = Some(HeaderName::from_static("x-auth-signature"));
        (Proofs { assertion: Some(assertor), signature }, count)
    }

    fn written(proofs: &Proofs, audience: &Audience, principal: &Principal, now: u64) -> HeaderMap {
        let (method, target) = (Method::GET, PathAndQuery::from_static("/orders/7?x=1"));
        let mut headers = HeaderMap::new();
        let proof = Proof { proofs, audience, method: &method, target: &target, now: Now::at(now) };
        proof.write(&mut headers, principal);
        headers
    }

    fn audience(name: &str) -> Audience {
        Audience::new(Arc::from(name), Some(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])))
    }

    fn claims(headers: &HeaderMap) -> Value {
        serde_json::from_slice(headers["x-auth-assertion"].as_bytes()).unwrap()
    }

    #[test]
    fn an_assertion_is_made_once_for_each_upstream_and_given_for_half_its_life() {
        let ((proofs, count), caller) = (proofs(false), principal(10_000));
        let (orders, stock) = (audience("orders"), audience("stock"));
        let first = claims(&written(&proofs, &orders, &caller, 1000));
        assert_eq!(
            (&first["aud"], &first["iat"], &first["exp"]),
            (&"orders".into(), &1000.into(), &1060.into())
        );
        assert_eq!(
            (&first["sub"], &first["idp"], &first["tenant"]),
            (&"ada".into(), &"https://idp".into(), &"acme".into())
        );
        assert_eq!(first.get("plan"), None);
        assert_eq!(claims(&written(&proofs, &stock, &caller, 1000))["aud"], "stock");
        assert_eq!(claims(&written(&proofs, &orders, &caller, 1029)), first);
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_eq!(claims(&written(&proofs, &orders, &caller, 1030))["exp"], 1090);
        assert_eq!(count.load(Ordering::Relaxed), 3);
        let back = claims(&written(&proofs, &orders, &caller, 900));
        assert_eq!((&back["iat"], count.load(Ordering::Relaxed)), (&900.into(), 4), "a clock that went back");
    }

    #[test]
    fn an_assertion_never_outlives_the_token_that_it_is_made_of() {
        let ((proofs, _), caller) = (proofs(false), principal(1010));
        let orders = audience("orders");
        assert_eq!(claims(&written(&proofs, &orders, &caller, 1000))["exp"], 1010);
        assert_eq!(claims(&written(&proofs, &orders, &caller, 1005))["iat"], 1005);
    }

    #[test]
    fn one_that_is_bound_is_made_for_its_request_alone() {
        let ((proofs, count), caller) = (proofs(true), principal(10_000));
        let orders = audience("orders");
        for made in 1..=3 {
            let claims = claims(&written(&proofs, &orders, &caller, 1000));
            assert_eq!((&claims["htm"], &claims["htu"]), (&"GET".into(), &"/orders/7?x=1".into()));
            assert_eq!(count.load(Ordering::Relaxed), made);
        }
    }

    #[test]
    fn proofs_for_a_part_of_the_identity_hold_no_more_and_are_not_mixed_up() {
        let ((proofs, count), caller) = (proofs(false), principal(10_000));
        let orders = audience("orders");
        let part = |choice: IdentityChoice| orders.receiving(choice);
        let roles = IdentityChoice { roles: true, ..IdentityChoice::default() };
        let roles = part(IdentityChoice { headers: vec![HeaderName::from_static("x-auth-roles")], ..roles });
        let tenant = part(IdentityChoice { claims: vec![ClaimId(0)], ..IdentityChoice::default() });
        // An upstream whose name looks like the key of a choice is a different audience.
        let odd = audience(roles.kept_as.trim_start());
        for _ in 0..2 {
            let held = |audience: &Audience| {
                let claims = claims(&written(&proofs, audience, &caller, 1000));
                let about = ["sub", "roles", "idp", "tenant"].into_iter();
                about.filter(|name| claims.get(*name).is_some()).collect::<Vec<_>>()
            };
            assert_eq!(held(&orders), ["sub", "roles", "idp", "tenant"]);
            assert_eq!(held(&roles), ["roles"]);
            assert_eq!(held(&tenant), ["tenant"]);
            assert_eq!(held(&odd), ["sub", "roles", "idp", "tenant"]);
        }
        assert_eq!(count.load(Ordering::Relaxed), 4, "each is kept under its own name");
        let signed = |audience: &Audience| {
            let headers = written(&proofs, audience, &caller, 1000);
            headers["x-auth-signature"].to_str().unwrap().split(';').nth(2).unwrap().to_owned()
        };
        assert_eq!((signed(&roles), signed(&tenant)), ("h=x-auth-roles".to_owned(), "h=".to_owned()));
    }

    #[test]
    fn the_signature_covers_what_the_document_says() {
        let ((proofs, _), caller) = (proofs(false), principal(10_000));
        let headers = written(&proofs, &audience("orders"), &caller, 1000);
        let value = headers["x-auth-signature"].to_str().unwrap();
        let tag = value.strip_prefix("v1;t=1000;h=x-auth-roles,x-auth-subject;s=").unwrap();
        let text = "v1\n1000\nGET\n/orders/7?x=1\nx-auth-roles:clerk,a%2Cb\nx-auth-subject:ada\n";
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        hmac::verify(&key, text.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).unwrap()).unwrap();
        let keyless = Audience::new(Arc::from("x"), None);
        assert!(!written(&proofs, &keyless, &caller, 1000).contains_key("x-auth-signature"));
    }
}
