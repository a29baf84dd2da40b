//! Load that must not lose a request.

use super::http2::{self, request};
use super::websocket::{echoed, handshake, is_accepted};
use super::{Connection, Request, eventually};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Load of several kinds of clients. Each client fails at the first request without its answer.
#[derive(Debug)]
pub struct Load {
    ended: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Starts a thread for each client.
    pub fn start(clients: impl IntoIterator<Item = Client>) -> Self {
        let (ended, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = clients.into_iter().map(|mut client| {
            let (ended, served) = (ended.clone(), served.clone());
            std::thread::spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    client()?;
                    served.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
        });
        let clients = clients.collect();
        Self { ended, served, clients }
    }

    /// Waits until the clients have got `more` more answers, or one of them has failed.
    pub fn run_on(&self, more: usize) {
        let goal = self.served.load(Ordering::SeqCst) + more;
        eventually("the load goes on", || {
            self.served.load(Ordering::SeqCst) >= goal || self.clients.iter().any(JoinHandle::is_finished)
        });
    }

    /// Ends the load. Fails if a client has failed.
    #[track_caller]
    pub fn end(self) {
        self.ended.store(true, Ordering::SeqCst);
        let failed: Vec<_> =
            self.clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

/// A client: each call makes requests, and returns the failure of the first without its answer.
pub type Client = Box<dyn FnMut() -> Result<(), String> + Send>;

/// Opens a connection for each request.
pub fn fresh(address: SocketAddr) -> Client {
    Box::new(move || {
        let mut connection = Connection::open(address);
        ask(&mut connection, "new connection").map(drop)
    })
}

/// Keeps its connection until an answer announces the end.
pub fn kept(address: SocketAddr) -> Client {
    let mut open = None;
    Box::new(move || {
        let mut connection = open.take().unwrap_or_else(|| Connection::open(address));
        if !ask(&mut connection, "kept connection")? {
            open = Some(connection);
        }
        Ok(())
    })
}

/// Sends a request, and returns whether its answer announces the end of the connection.
fn ask(connection: &mut Connection, kind: &str) -> Result<bool, String> {
    connection.try_send(Request::get("/").bytes()).map_err(|error| format!("{kind}: {error}"))?;
    match connection.try_answer("GET") {
        Some(answer) if answer.status == 200 => Ok(answer.header("connection") == Some("close")),
        other => Err(format!("{kind}: {other:?}")),
    }
}

/// Opens an HTTP/2 connection over TLS for each request.
pub fn over_http2(address: SocketAddr) -> Client {
    Box::new(move || {
        let answers = http2::exchange(address, vec![request("GET", "/").body(Bytes::new()).unwrap()]);
        if answers[0].status == 200 { Ok(()) } else { Err(format!("HTTP/2: {answers:?}")) }
    })
}

/// Opens a WebSocket and exchanges messages over it.
pub fn websocket(address: SocketAddr) -> Client {
    Box::new(move || {
        let mut connection = Connection::open(address);
        connection.send(handshake("/ws").bytes());
        let answer = connection.read_head();
        if !answer.as_ref().is_some_and(is_accepted) {
            return Err(format!("WebSocket: {answer:?}"));
        }
        for text in ["one", "two"] {
            if echoed(&mut connection, text) != text {
                return Err("WebSocket: no echo".to_owned());
            }
        }
        Ok(())
    })
}
