//! Runs the real binary with a test's policy, on free ports.

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

/// The policy values that a test need not set: free ports, cleartext, one core (so that per-core values can be
/// counted), state in the test's folder, and a log that tests can read.
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

/// Runs one command of the binary to its end, in this folder.
pub fn command(dir: &Dir, arguments: &[&str]) -> Finished {
    finish(prepared(dir).args(arguments), "")
}

/// Runs a command with this text on its standard input.
pub fn command_with(dir: &Dir, arguments: &[&str], input: &str) -> Finished {
    finish(prepared(dir).args(arguments), input)
}

/// Runs a command with these environment variables.
pub fn command_in(dir: &Dir, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    finish(prepared(dir).args(arguments).envs(environment.iter().copied()), "")
}

/// Runs a command with at most two gigabytes of address space.
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
    // A command that does not read its input may have ended before this write.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let status = wait(&mut child).expect("a command ends by itself");
    Finished { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// The result of a command.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, or `None` if a signal ended the command.
    pub code: Option<i32>,
    /// Everything that the command wrote to standard output.
    pub stdout: String,
    /// Everything that the command wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Returns standard output followed by standard error, for tests that accept a finding in either.
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

/// Waits for a process for at most [`PATIENCE`], then kills it.
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

/// Completes a policy with [`DEFAULTS`] and returns it, for a test that writes the file itself.
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

/// The settings of a gateway before its start.
#[derive(Debug)]
pub struct Builder {
    dir: Rc<Dir>,
    policy: String,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl Builder {
    /// Starts the gateway through this program. The gateway's own command line is appended to the program's arguments,
    /// and the program must `exec` it.
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Writes a file into the policy's folder.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.dir.write(name, content);
        self
    }

    /// Sets an environment variable of the gateway.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses the folder of an earlier gateway, with the files that the earlier gateway left in it.
    pub fn within(mut self, dir: Rc<Dir>) -> Self {
        self.dir = dir;
        self
    }

    /// Starts the gateway and waits until it logs that it is ready.
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
            // Tests use the same host name for requests to the admin listener.
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

/// A running gateway. Killed when dropped. A failing test prints its log.
#[derive(Debug)]
pub struct Portcullis {
    child: Child,
    log: Log,
    dir: Rc<Dir>,
    ready: Value,
    ended: bool,
}

impl Portcullis {
    /// Begins a gateway with this policy, completed with [`DEFAULTS`]. The forge's keys are written into its folder.
    pub fn with(policy: &str) -> Builder {
        Builder {
            dir: Rc::new(Dir::new()),
            policy: policy.to_owned(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Returns the address of the cleartext listener.
    pub fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// Returns the address of the TLS listener.
    pub fn https(&self) -> SocketAddr {
        self.address("https")
    }

    /// Returns the address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    fn address(&self, name: &str) -> SocketAddr {
        let text = self.ready[name].as_str().unwrap_or_default();
        let first = text.split(',').next().unwrap_or_default().trim();
        first.parse().unwrap_or_else(|_| panic!("the ready line names no {name}: {}", self.ready))
    }

    /// Returns the gateway's folder, which holds its policy, keys and state.
    pub fn dir(&self) -> &Rc<Dir> {
        &self.dir
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the value of a sample of the metrics, or `None` if there is no such sample.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> Option<u64> {
        let metrics = super::Request::get("/metrics").to(self.admin());
        let text = metrics.is(200).text();
        let value =
            text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ').map(str::to_owned));
        value.map(|value| value.parse().expect("a count"))
    }

    /// Returns the gateway's peak memory in bytes (`VmHWM`). The kernel counts per processor, so a later value may be a
    /// little lower.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }

    /// Returns everything that the gateway wrote, as text.
    pub fn log_text(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    /// Returns all JSON log lines so far.
    pub fn log(&self) -> Vec<Value> {
        let lines = &self.log.lines.lock().unwrap().0;
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a log line that matches.
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

    /// Waits for the access line of an answer, found by its request id.
    #[track_caller]
    pub fn access_line(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("every answer names its request").to_owned();
        self.wait_log(&format!("request {id}"), |line| line["request_id"] == *id && !line["status"].is_null())
    }

    /// Sends the gateway a signal, such as `TERM`, `INT` or `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(status.is_ok_and(|status| status.success()), "the gateway is there to be signalled");
    }

    /// Waits for the gateway to end and returns its exit code.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = wait(&mut self.child);
        self.ended = true;
        status.expect("the gateway ends").code()
    }

    /// Stops the gateway with SIGTERM, and returns everything that it wrote.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        assert_eq!(self.exit_code(), Some(0), "a gateway that is asked to stop ends well");
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

/// The output of a process so far, line by line, with the number of streams that are still open.
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
