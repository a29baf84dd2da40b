//! Gateways that share the used DPoP proofs through Redis.

use crate::kit::prover::{Prover, bound};
use crate::kit::redis::Redis;
use crate::kit::{ISSUER, Portcullis, Request, eventually, token};

const ROUTES: &str = "[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/any\"\nupstream = \"echo\"\n";

fn gateway(redis: &Redis, more: &str) -> Portcullis {
    let text = format!("{ISSUER}{ROUTES}\n[shared]\nurl = \"{}\"\n{more}", redis.url());
    Portcullis::with(&text).start()
}

fn proofs(gateway: &Portcullis, outcome: &str) -> Option<u64> {
    gateway.metric(&format!(r#"portcullis_shared_proofs_total{{outcome="{outcome}"}}"#))
}

#[test]
fn a_proof_is_accepted_by_one_gateway_only_if_the_gateways_share_them() {
    let redis = Redis::start();
    let (one, two) = (gateway(&redis, "replay = true\n"), gateway(&redis, "replay = true\n"));
    let alone = gateway(&redis, "");
    let prover = Prover::new();
    let own = token("visitor").claim("cnf", prover.confirmation()).to_string();
    let proof = || prover.proof("GET", "/any").token(&own).sign();
    let call =
        |gateway: &Portcullis, proof: &str| bound(Request::get("/any"), &own, proof).to(gateway.http());
    let used = proof();
    call(&one, &used).is(200);
    call(&one, &used).is_refusal(401, "replayed_dpop_proof");
    call(&two, &used).is_refusal(401, "replayed_dpop_proof");
    // The neighbours: another proof, and a gateway that shares nothing.
    call(&two, &proof()).is(200);
    call(&alone, &used).is(200);
    assert_eq!(
        (proofs(&one, "first"), proofs(&two, "first"), proofs(&two, "replayed")),
        (Some(1), Some(1), Some(1))
    );
    // Many attempts at once: one of them is accepted.
    let used = proof();
    let accepted = std::thread::scope(|scope| {
        let gateways = [&one, &two];
        let calls: Vec<_> = (0..8)
            .map(|number| {
                let (address, used, own) = (gateways[number % 2].http(), &used, &own);
                scope.spawn(move || bound(Request::get("/any"), own, used).to(address).status)
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).filter(|status| *status == 200).count()
    });
    assert_eq!(accepted, 1);
    // Redis has a digest, and forgets it when the proof has expired.
    let keys = redis.ask(&["KEYS", "portcullis:proof:*"]);
    assert_eq!(keys.matches("portcullis:proof:").count(), 3, "{keys}");
    assert!(!keys.contains("visitor") && !keys.contains(&own));
    let key = keys.split("portcullis:proof:").nth(1).unwrap()[..32].to_owned();
    let left = redis.ask(&["TTL", &format!("portcullis:proof:{key}")]);
    let seconds = left.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap();
    assert!((1..=80).contains(&seconds), "{left}");
}

#[test]
fn a_nonce_of_one_gateway_is_accepted_by_the_others_with_the_same_secret() {
    let redis = Redis::start();
    let prover = Prover::new();
    let own = token("ada").claim("cnf", prover.confirmation()).to_string();
    let (secret, other) = ("k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc", "9bK2mQx7Lr4TzWc8Vn1Ys5Hd6Jf3Gp0A");
    let with = |keys: &str| gateway(&redis, &format!("replay = true\n[dpop]\nnonce = \"required\"\n{keys}"));
    let one = with(&format!("nonce_secret = \"{secret}\""));
    let two = with(&format!("nonce_secret = \"{secret}\""));
    let changed = with(&format!("nonce_secret = \"{other}\"\nprevious_nonce_secret = \"{secret}\""));
    let without = with("");
    let refused = prover.get("/any", &own).to(one.http());
    refused.is_refusal(401, "use_dpop_nonce");
    let nonce = refused.header("dpop-nonce").expect("a nonce");
    let call = |gateway: &Portcullis| {
        let proof = prover.proof("GET", "/any").token(&own).claim("nonce", nonce).sign();
        bound(Request::get("/any"), &own, &proof).to(gateway.http())
    };
    for gateway in [&one, &two, &changed] {
        call(gateway).is(200);
    }
    call(&without).is_refusal(401, "use_dpop_nonce");
}

#[test]
fn without_an_answer_a_proof_is_refused_or_accepted_as_the_policy_says_and_other_requests_pass() {
    let mut redis = Redis::start();
    let denies = gateway(&redis, "replay = true\n");
    let allows = gateway(&redis, "replay = true\non_error = { replay = \"allow\" }\n");
    let prover = Prover::new();
    let own = token("ada").claim("cnf", prover.confirmation()).to_string();
    redis.kill();
    for gateway in [&denies, &allows] {
        eventually("the breaker is open", || gateway.metric("portcullis_shared_up") == Some(0));
        Request::get("/any").bearer(token("ada").to_string()).to(gateway.http()).is(200);
    }
    prover.get("/any", &own).to(denies.http()).is_refusal(503, "check_unavailable");
    prover.get("/any", &own).to(allows.http()).is(200);
    assert_eq!((proofs(&denies, "denied"), proofs(&allows, "unchecked")), (Some(1), Some(1)));
    let line = denies.wait_log("the refusal", |line| line["reason"] == "check_unavailable");
    assert!(line["detail"].as_str().is_some_and(|why| why.contains("shared state")), "{line}");
    redis.resume();
    eventually("proofs are accepted again", || prover.get("/any", &own).to(denies.http()).status == 200);
}
