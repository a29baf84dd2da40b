//! Keys of issuers by URL under load. Rotations cause no refusals, and floods of invented `kid`s cause few fetches.

use crate::key_urls::{ask, by_url};
use crate::kit::client::Connection;
use crate::kit::key_server::{KeyServer, Signer, set_of};
use crate::kit::upstream::{After, Gate};
use crate::kit::{PATIENCE, Portcullis, Request, eventually, token};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ROTATIONS: usize = 50;

/// Ends the threads of a load on drop, even if the test fails.
struct Ends<'f>(&'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn fifty_rotations_under_load_refuse_not_one_good_token() {
    let first = Signer::new("key 0");
    let server = KeyServer::of(&[&first]);
    let text = by_url(&server).replace("[[issuer]]", "[server]\nworkers = 2\n[[issuer]]");
    let gateway = Portcullis::with(&text).start();
    let address = gateway.http();
    let current = Mutex::new((0, first.clone()));
    let (ends, accepted) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; ROTATIONS + 1]);
    let refused = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let _ends = Ends(&ends);
        for client in 0..3 {
            let (current, ends, accepted, refused) = (&current, &ends, &accepted, &refused);
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                while !ends.load(Ordering::Relaxed) {
                    let (number, signer) = current.lock().unwrap().clone();
                    let good = signer.sign(token(&format!("client {client}")));
                    let answer = Request::get("/x").bearer(good).over(&mut connection);
                    match answer.status {
                        200 => accepted[number].fetch_add(1, Ordering::Relaxed),
                        _ => {
                            refused.lock().unwrap().push((number, answer.text()));
                            connection = Connection::open(address);
                            0
                        }
                    };
                }
            });
        }
        // At the same time, another client sends invented `kid`s.
        scope.spawn(|| {
            let mut connection = Connection::open(address);
            for number in 0.. {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let forged = first.sign_as(&format!("invented {number}"), token("eve"));
                let answer = Request::get("/x").bearer(forged).over(&mut connection);
                assert!(matches!(answer.status, 401 | 503), "{answer:?}");
            }
        });
        let mut last = first.clone();
        for (number, accepted) in accepted.iter().enumerate().skip(1) {
            let next = Signer::new(&format!("key {number}"));
            server.publish(&[&last, &next]);
            *current.lock().unwrap() = (number, next.clone());
            let deadline = Instant::now() + PATIENCE;
            while accepted.load(Ordering::Relaxed) < 10 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            last = next;
        }
    });
    let refused = refused.into_inner().unwrap();
    assert!(refused.is_empty(), "{} refused, such as {:?}", refused.len(), refused.first());
    assert!(accepted.iter().skip(1).all(|count| count.load(Ordering::Relaxed) >= 10), "{accepted:?}");
}

#[test]
fn a_flood_of_invented_kids_causes_few_fetches_and_does_not_slow_good_tokens() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let text = by_url(&server).replace("jwks_cooldown = \"100ms\"", "jwks_cooldown = \"500ms\"");
    let gateway = Portcullis::with(&text).start();
    let address = gateway.http();
    let good = one.sign(token("ada"));
    ask(&gateway, &good).is(200);
    let (fetches, begun) = (server.fetches(), Instant::now());
    let (ends, invented) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut waits = Vec::new();
    std::thread::scope(|scope| {
        let _ends = Ends(&ends);
        for client in 0..16 {
            let (ends, invented, one) = (&ends, &invented, &one);
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                while !ends.load(Ordering::Relaxed) {
                    let number = invented.fetch_add(1, Ordering::Relaxed);
                    let forged = one.sign_as(&format!("{client} {number}"), token("eve"));
                    let answer = Request::get("/x").bearer(forged).over(&mut connection);
                    assert!(matches!(answer.status, 401 | 503), "{answer:?}");
                }
            });
        }
        let mut connection = Connection::open(address);
        while begun.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            Request::get("/x").bearer(&good).over(&mut connection).is(200);
            waits.push(asked.elapsed());
        }
    });
    let (fetched, bound) = (server.fetches() - fetches, begun.elapsed().as_millis() / 500 + 1);
    assert!(fetched as u128 <= bound, "{fetched} fetches, and the cooldown allows {bound}");
    // A valid token waits for no fetch. Fetches are half a second apart. The median does not depend on a pause of the machine.
    waits.sort();
    assert!(waits[waits.len() / 2] < Duration::from_millis(400), "{waits:?}");
}

#[test]
fn a_bounded_number_of_requests_wait_and_the_others_get_retry_after() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server)).start();
    ask(&gateway, &one.sign(token("ada"))).is(200);
    let (gate, keys) = (Gate::new(), set_of(&[&one]).to_string());
    let held = gate.clone();
    server.follow(move |_, wire| {
        held.wait();
        wire.answer("200 OK", "", &keys);
        After::Close
    });
    let mut connections: Vec<Connection> = (0..300).map(|_| Connection::open(gateway.http())).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let forged = one.sign_as(&format!("invented {number}"), token("eve"));
        connection.send(Request::get("/x").bearer(forged).bytes());
    }
    let metric = |sample: &str| gateway.metric(&format!("portcullis_issuer_key_{sample}")).unwrap_or(0);
    let unavailable = "waits_total{issuer=\"https://id.test/\",outcome=\"unavailable\"}";
    eventually("as many wait as may", || {
        metric("waiting{issuer=\"https://id.test/\"}") == 256 && metric(unavailable) == 44
    });
    gate.open();
    let codes: Vec<_> = connections.iter_mut().map(|connection| connection.answer().status).collect();
    assert_eq!(codes.iter().filter(|status| **status == 503).count(), 44, "{codes:?}");
    assert_eq!(codes.iter().filter(|status| **status == 401).count(), 256, "{codes:?}");
    assert_eq!(metric("waiting{issuer=\"https://id.test/\"}"), 0);
}
