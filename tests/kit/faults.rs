//! A TCP proxy that injects faults between the gateway and a server, and a server that can be killed.

use super::{end_of_head, eventually};
use std::fmt;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// The bytes of requests.
    Server,
    /// The bytes of answers.
    Gateway,
}

/// A fault that begins at one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Resets the connection.
    Reset,
    /// Closes the connection in order.
    Close,
    /// Passes nothing more, and keeps the connection open.
    BlackHole,
    /// Passes each byte on its own.
    Drip,
    /// Waits once.
    Delay(Duration),
    /// Inverts one byte.
    Corrupt,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    toward: Toward,
    fault: Fault,
    at: usize,
    is_armed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Option<Plan>>,
    epoch: AtomicUsize,
    begun: AtomicUsize,
}

/// A proxy in front of one server. Its display form is its origin.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: Running,
}

impl FaultProxy {
    /// Starts a proxy in front of the server at this port of 127.0.0.1.
    pub fn start(port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        let running = Running::start(SocketAddr::from(([127, 0, 0, 1], 0)), move |gateway| {
            let shared = accepting.clone();
            async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                server.set_nodelay(true).unwrap();
                relay(gateway, server, &shared).await;
            }
        });
        Self { address: running.address, shared, _running: running }
    }

    /// Injects a fault once, at the byte with this index of the next bytes of a connection.
    pub fn inject(&self, toward: Toward, fault: Fault, at: usize) {
        *self.shared.plan.lock().unwrap() = Some(Plan { toward, fault, at, is_armed: true });
        self.shared.begun.store(0, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the fault of the last [`Self::inject`] has begun.
    pub fn has_struck(&self) -> bool {
        self.shared.plan.lock().unwrap().is_some_and(|plan| !plan.is_armed)
    }

    /// Returns the number of connections with a byte of a request since the last [`Self::inject`].
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::SeqCst)
    }

    /// Returns the proxy's port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl fmt::Display for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

async fn relay(mut gateway: TcpStream, mut server: TcpStream, shared: &Shared) {
    let (mut epoch, mut passed) = (0, [0, 0]);
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        let (toward, count) = match first(gateway.read(&mut up), server.read(&mut down)).await {
            First::One(read) => (Toward::Server, read),
            First::Other(read) => (Toward::Gateway, read),
        };
        let Ok(count @ 1..) = count else { return };
        let now = shared.epoch.load(Ordering::SeqCst);
        if epoch != now {
            (epoch, passed) = (now, [0, 0]);
        }
        let is_up = toward == Toward::Server;
        let place = usize::from(!is_up);
        if is_up && passed[0] == 0 {
            shared.begun.fetch_add(1, Ordering::SeqCst);
        }
        let fault = {
            let mut plan = shared.plan.lock().unwrap();
            let due = plan
                .as_mut()
                .filter(|plan| plan.is_armed && plan.toward == toward && plan.at < passed[place] + count);
            due.map(|plan| {
                plan.is_armed = false;
                (plan.fault, plan.at.saturating_sub(passed[place]))
            })
        };
        passed[place] += count;
        let (bytes, target) = match toward {
            Toward::Server => (&mut up[..count], &mut server),
            Toward::Gateway => (&mut down[..count], &mut gateway),
        };
        let Some((fault, at)) = fault else {
            if target.write_all(bytes).await.is_err() {
                return;
            }
            continue;
        };
        if fault == Fault::Corrupt {
            bytes[at] = !bytes[at];
        }
        let (before, after) = bytes.split_at(at);
        if target.write_all(before).await.is_err() {
            return;
        }
        match fault {
            Fault::Reset => {
                return socket2::SockRef::from(&gateway).set_linger(Some(Duration::ZERO)).unwrap();
            }
            Fault::Close => {
                // Unread bytes would turn the close into a reset.
                let _ = gateway.shutdown().await;
                while gateway.read(&mut up).await.is_ok_and(|count| count > 0) {}
                return;
            }
            Fault::BlackHole => {
                while gateway.read(&mut up).await.is_ok_and(|count| count > 0) {}
                return;
            }
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Drip => {
                for byte in after.chunks(1) {
                    if target.write_all(byte).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                continue;
            }
            Fault::Corrupt => {}
        }
        if target.write_all(after).await.is_err() {
            return;
        }
    }
}

/// A server that a test kills and revives at the same address. As in the kernel's end of a process, all of its
/// sockets are closed at once, with the connections that it has not accepted.
#[derive(Debug)]
pub struct Mortal {
    address: SocketAddr,
    running: Running,
}

impl Mortal {
    /// Starts a server that answers each request without a body with `alive`.
    pub fn start() -> Self {
        let running = Running::start(SocketAddr::from(([127, 0, 0, 1], 0)), Self::serve);
        Self { address: running.address, running }
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// Starts the server again.
    pub fn revive(&mut self) {
        self.running = Running::start(self.address, Self::serve);
        eventually("the server is back", || StdStream::connect(self.address).is_ok());
    }

    async fn serve(mut stream: TcpStream) {
        let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            buffer.extend_from_slice(&chunk[..count]);
            if let Some(end) = end_of_head(&buffer) {
                buffer.drain(..end);
                // A kill may come between the request and its answer.
                tokio::task::yield_now().await;
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nalive").await.is_err() {
                    return;
                }
            }
        }
    }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

/// The output of the future that ended first.
enum First<A, B> {
    One(A),
    Other(B),
}

async fn first<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> First<A, B> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(First::One(output)),
        Poll::Pending => other.as_mut().poll(cx).map(First::Other),
    })
    .await
}

/// A runtime on its own thread with a listener. Its end drops all sockets.
#[derive(Debug)]
struct Running {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start<F, S>(address: SocketAddr, serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind(address).expect("the address is free");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, mut ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let stream = match first(&mut ended, listener.accept()).await {
                        First::One(_) => return,
                        First::Other(accepted) => accepted.unwrap().0,
                    };
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(serve(stream));
                }
            });
        });
        Self { address, end: Some(end), thread: Some(thread) }
    }

    fn kill(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
