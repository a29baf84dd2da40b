//! Real WebSocket clients and services: Python's websockets, Node's ws, and Chromium.

use crate::kit::browser::{Browser, Scripts};
use crate::kit::client::HOST;
use crate::kit::forge::{issuer_without_leeway, now};
use crate::kit::lines::Lines;
use crate::kit::packages::installed;
use crate::kit::websocket::service;
use crate::kit::{Portcullis, token};
use serde_json::json;
use std::process::{Child, Command, Stdio};

const ROUTES: &str = r#"
[server]
https = "127.0.0.1:0"

[[route]]
name      = "socket"
path      = "/ws/{*rest}"
upstream  = "app"
websocket = true
sources   = ["header", "websocket"]

[[route]]
name      = "page"
path      = "/page"
upstream  = "app"
access    = "public"
"#;

fn policy(server: &str) -> String {
    let issuer = issuer_without_leeway();
    format!("{issuer}\n[upstream.app]\nservers = [\"{server}\"]\n{ROUTES}")
}

/// Returns the command that runs a script of `tests/clients`.
fn script(name: &str) -> Command {
    let (scripts, folder) = installed("clients");
    let (program, script) = match name {
        "websocket.py" => (folder.join("venv/bin/python"), scripts.join(name)),
        _ => ("node".into(), folder.join(name)),
    };
    let mut command = Command::new(program);
    command.arg(script);
    command
}

/// A service that runs until it is dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a service and returns its address.
fn start(name: &str) -> (Service, String) {
    let command = script(name).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = command.unwrap();
    let port = Lines::of(child.stdout.take().unwrap()).next_line();
    (Service(child), format!("http://127.0.0.1:{port}"))
}

#[test]
fn libraries_of_python_and_node_talk_to_each_other_through_the_gateway() {
    for (server, client) in [
        ("websocket.py", "websocket.mjs"),
        ("websocket.mjs", "websocket.py"),
        ("websocket.py", "websocket.py"),
        ("websocket.mjs", "websocket.mjs"),
    ] {
        let (_service, address) = start(server);
        let gateway = Portcullis::with(&policy(&address)).start();
        let url = format!("ws://{}/ws/echo", gateway.http());
        let run = script(client).args(["talk", &url, &token("ada").to_string()]).output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
        assert!(said.lines().count() >= 8 && said.lines().all(|line| line.ends_with(" ok")), "{said}");
        assert!(said.contains("permessage-deflate"), "{said}");
    }
}

#[test]
fn a_browser_talks_over_both_versions_and_sees_why_its_websocket_ends() {
    let service = service();
    let gateway = Portcullis::with(&policy(&service.to_string())).start();
    let browser = Browser::start(Scripts::On);
    for (page, socket, port, version, status) in [
        ("http", "ws", gateway.http().port(), "HTTP/1.1", 101),
        // The page leaves a connection of HTTP/2, on which the browser opens the WebSocket.
        ("https", "wss", gateway.https().port(), "HTTP/2", 200),
    ] {
        browser.go(&format!("{page}://{HOST}:{port}/page"));
        let token = token(version).claim("exp", json!(now() + 4));
        let seen = browser.script(&format!(
            "const done = arguments[0];
             const said = [];
             const socket = new WebSocket('{socket}://{HOST}:{port}/ws/a', ['bearer', '{token}']);
             socket.onopen = () => {{ said.push(socket.protocol); socket.send('hello'); }};
             socket.onmessage = (event) => said.push(event.data);
             socket.onclose = (event) => done([...said, event.code, event.reason, event.wasClean]);"
        ));
        assert_eq!(seen, json!(["bearer", "hello", 3000, "token_expired", true]), "{version}");
        let line = gateway.wait_log(version, |line| line["subject"] == version && !line["ended"].is_null());
        assert_eq!((&line["version"], &line["status"]), (&version.into(), &status.into()), "{line}");
    }
}
