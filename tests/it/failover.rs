//! The primary server of the store dies, and its standby takes over.

use crate::kit::account::{self, AUTHORITY, login, try_refresh};
use crate::kit::postgres::Postgres;
use crate::kit::{PATIENCE, Portcullis, Request, client, eventually};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ROUTES: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/any\"
upstream = \"echo\"
";
/// Clients, each with a session of its own.
const CLIENTS: usize = 6;
/// Refreshes of each client before and after the failover.
const REFRESHES: usize = 5;

/// Starts a server and a standby that has every commit before the server reports it.
fn pair() -> (Postgres, Postgres) {
    let primary = Postgres::start();
    let standby = primary.standby();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    let is_synchronous =
        || primary.sql("postgres", "SELECT sync_state FROM pg_stat_replication").trim() == "sync";
    eventually("the standby follows", is_synchronous);
    (primary, standby)
}

#[test]
fn a_failover_to_the_standby_loses_no_session_and_doubles_none() {
    let (primary, standby) = pair();
    primary.sql("postgres", "CREATE DATABASE store");
    // The standby is first in the URL: the gateways find out which server is the primary one.
    let url = standby.url_with(&primary, "store");
    // The grace period is shorter than the failover.
    let policy = format!(
        "{AUTHORITY}store = \"{url}\"\nrefresh_grace = \"1s\"\nlimits = {{ refresh = [] }}\n{ROUTES}"
    );
    let gateways = [Portcullis::with(&policy).start(), Portcullis::with(&policy).start()];
    account::add(gateways[0].dir(), "ada", &[]);
    let sessions: Vec<_> = (0..CLIENTS).map(|client| login(gateways[client % 2].http(), "ada")).collect();
    let (refreshed, is_over) = ([const { AtomicUsize::new(0) }; CLIENTS], AtomicBool::new(false));
    let all_did = |count: usize| refreshed.iter().all(|done| done.load(Ordering::Relaxed) >= count);
    std::thread::scope(|scope| {
        for (client, pair) in sessions.iter().enumerate() {
            let (gateways, refreshed, is_over) = (&gateways, &refreshed, &is_over);
            let address = gateways[client % 2].http();
            scope.spawn(move || {
                let mut token = pair.refresh.clone();
                let deadline = Instant::now() + PATIENCE;
                while !is_over.load(Ordering::Relaxed) && Instant::now() < deadline {
                    let answer = try_refresh(address, &token);
                    match answer.status {
                        200 => {
                            answer.json()["refresh_token"].as_str().unwrap().clone_into(&mut token);
                            refreshed[client].fetch_add(1, Ordering::Relaxed);
                        }
                        // The client tries again with the same token.
                        503 => std::thread::yield_now(),
                        _ => panic!("the session is lost: {answer:?}"),
                    }
                }
            });
        }
        let end = Ends(&is_over);
        eventually("the clients refresh", || all_did(REFRESHES));
        primary.stop();
        let died = Instant::now();
        let at = refreshed.each_ref().map(|done| done.load(Ordering::Relaxed));
        standby.sql("postgres", "SELECT pg_promote()");
        eventually("each client refreshes again", || {
            at.iter().zip(&refreshed).all(|(at, done)| done.load(Ordering::Relaxed) >= at + REFRESHES)
        });
        println!("all clients have refreshed again after {:.1?}", died.elapsed());
        drop(end);
    });
    let count = |statement: &str| standby.sql("store", statement).trim().to_owned();
    let living = format!("{CLIENTS}");
    assert_eq!(count("SELECT count(*) FROM sessions WHERE ended IS NULL"), living);
    assert_eq!(
        count("SELECT count(*) FROM refresh_tokens WHERE spent IS NULL"),
        living,
        "one token of each session"
    );
    let gaps = "SELECT count(*) FROM (SELECT session FROM refresh_tokens GROUP BY session
                HAVING count(*) <> max(number) + 1) gaps";
    assert_eq!(count(gaps), "0", "no successor was lost");
    // Revocations travel over the new server.
    let pair = login(gateways[0].http(), "ada");
    Request::post("/auth/logout-all", "").bearer(&pair.access).to(gateways[0].http()).is(204);
    let token = &sessions[1];
    eventually("both gateways know the revocation", || {
        let answer = client::try_send(gateways[1].http(), Request::get("/any").bearer(&token.access).bytes());
        answer.is_some_and(|answer| answer.status == 401)
    });
}

#[test]
fn the_time_without_a_store_does_not_count_for_the_repetition_of_a_refresh() {
    let server = Postgres::start();
    let policy = format!("{AUTHORITY}store = \"{}\"\nrefresh_grace = \"2s\"\n{ROUTES}", server.database());
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &[]);
    let [first, second] = [(); 2].map(|()| login(gateway.http(), "ada").refresh);
    // The answer to this refresh does not reach the client, because the server dies.
    let successor = try_refresh(gateway.http(), &first).is(200).json()["refresh_token"].clone();
    let spent = Instant::now();
    server.stop();
    eventually("the grace period is over", || spent.elapsed() > Duration::from_secs(4));
    server.resume();
    let repeated = std::cell::RefCell::new(None);
    eventually("the store answers", || {
        let answer = try_refresh(gateway.http(), &first);
        assert!([200, 503].contains(&answer.status), "the session is lost: {answer:?}");
        let is_answered = answer.status == 200;
        *repeated.borrow_mut() = Some(answer);
        is_answered
    });
    assert_eq!(repeated.take().unwrap().json()["refresh_token"], successor, "the one successor");
    // Once the store has answered for longer, a repetition counts as theft.
    let next = try_refresh(gateway.http(), &second).is(200).json()["refresh_token"].clone();
    eventually("the grace period is over again", || try_refresh(gateway.http(), &second).status == 401);
    let next = next.as_str().unwrap();
    assert_eq!(try_refresh(gateway.http(), next).status, 401, "the session has ended");
}

/// Ends the clients, even if the test fails.
struct Ends<'f>(&'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
