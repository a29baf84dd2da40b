//! Sockets from a service manager: the gateway takes them over, and they outlive it.

use crate::kit::dir::Dir;
use crate::kit::grpc::Service;
use crate::kit::load::{GRPC_ROUTE, Load, fresh, grpc_fresh, grpc_kept, kept, over_http2, websocket};
use crate::kit::portcullis::write_policy;
use crate::kit::websocket::service;
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::policy;
use std::net::TcpStream;
use std::process::Command;

const ROUTES: &str = "[[route]]\npath = \"/{*rest}\"\nupstream = \"app\"\naccess = \"public\"\n";

/// Returns the command line of a service manager that passes a socket for each of these keys of `[server]`.
fn manager(keys: &str) -> [&str; 3] {
    ["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kit/service_manager.py"), keys]
}

fn states(gateway: &Portcullis, state: &str) -> usize {
    let is_state = |line: &&serde_json::Value| line["message"] == "notification" && line["state"] == state;
    gateway.log().iter().filter(is_state).count()
}

#[test]
fn restarts_with_sockets_of_the_service_manager_lose_no_request() {
    let (upstream, echo, calls) = (Upstream::start(), service(), Service::start());
    let routes = format!(
        "{ROUTES}[[route]]\npath = \"/ws\"\nupstream = \"talk\"\naccess = \"public\"\nwebsocket = true\n\
         [upstream.talk]\nservers = [\"{echo}\"]\n{GRPC_ROUTE}[upstream.calls]\nservers = [\"{calls}\"]\n\
         protocol = \"http2\"\n"
    );
    let policy = format!("[server]\nworkers = 2\n{}", policy(&upstream, &routes));
    let mut gateway = Portcullis::with(&policy).wrapped(&manager("http,https,admin")).start();
    let (http, https) = (gateway.http(), gateway.https());
    let load = Load::start([
        fresh(http),
        fresh(http),
        fresh(http),
        kept(http),
        kept(http),
        over_http2(https),
        websocket(http),
        grpc_fresh(http),
        grpc_kept(http),
    ]);
    for restart in 1..=3 {
        load.run_on(100);
        gateway.signal("HUP");
        eventually("the next process is ready", || states(&gateway, "READY=1") > restart);
    }
    load.run_on(100);
    load.end();
    assert_eq!(states(&gateway, "STOPPING=1"), 3);
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code(), Some(0));
}

/// The socket stays open while no process accepts from it.
#[test]
fn a_connection_waits_for_the_next_process() {
    let upstream = Upstream::start();
    let mut gateway = Portcullis::with(&policy(&upstream, ROUTES)).wrapped(&manager("http,admin")).start();
    let mut idle = Connection::open(gateway.http());
    Request::get("/").over(&mut idle).is(200);
    gateway.signal("HUP");
    eventually("the first process stops", || states(&gateway, "STOPPING=1") == 1);
    let mut early = Connection::open(gateway.http());
    assert_eq!(states(&gateway, "READY=1"), 1, "the machine is too slow for this test");
    Request::get("/").over(&mut early).is(200);
    assert_eq!(states(&gateway, "READY=1"), 2);
    // The admin listener is the service manager's, too.
    Request::get("/readyz").to(gateway.admin()).is(200);
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn the_service_manager_gets_signs_of_life() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&policy(&upstream, ROUTES)).wrapped(&manager("http")).start();
    eventually("several signs of life", || states(&gateway, "WATCHDOG=1") > 2);
    assert_eq!(states(&gateway, "READY=1"), 1);
}

/// `systemd-socket-activate` is part of systemd and passes sockets in the same way.
#[test]
fn a_socket_of_systemd_is_taken_over() {
    let upstream = Upstream::start();
    let address = crate::kit::port::reserve();
    let policy = format!("[server]\nhttp = \"{address}\"\n{}", policy(&upstream, ROUTES));
    // The program runs the gateway at the first connection.
    let knock = std::thread::spawn(move || {
        let mut connection = None;
        eventually("systemd listens", || {
            connection = TcpStream::connect(address).ok();
            connection.is_some()
        });
        connection
    });
    let listen = format!("--listen={address}");
    let mut gateway = Portcullis::with(&policy).wrapped(&["systemd-socket-activate", &listen]).start();
    Request::get("/").to(address).is(200);
    drop(knock.join().unwrap());
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn a_socket_that_no_listener_uses_is_a_fault() {
    let upstream = Upstream::start();
    let dir = Dir::new();
    write_policy(&dir, &policy(&upstream, ROUTES));
    let [program, arguments @ ..] = manager("http,-");
    let finished = Command::new(program)
        .args(arguments)
        .args([env!("CARGO_BIN_EXE_portcullis"), "run", "--config", "gateway.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[finished.stdout, finished.stderr].concat()).into_owned();
    assert!(!finished.status.success());
    assert!(text.contains("the service manager passes a socket for 127.0.0.1:"), "{text}");
}

/// The unit files of the documents.
#[test]
fn the_documented_units_are_valid() {
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/systemd");
    let dir = Dir::new();
    for name in ["portcullis.service", "portcullis.socket"] {
        let text = std::fs::read_to_string(format!("{units}/{name}")).unwrap();
        // The program must exist.
        dir.write(name, text.replace("/usr/local/bin/portcullis", env!("CARGO_BIN_EXE_portcullis")));
    }
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no", "portcullis.service", "portcullis.socket"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(verify.status.success() && !errors.contains("portcullis."), "{errors}");
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=20", "--no-pager", "portcullis.service"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&security.stdout).into_owned();
    assert!(security.status.success(), "exposure is above 2.0:\n{report}");
}
