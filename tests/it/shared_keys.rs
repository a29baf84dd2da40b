//! Gateways that share their signing keys through the store.

use crate::kit::account::{self, AUTHORITY, login, refresh};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, write_policy};
use crate::kit::postgres::Postgres;
use crate::kit::{Portcullis, Request, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const SECRET: &str = "9bK2mQx7Lr4TzWc8Vn1Ys5Hd6Jf3Gp0A";
const ANOTHER: &str = "Zt6Xy1Rw8Qe3Up5Io9Ka7Sd2Fg4Hj0Lz";
const ROUTES: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/any\"
upstream = \"echo\"
";

fn policy(url: &str, keys: &str) -> String {
    format!("{AUTHORITY}store = \"{url}\"\nsigning_keys = \"store\"\n{keys}\n{ROUTES}")
}

fn sharing(url: &str) -> String {
    policy(url, "signing_keys_secret = \"file:seal\"")
}

fn start(policy: &str) -> Portcullis {
    Portcullis::with(policy).file("seal", SECRET).file("other", ANOTHER).start()
}

/// Returns the ids in the published key set.
fn published(address: SocketAddr) -> BTreeSet<String> {
    let set = Request::get("/.well-known/jwks.json").to(address).is(200).json();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn key_of(token: &str) -> String {
    use base64::Engine;
    let head = token.split('.').next().unwrap();
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn status(address: SocketAddr, token: &str) -> u16 {
    Request::get("/any").bearer(token).to(address).status
}

#[track_caller]
fn succeeds(finished: &Finished) -> String {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn gateways_accept_each_others_tokens_through_a_rotation_and_the_death_of_one() {
    let policy = sharing(&Postgres::shared().database());
    let (mut one, two) = (start(&policy), start(&policy));
    account::add(two.dir(), "ada", &[]);
    let addresses = [one.http(), two.http()];
    assert_eq!(published(addresses[0]), published(addresses[1]));
    let first = login(addresses[0], "ada");
    let rotated = Mutex::new(None::<String>);
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (from, to) in [(0, 1), (1, 0)] {
            let (rotated, ends) = (&rotated, &ends);
            scope.spawn(move || {
                let mut pair = login(addresses[from], "ada");
                while !ends.load(Ordering::Relaxed) {
                    pair = refresh(addresses[from], &pair.refresh);
                    for address in addresses {
                        assert!(
                            published(address).contains(&key_of(&pair.access)),
                            "published before it signs"
                        );
                    }
                    assert_eq!(status(addresses[to], &pair.access), 200);
                    if rotated.lock().unwrap().as_ref() == Some(&key_of(&pair.access)) {
                        return;
                    }
                }
            });
        }
        let end = Ends(&ends);
        *rotated.lock().unwrap() = Some(succeeds(&command(two.dir(), &["key", "rotate", "--now"])));
        std::mem::forget(end);
    });
    // The tokens of the old key are accepted until they expire.
    assert!(addresses.iter().all(|address| status(*address, &first.access) == 200));

    let last = login(addresses[0], "ada");
    one.signal("KILL");
    one.exit_code();
    assert_eq!(status(addresses[1], &last.access), 200);
    let next = succeeds(&command(two.dir(), &["key", "rotate", "--now"]));
    eventually("the survivor publishes the next key", || published(addresses[1]).contains(&next));
    // A gateway that comes later has the keys of all.
    let three = start(&policy);
    assert_eq!(published(three.http()), published(addresses[1]));
    for token in [&first.access, &last.access, &login(addresses[1], "ada").access] {
        assert_eq!(status(three.http(), token), 200);
    }
    assert!(!two.dir().path().join("state").join("signing-key.lock").exists(), "no key is a file");
}

/// Ends the loops of a test that fails.
struct Ends<'f>(&'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_revoked_key_is_refused_by_every_gateway_and_its_private_half_is_gone() {
    let url = Postgres::shared().database();
    let policy = sharing(&url);
    let gateways = [start(&policy), start(&policy)];
    account::add(gateways[0].dir(), "ada", &[]);
    let old = login(gateways[0].http(), "ada").access;
    succeeds(&command(gateways[0].dir(), &["key", "revoke", &key_of(&old)]));
    for gateway in &gateways {
        eventually("the key is refused", || status(gateway.http(), &old) == 401);
    }
    let new = login(gateways[1].http(), "ada").access;
    eventually("the new key is accepted", || status(gateways[0].http(), &new) == 200);
    let database = url.rsplit('/').next().unwrap();
    let left = Postgres::shared().sql(database, "SELECT count(*) FROM signing_keys WHERE sealed IS NOT NULL");
    assert_eq!(left.trim(), "1");
    let listed = command(gateways[1].dir(), &["key", "list"]).stdout;
    assert!(listed.contains("revoked") && listed.contains(&key_of(&new)), "{listed}");
}

#[test]
fn the_secret_of_the_keys_is_changed_while_all_gateways_serve() {
    let url = Postgres::shared().database();
    let gateway = start(&sharing(&url));
    account::add(gateway.dir(), "ada", &[]);
    let token = login(gateway.http(), "ada").access;
    // A gateway with another secret does not start, and reports which key it cannot read.
    let dir = Dir::new();
    write_policy(&dir, &policy(&url, "signing_keys_secret = \"file:other\""));
    dir.write("other", ANOTHER);
    let refused = command(&dir, &["run"]);
    assert!(
        refused.code != Some(0) && refused.text().contains("encrypted with another secret"),
        "{refused:?}"
    );
    assert!(!refused.text().contains(ANOTHER), "{refused:?}");
    // With both secrets it reads the keys, and encrypts them again.
    let both = "signing_keys_secret = \"file:other\"\nother_signing_keys_secret = \"file:seal\"";
    let second = start(&policy(&url, both));
    assert_eq!(status(second.http(), &token), 200);
    assert!(command(second.dir(), &["key", "reseal"]).text().contains(&key_of(&token)));
    let third = start(&policy(&url, "signing_keys_secret = \"file:other\""));
    assert_eq!(status(third.http(), &token), 200);
    // The first gateway can no longer read the keys. Those in its memory stay in use.
    gateway.wait_log("the fault is logged", |line| {
        line["why"].as_str().unwrap_or("").contains("another secret")
    });
    assert_eq!(status(gateway.http(), &login(second.http(), "ada").access), 200);
    assert!(gateway.metric("portcullis_signing_key_faults_total").unwrap() > 0);
}

#[test]
fn a_check_of_the_policy_needs_no_database() {
    let dir = Dir::new();
    write_policy(&dir, &sharing("postgres://ada@127.0.0.1:1/portcullis"));
    dir.write("seal", SECRET);
    dir.set_mode("seal", 0o600);
    let checked = command(&dir, &["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let listed = command(&dir, &["key", "list"]);
    assert!(listed.code != Some(0) && listed.text().contains("127.0.0.1:1"), "{listed:?}");
    for (keys, what) in [
        ("", "signing_keys_secret"),
        ("signing_keys_secret = \"file:short\"", "fewer than 32 bytes"),
        ("algorithm = \"HS256\"\nsecret = \"file:seal\"\nsigning_keys_secret = \"file:seal\"", "HS256"),
    ] {
        write_policy(&dir, &policy("postgres://ada@127.0.0.1:1/portcullis", keys));
        dir.write("short", "short");
        let checked = command(&dir, &["check"]);
        assert!(checked.code != Some(0) && checked.text().contains(what), "{keys}: {checked:?}");
    }
    let text = format!("{AUTHORITY}signing_keys_secret = \"file:seal\"\n{ROUTES}");
    write_policy(&dir, &text);
    let checked = command(&dir, &["check"]);
    assert!(checked.text().contains("useless_key"), "{checked:?}");
}
