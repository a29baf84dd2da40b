//! A policy file and an environment, whatever they hold, are read or refused with places; nothing panics or overflows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authority::Absent;
use portcullis::config::load_text;
use portcullis::diagnostic::Place;
use portcullis::policy::compile;
use std::path::PathBuf;

// The text up to the first NUL is the file; each further pair of texts a variable and its value.
fuzz_target!(|input: &str| {
    let mut parts = input.split('\0').map(str::to_owned);
    let text = parts.next().unwrap_or_default();
    let mut variables = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        variables.push((format!("PORTCULLIS_{name}"), value));
    }
    let lines = text.split('\n').count();
    match load_text("gateway.toml", text.clone(), PathBuf::new(), variables.clone()) {
        Ok(loaded) => {
            match compile(&loaded, Absent::Pretend) {
                Ok(compiled) => assert!(!compiled.policy.routes.is_empty(), "a policy that serves nothing"),
                Err(faults) => assert!(!faults.is_empty(), "refused without a reason"),
            }
            let again = load_text("gateway.toml", text, PathBuf::new(), variables).map(|again| again.file);
            assert_eq!(again.ok(), Some(loaded.file), "one text, two readings");
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            for fault in faults {
                assert!(!fault.to_string().contains(char::is_control), "{fault:?}");
                if let Place::Line { line, .. } = fault.place {
                    assert!((1..=lines).contains(&line), "{fault:?}");
                }
            }
        }
    }
});
