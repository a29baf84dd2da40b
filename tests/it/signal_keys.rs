//! Signals with a new key: a transmitter that rotates its keys loses no signal.

use crate::key_urls::{LOCAL, ROUTE, ask};
use crate::kit::forge::{Token, now};
use crate::kit::key_server::{KeyServer, Signer, set_of};
use crate::kit::upstream::After;
use crate::kit::{Answer, Portcullis, Request, Upstream, eventually, token};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Returns a policy with a receiver of signals. `keys`: the issuer's keys.
fn policy(keys: &str, signals: &str) -> String {
    format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\n{keys}\n{ROUTE}
[signals.idp]
issuer   = \"https://id.test/\"
audience = \"https://gateway.test\"
push     = \"/signals/idp\"
logout   = \"/signals/idp/logout\"
{signals}"
    )
}

fn by_url(server: impl std::fmt::Display, signals: &str) -> String {
    policy(&format!("jwks = \"{server}/jwks\"\n{LOCAL}"), signals)
}

/// Returns an event that ends the sessions of a user.
fn event(id: &str, subject: &str) -> Token {
    let revoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    token("x")
        .without("sub")
        .without("exp")
        .member("typ", json!("secevent+jwt"))
        .claim("aud", json!("https://gateway.test"))
        .claim("jti", json!(id))
        .claim("sub_id", json!({ "format": "iss_sub", "iss": "https://id.test/", "sub": subject }))
        .claim("events", json!({ revoked: { "event_timestamp": now() } }))
}

fn old(subject: &str) -> Token {
    token(subject).claim("iat", json!(now() - 60))
}

fn push(gateway: &Portcullis, set: &str) -> Answer {
    Request::post("/signals/idp", set).header("content-type", "application/secevent+jwt").to(gateway.http())
}

fn log_out(gateway: &Portcullis, token: &str) -> Answer {
    Request::post("/signals/idp/logout", format!("logout_token={token}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .to(gateway.http())
}

fn outcome(gateway: &Portcullis, name: &str) -> Option<u64> {
    gateway.metric(&format!(r#"portcullis_signals_total{{signals="idp",outcome="{name}"}}"#))
}

#[test]
fn the_first_signal_after_a_rotation_waits_for_the_new_key() {
    let (one, two, three) = (Signer::new("1"), Signer::new("2"), Signer::new("3"));
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server, "")).start();
    push(&gateway, &one.sign(event("1", "eve"))).is(202);

    server.publish(&[&one, &two]);
    push(&gateway, &two.sign(event("2", "ada"))).is(202);
    ask(&gateway, &one.sign(old("ada"))).is_refusal(401, "revoked_token");

    server.publish(&[&one, &three]);
    let logout = token("bob")
        .member("typ", json!("logout+jwt"))
        .claim("aud", json!("https://gateway.test"))
        .claim("jti", json!("3"))
        .claim("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} }));
    log_out(&gateway, &three.sign(logout)).is(200);
    ask(&gateway, &one.sign(old("bob"))).is_refusal(401, "revoked_token");
    assert_eq!((outcome(&gateway, "accepted"), outcome(&gateway, "rejected")), (Some(3), Some(0)));
}

#[test]
fn a_signal_by_nobody_is_refused_after_one_fetch_and_one_for_another_receiver_at_once() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server, "")).start();
    push(&gateway, &one.sign(event("1", "eve"))).is(202);
    let fetches = server.fetches();
    let elsewhere = two.sign(event("2", "ada").claim("aud", json!("https://other.test")));
    assert_eq!(push(&gateway, &elsewhere).is(400).json()["err"], "invalid_key");
    assert_eq!(server.fetches(), fetches);
    for _ in 0..2 {
        assert_eq!(push(&gateway, &two.sign(event("2", "ada"))).is(400).json()["err"], "invalid_key");
    }
    assert_eq!(server.fetches(), fetches + 1);
    ask(&gateway, &one.sign(old("ada"))).is(200);
}

#[test]
fn while_the_key_cannot_be_looked_up_the_transmitter_repeats_its_signal() {
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let gateway = Portcullis::with(&by_url(&server, "")).start();
    push(&gateway, &one.sign(event("1", "eve"))).is(202);
    server.answer("500 Internal Server Error", "", "");
    let set = two.sign(event("2", "ada"));
    let answer = push(&gateway, &set);
    assert_eq!(answer.is(503).json()["err"], "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(outcome(&gateway, "deferred"), Some(1));
    server.publish(&[&one, &two]);
    eventually("the repeated signal is accepted", || push(&gateway, &set).status == 202);
    ask(&gateway, &one.sign(old("ada"))).is_refusal(401, "revoked_token");
}

#[test]
fn a_transmitter_has_its_own_keys_by_url() {
    let (user, one, two) = (Signer::new("u"), Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let signals = format!(
        "transmitter = \"https://ssf.test\"\njwks = \"{server}/ssf\"\nallow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\n"
    );
    let text = policy("jwks = \"user.json\"\njwks_cooldown = \"100ms\"\n", &signals);
    let gateway = Portcullis::with(&text).file("user.json", set_of(&[&user]).to_string()).start();
    let event = |id: &str, subject: &str| event(id, subject).claim("iss", json!("https://ssf.test"));
    push(&gateway, &one.sign(event("1", "ada"))).is(202);
    ask(&gateway, &user.sign(old("ada"))).is_refusal(401, "revoked_token");
    assert_eq!(push(&gateway, &user.sign(event("2", "bob"))).is(400).json()["err"], "invalid_key");
    server.publish(&[&two]);
    push(&gateway, &two.sign(event("3", "bob"))).is(202);
    ask(&gateway, &user.sign(old("bob"))).is_refusal(401, "revoked_token");
    assert_eq!(push(&gateway, &one.sign(event("4", "eve"))).is(400).json()["err"], "invalid_key");
    assert_eq!(gateway.metric("portcullis_issuer_keys{signals=\"idp\"}"), Some(1));
    let keys = Request::get("/keys").to(gateway.admin()).json();
    let named = |entry: &&Value| entry["signals"] == "idp";
    let listed = keys["issuers"].as_array().unwrap().iter().find(named).unwrap().clone();
    assert_eq!((&listed["keys"][0]["kid"], listed["source"].is_object()), (&json!("2"), true));

    // A reload keeps the keys, even if they cannot be fetched.
    server.answer("500 Internal Server Error", "", "");
    Request::post("/reload", "").to(gateway.admin()).is(200);
    push(&gateway, &two.sign(event("5", "eve"))).is(202);
    // A restart keeps the keys too.
    let dir = gateway.dir().clone();
    gateway.stop();
    let gateway = Portcullis::with(&text).within(dir).start();
    push(&gateway, &two.sign(event("6", "kim"))).is(202);
}

#[test]
fn the_metrics_of_an_issuer_and_a_signals_table_of_the_same_name_differ() {
    let (one, two, three) = (Signer::new("1"), Signer::new("2"), Signer::new("3"));
    let (of_signals, of_issuer) = (KeyServer::of(&[&one]), KeyServer::of(&[&two, &three]));
    let signals = format!(
        "transmitter = \"https://ssf.test\"\njwks = \"{of_signals}/ssf\"\nallow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\n"
    );
    let issuer = format!(
        "[[issuer]]\nissuer = \"signals:idp\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\njwks = \"{of_issuer}/jwks\"\n{LOCAL}"
    );
    let text = format!("{issuer}{}", policy("jwks = \"user.json\"\n", &signals));
    let gateway = Portcullis::with(&text).file("user.json", set_of(&[&one]).to_string()).start();
    let keys = |label: &str| gateway.metric(&format!("portcullis_issuer_keys{{{label}}}"));
    eventually("the keys are fetched", || keys("signals=\"idp\"") == Some(1));
    eventually("those of the issuer too", || keys("issuer=\"signals:idp\"") == Some(2));
    let status = Request::get("/readyz?verbose").to(gateway.admin()).text();
    assert!(
        status.contains("keys: [signals.idp]: 1,") && status.contains("keys: signals:idp: 2,"),
        "{status}"
    );
    let event = event("1", "ada").claim("iss", json!("https://ssf.test"));
    assert_eq!(push(&gateway, &two.sign(event)).is(400).json()["err"], "invalid_key");
    ask(&gateway, &two.sign(token("ada").claim("iss", json!("signals:idp")))).is(200);
}

/// The signals that a transmitter holds, and the polls that it received.
#[derive(Default)]
struct Stream {
    queue: Vec<(String, String)>,
    polls: Vec<Value>,
}

fn transmitter(stream: Arc<Mutex<Stream>>) -> Upstream {
    Upstream::with(move |_, wire| {
        wire.read_body();
        let body: Value = serde_json::from_slice(&wire.seen().body).unwrap_or_default();
        let mut stream = stream.lock().unwrap();
        let acknowledged = body["ack"].as_array().cloned().unwrap_or_default();
        let refused = body["setErrs"].as_object().cloned().unwrap_or_default();
        stream.queue.retain(|(id, _)| !acknowledged.contains(&json!(id)) && !refused.contains_key(id));
        let sets: serde_json::Map<_, _> =
            stream.queue.iter().map(|(id, set)| (id.clone(), json!(set))).collect();
        stream.polls.push(body);
        wire.answer("200 OK", "content-type: application/json\r\n", json!({ "sets": sets }).to_string());
        After::Keep
    })
}

#[test]
fn a_polled_signal_waits_at_the_transmitter_for_its_key_and_others_do_not_wait_for_it() {
    let (one, two, nobody) = (Signer::new("1"), Signer::new("2"), Signer::new("3"));
    let server = KeyServer::of(&[&one]);
    let stream: Arc<Mutex<Stream>> = Arc::default();
    let polled = transmitter(stream.clone());
    let signals =
        format!("poll = \"{polled}/poll\"\nallow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\n");
    let gateway = Portcullis::with(&by_url(&server, &signals)).start();
    ask(&gateway, &one.sign(old("ada"))).is(200);
    server.answer("500 Internal Server Error", "", "");
    stream.lock().unwrap().queue = vec![
        ("1".to_owned(), two.sign(event("1", "ada"))),
        ("2".to_owned(), one.sign(event("2", "bob"))),
        ("3".to_owned(), nobody.sign(event("3", "eve"))),
    ];
    let bob = one.sign(old("bob"));
    eventually("the other signal is in force", || ask(&gateway, &bob).status == 401);
    let queue = || stream.lock().unwrap().queue.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    eventually("the other signal is acknowledged", || queue() == ["1", "3"]);
    let polls = || stream.lock().unwrap().polls.len();
    let before = polls();
    eventually("the signals are returned again", || polls() > before + 1);
    assert_eq!(queue(), ["1", "3"], "they are neither acknowledged nor refused");
    ask(&gateway, &one.sign(old("ada"))).is(200);

    server.publish(&[&one, &two]);
    let ada = one.sign(old("ada"));
    eventually("the signal is in force", || ask(&gateway, &ada).status == 401);
    eventually("each is settled", || queue().is_empty());
    let polls = stream.lock().unwrap().polls.clone();
    let refused: Vec<_> = polls.iter().filter(|poll| poll["setErrs"] != json!({})).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["setErrs"]["3"]["err"], "invalid_key");
    ask(&gateway, &one.sign(old("eve"))).is(200);
    assert!(outcome(&gateway, "deferred") >= Some(4));
    assert_eq!((outcome(&gateway, "accepted"), outcome(&gateway, "rejected")), (Some(2), Some(1)));
}
