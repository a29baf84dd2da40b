//! Reading a policy either succeeds or reports faults with their positions. Nothing panics or overflows, and the number
//! of findings is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::keyring::MissingKey;
use portcullis::config::{Loaded, survey_text};
use portcullis::diagnostic::{Diagnostic, Place};
use portcullis::explain::{explain, verdict};
use portcullis::policy::{Policy, Question, compile};
use portcullis::review::lint;
use std::path::PathBuf;

/// The maximum number of findings of one step, including the note that there are more.
const FINDINGS_MAX: usize = 202;

// The text before the first NUL is the file. Each further pair of texts is a variable and its value.
fuzz_target!(|input: &str| {
    let mut parts = input.split('\0').map(str::to_owned);
    let text = parts.next().unwrap_or_default();
    let mut variables = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        variables.push((format!("PORTCULLIS_{name}"), value));
    }
    let lines = text.split('\n').count();
    let survey = || survey_text("gateway.toml", text.clone(), PathBuf::new(), variables.clone());
    let (loaded, faults) = survey();
    check_findings(&faults, lines);
    let Some(loaded) = loaded else {
        assert!(!faults.is_empty(), "refused without a reason");
        return;
    };
    // Compile a file with faults too, because compilation reports further faults.
    match compile(&loaded, MissingKey::Ephemeral) {
        Ok(compiled) => {
            let compiled = lint(&loaded, compiled);
            check_findings(&compiled.weaknesses(), lines);
            assert!(!compiled.policy.routes.is_empty(), "a policy that serves nothing");
            answers(&compiled.policy);
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            check_findings(&faults, lines);
        }
    }
    let again = survey().0.map(|Loaded { file, .. }| file);
    assert_eq!(again, Some(loaded.file), "one text, two readings");
});

/// Checks that each finding is one line at an existing place, and that there are not too many.
fn check_findings(findings: &[Diagnostic], lines: usize) {
    assert!(findings.len() <= FINDINGS_MAX, "{} findings", findings.len());
    for finding in findings {
        let text = finding.to_string();
        assert!(!text.contains(char::is_control) && text.len() < 10_000, "{finding:?}");
        if let Place::Line { line, .. } = finding.place {
            assert!((1..=lines).contains(&line), "{finding:?}");
        }
    }
}

/// Checks that a question has the same verdict with and without its reasons.
fn answers(policy: &Policy) {
    for request in ["GET https://a.example/a/b", "DELETE http://h/", "POST https://x.y.example/auth/login?a=%2F"] {
        let question = Question::parse(request).expect("the request is well formed");
        let (verdict, explained) = (verdict(policy, &question), explain(policy, &question));
        let said = (verdict.outcome.passes(), verdict.shadow);
        assert_eq!(said, (explained.outcome.passes(), explained.shadow), "{request}");
    }
}
