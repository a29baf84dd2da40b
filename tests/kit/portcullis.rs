//! The real binary, with a policy that the test wrote, on ports of its own.

use super::client::Answer;
use super::client::HOST;
use super::dir::Dir;
use super::{PATIENCE, forge};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// What a policy says unless a test says otherwise: free ports, cleartext served, one core (so that what is kept
/// per core can be counted), state in the test's folder, a log to read.
const DEFAULTS: [(&str, &str, &str); 8] = [
    ("server", "http", "\"127.0.0.1:0\""),
    ("server", "https", "\"\""),
    ("server", "admin", "\"127.0.0.1:0\""),
    ("server", "plain", "\"serve\""),
    ("server", "workers", "1"),
    ("server", "drain", "\"10s\""),
    ("state", "dir", "\"state\""),
    ("log", "format", "\"json\""),
];

/// Runs one command of the binary to its end, in a folder.
pub fn command(dir: &Dir, arguments: &[&str]) -> Finished {
    finish(prepared(dir).args(arguments), "")
}

/// The same, with something to read from its standard input.
pub fn command_with(dir: &Dir, arguments: &[&str], input: &str) -> Finished {
    finish(prepared(dir).args(arguments), input)
}

/// The same, with variables in its environment.
pub fn command_in(dir: &Dir, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    finish(prepared(dir).args(arguments).envs(environment.iter().copied()), "")
}

/// The same, with no more than two gigabytes of memory to ask for.
pub fn command_bounded(dir: &Dir, arguments: &[&str], environment: &[(String, String)]) -> Finished {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 2097152 && exec \"$@\"", "sh", BINARY]);
    finish(in_dir(command, dir).args(arguments).envs(environment.iter().cloned()), "")
}

/// Runs a command to its end, within [`PATIENCE`].
fn finish(command: &mut Command, input: &str) -> Finished {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built for this test");
    fn follow(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
        std::thread::spawn(move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("what the binary prints is UTF-8");
            text
        })
    }
    let (stdout, stderr) = (follow(child.stdout.take().unwrap()), follow(child.stderr.take().unwrap()));
    // A command that reads nothing may have ended before it is written to.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let status = wait(&mut child).expect("a command ends by itself");
    Finished { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output and error together: where a finding stands is not what most tests are about.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

fn prepared(dir: &Dir) -> Command {
    in_dir(Command::new(BINARY), dir)
}

fn in_dir(mut command: Command, dir: &Dir) -> Command {
    command.current_dir(dir.path());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PORTCULLIS")) {
        command.env_remove(name);
    }
    command
}

/// Waits for a process, within [`PATIENCE`]; kills it after that.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("the process is our child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Completes a policy with [`DEFAULTS`], section by section, and writes it and the forge's keys into a folder.
pub fn write_policy(dir: &Dir, policy: &str) {
    forge::write_keys(dir);
    dir.write("gateway.toml", completed(policy));
}

/// The same policy as a file, for a test that puts it in place in a way of its own.
pub fn completed(policy: &str) -> String {
    let mut text = policy.to_owned();
    for (section, key, value) in DEFAULTS.into_iter().rev() {
        let header = format!("[{section}]");
        let start = text.lines().position(|line| line.trim() == header);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let start = start.unwrap_or_else(|| {
            lines.push(header);
            lines.len() - 1
        });
        let mut body = lines[start + 1..].iter().take_while(|line| !line.trim_start().starts_with('['));
        let given = body.any(|line| line.split_once('=').is_some_and(|(name, _)| name.trim() == key));
        if !given {
            lines.insert(start + 1, format!("{key} = {value}"));
        }
        text = lines.join("\n");
    }
    text + "\n"
}

/// A gateway that is to be started.
#[derive(Debug)]
pub struct Builder {
    dir: Rc<Dir>,
    policy: String,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl Builder {
    /// Starts it by this program and arguments, to which its own command line is appended. The program must `exec` it.
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Writes a file beside the policy.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.dir.write(name, content);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it in a folder that another gateway used, with what that one left there.
    pub fn within(mut self, dir: Rc<Dir>) -> Self {
        self.dir = dir;
        self
    }

    /// Starts it and waits until it says that it is ready.
    #[track_caller]
    pub fn start(self) -> Portcullis {
        write_policy(&self.dir, &self.policy);
        let command = match self.wrapper.split_first() {
            None => prepared(&self.dir),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(BINARY);
                in_dir(command, &self.dir)
            }
        };
        let mut child = { command }
            .args(["run", "--config", "gateway.toml"])
            // The host that requests name unless a test names another: the operators' listener is asked by it, too.
            .env("PORTCULLIS_SERVER__ADMIN_HOSTS", format!("[\"{HOST}\"]"))
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let log = Log::default();
        log.follow(child.stdout.take().unwrap());
        log.follow(child.stderr.take().unwrap());
        let mut gateway = Portcullis { child, log, dir: self.dir, ready: Value::Null, ended: false };
        let deadline = Instant::now() + PATIENCE;
        gateway.ready = loop {
            if let Some(ready) = gateway.log().into_iter().find(|line| line["message"] == "ready") {
                break ready;
            }
            let ended = gateway.child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended before it was ready: {ended:?}");
            assert!(Instant::now() < deadline, "the gateway did not say that it is ready");
            gateway.log.wait_for_more(Duration::from_millis(20));
        };
        gateway
    }
}

/// A running gateway. Killed when dropped; a failing test prints its log.
#[derive(Debug)]
pub struct Portcullis {
    child: Child,
    log: Log,
    dir: Rc<Dir>,
    ready: Value,
    ended: bool,
}

impl Portcullis {
    /// A gateway with this policy. The forge's keys lie beside it, and what [`DEFAULTS`] lists is filled in.
    pub fn with(policy: &str) -> Builder {
        Builder {
            dir: Rc::new(Dir::new()),
            policy: policy.to_owned(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Where it listens in cleartext.
    pub fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// Where it listens for TLS.
    pub fn https(&self) -> SocketAddr {
        self.address("https")
    }

    /// Where it answers operators.
    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    fn address(&self, name: &str) -> SocketAddr {
        let text = self.ready[name].as_str().unwrap_or_default();
        let first = text.split(',').next().unwrap_or_default().trim();
        first.parse().unwrap_or_else(|_| panic!("the ready line names no {name}: {}", self.ready))
    }

    /// Its folder: policy, keys, state.
    pub fn dir(&self) -> &Rc<Dir> {
        &self.dir
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The value of a sample of its metrics; none when it has no such sample.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> Option<u64> {
        let metrics = super::Request::get("/metrics").to(self.admin());
        let text = metrics.is(200).text();
        let value =
            text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ').map(str::to_owned));
        value.map(|value| value.parse().expect("a count"))
    }

    /// The most memory that it ever held, in bytes (`VmHWM`).
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }

    /// All it wrote, as text.
    pub fn log_text(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    /// All log lines so far.
    pub fn log(&self) -> Vec<Value> {
        let lines = &self.log.lines.lock().unwrap().0;
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a log line.
    #[track_caller]
    pub fn wait_log(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().into_iter().find(&wanted) {
                return line;
            }
            assert!(Instant::now() < deadline, "no log line: {what}");
            self.log.wait_for_more(Duration::from_millis(100));
        }
    }

    /// Waits for the access line of an answer: the one with its request id.
    #[track_caller]
    pub fn access_line(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("every answer names its request").to_owned();
        self.wait_log(&format!("request {id}"), |line| line["request_id"] == *id && !line["status"].is_null())
    }

    /// Sends it a signal: `TERM`, `INT`, `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(status.is_ok_and(|status| status.success()), "the gateway is there to be signalled");
    }

    /// Waits for its end and says its exit code.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = wait(&mut self.child);
        self.ended = true;
        status.expect("the gateway ends").code()
    }

    /// Stops it as an operator would, and returns all it wrote.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        assert_eq!(self.exit_code(), Some(0), "a gateway that was told to stop ends well");
        self.log.wait_for_end();
        self.log_text()
    }
}

impl Drop for Portcullis {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            self.log.wait_for_end();
            eprintln!("--- the gateway's log\n{}\n---", self.log_text());
        }
    }
}

/// What a process writes, line by line, as it comes. Counts the streams that are still open.
#[derive(Clone, Debug, Default)]
struct Log {
    lines: Arc<Mutex<(Vec<String>, usize)>>,
    more: Arc<Condvar>,
}

impl Log {
    fn follow(&self, stream: impl Read + Send + 'static) {
        self.lines.lock().unwrap().1 += 1;
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { break };
                log.lines.lock().unwrap().0.push(line);
                log.more.notify_all();
            }
            log.lines.lock().unwrap().1 -= 1;
            log.more.notify_all();
        });
    }

    fn wait_for_more(&self, timeout: Duration) {
        let guard = self.lines.lock().unwrap();
        let _ = self.more.wait_timeout(guard, timeout).unwrap();
    }

    fn wait_for_end(&self) {
        let guard = self.lines.lock().unwrap();
        let _ = self.more.wait_timeout_while(guard, PATIENCE, |lines| lines.1 > 0).unwrap();
    }
}
