//! A key pair for each algorithm, for tests that compare the gateway with other libraries.

use super::forge::base64url;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

/// Signs a message with a private key.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key for one algorithm.
pub struct Signer {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// The key for verification, with `kid` and `alg`.
    pub jwk: Value,
    sign: Sign,
}

impl Signer {
    fn new(algorithm: &'static str, mut jwk: Value, sign: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Self {
        (jwk["alg"], jwk["kid"], jwk["use"]) =
            (json!(algorithm), json!(algorithm.to_lowercase()), json!("sig"));
        Self { algorithm, jwk, sign: Box::new(sign) }
    }

    /// Returns the signature of a message.
    pub fn sign(&self, message: &str) -> Vec<u8> {
        (self.sign)(message.as_bytes())
    }

    /// Returns the `kid` of the key.
    pub fn kid(&self) -> &str {
        self.jwk["kid"].as_str().expect("each key has one")
    }
}

fn rsa(algorithm: &'static str, padding: &'static dyn RsaEncoding) -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let modulus = base64url(pair.public_key().modulus().big_endian_without_leading_zero());
    Signer::new(algorithm, json!({ "kty": "RSA", "n": modulus, "e": "AQAB" }), move |message| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    })
}

fn ec(algorithm: &'static str, curve: &str, kind: &'static EcdsaSigningAlgorithm) -> Signer {
    let pair = EcdsaKeyPair::generate(kind).unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let jwk = json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) });
    Signer::new(algorithm, jwk, move |message| {
        pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    })
}

fn secret(algorithm: &'static str, kind: hmac::Algorithm, length: usize) -> Signer {
    let mut secret = vec![0; length];
    aws_lc_rs::rand::fill(&mut secret).unwrap();
    let key = hmac::Key::new(kind, &secret);
    Signer::new(algorithm, json!({ "kty": "oct", "k": base64url(secret) }), move |message| {
        hmac::sign(&key, message).as_ref().to_vec()
    })
}

/// Returns a key pair for each algorithm with public keys.
pub fn public() -> Vec<Signer> {
    let pair = Ed25519KeyPair::generate().unwrap();
    let ed25519 = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key()) });
    vec![
        rsa("RS256", &RSA_PKCS1_SHA256),
        rsa("RS384", &RSA_PKCS1_SHA384),
        rsa("RS512", &RSA_PKCS1_SHA512),
        rsa("PS256", &RSA_PSS_SHA256),
        rsa("PS384", &RSA_PSS_SHA384),
        rsa("PS512", &RSA_PSS_SHA512),
        ec("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ec("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ec("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
        Signer::new("EdDSA", ed25519, move |message| pair.sign(message).as_ref().to_vec()),
    ]
}

/// Returns a secret for each algorithm with secrets.
pub fn secrets() -> Vec<Signer> {
    vec![
        secret("HS256", hmac::HMAC_SHA256, 32),
        secret("HS384", hmac::HMAC_SHA384, 48),
        secret("HS512", hmac::HMAC_SHA512, 64),
    ]
}
