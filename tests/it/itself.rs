//! Tests of the test kit. A refusal in another test must not be caused by a faulty kit.

use crate::kit::forge::{self, Algorithm};
use crate::kit::{Connection, Request, Upstream, client, token, upstream::After};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde_json::Value;

#[test]
fn the_forges_good_tokens_verify_with_a_library_that_did_not_make_them() {
    let keys: JwkSet = serde_json::from_value(forge::jwks()).unwrap();
    for (algorithm, name) in [
        (Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
        (Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA),
        (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
        (Algorithm::Hs256, jsonwebtoken::Algorithm::HS256),
    ] {
        let key = match algorithm {
            Algorithm::Hs256 => DecodingKey::from_secret(forge::SECRET.as_bytes()),
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => {
                DecodingKey::from_jwk(keys.find(&algorithm.kid()).unwrap()).unwrap()
            }
        };
        let mut validation = Validation::new(name);
        validation.set_audience(&["orders"]);
        let claims =
            decode::<Value>(token("ada").algorithm(algorithm).sign(), &key, &validation).unwrap().claims;
        assert_eq!(claims["sub"], "ada");
    }
    let pem = DecodingKey::from_rsa_pem(forge::rsa_public_pem().as_bytes()).unwrap();
    let mut validation = Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_audience(&["orders"]);
    decode::<Value>(token("ada").algorithm(Algorithm::Rs256).sign(), &pem, &validation).unwrap();
}

#[test]
fn the_upstream_remembers_what_the_client_sent() {
    let upstream = Upstream::start();
    let address = upstream.to_string().trim_start_matches("http://").parse().unwrap();
    let mut connection = Connection::open(address);
    Request::post("/a?b", "12345").header("X-Two", "1").over(&mut connection).is(200);
    connection.send(
        "PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n",
    );
    assert_eq!(connection.answer().text(), "upstream");
    let seen = upstream.requests();
    assert_eq!((&*seen[0].method, &*seen[0].target, &*seen[0].body), ("POST", "/a?b", &b"12345"[..]));
    assert_eq!((seen[0].header("x-two"), seen[0].complete), (Some("1"), true));
    assert_eq!((&*seen[1].body, seen[1].body_bytes, seen[1].trailers.len()), (&b"abcde"[..], 5, 1));
    assert!(seen[1].mentions("t\", \"1"));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_client_recognises_a_truncated_answer() {
    for (answer, body, complete) in [
        ("content-length: 4\r\n\r\nwhole", "whol", true),
        ("content-length: 5\r\n\r\ncut", "cut", false),
        ("transfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\nt: 1\r\n\r\n", "whole", true),
        ("transfer-encoding: chunked\r\n\r\n3\r\ncut\r\n", "cut", false),
        ("connection: close\r\n\r\nwhole", "whole", true),
    ] {
        let bytes = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n{answer}");
        let upstream = Upstream::with(move |_, wire| {
            wire.send(&bytes);
            After::Close
        });
        let address = upstream.to_string().trim_start_matches("http://").parse().unwrap();
        let got = client::send(address, "GET / HTTP/1.1\r\n\r\n");
        assert_eq!((&*got.text(), got.complete, &*got.interim), (body, complete, &[100][..]), "{answer:?}");
    }
}
