use super::super::{Key, KeyMatch, KeySet};
use super::*;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING,
    PqdsaKeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::OnceLock;

const SECRET: [u8; 64] = *b"k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc-dE_gAiSoPfKlMxCyNbVwRtUjIeDqGhF";

/// Signs messages with the private half of one key.
pub(in crate::authenticate) type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Sync + Send>;

/// Returns a signer for the algorithm, the public key as a JWK without `alg`, and the same key as SubjectPublicKeyInfo.
pub(in crate::authenticate) fn pair(algorithm: Algorithm) -> (Sign, Value, Vec<u8>) {
    static RSA: OnceLock<RsaKeyPair> = OnceLock::new();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mac = |algorithm| -> (Sign, Value, Vec<u8>) {
        let key = hmac::Key::new(algorithm, &SECRET);
        let jwk = json!({ "kty": "oct", "k": encode(&SECRET) });
        (Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()), jwk, Vec::new())
    };
    let rsa = |padding: &'static dyn RsaEncoding| -> (Sign, Value, Vec<u8>) {
        let pair = RSA.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        let public = pair.public_key();
        let n = encode(public.modulus().big_endian_without_leading_zero());
        let jwk = json!({ "kty": "RSA", "n": n, "e": "AQAB" });
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        (Box::new(sign), jwk, public.as_der().unwrap().as_ref().to_vec())
    };
    let ec = |algorithm, curve: &str| -> (Sign, Value, Vec<u8>) {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
        let jwk = json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) });
        let der = pair.public_key().as_der().unwrap().as_ref().to_vec();
        (
            Box::new(move |message| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()),
            jwk,
            der,
        )
    };
    let ml = |signing| -> (Sign, Value, Vec<u8>) {
        let pair = PqdsaKeyPair::generate(signing).unwrap();
        // RFC 9964 section 4: `alg` is part of the key.
        let jwk =
            json!({ "kty": "AKP", "alg": algorithm.as_str(), "pub": encode(pair.public_key().as_ref()) });
        let der = pair.public_key().as_der().unwrap().as_ref().to_vec();
        let length = algorithm.signature_bytes().unwrap();
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; length];
            assert_eq!(pair.sign(message, &mut signature).unwrap(), length);
            signature
        };
        (Box::new(sign), jwk, der)
    };
    match algorithm {
        Algorithm::HS256 => mac(HMAC_SHA256),
        Algorithm::HS384 => mac(HMAC_SHA384),
        Algorithm::HS512 => mac(HMAC_SHA512),
        Algorithm::RS256 => rsa(&RSA_PKCS1_SHA256),
        Algorithm::RS384 => rsa(&RSA_PKCS1_SHA384),
        Algorithm::RS512 => rsa(&RSA_PKCS1_SHA512),
        Algorithm::PS256 => rsa(&RSA_PSS_SHA256),
        Algorithm::PS384 => rsa(&RSA_PSS_SHA384),
        Algorithm::PS512 => rsa(&RSA_PSS_SHA512),
        Algorithm::ES256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
        Algorithm::ES384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        Algorithm::ES512 => ec(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().unwrap();
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) });
            let der = pair.public_key().as_der().unwrap().as_ref().to_vec();
            (Box::new(move |message| pair.sign(message).as_ref().to_vec()), jwk, der)
        }
        Algorithm::MlDsa44 => ml(&ML_DSA_44_SIGNING),
        Algorithm::MlDsa65 => ml(&ML_DSA_65_SIGNING),
        Algorithm::MlDsa87 => ml(&ML_DSA_87_SIGNING),
    }
}

fn read(key: &Value, accepted: &[Algorithm]) -> Result<KeySet, String> {
    let text = json!({ "keys": [key] }).to_string();
    KeySet::from_jwks(text.as_bytes(), accepted).map(|(set, _)| set)
}

fn only(set: &KeySet) -> &Key {
    let mut keys = set.iter();
    let (Some(only), None) = (keys.next(), keys.next()) else { panic!("one key") };
    only
}

fn pem(der: &[u8], label: &str) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn each_algorithm_verifies_its_own_signatures_and_no_others() {
    for algorithm in Algorithm::ALL {
        let (sign, jwk, der) = pair(algorithm);
        let signature = sign(b"message");
        let from_jwk = read(&jwk, &[algorithm]).unwrap();
        let mut sets = vec![from_jwk];
        if !der.is_empty() {
            let mut set = KeySet::default();
            set.add_pem(None, pem(&der, "PUBLIC KEY").as_bytes(), &[algorithm]).unwrap();
            assert!(set.is_same(&sets[0]), "{algorithm}: the same key in PEM");
            sets.push(set);
        }
        for set in &sets {
            let key = only(set);
            assert_eq!((key.algorithm(), key.signature_bytes()), (algorithm, signature.len()));
            assert!(key.verifies(b"message", &signature), "{algorithm}");
            assert!(!key.verifies(b"massage", &signature), "{algorithm}");
            for at in [0, signature.len() / 2, signature.len() - 1] {
                let mut other = signature.clone();
                other[at] ^= 1;
                assert!(!key.verifies(b"message", &other), "{algorithm}: bit of byte {at}");
            }
            assert!(!key.verifies(b"message", &signature[1..]), "{algorithm}");
            assert!(!key.verifies(b"message", &vec![0; signature.len()]), "{algorithm}");
        }
        // If the same key is read for another algorithm, it does not verify the signature.
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            match read(&jwk, &[other]) {
                Ok(set) => {
                    assert_eq!(other.kind(), algorithm.kind());
                    assert!(!only(&set).verifies(b"message", &signature), "{algorithm} as {other}");
                }
                Err(_) => assert_ne!(other.kind(), algorithm.kind(), "{algorithm} as {other}"),
            }
        }
    }
}

#[test]
fn a_key_without_alg_has_the_only_accepted_algorithm_that_fits_it() {
    use Algorithm::{ES256, HS256, HS512, PS256, RS256, RS512};
    let (_, rsa, der) = pair(RS256);
    let named = |alg: &str| {
        let mut key = rsa.clone();
        key["alg"] = json!(alg);
        key
    };
    assert_eq!(only(&read(&rsa, &[RS256, ES256]).unwrap()).algorithm(), RS256);
    assert_eq!(only(&read(&rsa, &[ES256, PS256]).unwrap()).algorithm(), PS256);
    let several = read(&rsa, &[RS256, PS256, RS512]).unwrap_err();
    assert!(several.contains("RS256, RS512, PS256"), "{several}");
    assert_eq!(only(&read(&named("PS256"), &[RS256, PS256]).unwrap()).algorithm(), PS256);
    assert!(read(&named("PS256"), &[RS256]).unwrap_err().contains("not in algorithms"));
    assert!(read(&named("ES256"), &[RS256, ES256]).unwrap_err().contains("does not fit a RSA key"));
    let in_pem = |accepted: &[Algorithm]| {
        KeySet::default().add_pem(None, pem(&der, "PUBLIC KEY").as_bytes(), accepted)
    };
    assert_eq!(in_pem(&[ES256, RS256]), Ok(()));
    assert!(in_pem(&[RS256, PS256]).unwrap_err().contains("RS256, PS256"));
    let (_, secret, _) = pair(HS256);
    assert!(read(&secret, &[HS256, HS512]).unwrap_err().contains("HS256, HS512"));
    assert_eq!(only(&read(&secret, &[HS512]).unwrap()).algorithm(), HS512);
}

#[test]
fn a_secret_is_as_long_as_the_hash_at_least() {
    for (algorithm, least) in [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
        let add = |length: usize| KeySet::default().add_secret(None, algorithm, &SECRET[..length]);
        assert_eq!(add(least), Ok(()));
        let reported = add(least - 1).unwrap_err();
        assert!(reported.contains(&format!("{algorithm} needs {}", least * 8)), "{reported}");
        let short = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(&SECRET[1..least]) });
        assert!(read(&short, &[algorithm]).unwrap_err().contains("needs"), "{algorithm}");
    }
    assert!(
        KeySet::default().add_secret(None, Algorithm::ES256, &SECRET).unwrap_err().contains("public key")
    );
}

#[test]
fn an_ml_dsa_key_says_its_algorithm() {
    // RFC 9964 section 4: `alg` is required, because nothing else names the parameter set.
    let (_, mut key, _) = pair(Algorithm::MlDsa44);
    let all = [Algorithm::MlDsa44, Algorithm::MlDsa65];
    assert!(read(&key, &all).is_ok());
    key["alg"] = json!("ML-DSA-65");
    assert!(read(&key, &all).unwrap_err().contains("wrong length"));
    key.as_object_mut().unwrap().remove("alg");
    assert!(read(&key, &all).unwrap_err().contains("alg absent"));
    let (_, mut key, _) = pair(Algorithm::MlDsa44);
    key["priv"] = json!("AAAA");
    assert!(read(&key, &all).unwrap_err().contains("private key"));
}

#[test]
fn a_spiffe_bundle_gives_its_keys_for_jwt_svids_alone() {
    let key = |kid: &str, purpose: &str| {
        let (_, mut key, _) = pair(Algorithm::ES256);
        (key["kid"], key["use"]) = (json!(kid), json!(purpose));
        key
    };
    let bundle = json!({
        "spiffe_sequence": 1, "spiffe_refresh_hint": 300,
        "keys": [key("x", "x509-svid"), key("j", "jwt-svid")],
    });
    let (set, skipped) = KeySet::from_jwks(bundle.to_string().as_bytes(), &[Algorithm::ES256]).unwrap();
    assert_eq!((only(&set).id(), skipped.len()), (Some("j"), 0));
    let bundle = json!({ "keys": [key("x", "x509-svid")] });
    assert!(KeySet::from_jwks(bundle.to_string().as_bytes(), &[Algorithm::ES256]).is_err());
}

#[test]
fn a_map_of_certificates_gives_the_keys_within_them() {
    let certificate = |kind| {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["securetoken.test".to_owned()]).unwrap();
        (parameters.self_signed(&pair).unwrap().pem(), pair.public_key_pem())
    };
    let ((rsa, rsa_key), (ec, _)) =
        (certificate(&rcgen::PKCS_RSA_SHA256), certificate(&rcgen::PKCS_ECDSA_P256_SHA256));
    let map = |members: Value| KeySet::from_jwks(members.to_string().as_bytes(), &[Algorithm::RS256]);
    let (set, skipped) = map(json!({ "a": rsa, "b": ec })).unwrap();
    let mut same = KeySet::default();
    same.add_pem(Some("a"), rsa_key.as_bytes(), &[Algorithm::RS256]).unwrap();
    assert!(set.is_same(&same) && skipped.is_empty(), "{skipped:?}");
    assert!(matches!(set.find(Some("b"), Algorithm::RS256), KeyMatch::None));
    let (set, skipped) =
        map(json!({ "a": rsa, "c": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----" }))
            .unwrap();
    assert_eq!((only(&set).id(), skipped.len()), (Some("a"), 1));
    assert!(skipped[0].contains("(c)"), "{skipped:?}");
    for bad in
        [json!({ "a": ec }), json!({ "a": rsa, "b": "x" }), json!({ "a": rsa_key }), json!({ "a": [rsa] })]
    {
        assert!(map(bad.clone()).is_err(), "{bad}");
    }
    let many: serde_json::Map<_, _> = (0..101).map(|n| (n.to_string(), json!(rsa))).collect();
    assert!(map(many.into()).unwrap_err().contains("at most"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
        for text in [&bytes[..], text.as_bytes()] {
            let _ = KeySet::from_jwks(text, &Algorithm::ALL);
            let _ = KeySet::default().add_pem(None, text, &Algorithm::ALL);
            let _ = KeySet::default().add_secret(None, Algorithm::HS256, text);
        }
        let certificate = pem(&bytes, "CERTIFICATE");
        let map = json!({ "a": certificate }).to_string();
        prop_assert!(KeySet::from_jwks(map.as_bytes(), &Algorithm::ALL).is_err());
    }

    #[test]
    fn a_key_with_one_byte_changed_is_refused_or_verifies_nothing_of_the_first(
        which in 0..Algorithm::ALL.len(), at in any::<proptest::sample::Index>(), by in 1..=255_u8,
    ) {
        let algorithm = Algorithm::ALL[which];
        let (sign, mut jwk, _) = pair(algorithm);
        let members: Vec<&str> =
            ["n", "x", "y", "k", "pub"].into_iter().filter(|name| jwk.get(name).is_some()).collect();
        let member = members[at.index(members.len())];
        let mut bytes = URL_SAFE_NO_PAD.decode(jwk[member].as_str().unwrap()).unwrap();
        let place = at.index(bytes.len());
        bytes[place] ^= by;
        jwk[member] = json!(URL_SAFE_NO_PAD.encode(&bytes));
        if let Ok(set) = read(&jwk, &[algorithm]) {
            prop_assert!(!only(&set).verifies(b"message", &sign(b"message")), "{} {}", algorithm, member);
        }
    }

    #[test]
    fn a_damaged_certificate_is_refused_or_has_a_key(at in any::<proptest::sample::Index>(), by in 1..=255_u8) {
        static CERTIFICATE: OnceLock<Vec<u8>> = OnceLock::new();
        let certificate = CERTIFICATE.get_or_init(|| {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&pair).unwrap().der().to_vec()
        });
        let mut damaged = certificate.clone();
        damaged[at.index(certificate.len())] ^= by;
        for der in [&damaged[..], &certificate[..at.index(certificate.len())]] {
            let map = json!({ "a": pem(der, "CERTIFICATE") }).to_string();
            if let Ok((set, _)) = KeySet::from_jwks(map.as_bytes(), &[Algorithm::ES256]) {
                prop_assert_eq!(only(&set).algorithm(), Algorithm::ES256);
            }
        }
    }
}
