//! An upstream that records the bytes of each request, and fails as a test requires.
//!
//! It implements HTTP/1.1 on a plain socket, so that no library hides what the gateway sent.

use super::{PATIENCE, end_of_head, eventually, fields, values};
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The maximum recorded length of a body, in bytes. The length beyond it is only counted.
const REMEMBERED: usize = 1 << 20;

/// A request as it arrived.
#[derive(Clone, Default)]
pub struct Seen {
    /// The bytes of the head.
    pub head: Vec<u8>,
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// The header fields, in order.
    pub headers: Vec<(String, String)>,
    /// The first MiB of the body, with its chunks joined.
    pub body: Vec<u8>,
    /// The length of the body, in bytes.
    pub body_bytes: u64,
    /// The trailer fields after the last chunk.
    pub trailers: Vec<(String, String)>,
    /// Whether the body was read to its end.
    pub complete: bool,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}",
            String::from_utf8_lossy(&self.head).escape_debug().to_string().replace("\\r\\n", "\n    ")
        )?;
        let whole = if self.complete { "complete" } else { "cut" };
        write!(f, "    body: {} bytes, {whole}; trailers: {:?}", self.body_bytes, self.trailers)
    }
}

impl Seen {
    /// Returns the value of a field that occurs at most once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = values(&self.headers, name);
        assert!(values.len() <= 1, "{name} came {} times: {values:?}", values.len());
        values.first().copied()
    }

    /// Whether the head, body or trailers contain the text.
    pub fn mentions(&self, text: &str) -> bool {
        let head = String::from_utf8_lossy(&self.head).to_lowercase();
        let trailers = format!("{:?}", self.trailers).to_lowercase();
        let text = text.to_lowercase();
        head.contains(&text)
            || trailers.contains(&text)
            || String::from_utf8_lossy(&self.body).contains(&text)
    }
}

/// The action of the upstream after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Waits for another request.
    Keep,
    /// Closes the connection.
    Close,
}

/// A gate that holds a script until the test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Creates a closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the gate for everyone from now on.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until the gate is open, with a time limit.
    pub fn wait(&self) {
        let guard = self.0.0.lock().unwrap();
        let _ = self.0.1.wait_timeout_while(guard, 2 * PATIENCE, |open| !*open).unwrap();
    }
}

/// The upstream's end of a connection. The script gets it with each request.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    request: usize,
    shared: Arc<Shared>,
    resets: bool,
}

impl Wire {
    /// Writes bytes, and ignores errors.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Writes an answer with this status line, these fields and a `Content-Length`.
    pub fn answer(&mut self, status: &str, headers: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let length = body.len();
        self.send(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n"));
        self.send(body);
    }

    /// Reads and records the request's body to its end. Returns false if the body is truncated.
    pub fn read_body(&mut self) -> bool {
        let seen = self.seen();
        if seen.complete {
            return true;
        }
        let result = if values(&seen.headers, "transfer-encoding").is_empty() {
            let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap_or(0));
            self.take_body(length)
        } else {
            self.read_chunks()
        };
        if result.is_ok() {
            self.update(|seen| seen.complete = true);
        }
        result.is_ok()
    }

    /// Waits until the gateway closes the connection, and drops all bytes that arrive before. Returns false if the
    /// gateway does not close it.
    pub fn peer_left(&mut self) -> bool {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => break,
            }
        }
        self.shared.departures.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Reads and drops all bytes that arrive until the gateway closes the connection. Returns whether it ends with a reset.
    pub fn is_reset(&mut self) -> bool {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Waits until the gateway has read all sent bytes. A reset could otherwise overtake them.
    pub fn peer_reads(&self) {
        eventually("what was sent arrives", || {
            let path = "/proc/net/tcp";
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let port = format!(":{:04X}", self.stream.local_addr().map_or(0, |address| address.port()));
            let peer = format!(":{:04X}", self.stream.peer_addr().map_or(0, |address| address.port()));
            // The row of the gateway's socket. Its receive queue is empty once the gateway has read everything.
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).all(|row| {
                let ours = row.len() > 4 && row[1].ends_with(&peer) && row[2].ends_with(&port);
                !ours || row[4].ends_with(":00000000")
            })
        });
    }

    /// Makes the connection end with a reset instead of an orderly close, once the script has returned.
    pub fn reset(&mut self) {
        let mine = self.stream.peer_addr().ok();
        // Drops the clone that `stop` uses, because it would keep the connection open.
        self.shared.open.lock().unwrap().retain(|stream| stream.peer_addr().ok() != mine);
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        self.resets = true;
    }

    /// Returns the next `count` bytes after the head.
    ///
    /// # Errors
    /// If the connection ends earlier, or no bytes arrive for too long.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Returns the request that is being answered, with the part of its body that was read.
    pub fn seen(&self) -> Seen {
        self.shared.requests.lock().unwrap()[self.request].clone()
    }

    fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.shared.requests.lock().unwrap()[self.request]);
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(())
            }
        }
    }

    fn take_body(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.fill()?;
            }
            let now = usize::try_from(length).unwrap_or(usize::MAX).min(self.buffer.len());
            let taken: Vec<u8> = self.buffer.drain(..now).collect();
            length -= now as u64;
            self.update(|seen| {
                let room = REMEMBERED.saturating_sub(seen.body.len()).min(now);
                seen.body.extend_from_slice(&taken[..room]);
                seen.body_bytes += now as u64;
            });
        }
        Ok(())
    }

    fn read_chunks(&mut self) -> io::Result<()> {
        loop {
            let line = self.take_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            self.take_body(size)?;
            self.take_line()?;
        }
        loop {
            let line = self.take_line()?;
            if line.is_empty() {
                return Ok(());
            }
            self.update(|seen| seen.trailers.extend(fields(&line)));
        }
    }

    fn take_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill()?;
        }
    }

    fn read_head(&mut self) -> io::Result<Seen> {
        let end = loop {
            if let Some(end) = end_of_head(&self.buffer) {
                break end;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let (first, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let headers = fields(rest);
        Ok(Seen { head, method, target, headers, ..Seen::default() })
    }
}

type Script = dyn Fn(&Seen, &mut Wire) -> After + Send + Sync;

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    departures: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A recording upstream. Its display form is its origin, for use in a policy.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

impl Upstream {
    /// Starts an upstream that answers every request with 200 and the text `upstream`.
    pub fn start() -> Self {
        Self::with(Self::plain_script)
    }

    fn plain_script(_: &Seen, wire: &mut Wire) -> After {
        if !wire.read_body() {
            return After::Close;
        }
        wire.answer("200 OK", "content-type: text/plain\r\n", "upstream");
        After::Keep
    }

    /// Starts an upstream that reads each request and answers it with these bytes.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::with(move |_, wire| {
            if !wire.read_body() {
                return After::Close;
            }
            wire.send(&bytes);
            After::Keep
        })
    }

    /// Starts an upstream that reads each request, and answers it with 200 and the text `late` once the gate is open.
    pub fn held_by(gate: &Gate) -> Self {
        let gate = gate.clone();
        Self::with(move |_, wire| {
            wire.read_body();
            gate.wait();
            wire.answer("200 OK", "", "late");
            After::Keep
        })
    }

    /// Starts an upstream that follows a script. The script is called when a request's head has arrived, and must read
    /// the body itself.
    pub fn with(script: impl Fn(&Seen, &mut Wire) -> After + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("the system has a free port"), script)
    }

    /// Starts an upstream at a listener.
    pub fn on(
        listener: TcpListener,
        script: impl Fn(&Seen, &mut Wire) -> After + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::new(Vec::new()),
            connections: AtomicUsize::new(0),
            departures: AtomicUsize::new(0),
            open: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { return };
                let shared = accepting.clone();
                std::thread::spawn(move || serve(stream, shared));
            }
        });
        Self { address, shared }
    }

    /// Returns the upstream's port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns every request so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Returns the only request. Fails if there was another number of requests.
    #[track_caller]
    pub fn only_request(&self) -> Seen {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "one request reaches the upstream: {requests:#?}");
        requests.remove(0)
    }

    /// Returns the latest request.
    #[track_caller]
    pub fn last_request(&self) -> Seen {
        self.requests().pop().expect("a request reached the upstream")
    }

    /// Fails if any request arrived.
    #[track_caller]
    pub fn saw_nothing(&self) {
        let requests = self.requests();
        assert!(requests.is_empty(), "the upstream sees nothing: {requests:#?}");
    }

    /// Returns the number of connections that were made to the upstream.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until at least `count` requests have arrived.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) {
        eventually("requests at the upstream", || self.shared.requests.lock().unwrap().len() >= count);
    }

    /// Waits until the gateway has closed a connection that the script watched with [`Wire::peer_left`].
    #[track_caller]
    pub fn wait_for_departure(&self) {
        eventually("the gateway leaves the upstream", || self.shared.departures.load(Ordering::SeqCst) > 0);
    }

    /// Stops the upstream: its port refuses connections, and open connections end.
    pub fn stop(&self) {
        if !self.shared.stopped.swap(true, Ordering::SeqCst) {
            // A connection wakes the accepting thread, so that it can end and close the port.
            let _ = TcpStream::connect(self.address);
            for stream in self.shared.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            eventually("the port is closed", || TcpStream::connect(self.address).is_err());
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn serve(stream: TcpStream, shared: Arc<Shared>) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    shared.open.lock().unwrap().push(stream.try_clone().unwrap());
    let mut wire = Wire { stream, buffer: Vec::new(), request: 0, shared: shared.clone(), resets: false };
    while let Ok(seen) = wire.read_head() {
        {
            let mut requests = shared.requests.lock().unwrap();
            wire.request = requests.len();
            requests.push(seen.clone());
        }
        if (shared.script)(&seen, &mut wire) == After::Close {
            break;
        }
    }
    if wire.resets {
        return;
    }
    // `stop` may still have a clone, so dropping this stream alone would not close the connection.
    let _ = wire.stream.shutdown(Shutdown::Both);
}

/// A port that refuses connections until the value is dropped. It is bound but does not listen, so that no other
/// process gets it.
#[derive(Debug)]
pub struct ClosedPort(Socket);

impl ClosedPort {
    /// Binds a free port.
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self(socket)
    }
}

impl ClosedPort {
    /// Begins to listen, and answers with 200 and the text `upstream`.
    pub fn listen(self) -> Upstream {
        self.0.listen(128).unwrap();
        Upstream::on(self.0.into(), Upstream::plain_script)
    }
}

impl fmt::Display for ClosedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0.local_addr().unwrap().as_socket().unwrap())
    }
}
