use super::*;
use serde_json::json;

/// The algorithms for public keys. Each key of the vectors names its algorithm, or fits only one of these algorithms.
const PUBLIC: [Algorithm; 10] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::EdDSA,
];
const SECRETS: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// Whether a key set of the test vectors accepts a token.
fn accepts(keys: &Value, token: &str) -> bool {
    let shared = keys["keys"].as_array().unwrap().iter().any(|key| key["kty"] == "oct");
    // The gateway rejects a set that mixes a shared secret with public keys. A set with only a secret is tested with
    // the algorithms for secrets; the mixed set of the vectors is tested with all algorithms and must be rejected.
    let mixed = keys["keys"].as_array().unwrap().iter().any(|key| key["kty"] != "oct");
    let accepted: Vec<Algorithm> = match (shared, mixed) {
        (true, false) => SECRETS.to_vec(),
        (true, true) => [&SECRETS[..], &PUBLIC].concat(),
        (false, _) => PUBLIC.to_vec(),
    };
    let accepted = &accepted[..];
    let Ok((set, _)) = KeySet::from_jwks(keys.to_string().as_bytes(), accepted) else { return false };
    let is_payload_spelt_canonically = |jws: &Jws<'_>| decode(jws.payload).is_some();
    Jws::read(token).is_ok_and(|jws| is_payload_spelt_canonically(&jws) && jws.verify(&set, accepted).is_ok())
}

/// Runs a file of test vectors: each `invalid` token must be rejected, and each `valid` token must be accepted unless
/// it is left out.
fn run(text: &str, left_out: impl Fn(&Value, &Value) -> bool) -> (usize, usize) {
    let file: Value = serde_json::from_str(text).unwrap();
    let (mut passed, mut refused) = (0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        let key = group.get("public").unwrap_or(&group["private"]);
        let keys = if key.get("keys").is_some() { key.clone() } else { json!({ "keys": [key] }) };
        for test in group["tests"].as_array().unwrap() {
            if left_out(group, test) {
                continue;
            }
            let accepted = test["jws"].as_str().is_some_and(|token| accepts(&keys, token));
            assert_eq!(accepted, test["result"] == "valid", "{} {test}", group["comment"]);
            if accepted { passed += 1 } else { refused += 1 }
        }
    }
    (passed, refused)
}

#[test]
fn wycheproof_signatures() {
    let counts =
        run(include_str!("../../../tests/vectors/wycheproof/json_web_signature_test.json"), |group, test| {
            let key = group.get("public").unwrap_or(&group["private"]);
            let algorithm = key["alg"].as_str().unwrap_or_default();
            let good = test["result"] == "valid";
            let of = |comment: &str| group["comment"] == comment;
            // An empty payload contains no claims.
            test["comment"] == "emptyPayload"
                // The vectors misspell ES512 in the `alg` of the key of RFC 7520.
                || good && algorithm == "ES521"
                // The vectors sign this token by PS384 with a key for PS256. The gateway uses each key for one
                // algorithm only.
                || good && test["comment"] == "Figure20"
                // These tokens are valid only for a parser that ignores characters outside base64url. The gateway's
                // parser rejects them.
                || good && of("base64") && test["jws"].as_str().unwrap().contains('?')
                // The vectors describe these tokens as padded, but they are identical to the valid case 357, without
                // padding.
                || [367, 370].map(Value::from).contains(&test["tcId"])
        });
    assert!(counts.0 >= 10 && counts.1 >= 330, "{counts:?}");
}

#[test]
fn wycheproof_keys() {
    let counts = run(include_str!("../../../tests/vectors/wycheproof/json_web_key_test.json"), |group, _| {
        // The gateway cannot distinguish a modulus with the ROCA weakness (CVE-2017-15361) from other moduli.
        group["comment"] == "jws_rsa_roca_key"
    });
    assert!(counts.0 >= 2 && counts.1 >= 14, "{counts:?}");
}

#[test]
fn wycheproof_crypto() {
    let counts =
        run(include_str!("../../../tests/vectors/wycheproof/json_web_crypto_test.json"), |group, _| {
            let comment = group["comment"].as_str().unwrap();
            // Encryption is not supported.
            comment.starts_with("jwe")
                // ROCA moduli are left out as in the test of key vectors.
                || comment == "jws_rsa_roca_key"
        });
    assert!(counts.0 >= 3 && counts.1 >= 40, "{counts:?}");
}

#[test]
fn a_signature_of_es256_is_two_numbers_of_32_bytes_in_their_range() {
    // The order of P-256 (FIPS 186-4 appendix D.1.2.3).
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut keys = KeySet::default();
    keys.add_pem(None, pair.public_key_pem().as_bytes(), &PUBLIC).unwrap();
    let signing = jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let message = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#));
    let good = jsonwebtoken::crypto::sign(message.as_bytes(), &signing, jsonwebtoken::Algorithm::ES256);
    let good = URL_SAFE_NO_PAD.decode(good.unwrap()).unwrap();
    let (r, s) = good.split_at(32);
    let verdict = |signature: &[u8]| {
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        Jws::read(&token)
            .unwrap()
            .verify(&keys, &Algorithm::ALL)
            .map(|key| key.algorithm())
            .map_err(|refused| refused.denial)
    };
    let integer = |number: &[u8]| {
        let number = [&[0], number].concat();
        let zeros = number.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
        let number = &number[zeros..];
        [&[2, u8::try_from(number.len()).unwrap()], number].concat()
    };
    let der = [integer(r), integer(s)].concat();
    let der = [&[0x30, u8::try_from(der.len()).unwrap()][..], &der].concat();
    assert_eq!(verdict(&good), Ok(Algorithm::ES256));
    let malformed = Denial::MalformedToken(TokenPart::Signature);
    for (name, signature, denial) in [
        ("both zero (CVE-2022-21449)", vec![0; 64], Denial::BadSignature),
        ("r zero", [&[0; 32], s].concat(), Denial::BadSignature),
        ("s zero", [r, &[0; 32]].concat(), Denial::BadSignature),
        ("r the order", [&ORDER, s].concat(), Denial::BadSignature),
        ("s the order", [r, &ORDER].concat(), Denial::BadSignature),
        ("both the order", [ORDER, ORDER].concat(), Denial::BadSignature),
        ("swapped", [s, r].concat(), Denial::BadSignature),
        ("DER", der, malformed.clone()),
        ("a zero behind", [&good[..], &[0]].concat(), malformed.clone()),
        ("a zero before", [&[0], &good[..]].concat(), malformed.clone()),
        ("33 bytes each", [&[0], r, &[0], s].concat(), malformed.clone()),
        ("63 bytes", good[..63].to_vec(), malformed.clone()),
        ("none", Vec::new(), malformed),
    ] {
        assert_eq!(verdict(&signature), Err(denial), "{name}");
    }
}

#[test]
fn an_algorithm_that_is_not_in_the_list_is_refused_though_there_is_a_key_for_it() {
    let secret = [7; 32];
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, &secret).unwrap();
    let message = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
    let signing = jsonwebtoken::EncodingKey::from_secret(&secret);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &signing, jsonwebtoken::Algorithm::HS256).unwrap();
    let token = format!("{message}.{signature}");
    let verdict = |accepted: &[Algorithm]| {
        Jws::read(&token)
            .unwrap()
            .verify(&keys, accepted)
            .map(|key| key.algorithm())
            .map_err(|refused| refused.denial)
    };
    assert_eq!(verdict(&[Algorithm::ES256, Algorithm::HS256]), Ok(Algorithm::HS256));
    assert_eq!(verdict(&[Algorithm::ES256]), Err(Denial::UnsupportedAlgorithm));
    assert_eq!(verdict(&[]), Err(Denial::UnsupportedAlgorithm));
}

#[test]
fn bits_behind_the_last_byte_make_another_spelling_and_are_refused() {
    let secret = [7; 32];
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, &secret).unwrap();
    let signing = jsonwebtoken::EncodingKey::from_secret(&secret);
    // A signature of 32 bytes leaves two bits of its last base64url character unused. The four spellings of that
    // character are adjacent in the alphabet.
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let message = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &signing, jsonwebtoken::Algorithm::HS256).unwrap();
    let (most, last) = signature.split_at(signature.len() - 1);
    let value = ALPHABET.find(last).unwrap();
    assert_eq!(value % 4, 0);
    for (bits, verdict) in (0..4).zip([
        Ok(Algorithm::HS256),
        Err(Denial::MalformedToken(TokenPart::Signature)),
        Err(Denial::MalformedToken(TokenPart::Signature)),
        Err(Denial::MalformedToken(TokenPart::Signature)),
    ]) {
        let token = format!("{message}.{most}{}", &ALPHABET[value + bits..=value + bits]);
        let found =
            Jws::read(&token).and_then(|jws| jws.verify(&keys, &Algorithm::ALL).map(|key| key.algorithm()));
        assert_eq!(found.map_err(|refused| refused.denial), verdict, "{bits}");
    }
}

#[test]
fn a_type_is_compared_without_case_and_prefix_and_never_becomes_an_absent_one() {
    for (text, canonical) in [
        ("JWT", "jwt"),
        ("AT+JWT", "at+jwt"),
        ("application/at+jwt", "at+jwt"),
        ("Application/JWT", "jwt"),
        ("application/x/y", "application/x/y"),
        ("text/jwt", "text/jwt"),
        ("application/", "application/"),
        ("", ""),
    ] {
        assert_eq!(canonical_type(text), canonical, "{text}");
    }
}
