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
    let own = token("ada").claim("cnf", prover.confirmation()).to_string();
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
    assert!(!keys.contains("ada") && !keys.contains(&own));
    let key = keys.split("portcullis:proof:").nth(1).unwrap()[..32].to_owned();
    let left = redis.ask(&["TTL", &format!("portcullis:proof:{key}")]);
    let seconds = left.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap();
    assert!((1..=80).contains(&seconds), "{left}");
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
