//! `portcullis routes`: lists the routes in order of precedence, or the roles that may use each route.

mod table;

use super::{OutputFormat, REFUSED, compiled, print_error, print_line};
use crate::keyring::MissingKey;
use crate::policy::Policy;
use crate::review::listing::{RouteSummary, listing};
use crate::review::matrix::{Matrix, Omitted, matrix};
use clap::Args;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use table::Table;

/// The arguments of `routes`.
#[derive(Debug, Args)]
pub(super) struct Request {
    /// Show which roles may use each route, and the other requirements for a caller.
    #[arg(long)]
    matrix: bool,
}

pub(super) fn run(path: &Path, format: OutputFormat, request: &Request) -> ExitCode {
    let policy = match compiled(path, MissingKey::Ephemeral) {
        Ok(compiled) => compiled.policy,
        Err(faults) => {
            faults.iter().for_each(|fault| print_error(&fault.to_string()));
            return ExitCode::from(REFUSED);
        }
    };
    let printed = if request.matrix { print_matrix(&policy, format) } else { print_listing(&policy, format) };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            print_error(&why);
            ExitCode::from(super::USAGE)
        }
    }
}

fn print_listing(policy: &Policy, format: OutputFormat) -> Result<(), String> {
    let listed = listing(policy);
    match format {
        OutputFormat::Json => {
            print_line(&format!("{:#}", json!({ "routes": listed })));
            Ok(())
        }
        OutputFormat::Text
        | OutputFormat::Csv
        | OutputFormat::Markdown
        | OutputFormat::Junit
        | OutputFormat::Tap => {
            let mut table = Table::of([
                "host", "path", "methods", "route", "access", "asks", "limits", "upstream", "mode",
            ]);
            for RouteSummary {
                name,
                host,
                path,
                methods,
                headers,
                access,
                asks,
                limits,
                upstream,
                copies,
                strip_prefix,
                add_prefix,
                rewrite_to,
                rewrite_host,
                websocket,
                streams,
                compress,
                cors,
                mode,
                maintenance,
                // Only programs read these.
                details: _,
            } in listed
            {
                let methods = if methods.is_empty() { "any".to_owned() } else { methods.join(" ") };
                let headed: String =
                    headers.iter().map(|(name, value)| format!(" with {name}: {value}")).collect();
                let stripped = strip_prefix.map_or_else(String::new, |prefix| format!(" without {prefix}"));
                let added = add_prefix.map_or_else(String::new, |prefix| format!(" below {prefix}"));
                let rewritten = rewrite_to.map_or_else(String::new, |path| format!(" with path {path}"));
                let renamed = rewrite_host.map_or_else(String::new, |host| format!(" with host {host}"));
                let shared = cors.map_or_else(String::new, |name| format!(" with cors {name}"));
                let upgraded = if websocket { " with websockets" } else { "" };
                let copied = copies.map_or_else(String::new, |copies| format!(", copies {copies}"));
                let refused = if maintenance { ", in maintenance" } else { "" };
                let open = if streams == Some("open") { " with open streams" } else { "" };
                let compressed =
                    compress.map_or_else(String::new, |codings| format!(" compressed by {codings}"));
                table.row([
                    host.unwrap_or_else(|| "any".to_owned()),
                    path + &headed,
                    methods,
                    name,
                    access.to_owned(),
                    asks.join("; "),
                    limits.join(" "),
                    upstream
                        + &stripped
                        + &added
                        + &rewritten
                        + &renamed
                        + &shared
                        + upgraded
                        + open
                        + &compressed
                        + &copied,
                    mode.to_owned() + refused,
                ]);
            }
            print_table(&table, format)
        }
    }
}

fn print_matrix(policy: &Policy, format: OutputFormat) -> Result<(), String> {
    let Matrix { columns, rows, left_out } = &matrix(policy);
    if format == OutputFormat::Json {
        print_line(&format!("{:#}", json!({ "columns": columns, "rows": rows, "left_out": left_out })));
        return Ok(());
    }
    let names = columns.iter().map(ToString::to_string);
    let mut table = Table::of(["route", "covers", "methods"].map(str::to_owned).into_iter().chain(names));
    for row in rows {
        let covered = row.covered_by.as_deref();
        let covers = match covered {
            Some(by) => format!("{} (covered by {by})", row.covers),
            None => row.covers.clone(),
        };
        // Programs get one row per method. People get all methods in one cell.
        let methods = match format {
            _ if row.methods.is_empty() => vec!["any".to_owned()],
            OutputFormat::Csv => row.methods.clone(),
            OutputFormat::Text
            | OutputFormat::Json
            | OutputFormat::Markdown
            | OutputFormat::Junit
            | OutputFormat::Tap => {
                vec![row.methods.join(" ")]
            }
        };
        for methods in methods {
            let cells = row.cells.iter().map(ToString::to_string);
            table.row([row.route.clone(), covers.clone(), methods].into_iter().chain(cells));
        }
    }
    print_table(&table, format)?;
    let Omitted { roles, rows } = *left_out;
    if roles > 0 || rows > 0 {
        // The note goes to standard error, because a program may read the table from standard output.
        print_error(&format!("the table is too large: {roles} roles and {rows} rows of routes are left out"));
    }
    Ok(())
}

fn print_table(table: &Table, format: OutputFormat) -> Result<(), String> {
    let text = match format {
        OutputFormat::Text => table.text(),
        OutputFormat::Csv => table.csv(),
        OutputFormat::Markdown => table.markdown(),
        OutputFormat::Json | OutputFormat::Junit | OutputFormat::Tap => {
            return Err("--format: `routes` supports text, json, csv and markdown".to_owned());
        }
    };
    print_line(text.trim_end());
    Ok(())
}
