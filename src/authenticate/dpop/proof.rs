//! A proof: a JWT that contains the public key of its sender, and names one request.

use super::key::{KeyFault, ProofKey};
use super::target::{self, Target};
use super::{Thumbprint, algorithms};
use crate::authenticate::Credentials;
use crate::authenticate::digest::Digest;
use crate::authenticate::error::{ClaimText, CredentialError, Quoted};
use crate::authenticate::jws::{Jws, canonical_type};
use crate::denial::{Denial, ProofFault};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The maximum length of a proof in bytes. A proof with ES256 has about 500 bytes, and one with ML-DSA-87 about 11 500.
const PROOF_MAX: usize = 12 * 1024;
/// The `typ` of a proof (RFC 9449 section 4.2).
const TYPE: &str = "dpop+jwt";

/// A proof that is well formed, but whose signature may not have been verified yet.
pub(super) struct Proof<'p> {
    jws: Jws<'p>,
    claims: Map<String, Value>,
    key: ProofKey,
    issued: u64,
}

fn invalid(fault: ProofFault, detail: impl Into<Box<str>>) -> CredentialError {
    CredentialError::because(Denial::InvalidProof(fault), detail)
}

impl<'p> Proof<'p> {
    /// Reads a proof. Makes the checks 2 to 6 of RFC 9449 section 4.3, which concern its form.
    pub(super) fn read(field: &'p [u8]) -> Result<Self, CredentialError> {
        let malformed = || CredentialError::from(Denial::InvalidProof(ProofFault::Form));
        let text = std::str::from_utf8(field).map_err(|_| malformed())?;
        if text.len() > PROOF_MAX {
            let detail = format!("the proof has {} bytes, and at most {PROOF_MAX} are read", text.len());
            return Err(invalid(ProofFault::Form, detail));
        }
        let jws = Jws::read(text).map_err(|fault| match fault.words() {
            Some(words) => invalid(ProofFault::Form, words),
            None => malformed(),
        })?;
        let header = jws.header();
        let typ = header.get("typ");
        if typ.and_then(Value::as_str).is_none_or(|typ| canonical_type(typ) != TYPE) {
            return Err(invalid(ProofFault::Type, format!("typ is {}, not '{TYPE}'", ClaimText(typ))));
        }
        let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        let Some(Value::Object(jwk)) = header.get("jwk") else {
            return Err(invalid(ProofFault::Key, format!("jwk is {}", ClaimText(header.get("jwk")))));
        };
        let key = ProofKey::read(jwk, algorithm).map_err(|fault| match fault {
            KeyFault::Algorithm => {
                let detail = format!("alg is {}; accepted: {}", ClaimText(header.get("alg")), algorithms());
                invalid(ProofFault::Algorithm, detail)
            }
            KeyFault::Key(why) => invalid(ProofFault::Key, why),
        })?;
        let claims = jws.claims().map_err(|_| malformed())?;
        for name in ["jti", "htm", "htu"] {
            if !matches!(claims.get(name), Some(Value::String(text)) if !text.is_empty()) {
                let detail = format!("{name} is {}", ClaimText(claims.get(name)));
                return Err(invalid(ProofFault::Claims, detail));
            }
        }
        if !matches!(claims.get("nonce"), None | Some(Value::String(_))) {
            return Err(invalid(ProofFault::Claims, "nonce is not a string"));
        }
        let issued = claims.get("iat").and_then(Value::as_f64).filter(|time| (0.0..1e12).contains(time));
        let Some(issued) = issued else {
            return Err(invalid(ProofFault::Claims, format!("iat is {}", ClaimText(claims.get("iat")))));
        };
        Ok(Self { jws, claims, key, issued: issued.floor() as u64 })
    }

    fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }

    /// Returns the thumbprint of the proof's key.
    pub(super) fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint
    }

    /// Returns the proof's `jti`.
    pub(super) fn id(&self) -> &str {
        self.claim("jti").unwrap_or_default()
    }

    /// Returns the proof's `iat`.
    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    /// Returns the proof's nonce.
    pub(super) fn nonce(&self) -> Option<&str> {
        self.claim("nonce")
    }

    /// Checks that the proof is for this method and target (checks 8 and 9).
    pub(super) fn check_request(&self, credentials: &Credentials<'_>) -> Result<(), CredentialError> {
        let (method, uri) = (self.claim("htm").unwrap_or_default(), self.claim("htu").unwrap_or_default());
        if method != credentials.head.method.as_str() {
            let detail = format!("htm is {}, and the method is {}", Quoted(method), credentials.head.method);
            return Err(invalid(ProofFault::Method, detail));
        }
        if !Target::parse(uri).is_some_and(|target| target.is_of(credentials)) {
            let wanted = target::wanted(credentials);
            let detail = format!("htu is {}, and the request is for {}", Quoted(uri), Quoted(&wanted));
            return Err(invalid(ProofFault::Target, detail));
        }
        Ok(())
    }

    /// Checks that the proof is for the token with this digest (check 12).
    pub(super) fn check_token(&self, token: &Digest) -> Result<(), CredentialError> {
        let mut hash = [0; 32];
        let decoded = self.claim("ath").map(|hash_text| URL_SAFE_NO_PAD.decode_slice(hash_text, &mut hash));
        if matches!(decoded, Some(Ok(32))) && hash == *token {
            return Ok(());
        }
        let why = match decoded {
            None => "ath is missing",
            Some(_) => "ath is not the hash of the access token",
        };
        Err(invalid(ProofFault::Token, why))
    }

    /// Verifies the signature with the proof's own key (check 7).
    pub(super) fn check_signature(&self) -> Result<(), CredentialError> {
        let (message, signature) = self.jws.signed();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        if self.key.verifies(message.as_bytes(), &signature) {
            return Ok(());
        }
        Err(Denial::InvalidProof(ProofFault::Signature).into())
    }
}
