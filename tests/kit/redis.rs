//! Redis servers for tests, each in a temporary folder and at a Unix socket or an ephemeral port. A shell watches each
//! server, and kills it when this process ends.

use super::dir::Dir;
use super::eventually;
use super::port::reserve;
use redis::{ConnectionLike, cmd};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

const MINDER: &str = r#""$SERVER" "$@" >"$LOG" 2>&1 & pid=$!; echo $pid; read -r _ || true; kill -9 $pid"#;

/// The environment variable that names another server, such as that of Valkey.
const SERVER: &str = "PORTCULLIS_REDIS_SERVER";

/// A Redis server. Stopped when dropped, or when this process ends.
#[derive(Debug)]
pub struct Redis {
    dir: Dir,
    arguments: Vec<String>,
    /// The server's address for the policy of a gateway.
    url: String,
    running: Option<(Child, u32)>,
}

impl Redis {
    /// Starts a server at a Unix socket.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server at a Unix socket, with further arguments.
    pub fn with(arguments: &[&str]) -> Self {
        let dir = Dir::new();
        let socket = dir.path().join("redis.sock");
        let mut all = vec!["--port".to_owned(), "0".to_owned(), "--unixsocket".to_owned()];
        all.push(socket.display().to_string());
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self::run(dir, all, format!("unix:{}", socket.display()))
    }

    /// Starts a server at a TCP port. The arguments are made from the folder and the port.
    pub fn at_port(arguments: impl Fn(&Dir, u16) -> Vec<String>) -> Self {
        let (dir, port) = (Dir::new(), reserve().port());
        let mut all: Vec<String> = ["--bind", "127.0.0.1"].map(str::to_owned).into();
        all.extend(arguments(&dir, port));
        Self::run(dir, all, format!("redis://127.0.0.1:{port}"))
    }

    /// Starts a Sentinel that watches a server as `main`.
    pub fn sentinel(server: &Self) -> Self {
        let (dir, port) = (Dir::new(), reserve().port());
        let (host, of_server) =
            server.url.strip_prefix("redis://").and_then(|at| at.split_once(':')).expect("a port");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main {host} {of_server} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 1000\n"
        );
        dir.write("sentinel.conf", text);
        let file = dir.path().join("sentinel.conf").display().to_string();
        let this = Self {
            dir,
            arguments: vec![file, "--sentinel".to_owned()],
            url: format!("redis://127.0.0.1:{port}"),
            running: None,
        };
        this.started()
    }

    /// Starts a cluster of three servers, each with a third of the keys. A node that answers late on a busy machine does not count as
    /// failed.
    pub fn cluster() -> Vec<Self> {
        Self::cluster_with("")
    }

    /// Starts a cluster of three servers with these further arguments, separated by spaces.
    pub fn cluster_with(more: &str) -> Vec<Self> {
        let nodes: Vec<_> = (0..3)
            .map(|_| {
                Self::at_port(|_, port| {
                    let bus = reserve().port();
                    let text = format!(
                        "--port {port} --cluster-enabled yes --cluster-port {bus} --cluster-node-timeout 60000 \
                         --cluster-require-full-coverage no {more}"
                    );
                    text.split_whitespace().map(str::to_owned).collect()
                })
            })
            .collect();
        for (node, (first, last)) in nodes.iter().zip([(0, 5460), (5461, 10922), (10923, 16383)]) {
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &format!("{first}"), &format!("{last}")]);
        }
        for node in &nodes[1..] {
            let (port, bus) = (node.argument("--port"), node.argument("--cluster-port"));
            nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()]);
        }
        // A node that knows all slots answers CLUSTERDOWN until two seconds after its start.
        eventually("the nodes know each other and serve", || {
            nodes.iter().all(|node| {
                let slots: Vec<redis::Value> = node.connection_ask(&["CLUSTER", "SLOTS"]);
                slots.len() == 3 && node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            })
        });
        nodes
    }

    /// Moves the slot of a key, with all its keys, to another node of the cluster.
    pub fn move_slot(nodes: &[Self], key: &str) {
        let slot: u32 = nodes[0].connection_ask(&["CLUSTER", "KEYSLOT", key]);
        let from = [0..=5460, 5461..=10_922, 10_923..=16_383].iter().position(|slots| slots.contains(&slot));
        let from = from.expect("a slot of one of the nodes");
        let (from, to, slot) = (&nodes[from], &nodes[(from + 1) % nodes.len()], slot.to_string());
        let id = |node: &Self| node.connection_ask::<String>(&["CLUSTER", "MYID"]);
        to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        let keys: Vec<String> = from.connection_ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
        for key in keys {
            from.ask(&["MIGRATE", "127.0.0.1", &to.argument("--port").to_string(), &key, "0", "10000"]);
        }
        for node in [to, from] {
            node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
        }
    }

    fn run(dir: Dir, mut arguments: Vec<String>, url: String) -> Self {
        let folder = dir.path().display().to_string();
        for argument in ["--save", "", "--appendonly", "no", "--dir", &folder, "--logfile", ""] {
            arguments.push(argument.to_owned());
        }
        Self { dir, arguments, url, running: None }.started()
    }

    fn started(mut self) -> Self {
        self.resume();
        self
    }

    /// Starts a stopped server again, with an empty memory.
    pub fn resume(&mut self) {
        let mut minder = Command::new("sh")
            .args(["-c", MINDER, "minder"])
            .args(&self.arguments)
            .env("SERVER", std::env::var(SERVER).unwrap_or_else(|_| "redis-server".to_owned()))
            .env("LOG", self.dir.path().join("log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh is there");
        let mut line = String::new();
        let stdout = minder.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line of text");
        self.running = Some((minder, line.trim_end().parse().expect("the server's number")));
        eventually("Redis is installed (Debian: redis-server) and starts", || match self.client() {
            // A server that requires a password or TLS answers nonetheless.
            Some(client) => {
                client.get_connection().is_ok_and(|mut open| open.req_command(&cmd("PING")).is_ok())
            }
            None => self.is_listening(),
        });
    }

    /// Kills the server at once. Its memory is lost.
    pub fn kill(&mut self) {
        let Some((mut minder, _)) = self.running.take() else { return };
        drop(minder.stdin.take());
        let _ = minder.wait();
    }

    /// Stops the server's process without closing its connections.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Continues a frozen server.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let (_, pid) = self.running.as_ref().expect("it runs");
        let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Returns the server's address for the policy of a gateway.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the folder of the server.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Sends a command, and returns the answer as text.
    ///
    /// # Panics
    /// If the server refuses the command.
    pub fn ask(&self, words: &[&str]) -> String {
        format!("{:?}", self.connection_ask::<redis::Value>(words))
    }

    /// Sends a command, and returns the answer as text; `None` if the server refuses the command.
    pub fn try_ask(&self, words: &[&str]) -> Option<String> {
        let mut open = self.client()?.get_connection().ok()?;
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        command.query::<redis::Value>(&mut open).ok().map(|answer| format!("{answer:?}"))
    }

    /// Returns the number of entries in the stream of marks.
    pub fn marks(&self) -> u64 {
        self.connection_ask(&["XLEN", "portcullis:marks:stream"])
    }

    fn connection_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut open = self.client().expect("a socket or a port").get_connection().expect("the server runs");
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut open).expect("the server takes the command")
    }

    /// Returns a client; `None` for a server whose only port needs TLS.
    fn client(&self) -> Option<redis::Client> {
        let has_tls = self.arguments.iter().any(|argument| argument == "--tls-port");
        if has_tls && self.argument("--port") == 0 {
            return None;
        }
        let url = self.url.replace("unix:", "redis+unix://");
        Some(redis::Client::open(url).expect("a valid URL"))
    }

    fn is_listening(&self) -> bool {
        self.url.split_once("://").is_some_and(|(_, at)| std::net::TcpStream::connect(at).is_ok())
    }

    /// Returns the port in an argument.
    pub fn argument(&self, name: &str) -> u16 {
        let at = self.arguments.iter().position(|argument| argument == name).expect("it is there");
        self.arguments[at + 1].parse().expect("a port")
    }
}

/// A server that speaks the protocol of Redis, and answers as a test wants.
#[derive(Debug)]
pub struct FalseRedis {
    url: String,
}

impl FalseRedis {
    /// Starts a server at a TCP port. `answer` gets each command, and returns the bytes of the answer.
    pub fn start(answer: impl Fn(&[String]) -> Vec<u8> + Clone + Send + 'static) -> Self {
        Self::streaming(move |words, stream| stream.write_all(&answer(words)))
    }

    /// Starts a server at a TCP port. `answer` gets each command, and writes the answer.
    pub fn streaming(
        answer: impl Fn(&[String], &mut TcpStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("it is bound"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), answer) = (stream, answer.clone()) else { return };
                std::thread::spawn(move || {
                    let Ok(reader) = stream.try_clone() else { return };
                    let mut reader = BufReader::new(reader);
                    while let Some(words) = command(&mut reader) {
                        if answer(&words, &mut stream).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url }
    }

    /// Starts a Sentinel that names this server as the master.
    pub fn sentinel(named: &str) -> Self {
        let port = named.rsplit_once(':').expect("a port").1;
        let answer = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len()).into_bytes();
        Self::start(move |_| answer.clone())
    }

    /// Returns the server's address for the policy of a gateway.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Reads a command: an array of strings.
fn command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse::<usize>().ok()
    };
    let words = number(reader)?;
    let word = |_| {
        let mut bytes = vec![0; number(reader)? + 2];
        reader.read_exact(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
    };
    (0..words).map(word).collect()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
