//! Upstream servers at Unix sockets.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::{Connection, ISSUER, Portcullis, Request, end_of_head};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Serves HTTP/1.1 at a Unix socket: each answer is the head of its request. Returns the number of connections.
fn serve(path: &Path) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(path).unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let count = connections.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut read = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(more @ 1..) = stream.read(&mut buffer) {
                    read.extend_from_slice(&buffer[..more]);
                    while let Some(end) = end_of_head(&read) {
                        let head: Vec<u8> = read.drain(..end).collect();
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                        stream.write_all(&[answer.as_bytes(), &head].concat()).unwrap();
                    }
                }
            });
        }
    });
    connections
}

fn policy(path: &Path) -> String {
    format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"unix:{}\"]\n\n[[route]]\npath = \"/{{*rest}}\"\n\
         upstream = \"app\"\naccess = \"public\"\n",
        path.display()
    )
}

#[test]
fn requests_reach_a_server_at_a_unix_socket_over_kept_connections() {
    let dir = Dir::new();
    let path = dir.path().join("app.sock");
    let gateway = Portcullis::with(&policy(&path)).start();
    let answer = Request::get("/x").to(gateway.http());
    answer.is_refusal(503, "upstream_unavailable");
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().unwrap().contains("No such file"), "{line}");

    let connections = serve(&path);
    for _ in 0..3 {
        let answer = Request::get("/x?q=1").to(gateway.http());
        let text = answer.is(200).text();
        assert!(
            text.starts_with("GET /x?q=1 HTTP/1.1\r\n") && text.contains("\r\nhost: gateway.test\r\n"),
            "{text}"
        );
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let mut old = Connection::open(gateway.http());
    old.send("GET /x HTTP/1.0\r\n\r\n");
    let text = old.answer().text();
    assert!(text.contains("\r\nhost: localhost\r\n"), "{text}");
}

#[test]
fn check_reports_a_file_that_is_no_socket_and_a_folder_that_all_may_write_to() {
    let dir = Dir::new();
    dir.write("file", "");
    std::fs::create_dir(dir.path().join("open")).unwrap();
    dir.set_mode("open", 0o777);
    for (path, id) in
        [("file", Some("bad_server")), ("app.sock", None), ("open/app.sock", Some("socket_replaceable"))]
    {
        write_policy(&dir, &policy(&dir.path().join(path)));
        let checked = command(&dir, &["check", "--format", "json"]);
        let text = checked.text();
        for known in ["bad_server", "socket_replaceable"] {
            assert_eq!(text.contains(&format!("\"{known}\"")), id == Some(known), "{path}: {text}");
        }
    }
}
