//! A client on the level of bytes: it sends exactly the bytes that a test gives it, and parses answers strictly.

use super::{PATIENCE, end_of_head, fields, tls, values};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The host in requests, unless a test sets another one.
pub const HOST: &str = "gateway.test";

/// One answer as it arrived. The debug form is what a failed test prints.
#[derive(Clone, Default)]
pub struct Answer {
    /// The status code, such as 200.
    pub status: u16,
    /// The header fields, in order.
    pub headers: Vec<(String, String)>,
    /// The body, with its chunks joined.
    pub body: Vec<u8>,
    /// The trailer fields after the last chunk.
    pub trailers: Vec<(String, String)>,
    /// Whether the answer has a proper end. A truncated answer is not complete.
    pub complete: bool,
    /// The statuses of the interim answers (1xx) before this answer.
    pub interim: Vec<u16>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.status, if self.complete { "(complete)" } else { "(cut)" })?;
        for (name, value) in self.headers.iter().chain(&self.trailers) {
            writeln!(f, "    {name}: {value}")?;
        }
        write!(f, "    {:?}", self.text())
    }
}

impl Answer {
    /// Returns the value of a field that occurs at most once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = values(&self.headers, name);
        assert!(values.len() <= 1, "{name} came {} times: {values:?}", values.len());
        values.first().copied()
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }

    /// Returns the `code` of a refusal, or an empty string if the answer has none.
    pub fn code(&self) -> String {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        document["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Fails unless this is a refusal by the gateway with this status and code.
    #[track_caller]
    pub fn is_refusal(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, &*self.code()), (status, code), "{self:#?}");
        self
    }

    /// Fails unless this is a complete answer with this status.
    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:#?}");
        assert!(self.complete, "the answer came whole: {self:#?}");
        self
    }
}

/// A socket, with or without TLS.
trait Stream: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
    fn finish(&mut self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for tls::Stream {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }

    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }
}

/// A connection to the gateway.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("buffer", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects in cleartext.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Connects in cleartext from another address of this machine, such as `127.0.0.2`.
    #[track_caller]
    pub fn from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).expect("the address is this machine's");
        socket.connect(&address.into()).expect("somebody listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Connects over TLS and accepts any certificate.
    #[track_caller]
    pub fn tls(address: SocketAddr) -> Self {
        Self::over(tls::connect(address, &tls::Options::default()).expect("the handshake succeeds"))
    }

    /// Uses a TLS stream that is already connected.
    pub fn over(stream: tls::Stream) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the gateway takes what is sent");
    }

    /// Sends bytes to a gateway that may have closed the connection.
    ///
    /// # Errors
    /// If the gateway has closed the connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Closes the sending direction of the connection.
    pub fn finish(&mut self) {
        let _ = self.stream.finish();
    }

    /// Closes the connection with a reset, which reaches the gateway at once.
    pub fn reset(self) {
        socket2::SockRef::from(self.stream.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads the next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer("GET").expect("the gateway answers")
    }

    /// Reads the next answer to a request of this method. Returns `None` if the connection ends within the head.
    pub fn try_answer(&mut self, method: &str) -> Option<Answer> {
        let mut interim = Vec::new();
        loop {
            let mut answer = self.read_head()?;
            if (100..200).contains(&answer.status) && answer.status != 101 {
                interim.push(answer.status);
                continue;
            }
            answer.interim = interim;
            answer.complete = self.read_body(&mut answer, method).is_ok();
            return Some(answer);
        }
    }

    /// Reads the head of an answer and leaves its body unread.
    pub fn read_head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = end_of_head(&self.buffer) {
                break end;
            }
            self.fill().ok()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8(head).expect("the gateway's heads are text");
        let (first, rest) = text.split_once("\r\n").expect("a head has a first line");
        let mut words = first.splitn(3, ' ');
        assert!(words.next().is_some_and(|version| version.starts_with("HTTP/1.")), "in HTTP/1: {first}");
        let status = words.next().and_then(|status| status.parse().ok()).expect("a status");
        Some(Answer { status, headers: fields(rest), ..Answer::default() })
    }

    fn read_body(&mut self, answer: &mut Answer, method: &str) -> io::Result<()> {
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return Ok(());
        }
        if !values(&answer.headers, "transfer-encoding").is_empty() {
            return self.read_chunks(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().map_err(io::Error::other)?;
            while self.buffer.len() < length {
                if let Err(error) = self.fill() {
                    answer.body = std::mem::take(&mut self.buffer);
                    return Err(error);
                }
            }
            answer.body = self.buffer.drain(..length).collect();
            return Ok(());
        }
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) => {
                    answer.body = std::mem::take(&mut self.buffer);
                    let ended = error.kind() == io::ErrorKind::UnexpectedEof;
                    return if ended { Ok(()) } else { Err(error) };
                }
            }
        }
    }

    fn read_chunks(&mut self, answer: &mut Answer) -> io::Result<()> {
        loop {
            let line = self.take_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                self.fill()?;
            }
            answer.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
        loop {
            let line = self.take_line()?;
            if line.is_empty() {
                return Ok(());
            }
            answer.trailers.extend(fields(&line));
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

    /// Reads more bytes into the buffer. Returns an error of kind `UnexpectedEof` at the end of the stream.
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

    /// Returns the next `count` bytes, or fewer if the stream ends earlier.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.fill().is_ok() {}
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    /// Reads and drops at least `count` bytes, for a body that is too large to keep, or fewer if the stream ends
    /// earlier. Returns the number of dropped bytes.
    pub fn skip(&mut self, count: usize) -> usize {
        let mut skipped = std::mem::take(&mut self.buffer).len();
        while skipped < count && self.fill().is_ok() {
            skipped += std::mem::take(&mut self.buffer).len();
        }
        skipped
    }

    /// Returns all bytes that arrive until the gateway closes the connection.
    ///
    /// # Panics
    /// If the gateway does not close the connection.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!(
                        "the gateway closes the connection; so far: {}",
                        String::from_utf8_lossy(&self.buffer)
                    )
                }
                Err(_) => return std::mem::take(&mut self.buffer),
            }
        }
    }

    /// Waits until the gateway closes the connection. Fails if any byte arrives before that.
    #[track_caller]
    pub fn is_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "nothing more comes: {}", String::from_utf8_lossy(&rest));
    }

    /// Reads and drops all bytes that arrive until the gateway closes the connection. Returns whether it ends with a reset.
    #[track_caller]
    pub fn is_reset(&mut self) -> bool {
        loop {
            match self.fill().map_err(|error| error.kind()) {
                Ok(()) => {}
                Err(io::ErrorKind::ConnectionReset) => return true,
                Err(io::ErrorKind::UnexpectedEof) => return false,
                Err(kind) => panic!("the gateway closes the connection: {kind}"),
            }
        }
    }

    /// Sets the time limit of a write.
    pub fn write_timeout(&mut self, timeout: Duration) {
        self.stream.socket().set_write_timeout(Some(timeout)).unwrap();
    }
}

/// Sends bytes over a new connection and reads one answer.
#[track_caller]
pub fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(bytes);
    connection.answer()
}

/// Sends bytes to a gateway that may stop at any moment. Returns `None` if it stops before the answer is complete.
pub fn try_send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<Answer> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut connection = Connection { stream: Box::new(stream), buffer: Vec::new() };
    connection.try_send(bytes).ok()?;
    connection.try_answer("POST").filter(|answer| answer.complete)
}

/// A builder of a well-formed request.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    host: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    /// Begins a GET request for this target.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Begins a POST request with this body and a `Content-Length`.
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self { body: Some(body.as_ref().to_vec()), ..Self::new("POST", target) }
    }

    /// Begins a request with this method.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: HOST.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// Sets the host.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Adds a field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an access token as `Authorization: Bearer`.
    pub fn bearer(self, token: impl fmt::Display) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Returns the bytes of the request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut bytes = (text + "\r\n").into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends the request over a new connection, and reads the answer.
    #[track_caller]
    pub fn to(&self, address: SocketAddr) -> Answer {
        self.over(&mut Connection::open(address))
    }

    /// Sends the request over this connection, and reads the answer.
    #[track_caller]
    pub fn over(&self, connection: &mut Connection) -> Answer {
        connection.send(self.bytes());
        connection.try_answer(&self.method).expect("the gateway answers")
    }
}
