//! `portcullis help`: explains a command, a finding or a refusal.
//!
//! The program contains the text of docs/findings.md and docs/refusals.md, because operators may not have the
//! documentation.

use super::{BasicFormat, USAGE, print_error, print_line};
use crate::config::place::nearest;
use crate::denial::Denial;
use crate::policy::findings::{ALL, Kind, kind, paragraph, section_of};
use clap::Args;
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;

/// The topic that lists all findings.
const FINDINGS: &str = "findings";
/// The topic that lists the codes of all refusals.
const REFUSALS: &str = "refusals";
/// The page that explains all refusals.
const REFUSALS_PAGE: &str = include_str!("../../docs/refusals.md");

/// The arguments of `help`.
#[derive(Debug, Args)]
pub(super) struct Topic {
    /// The id of a finding such as `open_by_default`, the code of a refusal such as `insufficient_role`, "findings" or
    /// "refusals" for a list of these, or a command such as `user add`.
    #[arg(value_name = "TOPIC")]
    topic: Vec<String>,
}

pub(super) fn run(format: BasicFormat, request: &Topic) -> ExitCode {
    let mut program = super::program();
    let topic = request.topic.join(" ");
    let topic = topic.as_str();
    if topic == FINDINGS {
        print_line(&list(format));
        return ExitCode::SUCCESS;
    }
    if let (Some(kind), Some(text)) = (kind(topic), paragraph(topic)) {
        match format {
            BasicFormat::Text => print_line(&format!("{topic} ({})\n\n{text}", kind_name(kind))),
            BasicFormat::Json => {
                print_line(&format!("{:#}", json!({ "id": topic, "kind": kind_name(kind), "text": text })))
            }
        }
        return ExitCode::SUCCESS;
    }
    if topic == REFUSALS {
        print_line(&list_refusals(format));
        return ExitCode::SUCCESS;
    }
    let refusals = Denial::every();
    let refusal = refusals.iter().find(|denial| denial.code() == topic);
    if let Some((denial, text)) = refusal.and_then(|denial| Some((denial, section_of(REFUSALS_PAGE, topic)?)))
    {
        let status = denial.status();
        match format {
            BasicFormat::Text => print_line(&format!("{topic} ({status})\n\n{text}")),
            BasicFormat::Json => {
                let refusal =
                    json!({ "id": topic, "kind": "refusal", "status": status.as_u16(), "text": text });
                print_line(&format!("{refusal:#}"));
            }
        }
        return ExitCode::SUCCESS;
    }
    program.build();
    let mut words = request.topic.iter();
    if let Some(command) = words.try_fold(&mut program, |command, word| command.find_subcommand_mut(word)) {
        print_line(command.render_long_help().to_string().trim_end());
        return ExitCode::SUCCESS;
    }
    let mut known: Vec<&str> = ALL.iter().map(|(id, _)| *id).chain([FINDINGS, REFUSALS]).collect();
    for denial in &refusals {
        known.push(denial.code());
    }
    known.extend(program.get_subcommands().map(clap::Command::get_name));
    let near = nearest(topic, &known).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    print_error(&format!(
        "no finding, refusal or command {topic:?}{near}; `portcullis help findings` and `portcullis help refusals` list \
         what can be explained"
    ));
    ExitCode::from(USAGE)
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Fault => "fault",
        Kind::Weakness => "weakness",
        Kind::Advice => "advice",
    }
}

fn list(format: BasicFormat) -> String {
    let of = |kind: Kind| ALL.iter().filter(move |(_, of)| *of == kind).map(|(id, _)| *id);
    match format {
        BasicFormat::Json => {
            let all = ALL
                .iter()
                .map(|(id, kind)| json!({ "id": id, "kind": kind_name(*kind) }))
                .collect::<Vec<_>>();
            format!("{:#}", json!(all[..]))
        }
        BasicFormat::Text => {
            let mut text = String::new();
            for (title, kind) in [
                ("Faults (the policy is not served):", Kind::Fault),
                ("Weaknesses (reported by check, at start and at reload):", Kind::Weakness),
                ("Advice (reported by check):", Kind::Advice),
            ] {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{title}");
                for id in of(kind) {
                    let _ = writeln!(text, "  {id}");
                }
            }
            text + "\n`portcullis help ID` explains one."
        }
    }
}

/// Lists the codes of all refusals with their statuses, in the order of the checks.
fn list_refusals(format: BasicFormat) -> String {
    let all = Denial::every();
    match format {
        BasicFormat::Json => {
            let all = all
                .iter()
                .map(|denial| json!({ "id": denial.code(), "status": denial.status().as_u16() }))
                .collect::<Vec<_>>();
            format!("{:#}", json!(all[..]))
        }
        BasicFormat::Text => {
            let mut text = "Refusals, in the order of the checks:\n".to_owned();
            for denial in &all {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  {} {}", denial.status().as_u16(), denial.code());
            }
            text + "\n`portcullis help CODE` explains one."
        }
    }
}
