//! An issuer's key server. It publishes a key set, rotates its keys, and fails as a test requires.

use super::forge::{Token, base64url};
use super::upstream::{After, Seen, Upstream, Wire};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::fmt;
use std::sync::{Arc, Mutex};

/// A key of the issuer, for ES256.
#[derive(Clone)]
pub struct Signer {
    kid: String,
    pair: Arc<EcdsaKeyPair>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Signer {
    /// Creates a key.
    pub fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.to_owned(), pair: Arc::new(pair) }
    }

    /// Returns the public key as a member of a key set.
    pub fn public(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
                "x": base64url(&point[1..33]), "y": base64url(&point[33..]) })
    }

    /// Signs a token.
    pub fn sign(&self, token: Token) -> String {
        self.sign_as(&self.kid, token)
    }

    /// Signs a token that names another `kid`.
    pub fn sign_as(&self, kid: &str, token: Token) -> String {
        let sign = |message: &[u8]| self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        token.sign_with(kid, sign)
    }
}

/// Returns the key set of these keys.
pub fn set_of(signers: &[&Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.public()).collect::<Vec<_>>() })
}

type Script = dyn Fn(&Seen, &mut Wire) -> After + Send + Sync;

/// A key server. Its display form is its origin.
#[derive(Debug)]
pub struct KeyServer {
    upstream: Upstream,
    script: Arc<Mutex<Held>>,
}

struct Held(Arc<Script>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

impl fmt::Display for KeyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.upstream.fmt(f)
    }
}

impl KeyServer {
    /// Starts a server that publishes these keys.
    pub fn of(signers: &[&Signer]) -> Self {
        Self::answering(set_of(signers).to_string())
    }

    /// Starts a server that answers with this document.
    pub fn answering(body: String) -> Self {
        let script = Arc::new(Mutex::new(Held(document("200 OK", String::new(), body))));
        let held = script.clone();
        let upstream = Upstream::with(move |seen, wire| {
            let script = held.lock().unwrap().0.clone();
            script(seen, wire)
        });
        Self { upstream, script }
    }

    /// Publishes these keys from now on.
    pub fn publish(&self, signers: &[&Signer]) {
        self.answer("200 OK", "", &set_of(signers).to_string());
    }

    /// Answers with this status line, these fields and this body from now on.
    pub fn answer(&self, status: &'static str, fields: &str, body: &str) {
        self.script.lock().unwrap().0 = document(status, fields.to_owned(), body.to_owned());
    }

    /// Follows this script from now on.
    pub fn follow(&self, script: impl Fn(&Seen, &mut Wire) -> After + Send + Sync + 'static) {
        self.script.lock().unwrap().0 = Arc::new(script);
    }

    /// Returns the underlying server.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Returns the number of requests so far.
    pub fn fetches(&self) -> usize {
        self.upstream.requests().len()
    }
}

fn document(status: &'static str, fields: String, body: String) -> Arc<Script> {
    Arc::new(move |_: &Seen, wire: &mut Wire| {
        wire.answer(status, &fields, &body);
        After::Close
    })
}
