//! Parses the command line. Each command has a module.
//!
//! Exit codes:
//! - 0: success.
//! - 1: the policy, a token or a request was refused, or the command failed.
//! - 2: wrong usage.

mod admin;
mod apikey;
mod check;
mod config;
mod diff;
mod explain;
mod healthcheck;
mod help;
mod inherited;
mod init;
mod key;
mod limits;
mod marks;
mod routes;
mod run;
mod token;
mod user;

use crate::clock::Now;
use crate::diagnostic::{Diagnostic, Severity};
use crate::keyring::MissingKey;
use crate::policy::Compiled;
use crate::review;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code if the policy, a token or a request was refused, or the command failed.
const REFUSED: u8 = 1;
/// The exit code for wrong usage.
const USAGE: u8 = 2;

/// A reverse-proxy auth gateway: authenticates and authorizes requests, then forwards them with an identity that
/// services can trust.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, disable_help_subcommand = true)]
struct Arguments {
    /// The policy file.
    #[arg(long, global = true, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// Output format.
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The output formats that every command supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BasicFormat {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

/// The output formats that at least one command supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
    /// JUnit XML for continuous integration; only `check` supports it.
    Junit,
    /// The Test Anything Protocol for test harnesses; only `check` supports it.
    Tap,
    /// CSV for spreadsheets; only `routes` supports it.
    Csv,
    /// Markdown for documents; only `routes` supports it.
    Markdown,
}

impl OutputFormat {
    /// Returns the format as a `BasicFormat`, or `None` if only some commands support it.
    const fn common(self) -> Option<BasicFormat> {
        match self {
            Self::Text => Some(BasicFormat::Text),
            Self::Json => Some(BasicFormat::Json),
            Self::Junit | Self::Tap | Self::Csv | Self::Markdown => None,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Run,
    /// Load the policy, report every fault in it, and run its tests.
    Check(check::Options),
    /// Explain how the policy would decide a request, and why.
    Explain(explain::Request),
    /// List the routes in order of precedence, or show which roles may use them.
    Routes(routes::Request),
    /// Write a starter policy.
    Init(init::Request),
    /// Show the effective policy, compare policies, or print their schema.
    #[command(subcommand)]
    Config(config::Command),
    /// Mint and inspect tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Generate, rotate, revoke and list the local authority's signing keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Create, list and revoke the API keys of programs.
    #[command(subcommand)]
    Apikey(apikey::Command),
    /// Add, change, remove, list and import the local authority's accounts.
    #[command(subcommand)]
    User(user::Command),
    /// Ask the running gateway's admin listener whether the gateway is ready.
    Healthcheck,
    /// Explain a finding of `check`, or a command.
    Help(help::Topic),
}

/// Returns the parser of the command line. The help of a command lists the formats that the command supports.
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
            .map(|text| OutputFormat::from_str(&text, false).expect("each of these words is a format"));
        // An argument of a command replaces the global argument with the same id.
        let format = Arg::new("format")
            .long("format")
            .global(true)
            .value_name("FORMAT")
            .default_value("text")
            .value_parser(parser)
            .help("Output format")
            .hide(name == "run");
        program.mut_subcommand(name, |command| command.arg(format))
    })
}

enum Failure {
    /// The error message has already been printed.
    Printed(ExitCode),
    /// The command was refused or failed.
    Refused(String),
    /// The usage is wrong.
    Usage(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Refused(message)
    }
}

/// Prints the error of a failed command. Returns the exit code.
fn exit_code(result: Result<(), Failure>) -> ExitCode {
    let (message, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Printed(code)) => return code,
        Err(Failure::Refused(message)) => (message, REFUSED),
        Err(Failure::Usage(message)) => (message, USAGE),
    };
    print_error(&message);
    ExitCode::from(code)
}

/// Parses the command line and runs its command.
pub fn main() -> ExitCode {
    // clap prints a message and exits: with 2 for wrong usage, and with 0 for --help and --version.
    let arguments =
        Arguments::from_arg_matches(&program().get_matches()).unwrap_or_else(|error| error.exit());
    let Arguments { config, format: shape, command } = arguments;
    let command = command.unwrap_or(Command::Run);
    let format = match (shape.common(), &command) {
        (Some(format), _) => format,
        // These two commands handle additional formats themselves.
        (None, Command::Check(_)) if matches!(shape, OutputFormat::Junit | OutputFormat::Tap) => {
            BasicFormat::Text
        }
        (None, Command::Routes(_)) if matches!(shape, OutputFormat::Csv | OutputFormat::Markdown) => {
            BasicFormat::Text
        }
        (None, _) => {
            print_error(
                "--format: this command supports text and json; `check` also supports junit and tap, `routes` csv and markdown",
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
        Command::Apikey(command) => apikey::run(&config, format, command),
        Command::User(command) => user::run(&config, format, command),
        Command::Healthcheck => healthcheck::run(&config, format),
        Command::Help(topic) => help::run(format, &topic),
    }
}

/// Loads and compiles a policy, or prints its faults. Does not print warnings.
fn load(path: &Path, missing_key: MissingKey) -> Result<Compiled, ExitCode> {
    or_print_faults(compiled(path, missing_key))
}

/// Loads and compiles a policy and runs its tests, or prints the faults and failed tests.
fn load_and_test(path: &Path, missing_key: MissingKey) -> Result<Compiled, ExitCode> {
    or_print_faults(compiled(path, missing_key).and_then(|compiled| review::run_tests(compiled, Now::read())))
}

fn or_print_faults(compiled: Result<Compiled, Vec<Diagnostic>>) -> Result<Compiled, ExitCode> {
    match compiled {
        Ok(compiled) => Ok(compiled),
        Err(faults) => {
            for fault in &faults {
                print_error(&fault.to_string());
            }
            let count = Diagnostic::count(&faults, Severity::Fault);
            print_error(&format!(
                "{count} fault{}: the policy is not served",
                if count == 1 { "" } else { "s" }
            ));
            Err(ExitCode::from(REFUSED))
        }
    }
}

fn compiled(path: &Path, missing_key: MissingKey) -> Result<Compiled, Vec<Diagnostic>> {
    review::read(path, missing_key, None)
}

/// Prints a line to standard output. Ignores errors, because a closed pipe must not end the command.
fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line to standard error. Ignores errors.
fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
