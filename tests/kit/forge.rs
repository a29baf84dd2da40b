//! Signs tokens with keys made for this run: good tokens, and a named list of bad tokens.

use super::dir::Dir;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{encoding::AsDer, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use std::fmt;
use std::sync::{Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The issuer that most tests trust. Uses ES256; its keys are in a file beside the policy.
pub const ISSUER: &str = r#"
[[issuer]]
issuer     = "https://id.test/"
audience   = ["orders"]
algorithms = ["ES256"]
jwks       = "jwks.json"
"#;

/// Returns [`ISSUER`] without leeway, so that a token ends when it says.
pub fn issuer_without_leeway() -> String {
    ISSUER.replace("[[issuer]]", "[[issuer]]\nleeway     = \"0s\"")
}

/// Returns the current time in seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("1970 is over").as_secs() as i64
}

/// Encodes as base64url without padding.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An algorithm that the forge signs with. Each algorithm has its own key, whose `kid` is the algorithm's name in lower
/// case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256. The secret is in the file `secret.txt`.
    Hs256,
}

impl Algorithm {
    /// Returns the algorithm's name in a token's header and in the policy.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }

    /// Returns the id of the algorithm's key.
    pub fn kid(self) -> String {
        self.name().to_lowercase()
    }

    /// Signs with the algorithm's key.
    pub fn sign(self, message: &[u8]) -> Vec<u8> {
        let keys = keys();
        match self {
            Self::Rs256 => {
                let mut signature = vec![0; keys.rsa.public_modulus_len()];
                keys.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Self::Es256 => keys.p256.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::EdDsa => keys.ed25519.sign(message).as_ref().to_vec(),
            Self::Hs256 => mac(SECRET.as_bytes(), message),
        }
    }
}

/// The secret of HS256: 43 characters, more than the required 256 bits.
pub const SECRET: &str = "a-test-secret-of-forty-three-characters-000";

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

struct Keys {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    /// A P-256 key that is only in the key set of [`jwks_of_the_stranger`].
    stranger: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        stranger: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        ed25519: Ed25519KeyPair::generate().unwrap(),
    })
}

/// Returns the public RSA key as PEM (SubjectPublicKeyInfo).
pub fn rsa_public_pem() -> String {
    let der = keys().rsa.public_key().as_der().unwrap();
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

/// Returns the public keys as a key set (RFC 7517).
pub fn jwks() -> Value {
    let keys = keys();
    let point = keys.p256.public_key().as_ref();
    let (modulus, exponent) = rsa_numbers(keys.rsa.public_key().as_ref());
    json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "es256",
          "x": base64url(&point[1..33]), "y": base64url(&point[33..]) },
        { "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "eddsa",
          "x": base64url(keys.ed25519.public_key()) },
        { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rs256",
          "n": base64url(modulus), "e": base64url(exponent) },
    ]})
}

/// Returns the key set as if the issuer had replaced its ES256 key without a new id: the id `es256` now identifies the
/// stranger's key.
pub fn jwks_of_the_stranger() -> Value {
    let mut set = jwks();
    let point = keys().stranger.public_key().as_ref();
    set["keys"][0]["x"] = base64url(&point[1..33]).into();
    set["keys"][0]["y"] = base64url(&point[33..]).into();
    set
}

/// Returns modulus and exponent of an RSAPublicKey (RFC 8017 appendix A.1.1), which is a sequence of two integers.
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, start) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            long => {
                let digits = usize::from(long & 0x7f);
                (der[2..2 + digits].iter().fold(0, |n, b| n << 8 | usize::from(*b)), 2 + digits)
            }
        };
        (&der[start..start + length], &der[start + length..])
    }
    fn unsigned(number: &[u8]) -> &[u8] {
        if number[0] == 0 { &number[1..] } else { number }
    }
    let (sequence, _) = element(der);
    let (modulus, rest) = element(sequence);
    let (exponent, _) = element(rest);
    (unsigned(modulus), unsigned(exponent))
}

/// Writes `jwks.json`, `id.pem` and `secret.txt` into a folder.
pub fn write_keys(dir: &Dir) {
    dir.write("jwks.json", jwks().to_string());
    dir.write("id.pem", rsa_public_pem());
    dir.write("secret.txt", SECRET);
}

/// Every token that this process made. No log may contain any of them.
static MADE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Returns every token that any test of this process has made so far.
pub fn every_token_made() -> Vec<String> {
    MADE.lock().unwrap().clone()
}

fn remember(token: String) -> String {
    MADE.lock().unwrap().push(token.clone());
    token
}

/// Returns a token for this subject that is valid for [`ISSUER`] unless a test changes it.
pub fn token(subject: &str) -> Token {
    let now = now();
    let claims = json!({
        "iss": "https://id.test/", "sub": subject, "aud": "orders", "iat": now, "exp": now + 300,
    });
    let Value::Object(claims) = claims else { unreachable!("an object was written") };
    let mut header = Map::new();
    header.insert("alg".into(), "ES256".into());
    header.insert("typ".into(), "at+jwt".into());
    header.insert("kid".into(), "es256".into());
    Token { header, claims, algorithm: Algorithm::Es256 }
}

/// An unsigned token. Displaying it signs it.
#[derive(Clone, Debug)]
pub struct Token {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    algorithm: Algorithm,
}

impl Token {
    /// Sets the algorithm, and signs with that algorithm's key.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self.member("alg", json!(algorithm.name())).member("kid", json!(algorithm.kid()))
    }

    /// Adds a role.
    pub fn role(self, role: &str) -> Self {
        self.appended("roles", role)
    }

    /// Adds a scope.
    pub fn scope(mut self, scope: &str) -> Self {
        let text = match self.claims.get("scope").and_then(Value::as_str) {
            Some(scopes) => format!("{scopes} {scope}"),
            None => scope.to_owned(),
        };
        self.claims.insert("scope".into(), text.into());
        self
    }

    fn appended(mut self, claim: &str, value: &str) -> Self {
        let list = self.claims.entry(claim).or_insert_with(|| json!([]));
        list.as_array_mut().expect("a list").push(value.into());
        self
    }

    /// Sets a claim.
    pub fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims.insert(name.to_owned(), value);
        self
    }

    /// Removes a claim.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name).expect("a claim that was there");
        self
    }

    /// Sets a member of the header. `null` removes the member.
    pub fn member(mut self, name: &str, value: Value) -> Self {
        if value.is_null() {
            self.header.remove(name);
        } else {
            self.header.insert(name.to_owned(), value);
        }
        self
    }

    /// Sets an expiry of an hour ago.
    pub fn expired(self) -> Self {
        self.claim("exp", json!(now() - 3600))
    }

    fn message(&self) -> String {
        let part = |part: &Map<String, Value>| base64url(Value::Object(part.clone()).to_string());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }

    /// Signs with the stranger's key. The token is valid only under [`jwks_of_the_stranger`].
    pub fn sign_as_the_stranger(&self) -> String {
        let message = self.message();
        let signature = keys().stranger.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        signed(&message, signature)
    }

    /// Signs with another key, whose `kid` the token names.
    pub fn sign_with(self, kid: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let message = self.member("kid", json!(kid)).message();
        signed(&message, sign(message.as_bytes()))
    }

    /// Signs the token.
    pub fn sign(&self) -> String {
        let message = self.message();
        signed(&message, self.algorithm.sign(message.as_bytes()))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sign())
    }
}

fn signed(message: &str, signature: impl AsRef<[u8]>) -> String {
    remember(format!("{message}.{}", base64url(signature)))
}

/// Signs a token with this literal text as its header and claims. Tests use it for text that no JSON library would
/// write.
pub fn verbatim(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    signed(&message, Algorithm::Es256.sign(message.as_bytes()))
}

/// A bad token: its name, its text, and the code of the expected refusal.
pub type Bad = (&'static str, String, &'static str);

/// Returns every bad token, for [`ISSUER`].
pub fn every_bad_token() -> Vec<Bad> {
    let good = || token("ada").role("admin").scope("orders:read");
    let text = good().sign();
    let (message, signature) = text.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let flipped = |at: usize| {
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[at] ^= 1;
        signed(message, bytes)
    };
    let none = |name: &str| {
        let message = good().member("alg", json!(name)).message();
        remember(format!("{message}."))
    };
    let confused = |key: &[u8]| {
        let message = good().member("alg", json!("HS256")).message();
        let signature = mac(key, message.as_bytes());
        signed(&message, signature)
    };
    let point = keys().p256.public_key().as_ref().to_vec();
    let point_der = keys().p256.public_key().as_der().unwrap().as_ref().to_vec();
    let stranger = good().sign_as_the_stranger();
    let of_another = {
        // A signature from another token, made with the same key.
        let other = token("eve").sign();
        let signature = other.rsplit_once('.').unwrap().1.to_owned();
        remember(format!("{message}.{signature}"))
    };
    let (at, hour) = (now(), 3600);
    let head = r#"{"alg":"ES256","typ":"at+jwt","kid":"es256"}"#;
    let body = |more: &str| {
        format!(r#"{{"iss":"https://id.test/","sub":"ada","aud":"orders","exp":{}{more}}}"#, at + 300)
    };
    vec![
        ("expired", good().expired().sign(), "expired_token"),
        ("expired in 1970", good().claim("exp", json!(0)).sign(), "expired_token"),
        ("not yet valid", good().claim("nbf", json!(at + hour)).sign(), "token_not_yet_valid"),
        ("issued in the future", good().claim("iat", json!(at + hour)).sign(), "token_not_yet_valid"),
        ("wrong audience", good().claim("aud", json!("billing")).sign(), "wrong_audience"),
        ("audience that holds ours", good().claim("aud", json!("orders-admin")).sign(), "wrong_audience"),
        ("audience in other case", good().claim("aud", json!(["Orders"])).sign(), "wrong_audience"),
        ("empty list of audiences", good().claim("aud", json!([])).sign(), "missing_claim"),
        ("wrong issuer", good().claim("iss", json!("https://evil.test/")).sign(), "unknown_issuer"),
        ("issuer without its slash", good().claim("iss", json!("https://id.test")).sign(), "unknown_issuer"),
        (
            "issuer that begins like ours",
            good().claim("iss", json!("https://id.test/x")).sign(),
            "unknown_issuer",
        ),
        ("no algorithm", none("none"), "unsupported_algorithm"),
        ("no algorithm, spelled oddly", none("nOnE"), "unsupported_algorithm"),
        ("HMAC with the public point", confused(&point), "unsupported_algorithm"),
        ("HMAC with the public key's DER", confused(&point_der), "unsupported_algorithm"),
        (
            "HMAC with the public RSA key's PEM",
            confused(rsa_public_pem().as_bytes()),
            "unsupported_algorithm",
        ),
        ("algorithm that is not listed", good().algorithm(Algorithm::EdDsa).sign(), "unsupported_algorithm"),
        ("unknown key", good().member("kid", json!("es257")).sign(), "unknown_key"),
        ("key id in other case", good().member("kid", json!("ES256")).sign(), "unknown_key"),
        ("key id that is a path", good().member("kid", json!("../../jwks.json")).sign(), "unknown_key"),
        ("signed by a stranger", stranger, "bad_signature"),
        ("first bit of the signature flipped", flipped(0), "bad_signature"),
        ("last bit of the signature flipped", flipped(63), "bad_signature"),
        ("another token's signature", of_another, "bad_signature"),
        ("signature of zeros", signed(message, [0; 64]), "bad_signature"),
        ("no signature", remember(format!("{message}.")), "malformed_token"),
        ("short signature", signed(message, [1; 63]), "malformed_token"),
        ("long signature", signed(message, [1; 65]), "malformed_token"),
        ("padded signature", remember(format!("{text}==")), "malformed_token"),
        ("truncated", remember(text[..text.len() - 9].to_owned()), "malformed_token"),
        ("two parts", remember(message.to_owned()), "malformed_token"),
        ("four parts", remember(format!("{text}.e30")), "malformed_token"),
        ("five parts", remember(format!("{text}.e30.e30")), "malformed_token"),
        ("empty header", remember(format!(".{claims}.{signature}")), "malformed_token"),
        ("empty claims", remember(format!("{header}..{signature}")), "malformed_token"),
        ("not base64url", remember(format!("{header}.{claims}!.{signature}")), "malformed_token"),
        ("no token at all", remember("nonsense".to_owned()), "malformed_token"),
        ("header that is no JSON", verbatim("{", &body("")), "malformed_token"),
        ("header that is a list", verbatim("[]", &body("")), "malformed_token"),
        ("claims that are no JSON", verbatim(head, "{"), "malformed_token"),
        ("claims that are a list", verbatim(head, "[]"), "malformed_token"),
        ("bytes after the claims", verbatim(head, &(body("") + "{}")), "malformed_token"),
        ("critical member", good().member("crit", json!(["exp"])).sign(), "malformed_token"),
        (
            "unknown critical member",
            good().member("crit", json!(["b64"])).member("b64", json!(false)).sign(),
            "malformed_token",
        ),
        ("claim twice", verbatim(head, &body(r#","sub":"root""#)), "malformed_token"),
        ("nested member twice", verbatim(head, &body(r#","a":{"b":1,"b":2}"#)), "malformed_token"),
        (
            "header member twice",
            verbatim(r#"{"alg":"none","alg":"ES256","kid":"es256"}"#, &body("")),
            "malformed_token",
        ),
        ("wrong type", good().member("typ", json!("id+jwt")).sign(), "wrong_type"),
        ("type of a refresh token", good().member("typ", json!("refresh")).sign(), "wrong_type"),
        ("no subject", good().without("sub").sign(), "missing_claim"),
        ("subject that is a number", good().claim("sub", json!(7)).sign(), "missing_claim"),
        ("no expiry", good().without("exp").sign(), "missing_claim"),
        (
            "expiry that is a string",
            good().claim("exp", json!((at + 300).to_string())).sign(),
            "missing_claim",
        ),
        ("expiry that is null", good().claim("exp", json!(null)).sign(), "missing_claim"),
        ("start that is a string", good().claim("nbf", json!("0")).sign(), "missing_claim"),
        ("no audience", good().without("aud").sign(), "missing_claim"),
        ("no issuer", good().without("iss").sign(), "missing_claim"),
    ]
}
