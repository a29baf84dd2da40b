//! A client that holds a key and signs DPoP proofs (RFC 9449).

use super::forge::{base64url, now};
use super::{Request, client::HOST};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// A client's key.
pub struct Prover {
    pair: EcdsaKeyPair,
    x: String,
    y: String,
}

/// A proof that is not signed yet.
pub struct Proof<'p> {
    prover: &'p Prover,
    claims: Map<String, Value>,
}

impl Prover {
    /// Creates a key.
    pub fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        Self { pair, x, y }
    }

    /// Returns the thumbprint of the key (RFC 7638).
    pub fn thumbprint(&self) -> String {
        let key = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, self.x, self.y);
        base64url(digest(&SHA256, key.as_bytes()))
    }

    /// Returns the `cnf` claim of a token that is bound to the key.
    pub fn confirmation(&self) -> Value {
        json!({ "jkt": self.thumbprint() })
    }

    /// Begins a proof for a request in cleartext to the kit's usual host.
    pub fn proof(&self, method: &str, path: &str) -> Proof<'_> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let claims = json!({
            "jti": format!("proof-{}-{}", std::process::id(), IDS.fetch_add(1, Ordering::Relaxed)),
            "htm": method,
            "htu": format!("http://{HOST}{path}"),
            // The maximum of 10 s in the future. Otherwise a gateway that has just started demands a nonce, because an
            // earlier process may have accepted the proof.
            "iat": now() + 10,
        });
        Proof { prover: self, claims: claims.as_object().unwrap().clone() }
    }

    /// Returns a GET request with a token and a new proof for it.
    pub fn get(&self, path: &str, token: &str) -> Request {
        bound(Request::get(path), token, &self.proof("GET", path).token(token).sign())
    }
}

/// Adds a bound token and its proof to a request.
pub fn bound(request: Request, token: &str, proof: &str) -> Request {
    request.header("Authorization", &format!("DPoP {token}")).header("DPoP", proof)
}

impl Proof<'_> {
    /// Sets a claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Sets `ath` to the hash of a token.
    pub fn token(self, token: &str) -> Self {
        self.claim("ath", base64url(digest(&SHA256, token.as_bytes())))
    }

    /// Signs the proof.
    pub fn sign(&self) -> String {
        let Prover { pair, x, y } = self.prover;
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
        let claims = Value::Object(self.claims.clone());
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", base64url(signature))
    }
}
