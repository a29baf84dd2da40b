//! The ends of WebSockets and of long answers: the token expires or is revoked, nobody sends or reads, the gateway
//! stops.

use crate::key_urls::by_url;
use crate::keys::key_in;
use crate::kit::account::{AUTHORITY, add, login};
use crate::kit::client::Connection;
use crate::kit::forge::{ISSUER, issuer_without_leeway, now};
use crate::kit::key_server::{KeyServer, Signer};
use crate::kit::portcullis::{command, write_policy};
use crate::kit::upstream::{After, ClosedPort, Gate};
use crate::kit::websocket::{
    accepting, close, echoed, handshake, masked, opened, scripted, service, unmasked,
};
use crate::kit::{Portcullis, Request, Upstream, eventually, token};
use crate::signals::SIGNALS;
use serde_json::json;
use std::time::{Duration, Instant};

/// The forge's issuer without leeway, and routes for WebSockets and for answers.
fn policy(upstream: &Upstream, tables: &str) -> String {
    let issuer = issuer_without_leeway();
    format!("{issuer}\n[upstream.app]\nservers = [\"{upstream}\"]\n{ROUTES}{tables}")
}

const ROUTES: &str = r#"
[[route]]
name      = "bound"
path      = "/bound/{*rest}"
upstream  = "app"
websocket = true

[[route]]
name      = "unbound"
path      = "/unbound/{*rest}"
upstream  = "app"
websocket = true
streams   = "open"

[[route]]
name      = "silent"
path      = "/silent/{*rest}"
upstream  = "app"
websocket = true
silence   = "1s"
"#;

fn gateway(upstream: &Upstream, tables: &str) -> Portcullis {
    Portcullis::with(&policy(upstream, tables)).start()
}

/// Returns a token that expires in two to three seconds.
fn short() -> String {
    token("ada").claim("exp", json!(now() + 3)).to_string()
}

fn ended(gateway: &Portcullis, kind: &str, reason: &str) -> Option<u64> {
    gateway.metric(&format!("portcullis_streams_ended_total{{kind=\"{kind}\",reason=\"{reason}\"}}"))
}

#[test]
fn a_websocket_ends_with_its_token_and_both_ends_get_the_reason() {
    let gate = Gate::new();
    let reported = gate.clone();
    let service = scripted(move |_, wire| {
        // The client's message, and then the gateway's close frame: masked, with the code and the reason.
        let _ = wire.take(masked(0x81, b"hello").len());
        if wire.take(TOLD).is_ok_and(|frame| frame.starts_with(&[0x88, 0x80 | 15])) {
            reported.open();
        }
        After::Close
    });
    let gateway = gateway(&service, "");
    let mut connection = Connection::open(gateway.http());
    let answer = opened(&mut connection, &handshake("/bound/a").bearer(short()));
    connection.send(masked(0x81, b"hello"));
    let expected = close(3000, "token_expired");
    assert_eq!(connection.take(expected.len()), expected);
    gate.wait();
    connection.send(masked(0x88, &3000_u16.to_be_bytes()));
    connection.is_closed();
    let line = gateway.access_line(&answer);
    assert_eq!((&line["ended"], &line["complete"]), (&"token_expired".into(), &false.into()), "{line}");
    assert_eq!(ended(&gateway, "websocket", "token_expired"), Some(1));
}

/// The length of the gateway's close frame to a service whose caller's token has expired.
const TOLD: usize = 2 + 4 + 2 + "token_expired".len();

#[test]
fn the_close_frame_follows_a_whole_frame() {
    let frame = unmasked(0x82, &[7; 300]);
    let halves = frame.clone();
    let service = scripted(move |_, wire| {
        wire.send(&halves[..150]);
        if wire.take(TOLD).is_ok() {
            wire.send(&halves[150..]);
            wire.send(unmasked(0x82, &[8; 300]));
            wire.peer_left();
        }
        After::Close
    });
    let gateway = gateway(&service, "");
    let mut connection = Connection::open(gateway.http());
    opened(&mut connection, &handshake("/bound/a").bearer(short()));
    let expected = [frame, close(3000, "token_expired")].concat();
    assert_eq!(connection.rest(), expected, "the frame that had begun, and no other");
}

#[test]
fn a_frame_that_never_ends_delays_the_end_for_two_seconds_at_most() {
    let service = scripted(|_, wire| {
        wire.send(&unmasked(0x82, &[7; 300])[..150]);
        wire.peer_left();
        After::Close
    });
    let gateway = gateway(&service, "");
    let mut connection = Connection::open(gateway.http());
    opened(&mut connection, &handshake("/bound/a").bearer(short()));
    assert_eq!(connection.rest(), &unmasked(0x82, &[7; 300])[..150]);
    eventually("the end is counted", || ended(&gateway, "websocket", "token_expired") == Some(1));
}

#[test]
fn a_revocation_reaches_an_open_websocket_and_a_route_may_let_it_go_on() {
    let service = service();
    let gateway = gateway(&service, AUTHORITY);
    add(gateway.dir(), "ada", &[]);
    let pair = login(gateway.http(), "ada");
    let mut bound = Connection::open(gateway.http());
    let mut unbound = Connection::open(gateway.http());
    opened(&mut bound, &handshake("/bound/a").bearer(&pair.access));
    opened(&mut unbound, &handshake("/unbound/a").bearer(&pair.access));
    assert_eq!(echoed(&mut bound, "hello"), "hello");
    Request::post("/auth/logout-all", "").bearer(&pair.access).to(gateway.http()).is(204);
    assert_eq!(bound.rest(), close(1008, "token_revoked"));
    assert_eq!(echoed(&mut unbound, "hello"), "hello");
    assert_eq!(ended(&gateway, "websocket", "token_revoked"), Some(1));
}

/// The rest of the token stays valid: only its key is gone.
#[test]
fn a_websocket_ends_with_the_key_of_its_token_and_outlives_a_rotation() {
    let service = service();
    let gateway = gateway(&service, AUTHORITY);
    add(gateway.dir(), "ada", &[]);
    let pair = login(gateway.http(), "ada");
    let [mut bound, mut unbound, mut foreign] = std::array::from_fn(|_| Connection::open(gateway.http()));
    opened(&mut bound, &handshake("/bound/a").bearer(&pair.access));
    opened(&mut unbound, &handshake("/unbound/a").bearer(&pair.access));
    opened(&mut foreign, &handshake("/bound/a").bearer(token("ada")));
    let key = |arguments: &[&str]| {
        let done = command(gateway.dir(), &[&["key"], arguments].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        done.stdout.trim().to_owned()
    };
    let leaked = key_in(gateway.dir(), "signing");
    let next = key(&["rotate", "--now"]);
    gateway.wait_log("the other key signs", |line| {
        line["message"] == "a signing key has started to sign" && line["kid"] == *next
    });
    assert_eq!(echoed(&mut bound, "hello"), "hello");
    key(&["revoke", &leaked]);
    assert_eq!(bound.rest(), close(1008, "token_revoked"));
    for other in [&mut unbound, &mut foreign] {
        assert_eq!(echoed(other, "hello"), "hello");
    }
    assert_eq!(ended(&gateway, "websocket", "token_revoked"), Some(1));
}

#[test]
fn a_websocket_ends_when_a_reload_removes_the_issuer_of_its_token() {
    let service = service();
    let gateway = gateway(&service, AUTHORITY);
    add(gateway.dir(), "ada", &[]);
    let [mut removed, mut kept] = std::array::from_fn(|_| Connection::open(gateway.http()));
    opened(&mut removed, &handshake("/bound/a").bearer(token("ada")));
    opened(&mut kept, &handshake("/bound/a").bearer(&login(gateway.http(), "ada").access));
    let without = policy(&service, AUTHORITY).replace(&issuer_without_leeway(), "");
    write_policy(gateway.dir(), &without);
    gateway.signal("HUP");
    assert_eq!(removed.rest(), close(1008, "token_revoked"));
    assert_eq!(echoed(&mut kept, "hello"), "hello");
    // The issuer has a second audience, so each token is verified again; none is refused.
    write_policy(gateway.dir(), &policy(&service, AUTHORITY));
    gateway.signal("HUP");
    eventually("the issuer is back", || {
        Request::get("/bound/a").bearer(token("ada")).to(gateway.http()).status == 200
    });
    let mut again = Connection::open(gateway.http());
    opened(&mut again, &handshake("/bound/a").bearer(token("ada")));
    let other = ISSUER.replace("[\"orders\"]", "[\"orders\", \"bills\"]");
    write_policy(gateway.dir(), &policy(&service, AUTHORITY).replace(&issuer_without_leeway(), &other));
    gateway.signal("HUP");
    eventually("the other audience is accepted", || {
        let bills = token("ada").claim("aud", json!("bills"));
        Request::get("/bound/a").bearer(bills).to(gateway.http()).status == 200
    });
    for open in [&mut again, &mut kept] {
        assert_eq!(echoed(open, "hello"), "hello");
    }
}

/// Signals name tokens by facts that the gateway keeps only of issuers that send signals.
#[test]
fn a_websocket_that_is_older_than_the_signals_of_its_issuer_ends() {
    let service = service();
    let gateway = gateway(&service, "");
    let [mut old, mut new] = std::array::from_fn(|_| Connection::open(gateway.http()));
    opened(&mut old, &handshake("/bound/a").bearer(token("ada")));
    write_policy(gateway.dir(), &policy(&service, SIGNALS));
    gateway.signal("HUP");
    assert_eq!(old.rest(), close(1013, "check_unavailable"));
    opened(&mut new, &handshake("/bound/a").bearer(token("ada")));
    assert_eq!(echoed(&mut new, "hello"), "hello");
}

#[test]
fn a_websocket_ends_when_the_keys_of_its_issuer_come_from_another_place_and_are_not_there_yet() {
    let signer = Signer::new("1");
    let (server, nobody) = (KeyServer::of(&[&signer]), ClosedPort::new());
    let service = service();
    let route = format!("\n[upstream.app]\nservers = [\"{service}\"]\n{ROUTES}");
    let gateway = Portcullis::with(&(by_url(&server) + &route)).start();
    let mut connection = Connection::open(gateway.http());
    opened(&mut connection, &handshake("/bound/a").bearer(signer.sign(token("ada"))));
    write_policy(gateway.dir(), &(by_url(&nobody) + &route));
    gateway.signal("HUP");
    assert_eq!(connection.rest(), close(1013, "check_unavailable"));
}

#[test]
fn a_websocket_lives_on_over_a_reload() {
    let service = service();
    let gateway = gateway(&service, "");
    let mut connection = Connection::open(gateway.http());
    let answer = opened(&mut connection, &handshake("/bound/a").bearer(token("ada")));
    let changed = policy(&service, "").replace("\"bound\"", "\"renamed\"").replace("/bound/", "/renamed/");
    crate::kit::portcullis::write_policy(gateway.dir(), &changed);
    gateway.signal("HUP");
    eventually("the new policy is in force", || {
        Request::get("/renamed/a").bearer(token("ada")).to(gateway.http()).status == 200
    });
    assert_eq!(echoed(&mut connection, "hello"), "hello");
    drop(connection);
    assert_eq!(gateway.access_line(&answer)["route"], "bound", "the name at the time of the handshake");
}

#[test]
fn a_silent_websocket_ends_and_one_with_traffic_does_not() {
    let service = service();
    let gateway = gateway(&service, "");
    let mut silent = Connection::open(gateway.http());
    let mut busy = Connection::open(gateway.http());
    opened(&mut silent, &handshake("/silent/a").bearer(token("ada")));
    opened(&mut busy, &handshake("/silent/a").bearer(token("ada")));
    let begun = Instant::now();
    while ended(&gateway, "websocket", "silence") != Some(1) {
        assert_eq!(echoed(&mut busy, "hello"), "hello");
        assert!(begun.elapsed() < crate::kit::PATIENCE);
        // `silent` has to answer the close frame, or its end takes two seconds.
    }
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(silent.rest(), close(1001, "silence"));
    assert_eq!(echoed(&mut busy, "hello"), "hello");
}

#[test]
fn a_client_that_does_not_read_loses_its_websocket() {
    let service = scripted(|_, wire| {
        for _ in 0..64 {
            wire.send(unmasked(0x82, &vec![0; 1 << 20]));
        }
        After::Close
    });
    let gateway = gateway(&service, "[server.bounds]\nbody_timeout = \"1s\"\n");
    let mut connection = Connection::open(gateway.http());
    let answer = opened(&mut connection, &handshake("/unbound/a").bearer(token("ada")));
    assert_eq!(gateway.access_line(&answer)["ended"], "reader");
}

#[test]
fn the_end_of_the_drain_closes_websockets_as_going_away() {
    let service = service();
    let mut gateway = gateway(&service, "[server]\ndrain = \"1s\"\n");
    let mut connection = Connection::open(gateway.http());
    let answer = opened(&mut connection, &handshake("/bound/a").bearer(token("ada")));
    gateway.signal("TERM");
    eventually("it drains", || gateway.log_text().contains("drain") || gateway.log_text().contains("stop"));
    assert_eq!(echoed(&mut connection, "hello"), "hello", "the drain lets it go on");
    let expected = close(1001, "drain");
    assert_eq!(connection.take(expected.len()), expected);
    connection.send(masked(0x88, &1001_u16.to_be_bytes()));
    connection.is_closed();
    assert_eq!(gateway.access_line(&answer)["ended"], "drain");
    assert_eq!(gateway.exit_code(), Some(0));
}

/// Sends one event, and never ends its answer.
fn events() -> Upstream {
    Upstream::with(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        wire.send("7\r\ndata: 1\r\n");
        wire.peer_left();
        After::Close
    })
}

#[test]
fn a_long_answer_ends_with_its_token_and_looks_cut_off() {
    let service = events();
    let gateway = gateway(&service, "");
    let mut connection = Connection::open(gateway.http());
    let answer = Request::get("/bound/events").bearer(short()).over(&mut connection);
    assert_eq!((answer.status, &*answer.text(), answer.complete), (200, "data: 1", false), "{answer:#?}");
    service.wait_for_departure();
    let line = gateway.access_line(&answer);
    assert_eq!((&line["ended"], &line["complete"]), (&"token_expired".into(), &false.into()), "{line}");
    assert_eq!(ended(&gateway, "answer", "token_expired"), Some(1));
}

#[test]
fn a_long_answer_ends_when_the_issuer_withdraws_the_key_of_its_token() {
    let (leaked, kept, new) = (Signer::new("1"), Signer::new("2"), Signer::new("3"));
    let server = KeyServer::of(&[&leaked, &kept]);
    let service = events();
    let route =
        "\n[upstream.app]\nservers = [\"UPSTREAM\"]\n[[route]]\npath = \"/events\"\nupstream = \"app\"\n";
    let policy = by_url(&server) + &route.replace("UPSTREAM", &service.to_string());
    let gateway = Portcullis::with(&policy).start();
    let [mut cut, open] = [&leaked, &kept].map(|signer| {
        let mut connection = Connection::open(gateway.http());
        connection.send(Request::get("/events").bearer(signer.sign(token("ada"))).bytes());
        assert_eq!(connection.read_head().expect("a head").status, 200);
        assert_eq!(connection.take(12), b"7\r\ndata: 1\r\n");
        connection
    });
    server.publish(&[&kept, &new]);
    eventually("the new key is fetched", || {
        Request::get("/x").bearer(new.sign(token("ada"))).to(gateway.http()).status == 200
    });
    assert_eq!(cut.rest(), b"", "without the last chunk");
    eventually("the end is counted", || ended(&gateway, "answer", "token_revoked") == Some(1));
    assert_eq!(gateway.metric("portcullis_requests_in_progress"), Some(1), "the other answer goes on");
    drop(open);
}

/// `timeout` bounds the wait for the head of an answer, and `silence` the pauses in its body.
#[test]
fn the_silence_of_an_answer_has_its_own_bound() {
    let service = events();
    let gateway = gateway(&service, "");
    let answer = Request::get("/silent/events").bearer(token("ada")).to(gateway.http());
    assert_eq!((answer.status, answer.complete), (200, false), "{answer:#?}");
    assert_eq!(
        gateway.metric("portcullis_upstream_broken_answers_total{upstream=\"app\",reason=\"stalled\"}"),
        Some(1)
    );
}

/// The byte after the handshake keeps the gateway's HTTP library from noticing the reset before it writes the answer.
#[test]
fn a_client_that_resets_during_its_handshake_leaves_nothing_open() {
    let gate = Gate::new();
    let reset = gate.clone();
    let service = Upstream::with(move |seen, wire| {
        reset.wait();
        wire.send(accepting(seen.header("sec-websocket-key").unwrap(), ""));
        wire.peer_left();
        After::Close
    });
    let gateway = gateway(&service, "");
    let mut connection = Connection::open(gateway.http());
    connection.send([handshake("/bound/a").bearer(token("ada")).bytes(), b"x".to_vec()].concat());
    service.wait_for_requests(1);
    connection.reset();
    gate.open();
    for name in ["requests_in_progress", "websockets_open", "connections_open"] {
        eventually(name, || gateway.metric(&format!("portcullis_{name}")) == Some(0));
    }
    eventually("the upstream connection closes", || {
        gateway.metric("portcullis_upstream_connections_open{upstream=\"app\"}") == Some(0)
    });
    gateway
        .wait_log("the request is logged", |line| line["target"] == "/bound/a" || line["path"] == "/bound/a");
}
