//! `portcullis init`: writes a starter policy. It loads and passes its tests.

use super::{BasicFormat, REFUSED, USAGE, print_error, print_line};
use crate::config::load_text;
use crate::config::network::leads_to;
use crate::diagnostic::Diagnostic;
use crate::keyring::MissingKey;
use crate::policy;
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const STARTER: &str = include_str!("init/starter.toml");
/// The cleartext listener of the starter policy. Many services use its port, and two programs cannot.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The default upstream of the starter policy.
const ECHO: &str = "builtin = \"echo\"                # answers with what an upstream would have received; for your own service:
# servers = [\"http://127.0.0.1:9001\"]";

#[derive(Debug, Args)]
pub(super) struct Request {
    /// The upstream to forward to, such as http://127.0.0.1:9001; a built-in echo if not given.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The file to write, in place of --config; "-" for standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(config: &Path, format: BasicFormat, request: &Request) -> ExitCode {
    let path = request.output.as_deref().unwrap_or(config);
    let text = match starter(request.upstream.as_deref()) {
        Ok(text) => text,
        Err(faults) => {
            faults.iter().for_each(|fault| print_error(&format!("--upstream: {}", describe(fault))));
            return ExitCode::from(USAGE);
        }
    };
    if path == Path::new("-") {
        match format {
            BasicFormat::Text => print_line(text.trim_end()),
            BasicFormat::Json => print_line(&json!({ "policy": text }).to_string()),
        }
        return ExitCode::SUCCESS;
    }
    match write(path, &text) {
        Ok(()) => {
            match format {
                BasicFormat::Text => print_line(&next(path)),
                BasicFormat::Json => print_line(&json!({ "written": path }).to_string()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            print_error(&match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    format!("{path:?} already exists and is unchanged; --output FILE writes to another file")
                }
                _ => format!("{path:?}: {error}"),
            });
            ExitCode::from(REFUSED)
        }
    }
}

/// Returns the starter policy with this upstream. Compiles it first, so a written policy always loads.
fn starter(upstream: Option<&str>) -> Result<String, Vec<Diagnostic>> {
    let servers = upstream.map(|url| format!("servers = [{}]", toml_edit::Value::from(url)));
    let is_taken = upstream.is_some_and(|url| leads_to(url, HTTP));
    let starter =
        if is_taken { STARTER.replace("127.0.0.1:8080", "127.0.0.1:8081") } else { STARTER.to_owned() };
    let text = starter.replace("@upstream@", servers.as_deref().unwrap_or(ECHO));
    let loaded = load_text("gateway.toml", text.clone(), PathBuf::new(), Vec::new())?;
    policy::compile(&loaded, MissingKey::Ephemeral).map(|_| text)
}

/// Describes a fault without its place, because the file is not written.
fn describe(fault: &Diagnostic) -> String {
    let shown = fault.to_string();
    let before = format!("{}: fault: {}: ", fault.place, fault.key);
    shown.strip_prefix(&before).unwrap_or(&shown).to_owned()
}

/// Writes a new file. Fails if the file exists.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Remove the incomplete file. Otherwise the next attempt would fail because the file exists.
        let _ = std::fs::remove_file(path);
    })
}

/// Returns a message with the next commands.
fn next(path: &Path) -> String {
    let config = if path == Path::new("gateway.toml") {
        String::new()
    } else {
        format!(" --config {}", shell_word(path))
    };
    let commands = [
        (format!("portcullis check --strict{config}"), "checks it"),
        (
            format!("portcullis user add ada --role admin{config}"),
            "adds an account, and asks for its password",
        ),
        (format!("portcullis{config}"), "serves https://localhost:8443"),
    ];
    let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or_default();
    let commands = commands.iter().map(|(command, does)| format!("\n  {command:width$}   {does}"));
    format!("{} written. Next:{}", shell_word(path), commands.collect::<String>())
}

/// Quotes a path for a shell, if necessary.
fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+:@".contains(char);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, said) in
            [("a/b.toml", "a/b.toml"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$(x)", "'$(x)'")]
        {
            assert_eq!(shell_word(Path::new(path)), said);
        }
    }

    #[test]
    fn the_starter_is_the_same_but_for_its_upstream() {
        let (echo, own) = (starter(None).unwrap(), starter(Some("http://127.0.0.1:9001")).unwrap());
        assert!(own.contains("\nservers = [\"http://127.0.0.1:9001\"]\n"), "{own}");
        assert!(echo.contains("\nbuiltin = \"echo\""), "{echo}");
        for text in [&echo, &own] {
            assert!(!text.contains('@'), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_url_writes_another_policy(url in "\\PC{0,30}|http://[a-z0-9\"'\\\\\\]\n=#.:@/-]{0,20}") {
            // An accepted URL becomes the only server of the upstream. A rejected URL gives no policy.
            if let Ok(text) = starter(Some(&url)) {
                let file = |text: String| load_text("gateway.toml", text, PathBuf::new(), Vec::new()).unwrap().file;
                let (mut ours, plain) = (file(text), file(starter(Some("http://a")).unwrap()));
                prop_assert_eq!(&ours.upstream["app"].servers, &[url]);
                ours.upstream = plain.upstream.clone();
                prop_assert_eq!(ours, plain);
            }
        }
    }
}
