//! Parses JSON Web Key Sets (RFC 7517). Issuers often publish keys for other purposes in the same set as their
//! signature keys.

use super::der::{PublicKey, certificate_spki, public_key, without_mark};
use super::{Algorithm, Key, KeyKind, KeySet};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The maximum number of keys in a set.
const KEYS_MAX: usize = 100;

/// The reason why a key of a set cannot be used.
enum KeyFault {
    /// The key is marked for another purpose: encryption, or X.509 (SPIFFE).
    OtherUse,
    /// The key is for an algorithm that the policy does not accept.
    NotAccepted,
    /// Another reason, which is reported to the operator.
    Because(String),
}

/// A key that may have signed a token, according to its `kid`, its type and its purpose. The numbers of the key may
/// still be invalid; `key` is then an error.
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
    /// Parses a JSON Web Key Set, a SPIFFE bundle, or a map of certificates by `kid` (Google, Firebase). An unusable
    /// key does not affect the others. Also returns why keys were skipped. Skipped keys for encryption and for other
    /// algorithms are not reported, because issuers commonly publish such keys.
    ///
    /// # Errors
    /// Returns an error if the text is not a key set or contains no usable key.
    pub fn from_jwks(text: &[u8], accepted: &[Algorithm]) -> Result<(Self, Vec<String>), String> {
        let set: Value = serde_json::from_slice(without_mark(text)).map_err(|error| no_json(text, &error))?;
        let many = |count: usize| format!("{count} keys, and at most {KEYS_MAX} are read");
        let id_of =
            |key: &'_ Value| key.get("kid").and_then(Value::as_str).unwrap_or("without kid").to_owned();
        // Unsuitable keys are excluded first: they do not make the `kid` of another key ambiguous (RFC 7517 section
        // 4.5).
        let (ids, read): (Vec<String>, Vec<Result<Candidate<'_>, KeyFault>>) =
            match (set.get("keys").and_then(Value::as_array), certificates(&set)) {
                (Some(keys), _) if keys.len() > KEYS_MAX => return Err(many(keys.len())),
                (Some(keys), _) => keys.iter().map(|key| (id_of(key), read(key, accepted))).unzip(),
                (None, Some(map)) if map.len() > KEYS_MAX => return Err(many(map.len())),
                (None, Some(map)) => {
                    map.iter().map(|(id, pem)| (id.clone(), certificate(id, pem, accepted))).unzip()
                }
                (None, None) => return Err(no_key_set(&set)),
            };
        let (mut known, mut skipped) = (Self::default(), Vec::new());
        let (mut other_use, mut not_accepted) = (0, 0);
        let twins: Vec<bool> = read.iter().map(|key| has_twin(key, &read)).collect();
        for (index, ((key, twin), id)) in read.into_iter().zip(twins).zip(&ids).enumerate() {
            let added = match key {
                // Of two keys with the same `kid` and algorithm, neither is used, because other recipients may accept
                // one or the other as the issuer's key.
                Ok(Candidate { algorithm, .. }) if twin => {
                    Err(format!("another key for {algorithm} has the same kid").into())
                }
                Ok(Candidate { key, .. }) => key.and_then(|key| known.insert(key)).map_err(KeyFault::Because),
                Err(why) => Err(why),
            };
            match added {
                Ok(()) => {}
                Err(KeyFault::OtherUse) => other_use += 1,
                // Issuers publish keys for all algorithms with which they sign, so the operator needs no warning.
                Err(KeyFault::NotAccepted) => not_accepted += 1,
                Err(KeyFault::Because(why)) => {
                    skipped.push(format!("key {} ({id}) is not used: {why}", index + 1));
                }
            }
        }
        if known.0.is_empty() {
            if other_use > 0 {
                skipped.push(format!("{other_use} for other uses, by use, key_ops or alg"));
            }
            if not_accepted > 0 {
                skipped.push(format!("{not_accepted} for algorithms that are not in algorithms"));
            }
            if ids.is_empty() {
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
    if text.trim_ascii_start().starts_with(b"<") {
        return "HTML or XML, not JSON: the URL of a key set is the `jwks_uri` in the issuer's metadata"
            .to_owned();
    }
    format!("not valid JSON: {error}")
}

/// Explains why a JSON value is not a key set.
fn no_key_set(json: &Value) -> String {
    match json.as_object() {
        Some(members) if members.contains_key("kty") => {
            "a single key: put it into a set, {\"keys\": [ … ]}".to_owned()
        }
        Some(_) | None => "no \"keys\" with a list".to_owned(),
    }
}

/// Returns the members of a map of certificates: an object in which each member is a certificate in PEM under its `kid`.
/// Google publishes the keys of Firebase and of its service accounts in this form.
fn certificates(json: &Value) -> Option<&Map<String, Value>> {
    let is_certificate =
        |value: &Value| value.as_str().is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE"));
    json.as_object().filter(|map| !map.is_empty() && map.values().all(is_certificate))
}

/// Parses one member of a map of certificates.
fn certificate<'s>(id: &'s str, pem: &Value, accepted: &[Algorithm]) -> Result<Candidate<'s>, KeyFault> {
    let spki = certificate_spki(pem.as_str().unwrap_or_default())?;
    let key = public_key(&spki)?;
    let algorithm = key.kind().only_algorithm(accepted)?.ok_or(KeyFault::NotAccepted)?;
    Ok(Candidate { id: Some(id), algorithm, key: Key::public(Some(id), algorithm, &key) })
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
    // A SPIFFE bundle holds the authorities of X.509-SVIDs too (SPIFFE Trust Domain and Bundle section 4.2.2).
    if is_for_encryption(key) || key.get("use").is_some_and(|purpose| purpose == "x509-svid") {
        return Err(KeyFault::OtherUse);
    }
    // A `kid` of the wrong type is an error and not treated as absent, since the issuer's intention is unknown.
    let id = match key.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err("its kid is not a string".to_owned().into()),
    };
    // A SPIFFE bundle marks the keys of JWT-SVIDs with `jwt-svid` instead of `sig`.
    if key.get("use").is_some_and(|purpose| purpose != "sig" && purpose != "jwt-svid") {
        return Err("its use is neither sig nor jwt-svid".to_owned().into());
    }
    if let Some(operations) = key.get("key_ops")
        && !operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    {
        return Err("its key_ops do not allow verify".to_owned().into());
    }
    let kind = kind(key)?;
    if kind != KeyKind::Secret && (key.contains_key("d") || key.contains_key("priv")) {
        let why = "a private key: only its public half belongs here; replace it if others may have read it";
        return Err(why.to_owned().into());
    }
    let algorithm = algorithm(key, kind, accepted)?.ok_or(KeyFault::NotAccepted)?;
    let mut parsed = parsed(id, algorithm, key, accepted);
    if let Ok(parsed) = &mut parsed {
        parsed.issuer = key.get("issuer").and_then(Value::as_str).map(Into::into);
    }
    Ok(Candidate { id, algorithm, key: parsed })
}

impl Key {
    /// Parses a public JSON Web Key for this algorithm. Ignores `kid` and the stated purpose of the key.
    ///
    /// # Errors
    /// Returns an error if the key is not a valid public key of the algorithm's kind.
    pub(in crate::authenticate) fn from_jwk(
        jwk: &Map<String, Value>,
        algorithm: Algorithm,
    ) -> Result<Self, String> {
        let kind = kind(jwk)?;
        if kind == KeyKind::Secret || kind != algorithm.kind() {
            return Err(format!("a {}, and {algorithm} needs a {}", kind.name(), algorithm.kind().name()));
        }
        parsed(None, algorithm, jwk, &[])
    }
}

/// Returns the kind of a key, which `kty` and `crv` determine. For the `kty` `AKP` of RFC 9964, `alg` determines the
/// kind.
fn kind(key: &Map<String, Value>) -> Result<KeyKind, String> {
    let member = |name: &str| key.get(name).and_then(Value::as_str);
    match (member("kty"), member("crv"), member("alg")) {
        (Some("RSA"), _, _) => Ok(KeyKind::Rsa),
        (Some("EC"), Some("P-256"), _) => Ok(KeyKind::P256),
        (Some("EC"), Some("P-384"), _) => Ok(KeyKind::P384),
        (Some("EC"), Some("P-521"), _) => Ok(KeyKind::P521),
        (Some("OKP"), Some("Ed25519"), _) => Ok(KeyKind::Ed25519),
        (Some("AKP"), _, Some("ML-DSA-44")) => Ok(KeyKind::MlDsa44),
        (Some("AKP"), _, Some("ML-DSA-65")) => Ok(KeyKind::MlDsa65),
        (Some("AKP"), _, Some("ML-DSA-87")) => Ok(KeyKind::MlDsa87),
        (Some("oct"), _, _) => Ok(KeyKind::Secret),
        (Some("AKP"), _, alg) => {
            Err(format!("kty AKP with alg {} is not known here", alg.unwrap_or("absent")))
        }
        (kty, crv, _) => Err(format!(
            "kty {} with crv {} is not known here",
            kty.unwrap_or("absent"),
            crv.unwrap_or("absent")
        )),
    }
}

/// Returns the algorithm of a key. An `alg` must fit the key's kind. The algorithm of a key without `alg` is the only
/// accepted algorithm that fits. `None` if the policy does not accept the algorithm.
fn algorithm(
    key: &Map<String, Value>,
    kind: KeyKind,
    accepted: &[Algorithm],
) -> Result<Option<Algorithm>, String> {
    let Some(named) = key.get("alg") else { return kind.only_algorithm(accepted) };
    let parsed: Option<Algorithm> = named.as_str().and_then(|text| text.parse().ok());
    match parsed.filter(|algorithm| algorithm.kind() == kind) {
        Some(algorithm) => Ok(Some(algorithm).filter(|algorithm| accepted.contains(algorithm))),
        None => Err(format!("its alg {named} does not fit a {}", kind.name())),
    }
}

fn parsed(
    id: Option<&str>,
    algorithm: Algorithm,
    key: &Map<String, Value>,
    accepted: &[Algorithm],
) -> Result<Key, String> {
    let bytes = |name: &str| -> Result<Vec<u8>, String> {
        let text = key.get(name).and_then(Value::as_str).ok_or_else(|| format!("it has no {name}"))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its {name} is not base64url"))
    };
    let kind = algorithm.kind();
    let plain = |bytes: &[u8]| Key::public(id, algorithm, &PublicKey::Plain(kind, bytes));
    match kind {
        KeyKind::Secret => {
            // A secret in a published set would not be secret (RFC 8725 section 3.1).
            if !accepted.iter().all(|algorithm| algorithm.has_secret()) {
                return Err("a shared secret among public keys".to_owned());
            }
            Key::secret(id, algorithm, &bytes("k")?)
        }
        KeyKind::Rsa => {
            let (modulus, exponent) = (bytes("n")?, bytes("e")?);
            Key::public(id, algorithm, &PublicKey::Rsa { modulus: &modulus, exponent: &exponent })
        }
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            // RFC 7518 section 6.2.1.2: each coordinate has the full length of the curve's field.
            if kind.key_bytes() != Some(1 + 2 * x.len()) || x.len() != y.len() {
                return Err(format!("its coordinates are of {} and {} bytes", x.len(), y.len()));
            }
            plain(&[&[4], &x[..], &y[..]].concat())
        }
        KeyKind::Ed25519 => plain(&bytes("x")?),
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => plain(&bytes("pub")?),
    }
}
