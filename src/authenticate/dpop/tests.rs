use super::*;
use crate::authenticate::digest_of;
use crate::authenticate::keys::{Algorithm, Sign, pair};
use crate::peer::Scheme;
use crate::route::Head;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;
const TOKEN: &str = "a.b.c";

/// A client's key, which signs proofs.
struct Client {
    algorithm: &'static str,
    jwk: Value,
    sign: Sign,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Client {
    fn new(algorithm: &'static str) -> Self {
        let (sign, jwk, _) = pair(algorithm.parse().unwrap());
        Self { algorithm, jwk, sign }
    }

    fn es256() -> Self {
        Self::new("ES256")
    }

    fn header(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk })
    }

    fn proof(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = (self.sign)(message.as_bytes());
        format!("{message}.{}", b64(signature))
    }

    fn thumbprint(&self) -> Thumbprint {
        let jwk = self.jwk.as_object().unwrap();
        match key::ProofKey::read(jwk, self.algorithm) {
            Ok(key) => key.thumbprint,
            Err(_) => panic!("a key of the test"),
        }
    }
}

fn claims(id: &str) -> Value {
    json!({
        "jti": id, "htm": "GET", "htu": "https://api.example/orders", "iat": NOW, "ath": b64(digest_of(TOKEN)),
    })
}

fn verify_fields(
    dpop: &Dpop,
    fields: &[&str],
    key: &Thumbprint,
    now: u64,
) -> Result<Thumbprint, CredentialError> {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(DPOP, field.parse().unwrap());
    }
    let head = Head {
        method: &Method::GET,
        host: Some("api.example".into()),
        port: None,
        path: "/orders".into(),
        query: Some("a=b"),
        headers: &headers,
    };
    let credentials = Credentials::new(&head, Scheme::Https);
    dpop.verify(&credentials, Some((&digest_of(TOKEN), key)), Now::at(now))
}

fn verify(dpop: &Dpop, client: &Client, header: &Value, claims: &Value, now: u64) -> Result<(), Denial> {
    let proof = client.proof(header, claims);
    verify_fields(dpop, &[&proof], &client.thumbprint(), now).map(|_| ()).map_err(|refused| refused.denial)
}

#[test]
fn a_proof_of_each_algorithm_is_accepted_once() {
    let dpop = Dpop::default();
    for (at, algorithm) in algorithms().split(' ').enumerate() {
        let client = Client::new(algorithm);
        // The test uses one RSA key for several algorithms.
        let (header, claims) = (client.header(), claims(algorithm));
        assert_eq!(verify(&dpop, &client, &header, &claims, NOW), Ok(()), "{algorithm}");
        assert_eq!(verify(&dpop, &client, &header, &claims, NOW), Err(Denial::ReplayedProof));
        assert_eq!(dpop.remembered(), at + 1);
        let (mut short, mut other) = (client.proof(&header, &claims), client.proof(&header, &claims));
        short.truncate(short.len() - 4);
        let last = other.rfind('.').unwrap() + 9;
        other.replace_range(last..=last, if &other[last..=last] == "A" { "B" } else { "A" });
        for forged in [&*short, &other] {
            let refused = verify_fields(&dpop, &[forged], &client.thumbprint(), NOW).unwrap_err();
            assert_eq!(refused.denial, Denial::InvalidProof(ProofFault::Signature), "{algorithm}");
        }
    }
    let all = algorithms().split(' ').count() as u64;
    assert_eq!(all, 1 + Algorithm::ALL.into_iter().filter(|it| !it.has_secret()).count() as u64);
    assert_eq!((dpop.count(ProofOutcome::Accepted), dpop.count(ProofOutcome::Replayed)), (all, all));
}

#[test]
fn the_example_of_the_standard_is_accepted() {
    // RFC 9449 section 7.1.
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    const KEY: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let ask = |method: &Method, host: &'static str, token: &str, now| {
        let mut headers = HeaderMap::new();
        headers.append(DPOP, PROOF.parse().unwrap());
        let path = "/protectedresource".into();
        let head = Head { method, host: Some(host.into()), port: None, path, query: None, headers: &headers };
        let credentials = Credentials::new(&head, Scheme::Https);
        let key = KEY.parse().unwrap();
        let verified = Dpop::default().verify(&credentials, Some((&digest_of(token), &key)), Now::at(now));
        verified.map(|key| key.to_string()).map_err(|refused| refused.denial)
    };
    let (get, host, now) = (&Method::GET, "resource.example.org", 1_562_262_618);
    assert_eq!(ask(get, host, TOKEN, now), Ok(KEY.to_owned()));
    let invalid = |fault| Err(Denial::InvalidProof(fault));
    assert_eq!(ask(&Method::POST, host, TOKEN, now), invalid(ProofFault::Method));
    assert_eq!(ask(get, "other.example.org", TOKEN, now), invalid(ProofFault::Target));
    assert_eq!(ask(get, host, "another", now), invalid(ProofFault::Token));
    assert_eq!(ask(get, host, TOKEN, now + 61), Err(Denial::UseDpopNonce));
}

#[test]
fn each_bad_proof_is_refused_with_its_reason_and_not_remembered() {
    let (dpop, client) = (Dpop::default(), Client::es256());
    let invalid = Denial::InvalidProof;
    let header_with = |name: &str, value: Value| {
        let mut header = client.header();
        header[name] = value;
        header
    };
    for (name, value, fault) in [
        ("typ", json!("JWT"), ProofFault::Type),
        ("typ", json!("dpop"), ProofFault::Type),
        ("typ", json!(null), ProofFault::Type),
        ("typ", json!(7), ProofFault::Type),
        ("alg", json!("none"), ProofFault::Algorithm),
        ("alg", json!("HS256"), ProofFault::Algorithm),
        ("alg", json!(null), ProofFault::Algorithm),
        ("alg", json!("ES384"), ProofFault::Key),
        ("jwk", json!(null), ProofFault::Key),
        ("jwk", json!("key"), ProofFault::Key),
        ("jwk", json!({}), ProofFault::Key),
        ("jwk", json!({ "kty": "oct", "k": "AAAA" }), ProofFault::Key),
        ("jwk", Client::es256().jwk, ProofFault::OtherKey),
        ("crit", json!(["exp"]), ProofFault::Form),
        ("zip", json!("DEF"), ProofFault::Form),
    ] {
        let header = header_with(name, value.clone());
        assert_eq!(verify(&dpop, &client, &header, &claims("1"), NOW), Err(invalid(fault)), "{name} {value}");
    }
    for (name, value, refused) in [
        ("jti", json!(null), invalid(ProofFault::Claims)),
        ("jti", json!(""), invalid(ProofFault::Claims)),
        ("jti", json!(7), invalid(ProofFault::Claims)),
        ("htm", json!(null), invalid(ProofFault::Claims)),
        ("htm", json!("POST"), invalid(ProofFault::Method)),
        ("htm", json!("get"), invalid(ProofFault::Method)),
        ("htu", json!(null), invalid(ProofFault::Claims)),
        ("htu", json!("https://api.example/"), invalid(ProofFault::Target)),
        ("htu", json!("http://api.example/orders"), invalid(ProofFault::Target)),
        ("htu", json!("/orders"), invalid(ProofFault::Target)),
        ("iat", json!(null), invalid(ProofFault::Claims)),
        ("iat", json!("1700000000"), invalid(ProofFault::Claims)),
        ("iat", json!(-1), invalid(ProofFault::Claims)),
        ("iat", json!(NOW - 61), Denial::UseDpopNonce),
        ("iat", json!(NOW + AHEAD + 1), Denial::UseDpopNonce),
        ("iat", json!(NOW * 1000), Denial::InvalidProof(ProofFault::Claims)),
        ("ath", json!(null), invalid(ProofFault::Token)),
        ("ath", json!(""), invalid(ProofFault::Token)),
        ("ath", json!(b64(digest_of("another"))), invalid(ProofFault::Token)),
        ("ath", json!(TOKEN), invalid(ProofFault::Token)),
        ("nonce", json!(7), invalid(ProofFault::Claims)),
        ("nonce", json!("of another server"), Denial::UseDpopNonce),
    ] {
        let mut claims = claims("1");
        claims[name] = value.clone();
        assert_eq!(verify(&dpop, &client, &client.header(), &claims, NOW), Err(refused), "{name} {value}");
    }
    let good = client.proof(&client.header(), &claims("1"));
    let other = client.proof(&client.header(), &claims("2"));
    let key = client.thumbprint();
    let fields = |fields: &[&str]| {
        verify_fields(&dpop, fields, &key, NOW).map(|_| ()).map_err(|refused| refused.denial)
    };
    let (message, signature) = (good.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
    let long = format!("{good}{}", "A".repeat(12 * 1024));
    for (sent, fault) in [
        (&[][..], ProofFault::Missing),
        (&[&*good, &*good], ProofFault::Repeated),
        (&[&good, ""], ProofFault::Repeated),
        (&[""], ProofFault::Form),
        (&["a.b"], ProofFault::Form),
        (&[message], ProofFault::Form),
        (&[&format!("{good}, {other}")], ProofFault::Form),
        (&[&long], ProofFault::Form),
        (&[&format!("{message}.{signature}")], ProofFault::Signature),
        (&[&format!("{message}.")], ProofFault::Signature),
        (&[&good[..good.len() - 2]], ProofFault::Signature),
        (&[&format!("{good}=")], ProofFault::Signature),
    ] {
        let lengths: Vec<usize> = sent.iter().map(|field| field.len()).collect();
        assert_eq!(fields(sent), Err(invalid(fault)), "{lengths:?}");
    }
    assert_eq!(dpop.remembered(), 0, "a flood of bad proofs fills nothing");
    assert_eq!(fields(&[&good]), Ok(()), "the neighbour of all of them");
}

#[test]
fn a_nonce_of_the_gateway_says_when_a_proof_was_created_and_may_be_required() {
    let client = Client::es256();
    let settings = |requires_nonce| DpopSettings { requires_nonce, ..DpopSettings::default() };
    for required in [false, true] {
        let dpop = Dpop::new(settings(required));
        let nonce = dpop.nonce(Now::at(NOW));
        let with = |id: &str, nonce: Option<&str>, iat: u64| {
            let mut claims = claims(id);
            claims["iat"] = iat.into();
            if let Some(nonce) = nonce {
                claims["nonce"] = nonce.into();
            }
            claims
        };
        let nonce = nonce.to_str().unwrap();
        let ask = |claims: &Value, now| verify(&dpop, &client, &client.header(), claims, now);
        assert_eq!(ask(&with("1", None, NOW), NOW).is_ok(), !required);
        assert_eq!(ask(&with("2", Some(nonce), NOW), NOW), Ok(()));
        assert_eq!(ask(&with("3", Some(nonce), 1), NOW + 60), Ok(()), "a client whose clock is wrong");
        assert_eq!(ask(&with("4", Some(nonce), NOW + 61), NOW + 61), Err(Denial::UseDpopNonce), "too old");
        let other = Dpop::new(settings(required)).nonce(Now::at(NOW));
        let other = with("5", Some(other.to_str().unwrap()), NOW);
        assert_eq!(ask(&other, NOW), Err(Denial::UseDpopNonce), "of another gateway");
        assert_eq!(ask(&with("2", Some(nonce), NOW), NOW), Err(Denial::ReplayedProof));
    }
}

#[test]
fn gateways_accept_the_nonces_of_each_other_while_the_secret_is_replaced() {
    let client = Client::es256();
    let (old, new) = ([7; 32], [8; 32]);
    let gateway = |secret: &[u8], previous: Option<&[u8]>| {
        Dpop::new(DpopSettings {
            requires_nonce: true,
            nonce_key: Some(NonceKey::of(secret)),
            previous_nonce_key: previous.map(NonceKey::of),
            ..DpopSettings::default()
        })
    };
    // The steps of a key change: both gateways accept the new secret, both issue with it, both forget the old secret.
    let steps =
        [gateway(&old, None), gateway(&old, Some(&new)), gateway(&new, Some(&old)), gateway(&new, None)];
    for (issues, issuer) in steps.iter().enumerate() {
        for (accepts, other) in steps.iter().enumerate() {
            let mut claims = claims(&format!("{issues} {accepts}"));
            claims["nonce"] = issuer.nonce(Now::at(NOW)).to_str().unwrap().into();
            let accepted = verify(other, &client, &client.header(), &claims, NOW);
            let is_known = match accepts {
                0 => issues < 2,
                3 => issues >= 2,
                _ => true,
            };
            let expected = if is_known { Ok(()) } else { Err(Denial::UseDpopNonce) };
            assert_eq!(accepted, expected, "issued in step {issues}, used in step {accepts}");
        }
    }
}

#[test]
fn accepted_proofs_outlive_a_reload_and_explanations_consume_none() {
    let client = Client::es256();
    let dpop = Dpop::default();
    dpop.begin(Now::at(NOW));
    let (header, mut first) = (client.header(), claims("1"));
    first["iat"] = (NOW + AHEAD).into();
    let observing = dpop.observing();
    assert_eq!(verify(&observing, &client, &header, &first, NOW), Ok(()));
    assert_eq!(verify(&observing, &client, &header, &first, NOW), Ok(()));
    assert_eq!(verify(&dpop, &client, &header, &first, NOW), Ok(()));
    assert_eq!(verify(&observing, &client, &header, &first, NOW), Err(Denial::ReplayedProof));
    let reloaded = Dpop::new(DpopSettings { window: 30, ..DpopSettings::default() }).carry_over(&dpop);
    assert_eq!(verify(&reloaded, &client, &header, &first, NOW), Err(Denial::ReplayedProof));
    let mut before = claims("2");
    before["iat"] = (NOW + AHEAD - 1).into();
    assert_eq!(verify(&dpop, &client, &header, &before, NOW), Err(Denial::UseDpopNonce), "before the start");
    assert_eq!(dpop.count(ProofOutcome::Accepted), 1);
}
