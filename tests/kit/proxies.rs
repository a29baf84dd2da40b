//! Real proxies in front of the gateway and a service, with the configuration files of `docs/forward-auth`.
//!
//! Only the addresses in those files are replaced, so the tests cover the documented files.

use super::dir::Dir;
use super::{PATIENCE, Portcullis, Request, Upstream, client};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A proxy that can ask the gateway for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// nginx with `auth_request`.
    Nginx,
    /// Caddy with `forward_auth`.
    Caddy,
    /// Traefik with `ForwardAuth`.
    Traefik,
    /// Envoy with `ext_authz`.
    Envoy,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
        }
    }

    /// Returns the proxy's files in `docs/forward-auth`. The first is the one on its command line.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx.conf", "nginx-foreign.conf"],
            Self::Caddy => &["Caddyfile"],
            Self::Traefik => &["traefik.yml", "traefik-dynamic.yml"],
            Self::Envoy => &["envoy.yaml"],
        }
    }

    fn arguments(self, dir: &Path) -> Vec<String> {
        let file = dir.join(self.files()[0]).display().to_string();
        let words: &[&str] = match self {
            Self::Nginx => {
                return vec![
                    "-p".to_owned(),
                    dir.display().to_string(),
                    "-c".to_owned(),
                    file,
                    // Keeps nginx in the foreground as a single process, so that it is a child of the test.
                    "-g".to_owned(),
                    "daemon off; master_process off;".to_owned(),
                ];
            }
            Self::Caddy => &["run", "--adapter", "caddyfile", "--config"],
            Self::Traefik => &["--configFile"],
            // Several tests run at once, so the processes must not share memory. One thread is enough.
            Self::Envoy => &["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"],
        };
        words.iter().map(|word| (*word).to_owned()).chain([file]).collect()
    }

    /// Returns the path of the proxy's program.
    pub fn program(self) -> PathBuf {
        let folder = std::env::var_os("PORTCULLIS_TEST_PROXIES").map_or_else(
            || Path::new(env!("CARGO_BIN_EXE_portcullis")).ancestors().nth(2).unwrap().join("proxies/bin"),
            PathBuf::from,
        );
        let program = folder.join(self.name());
        assert!(program.exists(), "{} is not there: run tests/proxies.sh first", program.display());
        program
    }
}

/// A running proxy. Killed when dropped. A failing test prints its output.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    dir: Dir,
}

impl Proxy {
    /// Starts a proxy in front of this gateway and this service, and waits until it has asked the gateway.
    #[track_caller]
    pub fn start(kind: Kind, gateway: &Portcullis, service: &Upstream) -> Self {
        let dir = Dir::new();
        let address = super::port::reserve();
        let service = service.to_string().rsplit(':').next().unwrap().to_owned();
        for name in kind.files() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/forward-auth").join(name);
            let mut text = std::fs::read_to_string(&path).unwrap();
            let ports = [
                ("8000", address.port().to_string()),
                ("8080", gateway.http().port().to_string()),
                ("9000", service.clone()),
            ];
            for (documented, ours) in ports {
                // Mark each new port, so that a later replacement does not mistake it for a documented port.
                for before in [":", "port_value: "] {
                    let (old, new) = (format!("{before}{documented}"), format!("{before}\u{1}{ours}"));
                    text = text.replace(&old, &new);
                }
            }
            dir.write(name, text.replace('\u{1}', ""));
        }
        let output = std::fs::File::create(dir.path().join("output")).unwrap();
        let child = Command::new(kind.program())
            .args(kind.arguments(dir.path()))
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("the proxy's binary can be run");
        let mut proxy = Self { child, address, dir };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let has_ended = proxy.child.try_wait().unwrap().is_some();
            assert!(!has_ended, "{} ended:\n{}", kind.name(), proxy.output());
            // Some proxies listen before they have read their configuration.
            if client::try_send(address, Request::get("/ready").bytes()).is_some()
                && gateway.log().iter().any(|line| !line["verdict_for"].is_null())
            {
                return proxy;
            }
            assert!(Instant::now() < deadline, "{} does not ask", kind.name());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("output")).unwrap_or_default()
    }

    /// Returns the proxy's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the proxy's output\n{}\n---", self.output());
        }
    }
}
