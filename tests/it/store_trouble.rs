//! A store that fails and recovers. The gateway needs no restart.

use crate::ECHO;
use crate::kit::account::{self, AUTHORITY, PASSWORD, login, post, try_login};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::postgres::Postgres;
use crate::kit::{Portcullis, Request, eventually};
use serde_json::json;
use sqlx::{AnyConnection, Connection, Executor};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Returns a policy with these keys of `[authority]`, followed by further tables.
fn policy(keys: &str, more: &str) -> String {
    format!("{AUTHORITY}{keys}{more}{ECHO}")
}

/// Returns a metric's value.
fn metric(gateway: &Portcullis, series: &str) -> u64 {
    let text = Request::get("/metrics").to(gateway.admin()).is(200).text();
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no {series}:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Returns the line of `/readyz?verbose` about the store.
fn store_line(gateway: &Portcullis) -> String {
    let text = Request::get("/readyz?verbose").to(gateway.admin()).is(200).text();
    text.lines().find(|line| line.starts_with("store: ")).expect("a line about the store").to_owned()
}

fn events(gateway: &Portcullis, message: &str) -> usize {
    gateway.log().iter().filter(|line| line["message"] == message).count()
}

/// Logs in until the store fails, and checks that operators see this reason and place.
#[track_caller]
fn is_lost(gateway: &Portcullis, reason: &str, place: &str) {
    eventually("the store fails", || {
        let answer = try_login(gateway.http(), "ada", PASSWORD);
        if answer.status != 200 {
            answer.is_refusal(503, "store_unavailable");
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:#?}");
        }
        metric(gateway, "portcullis_store_up") == 0
    });
    assert!(metric(gateway, &format!("portcullis_store_failures_total{{reason=\"{reason}\"}}")) > 0);
    let line = store_line(gateway);
    assert!(line.contains(place) && line.contains(&format!("({reason})")), "{line}");
}

/// Waits until the store works again, and checks that the log reports the loss and the recovery once each.
#[track_caller]
fn is_back(gateway: &Portcullis, place: &str) {
    // Without a login, the gateway itself tries the store.
    eventually("the store answers", || metric(gateway, "portcullis_store_up") == 1);
    assert!(store_line(gateway).ends_with(" answers"), "{}", store_line(gateway));
    login(gateway.http(), "ada");
    let lost = gateway.wait_log("the loss", |line| line["message"] == "the store cannot be used");
    assert!(lost["store"].as_str().unwrap().contains(place), "{lost}");
    gateway.wait_log("the recovery", |line| line["message"] == "the store answers again");
    let counts = (events(gateway, "the store cannot be used"), events(gateway, "the store answers again"));
    assert_eq!(counts, (1, 1), "loss and recovery once each, however many requests failed");
}

/// Creates a folder with a policy and an account, for a gateway that is started in it.
fn prepared() -> Rc<Dir> {
    let dir = Rc::new(Dir::new());
    write_policy(&dir, &policy("", ""));
    account::add(&dir, "ada", &[]);
    dir
}

/// The gateway has a small file system in a mount namespace, and the file system is full.
#[test]
fn after_a_full_disk_the_store_works_again() {
    let may_mount = "mount -t tmpfs -o size=1m tmpfs /tmp";
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", may_mount]).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        eprintln!("SKIPPED: a full disk needs the right to mount a file system (root): {tried:?}");
        return;
    }
    let dir = prepared();
    let script = "mkdir seed && cp -a state/. seed/ && mount -t tmpfs -o size=4m,mode=700 tmpfs state \
                  && cp -a seed/. state/ && exec \"$@\"";
    let builder = Portcullis::with(&policy("", "")).within(dir.clone());
    let gateway = builder.wrapped(&["unshare", "--mount", "sh", "-c", script, "sh"]).start();
    login(gateway.http(), "ada");
    assert_eq!(metric(&gateway, "portcullis_store_up"), 1);
    let inside = dir.path().strip_prefix("/").unwrap().join("state/ballast");
    let ballast = PathBuf::from(format!("/proc/{}/root", gateway.pid())).join(inside);
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    is_lost(&gateway, "full", "portcullis.db");
    fs::remove_file(&ballast).unwrap();
    is_back(&gateway, "portcullis.db");
}

/// A write that the system refuses is an I/O error for SQLite. Here a limit on the file size causes it (EFBIG).
#[test]
fn after_an_io_error_the_store_works_again() {
    let dir = prepared();
    // The trap ignores the signal of the limit, which would otherwise end the process.
    let gateway = Portcullis::with(&policy("", ""))
        .within(dir)
        .wrapped(&["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .start();
    login(gateway.http(), "ada");
    let limit = |bytes: &str| {
        let status = Command::new("prlimit")
            .args([&format!("--pid={}", gateway.pid()), &format!("--fsize={bytes}:unlimited")])
            .status();
        assert!(status.unwrap().success());
    };
    limit("4096");
    is_lost(&gateway, "io", "portcullis.db");
    limit("unlimited");
    is_back(&gateway, "portcullis.db");
}

#[test]
fn after_a_lock_of_another_process_the_store_works_again() {
    let gateway = Portcullis::with(&policy("", "")).start();
    account::add(gateway.dir(), "ada", &[]);
    let pair = login(gateway.http(), "ada");
    let file = gateway.dir().path().join("state/portcullis.db");
    with_lock(&file, || {
        is_lost(&gateway, "locked", "portcullis.db");
        // Holders of a token are still served.
        Request::get("/auth/me").bearer(&pair.access).to(gateway.http()).is(200);
    });
    is_back(&gateway, "portcullis.db");
}

/// Runs a closure while another process holds the write lock.
fn with_lock(file: &Path, during: impl FnOnce()) {
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("sqlite:{}", file.display());
    let mut connection = runtime.block_on(async {
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        connection.execute("PRAGMA busy_timeout = 5000").await.unwrap();
        connection.execute("BEGIN IMMEDIATE").await.unwrap();
        connection
    });
    during();
    runtime.block_on(async { connection.execute("ROLLBACK").await.unwrap() });
}

/// The server is lost while the gateway runs: the log, the metrics and `/readyz` name the cause and the server.
#[test]
fn after_a_restart_of_the_server_the_store_works_again() {
    let server = Postgres::start();
    let gateway = Portcullis::with(&policy(&format!("store = \"{}\"\n", server.database()), "")).start();
    account::add(gateway.dir(), "ada", &[]);
    let pair = login(gateway.http(), "ada");
    let place = format!(":{}/", server.port());
    server.stop();
    is_lost(&gateway, "unreachable", &place);
    Request::get("/auth/me").bearer(&pair.access).to(gateway.http()).is(200);
    server.resume();
    is_back(&gateway, &place);
    Request::get("/auth/me").bearer(&pair.access).to(gateway.http()).is(200);
}

/// A network that drops packets: no error reports the loss, and earlier connections do not recover.
#[test]
fn a_server_that_cannot_be_heard_is_lost_and_found_again() {
    let server = Postgres::shared();
    let name = server.database().rsplit('/').next().unwrap().to_owned();
    server
        .sql(&name, &format!("CREATE ROLE {name} LOGIN PASSWORD 'x'; ALTER DATABASE {name} OWNER TO {name}"));
    let network = Network::before(server.port());
    let url = format!("postgres://{name}:x@{}/{name}?sslmode=disable", network.address);
    let gateway = Portcullis::with(&policy(&format!("store = \"{url}\"\n"), "")).start();
    account::add(gateway.dir(), "ada", &[]);
    let pair = login(gateway.http(), "ada");
    network.drops.store(true, Ordering::SeqCst);
    let place = network.address.to_string();
    eventually("the loss is seen although nothing says so", || metric(&gateway, "portcullis_store_up") == 0);
    assert!(store_line(&gateway).contains(&place), "{}", store_line(&gateway));
    Request::get("/auth/me").bearer(&pair.access).to(gateway.http()).is(200);
    network.drops.store(false, Ordering::SeqCst);
    eventually("the store answers", || metric(&gateway, "portcullis_store_up") == 1);
    eventually("logins too", || try_login(gateway.http(), "ada", PASSWORD).status == 200);
}

/// A network in front of a local port. While the network drops packets, no bytes pass, and connections from that time
/// do not recover.
struct Network {
    address: SocketAddr,
    drops: Arc<AtomicBool>,
}

impl Network {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self { address: listener.local_addr().unwrap(), drops: Arc::default() };
        let drops = network.drops.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", port))) else {
                    return;
                };
                for (mut from, mut to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    let drops = drops.clone();
                    thread::spawn(move || {
                        let (mut bytes, mut is_dead) = ([0; 4096], false);
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            is_dead |= drops.load(Ordering::SeqCst);
                            if !is_dead && to.write_all(&bytes[..count]).is_err() {
                                return;
                            }
                        }
                        if !is_dead {
                            let _ = to.shutdown(std::net::Shutdown::Both);
                        }
                    });
                }
            }
        });
        network
    }
}

/// The number of requests that wait for the authority is bounded. Requests with a token have a separate limit.
#[test]
fn requests_waiting_for_a_slow_store_are_bounded_and_shed() {
    let gateway = Portcullis::with(&policy("", "")).start();
    account::add(gateway.dir(), "ada", &[]);
    let pair = login(gateway.http(), "ada");
    let file = gateway.dir().path().join("state/portcullis.db");
    let http = gateway.http();
    with_lock(&file, || {
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..300)
                .map(|_| {
                    let body = json!({ "refresh_token": pair.refresh });
                    scope.spawn(move || post(http, "/auth/refresh", &body))
                })
                .collect();
            eventually("some are shed", || metric(&gateway, "portcullis_authority_shed_total") > 0);
            assert!(metric(&gateway, "portcullis_authority_waiting") <= 320);
            Request::get("/auth/sessions").bearer(&pair.access).to(http).is(200);
            let answers: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect();
            let shed: Vec<_> = answers.iter().filter(|answer| answer.code() == "overloaded").collect();
            assert!(shed.len() >= 300 - 256, "{}", shed.len());
            for answer in shed {
                answer.is_refusal(503, "overloaded");
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        });
    });
    eventually("all have left", || metric(&gateway, "portcullis_authority_waiting") == 0);
}

/// The gateway starts without its store.
#[test]
fn a_start_without_the_store_names_it_and_the_remedy() {
    let dir = prepared();
    let file = dir.path().join("state/portcullis.db");
    with_lock(&file, || {
        let finished = command(&dir, &["run", "--config", "gateway.toml"]);
        let text = finished.text();
        assert_ne!(finished.code, Some(0), "{text}");
        assert!(text.contains(file.to_str().unwrap()) && text.contains("fuser"), "{text}");
    });
    let dir = Dir::new();
    write_policy(&dir, &policy("store = \"postgres://ada:hunter2@127.0.0.1:1/portcullis\"\n", ""));
    let finished = command(&dir, &["run", "--config", "gateway.toml"]);
    let text = finished.text();
    assert_ne!(finished.code, Some(0), "{text}");
    assert!(text.contains("127.0.0.1:1/portcullis") && !text.contains("hunter2"), "{text}");
}

#[test]
fn the_store_line_names_the_file() {
    let gateway = Portcullis::with(&policy("", "")).start();
    let line = store_line(&gateway);
    let file = fs::canonicalize(gateway.dir().path()).unwrap().join("state/portcullis.db");
    assert_eq!(line, format!("store: sqlite:{} answers", file.display()));
}
