//! Pebble, the ACME server of Let's Encrypt for tests, behind a front that a test can make fail. Pebble validates for
//! real: its connections reach the gateway through relays, because its ports are fixed before the gateway has its own.

use super::PATIENCE;
use super::dir::Dir;
use super::pki::Authority;
use super::port::reserve;
use super::tls::{Options, connect};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// A request to the ACME server.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The decoded payload of the signed request, or nothing.
    pub payload: String,
}

/// The front's answer to a request.
pub enum Verdict {
    /// With Pebble's answer.
    Pass,
    /// With this status line, these fields and this body.
    Instead(&'static str, String, String),
    /// With Pebble's answer and a changed body.
    Changed(Box<dyn Fn(&str) -> String>),
    /// With the end of the connection.
    Close,
}

type Script = Box<dyn Fn(&Asked) -> Verdict + Send>;

/// The settings of an ACME server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pebble {
    /// The lifetime of certificates in seconds. 0 for Pebble's default of five years.
    pub lifetime: u64,
    /// Whether accounts need an external account.
    pub binding: bool,
}

/// A running ACME server.
pub struct AcmeServer {
    settings: Pebble,
    dir: Dir,
    minder: Option<Child>,
    backend: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    front: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    tls: Relay,
    http: Relay,
}

impl fmt::Debug for AcmeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeServer").field("front", &self.front).finish_non_exhaustive()
    }
}

/// The identifier of the external account, and its key.
pub const EXTERNAL: (&str, &str) =
    ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

impl Pebble {
    /// Starts the server.
    ///
    /// # Panics
    /// If Pebble is not installed or does not start.
    #[track_caller]
    pub fn start(self) -> AcmeServer {
        let dir = Dir::new();
        let authority = Authority::new("the ACME server's authority");
        let identity = authority.issue(&["localhost"]);
        dir.write("ca.pem", &authority.pem);
        dir.write("cert.pem", &identity.pem);
        dir.write("key.pem", &identity.key);
        let (asked, script) =
            (Arc::default(), Arc::new(Mutex::new(Box::new(|_: &Asked| Verdict::Pass) as Script)));
        let backend = reserve();
        let front = front(
            (identity.certificate.clone(), identity.private_key()),
            backend,
            Arc::clone(&script),
            Arc::clone(&asked),
        );
        let mut server = AcmeServer {
            settings: self,
            dir,
            minder: None,
            backend,
            management: reserve(),
            dns: reserve_for_dns(),
            front,
            script,
            asked,
            tls: Relay::start(),
            http: Relay::start(),
        };
        server.run();
        server
    }
}

impl AcmeServer {
    /// Starts Pebble and its DNS server.
    fn run(&mut self) {
        let Pebble { lifetime, binding } = self.settings;
        let lifetime =
            if lifetime == 0 { String::new() } else { format!("\"certificateValidityPeriod\":{lifetime},") };
        let (id, key) = EXTERNAL;
        self.dir.write(
            "pebble.json",
            format!(
                r#"{{"pebble":{{"listenAddress":"{}","managementListenAddress":"{}","certificate":"cert.pem",
                "privateKey":"key.pem","httpPort":{},"tlsPort":{},"ocspResponderURL":"",{lifetime}
                "externalAccountBindingRequired":{binding},"externalAccountMACKeys":{{"{id}":"{key}"}}}}}}"#,
                self.backend,
                self.management,
                self.http.address.port(),
                self.tls.address.port(),
            ),
        );
        // The shell stops both servers when this process ends.
        let script = "pebble -strict -config pebble.json -dnsserver \"$1\" >pebble.log 2>&1 & a=$!
            pebble-challtestsrv -dns01 \"$1\" -defaultIPv6 '' -http01 '' -https01 '' -tlsalpn01 '' \
                -management \"$2\" >dns.log 2>&1 & b=$!
            read -r _ || true; kill $a $b; wait";
        let minder = Command::new("sh")
            .args(["-c", script, "minder", &self.dns.to_string(), &reserve().to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .env("PEBBLE_AUTHZREUSE", "0")
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh is there");
        self.minder = Some(minder);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.backend).is_err() || TcpStream::connect(self.dns).is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("pebble.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "pebble is installed (Debian: pebble) and starts: {log}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Starts Pebble anew. It forgets all accounts.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    fn stop(&mut self) {
        if let Some(mut minder) = self.minder.take() {
            drop(minder.stdin.take());
            let _ = minder.wait();
        }
    }

    /// Returns the policy's keys for this server, and with them `more`, such as `challenge = "http-01"`.
    pub fn keys(&self, domains: &[&str], more: &str) -> String {
        format!(
            "[tls.acme]\ndomains = {domains:?}\nemail = \"ops@example.com\"\ndirectory = \"https://localhost:{}/dir\"\n\
             ca = {:?}\nprivate_networks = [\"127.0.0.0/8\", \"::1\"]\n{more}\n",
            self.front.port(),
            self.dir.path().join("ca.pem").to_str().unwrap(),
        )
    }

    /// Lets the server's validations reach these listeners.
    pub fn validates(&self, tls: SocketAddr, http: Option<SocketAddr>) {
        self.tls.lead_to(tls);
        if let Some(http) = http {
            self.http.lead_to(http);
        }
    }

    /// Changes how the front answers.
    pub fn answers(&self, script: impl Fn(&Asked) -> Verdict + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Returns the requests to a path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }

    /// Returns how often a certificate was ordered.
    pub fn orders(&self) -> usize {
        self.asked("/order-plz").len()
    }

    /// Writes the server's root certificate into a folder.
    pub fn write_root(&self, dir: &Dir) -> std::path::PathBuf {
        let (_, _, body) =
            exchange(self.management, "GET /roots/0 HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
        dir.write("root.pem", &body);
        dir.path().join("root.pem")
    }

    /// Returns what Pebble wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("pebble.log")).unwrap_or_default()
    }
}

impl Drop for AcmeServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.stop();
    }
}

/// Reserves an address for TCP that is free for UDP, too.
fn reserve_for_dns() -> SocketAddr {
    std::iter::repeat_with(reserve)
        .find(|address| UdpSocket::bind(address).is_ok())
        .expect("an endless iterator")
}

/// A listener whose connections lead to another one, once a test has named it.
struct Relay {
    address: SocketAddr,
    target: Arc<(Mutex<Option<SocketAddr>>, Condvar)>,
}

impl Relay {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target: Arc<(Mutex<Option<SocketAddr>>, Condvar)> = Arc::default();
        let named = target.clone();
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let named = named.clone();
                std::thread::spawn(move || {
                    let wait = |address: &mut Option<SocketAddr>| address.is_none();
                    let known =
                        named.1.wait_timeout_while(named.0.lock().unwrap(), PATIENCE, wait).unwrap().0;
                    let Some(to) = (*known).and_then(|address| TcpStream::connect(address).ok()) else {
                        return;
                    };
                    drop(known);
                    let copy = |mut from: TcpStream, mut to: TcpStream| {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    };
                    let (back, forth) = ((to.try_clone(), from.try_clone()), (from, to));
                    if let (Ok(to), Ok(from)) = back {
                        std::thread::spawn(move || copy(to, from));
                    }
                    copy(forth.0, forth.1);
                });
            }
        });
        Self { address, target }
    }

    fn lead_to(&self, address: SocketAddr) {
        *self.target.0.lock().unwrap() = Some(address);
        self.target.1.notify_all();
    }
}

/// Starts the TLS server in front of Pebble.
fn front(
    (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
    backend: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<Asked>>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let (script, asked) = (script.clone(), asked.clone());
            std::thread::spawn(move || {
                let stream = StreamOwned::new(connection, socket);
                let _ = serve(stream, backend, &script, &asked);
            });
        }
    });
    address
}

fn serve(
    stream: StreamOwned<ServerConnection, TcpStream>,
    backend: SocketAddr,
    script: &Mutex<Script>,
    asked: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let mut body = vec![0; length(&head)];
        stream.read_exact(&mut body)?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let request = Asked { method, path, payload: payload(&body) };
        asked.lock().unwrap().push(request.clone());
        let verdict = script.lock().unwrap()(&request);
        let pass = || {
            let head = head.replacen("HTTP/1.1", "HTTP/1.0", 1);
            exchange(backend, &format!("{head}{}", String::from_utf8_lossy(&body)))
        };
        let (status, fields, answer) = match verdict {
            Verdict::Pass => pass()?,
            Verdict::Changed(change) => {
                let (status, fields, body) = pass()?;
                (status, fields, change(&body))
            }
            Verdict::Instead(status, fields, body) => (status.to_owned(), fields, body),
            Verdict::Close => return Ok(()),
        };
        let length = answer.len();
        write!(stream.get_mut(), "HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\n\r\n{answer}")?;
        stream.get_mut().flush()?;
    }
}

fn length(head: &str) -> usize {
    let fields = super::fields(head);
    super::values(&fields, "content-length").first().map_or(0, |length| length.parse().unwrap())
}

/// Returns the payload of a signed request.
fn payload(body: &[u8]) -> String {
    let Ok(signed) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let text = signed["payload"].as_str().unwrap_or_default();
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
    String::from_utf8(decoded.unwrap()).unwrap()
}

/// Sends a request over TLS. Returns the status, the fields and the body of the answer.
fn exchange(to: SocketAddr, request: &str) -> io::Result<(String, String, String)> {
    let options = Options { alpn: vec!["http/1.1"], ..Options::default() };
    let mut stream = connect(to, &options)?;
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    // Pebble closes the connection without `close_notify`.
    if let Err(error) = stream.read_to_end(&mut answer)
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        return Err(error);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let (first, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split_once(' ').map_or("500", |(_, status)| status);
    let is_framing = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        ["content-length", "connection", "transfer-encoding"].contains(&&*name)
    };
    let fields: String = fields
        .split("\r\n")
        .filter(|line| !line.is_empty() && !is_framing(line))
        .map(|line| format!("{line}\r\n"))
        .collect();
    Ok((status.to_owned(), fields, body.to_owned()))
}
