//! No text in place of a key set makes the parser panic, and a key has an algorithm that the policy accepts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::{Algorithm, KeySet};

fuzz_target!(|text: &[u8]| {
    let one = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    for accepted in [&Algorithm::ALL[..], &Algorithm::ALL[3..], &one, &[Algorithm::HS512]] {
        if let Ok((set, skipped)) = KeySet::from_jwks(text, accepted) {
            let count = set.iter().count();
            assert!((1..=100).contains(&count) && count + skipped.len() <= 100);
            assert!(set.iter().all(|key| accepted.contains(&key.algorithm())));
            assert!(set.is_same(&set.clone()));
            // A set for public keys has no secret, whatever it says of its keys.
            let secrets = set.iter().filter(|key| key.algorithm().has_secret()).count();
            assert!(secrets == 0 || accepted.iter().all(|algorithm| algorithm.has_secret()));
        }
    }
    let mut set = KeySet::default();
    let _ = set.add_pem(Some("k"), text, &one);
    let _ = set.add_secret(None, Algorithm::HS256, text);
});
