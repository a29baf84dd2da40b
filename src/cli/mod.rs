//! The command line: one file a command.
//!
//! Exit codes: 0 good, 1 the policy or a token was refused, 2 wrong usage.

mod admin;
mod check;
mod config;
mod diff;
mod explain;
mod healthcheck;
mod help;
mod init;
mod key;
mod limits;
mod routes;
mod run;
mod token;
mod user;

use crate::clock::Now;
use crate::diagnostic::{Diagnostic, Severity};
use crate::keyring::Absent;
use crate::policy::Compiled;
use crate::review;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The policy was refused, or what a command is about was.
const REFUSED: u8 = 1;
/// The command was used wrongly.
const USAGE: u8 = 2;

/// A reverse-proxy auth gateway: checks who calls and what they may do, then forwards with identity that a service
/// can trust.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, disable_help_subcommand = true)]
struct Arguments {
    /// The policy file.
    #[arg(long, global = true, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Shape::Text)]
    format: Shape,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How the results of this or that command are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For continuous integration: `check`.
    Junit,
    /// For harnesses of tests: `check`.
    Tap,
    /// For spreadsheets: `routes`.
    Csv,
    /// For documents: `routes`.
    Markdown,
}

impl Shape {
    /// As every command can print.
    const fn common(self) -> Option<Format> {
        match self {
            Self::Text => Some(Format::Text),
            Self::Json => Some(Format::Json),
            Self::Junit | Self::Tap | Self::Csv | Self::Markdown => None,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Run,
    /// Load the policy, report every fault in it, and run its tests.
    Check(check::Options),
    /// Tell what would become of a request, and why.
    Explain(explain::Request),
    /// List the routes in the order in which they are considered, or who may do what on them.
    Routes(routes::Request),
    /// Write a policy to begin with.
    Init(init::Request),
    /// Show the policy as it is in effect.
    #[command(subcommand)]
    Config(config::Command),
    /// Make or look into tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Make, change, take back or list the local authority's signing keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Make, change, list, import or remove the local authority's accounts.
    #[command(subcommand)]
    User(user::Command),
    /// Ask the running gateway's admin listener whether it is ready.
    Healthcheck,
    /// Explain a finding of `check`, or a command.
    Help(help::Topic),
}

/// The command line. The help of each command lists the formats that it supports.
fn program() -> clap::Command {
    let program = Arguments::command();
    let names: Vec<String> = program.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.iter().fold(program, |program, name| {
        let shapes: &[&str] = match name.as_str() {
            "check" => &["text", "json", "junit", "tap"],
            "routes" => &["text", "json", "csv", "markdown"],
            _ => &["text", "json"],
        };
        let parser = PossibleValuesParser::new(shapes)
            .map(|text| Shape::from_str(&text, false).expect("each of these words is a format"));
        // A command's own argument with the same id replaces the global one.
        let format = Arg::new("format")
            .long("format")
            .global(true)
            .value_name("FORMAT")
            .default_value("text")
            .value_parser(parser)
            .help("How results are printed")
            .hide(name == "run");
        program.mut_subcommand(name, |command| command.arg(format))
    })
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // clap prints its own message and exits with 2 on wrong usage, with 0 for --help and --version.
    let arguments =
        Arguments::from_arg_matches(&program().get_matches()).unwrap_or_else(|error| error.exit());
    let Arguments { config, format: shape, command } = arguments;
    let command = command.unwrap_or(Command::Run);
    let format = match (shape.common(), &command) {
        (Some(format), _) => format,
        // They are told the shape itself.
        (None, Command::Check(_)) if matches!(shape, Shape::Junit | Shape::Tap) => Format::Text,
        (None, Command::Routes(_)) if matches!(shape, Shape::Csv | Shape::Markdown) => Format::Text,
        (None, _) => {
            complain(
                "--format: this command prints text or json; `check` prints junit and tap too, `routes` csv and markdown",
            );
            return ExitCode::from(USAGE);
        }
    };
    match command {
        Command::Run => run::run(&config),
        Command::Check(options) => check::run(&config, shape, &options),
        Command::Explain(request) => explain::run(&config, format, &request),
        Command::Routes(request) => routes::run(&config, shape, &request),
        Command::Init(request) => init::run(&config, format, &request),
        Command::Config(command) => config::run(&config, format, command),
        Command::Token(command) => token::run(&config, format, command),
        Command::Key(command) => key::run(&config, format, command),
        Command::User(command) => user::run(&config, format, command),
        Command::Healthcheck => healthcheck::run(&config, format),
        Command::Help(topic) => help::run(format, &topic),
    }
}

/// Loads and compiles a policy, or prints its faults. Its warnings are for `check` and `run` to tell.
fn load(path: &Path, absent: Absent) -> Result<Compiled, ExitCode> {
    or_complain(compiled(path, absent))
}

/// Loads a policy whose own tests are to pass before it is served.
fn load_tried(path: &Path, absent: Absent) -> Result<Compiled, ExitCode> {
    or_complain(compiled(path, absent).and_then(|compiled| review::run_tests(compiled, Now::read())))
}

fn or_complain(compiled: Result<Compiled, Vec<Diagnostic>>) -> Result<Compiled, ExitCode> {
    match compiled {
        Ok(compiled) => Ok(compiled),
        Err(faults) => {
            for fault in &faults {
                complain(&fault.to_string());
            }
            let count = Diagnostic::count(&faults, Severity::Fault);
            complain(&format!("{count} fault{}: nothing is served", if count == 1 { "" } else { "s" }));
            Err(ExitCode::from(REFUSED))
        }
    }
}

fn compiled(path: &Path, absent: Absent) -> Result<Compiled, Vec<Diagnostic>> {
    review::read(path, absent, None)
}

/// Prints a line for whoever started the command. A closed pipe is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line about what is wrong.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
