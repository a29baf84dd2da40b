use super::der::{spki_parts, tlv};
use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::PublicKeyData;
use serde_json::{Value, json};

const PUBLIC: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// Returns the key of RFC 7515 appendix A.3.
fn ec() -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "kid": "e",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })
}

/// Returns the key of RFC 8037 appendix A.2.
fn ed() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "d", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

fn rsa(bits: usize) -> Value {
    let mut modulus = vec![0xff; bits / 8];
    modulus[0] = 0x80;
    json!({ "kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" })
}

fn with(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

fn read(keys: &[Value], accepted: &[Algorithm]) -> Result<(KeySet, Vec<String>), String> {
    KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes(), accepted)
}

#[test]
fn a_set_has_the_keys_that_can_be_used_and_says_why_not_the_others() {
    let odd = json!({ "kty": "XX", "kid": "x" });
    let (set, skipped) = read(&[ec(), odd, ed(), rsa(2048), json!(7)], &PUBLIC).unwrap();
    let keys: Vec<_> =
        set.iter().map(|key| (key.id().unwrap(), key.algorithm(), key.signature_bytes())).collect();
    assert_eq!(
        keys,
        [("e", Algorithm::ES256, 64), ("d", Algorithm::EdDSA, 64), ("r", Algorithm::RS256, 256)]
    );
    assert_eq!(skipped.len(), 2, "{skipped:?}");
}

#[test]
fn a_public_key_may_list_the_operations_of_its_pair() {
    // jwcrypto copies `key_ops` into the public half (findings/jwk-operations-of-the-pair.sh).
    for operations in [json!(["sign", "verify"]), json!(["encrypt", "verify", "wrapKey"])] {
        let (set, skipped) = read(&[with(ec(), "key_ops", operations)], &PUBLIC).unwrap();
        assert_eq!((tried(&set, Some("e"), Algorithm::ES256), skipped.len()), (1, 0), "{skipped:?}");
    }
}

#[test]
fn keys_that_must_not_be_used_are_not() {
    let secret = json!({ "kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode([1; 32]) });
    for (key, why) in [
        (with(ec(), "use", json!("enc")), "1 for other uses, by use"),
        (with(ec(), "key_ops", json!(["sign"])), "key_ops"),
        (with(ec(), "key_ops", json!("verify")), "key_ops"),
        (with(ec(), "use", json!(["sig"])), "use is neither sig"),
        (with(ec(), "kid", json!(7)), "kid is not a string"),
        (with(ec(), "d", json!("AAAA")), "private key"),
        (with(rsa(2048), "d", json!("AAAA")), "private key"),
        (with(rsa(2048), "e", json!("AQAAAAAB")), "exponent"),
        (with(ec(), "alg", json!("RS256")), "alg"),
        (with(ec(), "alg", json!(7)), "alg"),
        (with(ec(), "crv", json!("P-384")), "not in algorithms"),
        (with(ec(), "crv", json!("secp256k1")), "not known here"),
        (with(ec(), "use", json!("x509-svid")), "1 for other uses"),
        (with(ec(), "x", json!("AAAA")), "3 and 32 bytes"),
        (with(ec(), "x", ed()["x"].clone()), "invalid P-256 key"),
        (with(ec(), "x", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU=")), "not base64url"),
        (with(ed(), "x", json!("AAAA")), "wrong length"),
        (with(ed(), "crv", json!("X25519")), "not known here"),
        (rsa(1024), "2048"),
        (rsa(16384), "2048"),
        (with(rsa(2048), "e", json!("AQ")), "exponent"),
        (with(rsa(2048), "e", json!("Ag")), "exponent"),
        (with(rsa(2048), "e", json!("")), "exponent"),
        (with(rsa(2048), "n", json!(null)), "no n"),
        (with(rsa(2048), "n", json!(URL_SAFE_NO_PAD.encode([0xfe; 256]))), "even"),
        (secret.clone(), "not in algorithms"),
    ] {
        let reported = read(std::slice::from_ref(&key), &PUBLIC).expect_err(&key.to_string());
        assert!(reported.contains(why), "{key}: {reported}");
    }
    let reported = read(std::slice::from_ref(&secret), &[Algorithm::HS256, Algorithm::ES256]).unwrap_err();
    assert!(reported.contains("among public keys"), "{reported}");
    assert!(read(&[secret], &[Algorithm::HS256]).is_ok());
    assert!(read(&[ec()], &[Algorithm::RS256]).unwrap_err().contains("not in algorithms"));
    assert!(read(&[ec(), with(ec(), "x", ec()["y"].clone())], &PUBLIC).unwrap_err().contains("same kid"));
    for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
        assert!(KeySet::from_jwks(text.as_bytes(), &PUBLIC).is_err(), "{text}");
    }
    assert!(read(&vec![json!({}); 101], &PUBLIC).unwrap_err().contains("at most"));
}

#[test]
fn a_secret_has_at_least_the_bits_of_its_hash() {
    assert!(KeySet::default().add_secret(None, Algorithm::HS256, &[0; 31]).unwrap_err().contains("248 bits"));
    assert!(KeySet::default().add_secret(None, Algorithm::HS256, &[0; 32]).is_ok());
}

#[test]
fn a_public_key_in_pem_is_of_the_kind_that_it_says() {
    let pem = |pair: rcgen::KeyPair| pair.public_key_pem();
    let ec = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap());
    let ed = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    let p384 = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
    let rsa = pem(rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
    for (pem, algorithm) in [(&ec, Algorithm::ES256), (&ed, Algorithm::EdDSA), (&rsa, Algorithm::RS256)] {
        let mut set = KeySet::default();
        set.add_pem(Some("k"), pem.as_bytes(), &PUBLIC).unwrap();
        assert_eq!(set.iter().next().map(Key::algorithm), Some(algorithm));
        let others: Vec<_> = PUBLIC.into_iter().filter(|other| *other != algorithm).collect();
        assert!(
            KeySet::default()
                .add_pem(None, pem.as_bytes(), &others)
                .unwrap_err()
                .contains("algorithms has none")
        );
    }
    let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (pem, why) in [
        (private.as_str(), "private key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate"),
        (&p384, "algorithms has none"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not known here"),
        ("nothing", "no public key in PEM"),
    ] {
        let reported = KeySet::default().add_pem(None, pem.as_bytes(), &PUBLIC).expect_err(pem);
        assert!(reported.contains(why), "{pem}: {reported}");
    }
}

#[test]
fn a_key_is_found_by_its_id_and_algorithm_and_in_no_other_way() {
    let (set, _) = read(&[ec(), ed()], &PUBLIC).unwrap();
    assert!(matches!(set.find(Some("e"), Algorithm::ES256), KeyMatch::Keys(_)));
    assert!(matches!(set.find(Some("e"), Algorithm::EdDSA), KeyMatch::OtherAlgorithm));
    assert!(matches!(set.find(Some("x"), Algorithm::ES256), KeyMatch::None));
    assert!(matches!(set.find(None, Algorithm::EdDSA), KeyMatch::Keys(_)));
    assert!(matches!(set.find(None, Algorithm::HS256), KeyMatch::OtherAlgorithm));
    let mut lone = KeySet::default();
    lone.add_secret(None, Algorithm::HS256, &[0; 32]).unwrap();
    assert!(
        matches!(lone.find(Some("any"), Algorithm::HS256), KeyMatch::Keys(_)),
        "a key without an id is the issuer's only one"
    );
    assert!(matches!(lone.find(Some("any"), Algorithm::ES256), KeyMatch::None));
}

#[test]
fn only_the_faults_of_a_key_set_are_reported() {
    let reported = read(&[], &PUBLIC).unwrap_err();
    assert!(reported.contains("empty"), "{reported}");
    let reported = read(&[with(ec(), "use", json!("enc"))], &PUBLIC).unwrap_err();
    assert!(reported.contains("use") && !reported.contains("algorithms"), "{reported}");
    let reported =
        read(&[ec(), with(ed(), "use", json!("enc"))], &[Algorithm::RS256, Algorithm::EdDSA]).unwrap_err();
    assert!(reported.contains("use") && reported.contains("algorithms"), "{reported}");
}

#[test]
fn a_key_that_is_public_is_no_secret() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let (pem, der) = (pair.public_key_pem(), pair.subject_public_key_info());
    let rsa_der = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().subject_public_key_info();
    let jwk = ec().to_string();
    let set = json!({ "keys": [ec()] }).to_string();
    let ssh = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8Q a@b";
    let blank = format!("\n  {pem}");
    for secret in [pem.as_bytes(), blank.as_bytes(), &der, &rsa_der, jwk.as_bytes(), set.as_bytes(), ssh] {
        let reported = KeySet::default()
            .add_secret(None, Algorithm::HS256, secret)
            .expect_err(&String::from_utf8_lossy(secret));
        assert!(reported.contains("public_key") || reported.contains("jwks"), "{reported}");
    }
    for secret in
        [&b"-----a secret with dashes at its start-----"[..], b"{\"a\":\"some JSON that is not any key\"}"]
    {
        assert_eq!(KeySet::default().add_secret(None, Algorithm::HS256, secret), Ok(()));
    }
}

#[test]
fn a_modulus_with_a_zero_before_it_is_the_same_modulus() {
    // RFC 7518 section 6.3.1.1 mentions implementations that write a zero byte before the modulus.
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let spki = pair.subject_public_key_info();
    let (_, key) = spki_parts(&spki).unwrap();
    let (modulus, _) = tlv(0x02, tlv(0x30, key).unwrap().0).unwrap();
    assert_eq!(modulus[0], 0, "as DER has it");
    let signing = jsonwebtoken::EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(b"message", &signing, jsonwebtoken::Algorithm::RS256).unwrap();
    for modulus in [modulus, &modulus[1..]] {
        let jwk = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB" });
        let (set, _) = read(&[jwk], &PUBLIC).unwrap();
        let key = set.iter().next().unwrap();
        assert_eq!(key.signature_bytes(), 256);
        let signature = URL_SAFE_NO_PAD.decode(&signature).unwrap();
        assert!(key.verifies(b"message", &signature));
        assert!(!key.verifies(b"massage", &signature));
    }
}

/// Returns the number of keys that are tried for a token with this `kid` and algorithm.
fn tried(set: &KeySet, id: Option<&str>, algorithm: Algorithm) -> usize {
    match set.find(id, algorithm) {
        KeyMatch::Keys(keys) => keys.into_iter().flatten().count(),
        KeyMatch::OtherAlgorithm | KeyMatch::TooMany(_) | KeyMatch::None => 0,
    }
}

fn without_kid(mut key: Value) -> Value {
    key.as_object_mut().unwrap().remove("kid");
    key
}

/// Returns an RSA key with a modulus that depends on `number`.
fn nth_rsa(number: u8) -> Value {
    let mut modulus = [0xff; 256];
    modulus[100] = number;
    with(rsa(2048), "n", json!(URL_SAFE_NO_PAD.encode(modulus)))
}

#[test]
fn a_key_that_is_no_candidate_does_not_make_another_one_ambiguous() {
    // Keycloak publishes the same `kid` for signature and encryption keys (RFC 7517 sections 4.2 and 4.5).
    let signing = with(with(nth_rsa(1), "use", json!("sig")), "alg", json!("RS256"));
    for other in [
        with(with(nth_rsa(2), "use", json!("enc")), "alg", json!("RSA-OAEP")),
        with(nth_rsa(2), "alg", json!("RSA-OAEP-256")),
        with(nth_rsa(2), "key_ops", json!(["encrypt", "wrapKey"])),
    ] {
        let (set, skipped) = read(&[signing.clone(), other], &PUBLIC).unwrap();
        assert_eq!(tried(&set, Some("r"), Algorithm::RS256), 1);
        assert_eq!(skipped, Vec::<String>::new(), "a key for encryption is no finding");
    }
    // A key for another algorithm does not make the `kid` ambiguous. The operator is warned only if the gateway does
    // not support the algorithm.
    for (alg, count) in [("PS256", 0), ("RS1", 1)] {
        let other = with(nth_rsa(2), "alg", json!(alg));
        let (set, skipped) = read(&[signing.clone(), other], &PUBLIC).unwrap();
        assert_eq!((tried(&set, Some("r"), Algorithm::RS256), skipped.len()), (1, count), "{skipped:?}");
    }
    // Two keys that may both have signed a token are ambiguous, even if one of them is invalid. A key that is listed
    // twice is not ambiguous.
    assert!(read(&[signing.clone(), with(nth_rsa(2), "n", json!("AA"))], &PUBLIC).is_err());
    let reported = read(&[signing.clone(), nth_rsa(2)], &PUBLIC).unwrap_err();
    assert!(reported.contains("another key for RS256 has the same kid"), "{reported}");
    let (set, skipped) = read(&[signing.clone(), signing], &PUBLIC).unwrap();
    assert_eq!((set.iter().count(), skipped.len()), (1, 0));
}

#[test]
fn keys_and_tokens_without_kid_are_tried_by_algorithm_and_not_without_bound() {
    // RFC 7517 section 4.5 makes `kid` optional.
    let bare = |count: u8| (0..count).map(|n| without_kid(nth_rsa(n))).collect::<Vec<_>>();
    let (set, skipped) = read(&bare(2), &PUBLIC).unwrap();
    assert_eq!(skipped, Vec::<String>::new());
    for id in [None, Some("any")] {
        assert_eq!(tried(&set, id, Algorithm::RS256), 2, "{id:?}");
        assert_eq!(tried(&set, id, Algorithm::ES256), 0, "{id:?}");
    }
    let (set, skipped) = read(&bare(6), &PUBLIC).unwrap();
    assert_eq!((tried(&set, None, Algorithm::RS256), skipped.len()), (CANDIDATES_MAX, 2));
    assert!(skipped[0].contains("without kid"), "{skipped:?}");
    // A key with a `kid` is tried only for tokens that have the same `kid` or none.
    let named = |number: u8| with(nth_rsa(number), "kid", json!(number.to_string()));
    let (set, _) = read(&[named(1), named(2), without_kid(nth_rsa(3))], &PUBLIC).unwrap();
    for (id, count) in [(Some("1"), 1), (Some("9"), 1), (None, 3)] {
        assert_eq!(tried(&set, id, Algorithm::RS256), count, "{id:?}");
    }
    let many: Vec<_> = (0..5).map(named).collect();
    let (set, _) = read(&many, &PUBLIC).unwrap();
    assert!(matches!(set.find(None, Algorithm::RS256), KeyMatch::TooMany(5)));
    assert_eq!(tried(&set, Some("3"), Algorithm::RS256), 1);
}

#[test]
fn ed25519_and_eddsa_are_two_names_of_one_algorithm() {
    // RFC 9864 sections 2.2 and 4.1 define both names.
    assert_eq!("Ed25519".parse(), Ok(Algorithm::EdDSA));
    assert_eq!("EdDSA".parse(), Ok(Algorithm::EdDSA));
    for other in ["Ed448", "ed25519", "EDDSA"] {
        assert_eq!(other.parse::<Algorithm>(), Err(()), "{other}");
    }
    for name in ["Ed25519", "EdDSA"] {
        let (set, _) = read(&[with(ed(), "alg", json!(name))], &[Algorithm::EdDSA]).unwrap();
        assert_eq!(tried(&set, Some("d"), Algorithm::EdDSA), 1, "{name}");
    }
}

#[test]
fn the_usual_slips_come_with_their_cure() {
    // RFC 8259 section 8.1 allows a parser to ignore a byte order mark.
    let marked = [&b"\xef\xbb\xbf"[..], json!({ "keys": [ec()] }).to_string().as_bytes()].concat();
    assert!(KeySet::from_jwks(&marked, &PUBLIC).is_ok());
    for (text, cure) in [
        (&b"\xff\xfe{\0}\0"[..], "UTF-8"),
        (b"-----BEGIN PUBLIC KEY-----\n", "public_key"),
        (br#"{"kty":"RSA","n":"AQAB"}"#, "put it into a set"),
        (br#"{"1":"-----BEGIN CERTIFICATE-----\nAAAA"}"#, "no certificate in PEM"),
    ] {
        let reported = KeySet::from_jwks(text, &PUBLIC).expect_err(&String::from_utf8_lossy(text));
        assert!(reported.contains(cure), "{reported}");
    }
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().public_key_pem();
    let marked = [&b"\xef\xbb\xbf"[..], pem.as_bytes()].concat();
    assert_eq!(KeySet::default().add_pem(None, &marked, &PUBLIC), Ok(()));
    let old = b"-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n";
    let reported = KeySet::default().add_pem(None, old, &PUBLIC).unwrap_err();
    assert!(reported.contains("openssl rsa -RSAPublicKey_in -pubout"), "{reported}");
}
