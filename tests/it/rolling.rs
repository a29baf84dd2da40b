//! Rolling restarts of two gateways behind HAProxy with its defaults.

use crate::kit::dir::Dir;
use crate::kit::grpc::Service;
use crate::kit::load::{Client, GRPC_ROUTE, Load, fresh, grpc_fresh, grpc_kept, kept, websocket};
use crate::kit::websocket::service;
use crate::kit::{Portcullis, Request, Upstream, client, eventually};
use crate::policy;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

const ROUTES: &str = "[[route]]\npath = \"/{*rest}\"\nupstream = \"app\"\naccess = \"public\"\n\
    [[route]]\npath = \"/ws\"\nupstream = \"talk\"\naccess = \"public\"\nwebsocket = true\n";

/// HAProxy, killed when dropped.
struct Haproxy {
    child: Child,
    address: SocketAddr,
    dir: Dir,
}

impl Haproxy {
    /// Starts HAProxy in front of two servers, with these words on their lines. It has its defaults, except for timeouts,
    /// without which it warns, and more retries, because a debug build may not start within three seconds.
    fn start(servers: [SocketAddr; 2], words: &str) -> Self {
        let dir = Dir::new();
        let program = ["/usr/sbin/haproxy", "/usr/bin/haproxy"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("./test installs HAProxy");
        let address = crate::kit::port::reserve();
        let [first, second] = servers;
        dir.write(
            "haproxy.cfg",
            format!(
                "global\n  log stdout format raw local0\ndefaults\n  mode http\n  log global\n  option httplog\n  \
                 timeout connect 5s\n  timeout client 50s\n  timeout server 50s\n  \
                 retries 15\nfrontend in\n  bind {address}\n  \
                 default_backend gateways\nbackend gateways\n  server first {first} check {words}\n  \
                 server second {second} check {words}\n"
            ),
        );
        let output = std::fs::File::create(dir.path().join("output")).unwrap();
        let child = Command::new(program)
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut proxy = Self { child, address, dir };
        eventually("HAProxy serves", || {
            assert!(proxy.child.try_wait().unwrap().is_none(), "HAProxy ended");
            client::try_send(address, Request::get("/").bytes()).is_some_and(|answer| answer.status == 200)
        });
        proxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = std::fs::read_to_string(self.dir.path().join("output")).unwrap_or_default();
            let faults: Vec<_> = output.lines().filter(|line| !line.contains(" 200 ")).collect();
            eprintln!("--- HAProxy\n{}\n---", faults.join("\n"));
        }
    }
}

#[track_caller]
fn no_request_is_lost(is_tls: bool, words: &str) {
    let (upstream, echo, calls) = (Upstream::start(), service(), Service::start());
    let key = if is_tls { "https" } else { "http" };
    let text = |address: &str| {
        let off = if is_tls { "http = \"\"\n" } else { "" };
        format!(
            "[server]\nworkers = 2\n{off}{key} = \"{address}\"\n{}[upstream.talk]\nservers = [\"{echo}\"]\n\
             [upstream.calls]\nservers = [\"{calls}\"]\nprotocol = \"http2\"\n{GRPC_ROUTE}",
            policy(&upstream, ROUTES)
        )
    };
    let start = |address: &str| Portcullis::with(&text(address)).start();
    let mut gateways = [start("127.0.0.1:0"), start("127.0.0.1:0")];
    let addresses = gateways.each_ref().map(|gateway| if is_tls { gateway.https() } else { gateway.http() });
    let proxy = Haproxy::start(addresses, words);
    let address = proxy.address;
    let mut clients: Vec<Client> = vec![
        fresh(address),
        fresh(address),
        fresh(address),
        kept(address),
        kept(address),
        kept(address),
        kept(address),
        websocket(address),
    ];
    // gRPC needs HTTP/2 between HAProxy and the gateway.
    if words.contains("h2") {
        clients.extend([grpc_fresh(address), grpc_kept(address)]);
    }
    let load = Load::start(clients);
    for round in 0..4 {
        let (gateway, address) = (&mut gateways[round % 2], addresses[round % 2]);
        load.run_on(150);
        gateway.signal("TERM");
        assert_eq!(gateway.exit_code(), Some(0));
        *gateway = start(&address.to_string());
        // HAProxy waits a second before it asks a server again that refused a connection.
        load.run_on(150);
    }
    load.end();
}

#[test]
fn no_request_is_lost_over_http_1() {
    no_request_is_lost(false, "");
}

#[test]
fn no_request_is_lost_over_cleartext_http_2() {
    no_request_is_lost(false, "proto h2");
}

#[test]
fn no_request_is_lost_over_tls() {
    no_request_is_lost(true, "ssl verify none");
}

#[test]
fn no_request_is_lost_over_http_2_and_tls() {
    no_request_is_lost(true, "ssl verify none alpn h2,http/1.1");
}
