//! Parses JSON Web Key Sets (RFC 7517). Issuers often publish keys for other purposes in the same set as their
//! signature keys.

use super::der::{COORDINATE, on_curve, rsa_key, without_mark};
use super::{Algorithm, ED25519, Key, KeySet};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

/// The maximum number of keys in a set.
const KEYS_MAX: usize = 100;

/// The reason why a key of a set cannot be used.
enum KeyFault {
    /// The key is marked for encryption.
    Encryption,
    /// The key is for an algorithm that the policy does not accept.
    NotAccepted,
    /// Another reason, which is reported to the operator.
    Because(String),
}

/// A key that, by its `kid`, its type and its other members, may have signed a token. The key itself may be invalid.
struct Candidate<'s> {
    id: Option<&'s str>,
    algorithm: Algorithm,
    key: Result<Key, String>,
}

impl From<String> for KeyFault {
    fn from(why: String) -> Self {
        Self::Because(why)
    }
}

impl KeySet {
    /// Parses a JSON Web Key Set. An unusable key does not affect the others. Also returns why keys were skipped,
    /// except for keys for encryption and for other algorithms, which issuers commonly publish too.
    ///
    /// # Errors
    /// Returns an error if the text is not a key set or contains no usable key.
    pub fn from_jwks(text: &[u8], accepted: &[Algorithm]) -> Result<(Self, Vec<String>), String> {
        let set: Value = serde_json::from_slice(without_mark(text)).map_err(|error| no_json(text, &error))?;
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Err(no_key_set(&set));
        };
        if keys.len() > KEYS_MAX {
            return Err(format!("{} keys, and at most {KEYS_MAX} are read", keys.len()));
        }
        // Unsuitable keys are excluded first: they do not make the `kid` of another key ambiguous (RFC 7517 section
        // 4.5).
        let read: Vec<Result<Candidate<'_>, KeyFault>> = keys.iter().map(|key| read(key, accepted)).collect();
        let (mut known, mut skipped) = (Self::default(), Vec::new());
        let (mut encryption, mut not_accepted) = (0, 0);
        let twins: Vec<bool> = read.iter().map(|key| has_twin(key, &read)).collect();
        for (index, ((key, twin), member)) in read.into_iter().zip(twins).zip(keys).enumerate() {
            let added = match key {
                // Neither key is used, since other recipients may accept either of the two as the issuer's key.
                Ok(Candidate { algorithm, .. }) if twin => {
                    Err(format!("another key for {algorithm} has the same kid").into())
                }
                Ok(Candidate { key, .. }) => key.and_then(|key| known.insert(key)).map_err(KeyFault::Because),
                Err(why) => Err(why),
            };
            match added {
                Ok(()) => {}
                Err(KeyFault::Encryption) => encryption += 1,
                // Issuers publish keys for all algorithms with which they sign, so the operator needs no warning.
                Err(KeyFault::NotAccepted) => not_accepted += 1,
                Err(KeyFault::Because(why)) => {
                    let id = member.get("kid").and_then(Value::as_str).unwrap_or("without kid");
                    skipped.push(format!("key {} ({id}) is not used: {why}", index + 1));
                }
            }
        }
        if known.0.is_empty() {
            if encryption > 0 {
                skipped.push(format!("{encryption} for encryption, by use, key_ops or alg"));
            }
            if not_accepted > 0 {
                skipped.push(format!("{not_accepted} for algorithms that are not in algorithms"));
            }
            if keys.is_empty() {
                skipped.push("the list is empty".to_owned());
            }
            return Err(format!("no key that can be used: {}", skipped.join("; ")));
        }
        Ok((known, skipped))
    }
}

/// Whether the set contains a different key with the same `kid` and algorithm. A second entry of the same key does not
/// count.
fn has_twin(key: &Result<Candidate<'_>, KeyFault>, all: &[Result<Candidate<'_>, KeyFault>]) -> bool {
    let Ok(key) = key else { return false };
    let is_same = |other: &Candidate<'_>| {
        std::ptr::eq(other, key)
            || matches!((&key.key, &other.key), (Ok(key), Ok(other)) if key.is_same(other))
    };
    let alike =
        |other: &&Candidate<'_>| other.id == key.id && other.algorithm == key.algorithm && !is_same(other);
    key.id.is_some() && all.iter().flatten().any(|other| alike(&other))
}

/// Explains why a text is not JSON, and how to correct common mistakes.
fn no_json(text: &[u8], error: &serde_json::Error) -> String {
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return "UTF-16: save the file as UTF-8".to_owned();
    }
    if text.trim_ascii_start().starts_with(b"-----BEGIN ") {
        return "PEM, not JSON: for a public key in PEM set public_key = \"file:FILE\"".to_owned();
    }
    format!("no JSON: {error}")
}

/// Explains why a JSON value is not a key set.
fn no_key_set(json: &Value) -> String {
    let is_certificate =
        |value: &Value| value.as_str().is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE"));
    match json.as_object() {
        Some(members) if members.contains_key("kty") => {
            "a single key: put it into a set, {\"keys\": [ … ]}".to_owned()
        }
        Some(members) if !members.is_empty() && members.values().all(is_certificate) => {
            "a map of certificates, not a key set: take the issuer's JWKS".to_owned()
        }
        Some(_) | None => "no \"keys\" with a list".to_owned(),
    }
}

/// Whether a key is marked for encryption: by `use` (RFC 7517 section 4.2), by `key_ops` (section 4.3), or by an `alg`
/// for key management (RFC 7518 section 4.1).
fn is_for_encryption(key: &Map<String, Value>) -> bool {
    const OPERATIONS: [&str; 6] = ["encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"];
    let operations = key.get("key_ops").and_then(Value::as_array);
    let only_encrypts = operations.is_some_and(|list| {
        !list.is_empty() && list.iter().all(|one| OPERATIONS.iter().any(|known| one == known))
    });
    let manages_keys = key.get("alg").and_then(Value::as_str).is_some_and(|alg| {
        alg == "dir"
            || alg.ends_with("KW")
            || ["RSA1_5", "RSA-OAEP", "ECDH-ES", "PBES2-"].iter().any(|prefix| alg.starts_with(prefix))
    });
    key.get("use").is_some_and(|purpose| purpose == "enc") || only_encrypts || manages_keys
}

/// Parses one key of a set.
fn read<'s>(key: &'s Value, accepted: &[Algorithm]) -> Result<Candidate<'s>, KeyFault> {
    let key = key.as_object().ok_or_else(|| "not an object".to_owned())?;
    if is_for_encryption(key) {
        return Err(KeyFault::Encryption);
    }
    // A `kid` of the wrong type is an error and not treated as absent, since the issuer's intention is unknown.
    let id = match key.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err("its kid is not a string".to_owned().into()),
    };
    if key.get("use").is_some_and(|purpose| purpose != "sig") {
        return Err("its use is not sig".to_owned().into());
    }
    if let Some(operations) = key.get("key_ops")
        && !operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    {
        return Err("its key_ops do not allow verify".to_owned().into());
    }
    let algorithm = algorithm(key)?;
    if algorithm != Algorithm::HS256 && key.contains_key("d") {
        let why = "a private key: only its public half belongs here; replace it if others may have read it";
        return Err(why.to_owned().into());
    }
    if !accepted.contains(&algorithm) {
        return Err(KeyFault::NotAccepted);
    }
    Ok(Candidate { id, algorithm, key: material(id, algorithm, key, accepted) })
}

/// Returns the algorithm of a key. `kty` and `crv` determine the algorithm; `alg`, if present, must agree with them.
fn algorithm(key: &Map<String, Value>) -> Result<Algorithm, String> {
    let member = |name: &str| key.get(name).and_then(Value::as_str);
    let algorithm = match (member("kty"), member("crv")) {
        (Some("RSA"), _) => Algorithm::RS256,
        (Some("EC"), Some("P-256")) => Algorithm::ES256,
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDSA,
        (Some("oct"), _) => Algorithm::HS256,
        (kty, crv) => {
            return Err(format!(
                "kty {} with crv {} is not known here",
                kty.unwrap_or("absent"),
                crv.unwrap_or("absent")
            ));
        }
    };
    if let Some(named) = key.get("alg")
        && named != algorithm.as_str()
        && !(algorithm == Algorithm::EdDSA && named == ED25519)
    {
        return Err(format!("its alg {named} does not match its kty, which is used for {algorithm}"));
    }
    Ok(algorithm)
}

fn material(
    id: Option<&str>,
    algorithm: Algorithm,
    key: &Map<String, Value>,
    accepted: &[Algorithm],
) -> Result<Key, String> {
    let bytes = |name: &str| -> Result<Vec<u8>, String> {
        let text = key.get(name).and_then(Value::as_str).ok_or_else(|| format!("it has no {name}"))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its {name} is not base64url"))
    };
    match algorithm {
        Algorithm::HS256 => {
            // A secret in a published set would not be secret (RFC 8725 section 3.1).
            if accepted.iter().any(|algorithm| *algorithm != Algorithm::HS256) {
                return Err("a shared secret among public keys".to_owned());
            }
            let secret = bytes("k")?;
            KeySet::check_secret(&secret)?;
            Ok(Key::secret(id, &secret))
        }
        Algorithm::RS256 => {
            let (key, length) = rsa_key(&bytes("n")?, &bytes("e")?)?;
            Ok(Key::new(id, algorithm, key, length))
        }
        Algorithm::ES256 => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != COORDINATE || y.len() != COORDINATE {
                return Err("its coordinates are not of 32 bytes".to_owned());
            }
            let point = [&[4], &x[..], &y[..]].concat();
            on_curve(&point)?;
            Ok(Key::new(id, algorithm, DecodingKey::from_ec_der(&point), 64))
        }
        Algorithm::EdDSA => {
            let x = bytes("x")?;
            if x.len() != COORDINATE {
                return Err("its x is not of 32 bytes".to_owned());
            }
            Ok(Key::new(id, algorithm, DecodingKey::from_ed_der(&x), 64))
        }
    }
}
