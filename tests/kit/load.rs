//! Load that must not lose a request.

use super::grpc;
use super::http2::{self, request};
use super::websocket::{echoed, handshake, is_accepted};
use super::{Connection, Request, eventually};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// The route of the gRPC clients, to the upstream `calls`.
pub const GRPC_ROUTE: &str =
    "[[route]]\npath = \"/test.Calls/{method}\"\nupstream = \"calls\"\naccess = \"public\"\n";

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

/// Makes gRPC calls over a channel, which connects again after its connection has ended.
pub fn grpc_kept(address: SocketAddr) -> Client {
    let (runtime, mut open) = (grpc::runtime(), None);
    Box::new(move || {
        runtime.block_on(async {
            let client = match &mut open {
                Some(client) => client,
                None => open.insert(grpc_channel(address).await?),
            };
            grpc_calls(client).await
        })
    })
}

/// Opens a channel for each gRPC call.
pub fn grpc_fresh(address: SocketAddr) -> Client {
    let runtime = grpc::runtime();
    Box::new(move || runtime.block_on(async { grpc_calls(&mut grpc_channel(address).await?).await }))
}

async fn grpc_channel(address: SocketAddr) -> Result<grpc::Client, String> {
    grpc::Client::connect(address, &[]).await.map_err(|error| format!("gRPC channel: {error:?}"))
}

/// Makes a unary call, and one in which both ends send messages.
async fn grpc_calls(client: &mut grpc::Client) -> Result<(), String> {
    let failed = |status| format!("gRPC: {status:?}");
    let answer = client.unary("Unary", b"hello").await.map_err(failed)?;
    let (sender, mut answers) = client.talk(b"one").await.map_err(failed)?;
    let first = answers.message().await.map_err(failed)?;
    sender.send(Ok("two".into())).map_err(|_| "gRPC: the stream has ended")?;
    let second = answers.message().await.map_err(failed)?;
    drop(sender);
    let end = answers.message().await.map_err(failed)?;
    let heard = (&answer.get_ref()[..], first.as_deref(), second.as_deref(), end);
    if heard == (b"hello", Some(b"one"), Some(b"two"), None) {
        Ok(())
    } else {
        Err(format!("gRPC: {heard:?}"))
    }
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
