//! Tests the recipes of docs/issuers.md. Each recipe is read from the page, and tested with tokens and keys in the
//! format of its issuer.
//!
//! A key set that the recipe fetches from a URL is written to a file, so the tests need no network.

mod machines;
mod people;

use crate::ECHO_ROOT;
use crate::kit::forge::{base64url, now};
use crate::kit::{Portcullis, Request};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

use machines::machines;
use people::people;

const PAGE: &str = include_str!("../../docs/issuers.md");
/// The shared secret, for issuers that sign with a secret. It looks like base64, as Supabase's secrets do.
const SECRET: &str = "Zm9yLXRlc3RzLW9ubHktSjNuOHFMMnZYN3dSNXRZOXVBNGI2Y0MxZEQ=";
const TENANT: &str = "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb";
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// A key pair of this run, with a self-signed certificate.
struct Pair {
    algorithm: Algorithm,
    signing: EncodingKey,
    certificate: String,
}

impl Pair {
    fn new(algorithm: Algorithm, kind: &'static rcgen::SignatureAlgorithm) -> Self {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let signing = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        let parameters = rcgen::CertificateParams::new(vec!["federated-signon.test".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&pair).unwrap().pem();
        Self { algorithm, signing: signing.unwrap(), certificate }
    }

    /// Returns the public key as a JWK with this `kid`. `members` are replaced; `null` removes a member.
    fn jwk(&self, kid: &str, members: Value) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.signing, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(kid);
        changed(jwk, &members)
    }
}

/// The key that the issuers sign with, and a second key.
fn rsa() -> &'static [Pair; 2] {
    static PAIRS: OnceLock<[Pair; 2]> = OnceLock::new();
    PAIRS.get_or_init(|| [(); 2].map(|()| Pair::new(Algorithm::RS256, &rcgen::PKCS_RSA_SHA256)))
}

fn ec() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| Pair::new(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256))
}

/// Replaces members of an object; `null` removes one.
fn changed(mut object: Value, members: &Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

/// The key that signs an issuer's tokens.
#[derive(Clone, Copy)]
enum Signer {
    Rsa,
    Ec,
    Secret,
}

/// The tokens and keys of one issuer.
struct Shape {
    heading: &'static str,
    signer: Signer,
    /// The key set. Unused if the issuer signs with a secret.
    keys: Value,
    /// The token's header, without `alg`.
    header: Value,
    claims: Value,
    /// The identity that the upstream receives: subject, issuer, roles, scopes.
    caller: [&'static str; 4],
    /// Changes of the claims, each with the code of the refusal, or "" if the token stays valid.
    neighbours: Vec<(Value, &'static str)>,
}

impl Shape {
    /// Signs a token with these changes of header and claims.
    fn token(&self, header: &Value, claims: &Value) -> String {
        let name = |signer| match signer {
            Signer::Rsa => ("RS256", Algorithm::RS256),
            Signer::Ec => ("ES256", Algorithm::ES256),
            Signer::Secret => ("HS256", Algorithm::HS256),
        };
        let (alg, algorithm) = name(self.signer);
        let header = changed(changed(self.header.clone(), &json!({ "alg": alg })), header);
        let claims = changed(self.claims.clone(), claims);
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let secret = EncodingKey::from_secret(SECRET.as_bytes());
        let key = match self.signer {
            Signer::Rsa => &rsa()[0].signing,
            Signer::Ec => &ec().signing,
            Signer::Secret => &secret,
        };
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// Returns the recipe from the page, with the key source replaced by a file.
    fn recipe(&self) -> String {
        let start = PAGE.find(&format!("\n## {}\n", self.heading)).expect(self.heading);
        let (_, rest) = PAGE[start..].split_once("```toml\n").unwrap();
        let (recipe, _) = rest.split_once("```").unwrap();
        let line = |line: &str| {
            let key = line.split('=').next().unwrap_or_default().trim();
            match key {
                "jwks" | "discovery" => "jwks = \"keys.json\"\n".to_owned(),
                "secret" => "secret = \"file:issuer.secret\"\n".to_owned(),
                _ => format!("{line}\n"),
            }
        };
        recipe.lines().map(line).collect()
    }

    fn check(&self) {
        let gateway = Portcullis::with(&format!("{}{ECHO_ROOT}", self.recipe()))
            .file("keys.json", self.keys.to_string())
            .file("issuer.secret", SECRET)
            .start();
        let ask = |token: &str| Request::get("/").bearer(token).to(gateway.http());
        let none = json!({});
        let answer = ask(&self.token(&none, &none));
        answer.is(200);
        let seen: Value = serde_json::from_slice(&answer.body).unwrap();
        let names = ["x-auth-subject", "x-auth-issuer", "x-auth-roles", "x-auth-scopes"];
        let learned = names.map(|name| seen["headers"][name].as_str().unwrap_or_default().to_owned());
        assert_eq!(learned, self.caller, "{}", self.heading);
        let mut cases = vec![
            (json!({ "exp": now() - 3600 }), "expired_token"),
            (json!({ "exp": null }), "missing_claim"),
        ];
        cases.extend(self.neighbours.iter().cloned());
        for (change, code) in cases {
            let answer = ask(&self.token(&none, &change));
            match code {
                "" => drop(answer.is(200)),
                code => drop(answer.is_refusal(401, code)),
            }
        }
        // The header must not choose the algorithm.
        ask(&self.token(&json!({ "alg": "none" }), &none)).is_refusal(401, "unsupported_algorithm");
        ask(&self.token(&json!({ "alg": "HS384" }), &none)).is_refusal(401, "unsupported_algorithm");
        // The signature of another token.
        let token = self.token(&none, &none);
        let (message, _) = token.rsplit_once('.').unwrap();
        let other = self.token(&none, &json!({ "exp": now() + 60 }));
        let (_, signature) = other.rsplit_once('.').unwrap();
        ask(&format!("{message}.{signature}")).is_refusal(401, "bad_signature");
    }
}

/// The claims of most tokens.
fn times() -> Value {
    json!({ "iat": now(), "exp": now() + 300 })
}

fn with_times(claims: Value) -> Value {
    changed(claims, &times())
}

fn usual_keys() -> Value {
    json!({ "keys": [rsa()[1].jwk("old", json!({ "use": "sig" })), rsa()[0].jwk("k1", json!({ "use": "sig" }))] })
}

fn header(typ: &str) -> Value {
    json!({ "typ": typ, "kid": "k1" })
}

#[test]
fn the_recipes_for_peoples_issuers_accept_their_tokens_and_no_neighbours() {
    people().iter().for_each(Shape::check);
}

#[test]
fn the_recipes_for_machines_and_libraries_accept_their_tokens_and_no_neighbours() {
    machines().iter().for_each(Shape::check);
}

#[test]
fn each_recipe_of_the_page_has_its_shape() {
    let mut recipes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut heading = "";
    for line in PAGE.lines() {
        heading = line.strip_prefix("## ").unwrap_or(heading);
        if line == "```toml" {
            *recipes.entry(heading).or_default() += 1;
        }
    }
    let shapes: BTreeMap<&str, usize> =
        people().iter().chain(&machines()).map(|shape| (shape.heading, 1)).collect();
    assert_eq!(recipes, shapes);
}
