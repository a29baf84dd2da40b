//! Who may depend on whom: the picture in the crate's documentation, held against the source.
//!
//! Three rules. The stages stand in a line, and one may import those before it, never those after. No stage imports
//! what stands around them. What reads text imports nothing that obeys it, and the leaves import nothing.

#![allow(clippy::unwrap_used, reason = "a test may fail wherever it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The stages, in the order in which a request meets them.
const STAGES: [&str; 6] = ["route", "authenticate", "authorize", "limit", "forward", "respond"];
/// What no stage knows of: each owns its compiled type, and `policy` merely holds one of each.
const AROUND: [&str; 12] = [
    "config",
    "policy",
    "explain",
    "worker",
    "accept",
    "pipeline",
    "desk",
    "authority",
    "store",
    "control",
    "admin",
    "cli",
];
/// What everybody may import, and which imports nothing of ours but other leaves.
const LEAVES: [&str; 7] = ["denial", "diagnostic", "clock", "counter", "peer", "request_id", "state"];
/// Files that may import a module out of the line, and why.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// One file's imports: the module it belongs to, and each module of the crate that it names.
struct File {
    path: PathBuf,
    module: String,
    imports: BTreeSet<String>,
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file: without its tests, which stand at the foot, and without comments.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The first segments of all paths that begin with `crate::`, groups and all.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                found.extend(first_segment(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, byte) in group.bytes().enumerate() {
                    match byte {
                        b'{' => depth += 1,
                        b'}' if depth == 0 => break,
                        b'}' => depth -= 1,
                        b',' if depth == 0 => start = true,
                        byte if start && (byte.is_ascii_alphabetic() || byte == b'_') => {
                            found.extend(first_segment(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn first_segment(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

fn source() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_path_buf();
            let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
            let module = first.trim_end_matches(".rs").to_owned();
            let imports = imports(&code(&fs::read_to_string(&path).unwrap()));
            File { path: relative, module, imports }
        })
        .collect()
}

/// The faults among the files: one sentence each.
fn faults(source: &[File]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in source {
        let place = file.path.display();
        let rank = |module: &str| STAGES.iter().position(|stage| *stage == module);
        for import in file.imports.iter().filter(|import| **import != file.module) {
            let excepted =
                EXCEPTIONS.iter().any(|(from, to, _)| file.path == Path::new(from) && import == to);
            if excepted {
                continue;
            }
            if let Some(own) = rank(&file.module) {
                if rank(import).is_some_and(|other| other > own) {
                    faults.push(format!(
                        "{place}: {} comes before {import} and may not import it",
                        file.module
                    ));
                }
                if AROUND.contains(&&**import) {
                    faults.push(format!("{place}: {} is a stage and may not import {import}", file.module));
                }
            }
            if file.module == "config" && import != "diagnostic" {
                faults.push(format!(
                    "{place}: config imports nothing of ours but diagnostic, and here {import}"
                ));
            }
            if LEAVES.contains(&&*file.module) && !LEAVES.contains(&&**import) {
                faults.push(format!("{place}: {} is a leaf and may not import {import}", file.module));
            }
        }
    }
    faults
}

#[test]
fn the_source_keeps_to_the_picture() {
    let source = source();
    for stage in STAGES {
        assert!(source.iter().any(|file| file.module == stage), "there is a stage {stage}");
    }
    let faults = faults(&source);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn each_rule_can_fail() {
    for (module, text, fault) in [
        ("route", "use crate::authorize::Rule;", "before authorize"),
        ("authenticate", "fn f() { crate::forward::f() }", "before forward"),
        ("limit", "use crate::{denial::Denial, policy::{live::A, B}, clock};", "may not import policy"),
        ("respond", "use crate::worker::Worker;", "may not import worker"),
        ("config", "use crate::denial::Denial;", "imports nothing"),
        ("clock", "use crate::route::Head;", "is a leaf"),
    ] {
        let file = File { path: module.into(), module: module.into(), imports: imports(&code(text)) };
        let found = faults(&[file]);
        assert_eq!(found.len(), 1, "{module}: {found:?}");
        assert!(found[0].contains(fault), "{module}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_a_fault() {
    for (module, text) in [
        ("authorize", "use crate::authenticate::Principal;\nuse crate::denial::Denial;"),
        ("route", "// see crate::policy\nuse crate::route::Head;"),
        ("pipeline", "use crate::{policy::Policy, forward, respond};"),
        ("forward", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::policy::Policy; }"),
    ] {
        let file = File { path: module.into(), module: module.into(), imports: imports(&code(text)) };
        assert_eq!(faults(&[file]), Vec::<String>::new(), "{module}");
    }
}

#[test]
fn what_the_program_is_made_of_is_in_the_image_that_builds_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
    let copied: BTreeSet<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .flat_map(|line| line.split(' ').rev().skip(1))
        .collect();
    let mut paths = Vec::new();
    files(&root.join("src"), &mut paths);
    // Files that are tests as a whole are not built there.
    paths.retain(|path| !path.ends_with("tests.rs") && !path.ends_with("config/reference.rs"));
    let mut included = 0;
    for path in paths {
        let code = code(&fs::read_to_string(&path).unwrap());
        for rest in code.split("include_str!(\"").skip(1) {
            let name = rest.split('"').next().unwrap();
            let file = path.parent().unwrap().join(name).canonicalize().unwrap();
            let file = file.strip_prefix(root.canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
            included += 1;
            let is_copied =
                copied.iter().any(|copied| file == *copied || file.starts_with(&format!("{copied}/")));
            assert!(is_copied, "{}: {file} is not copied by the Dockerfile", path.display());
        }
    }
    assert!(included > 1, "the page of the login and the reference at least");
}

#[test]
fn the_readme_links_to_files_that_exist_and_to_each_of_them_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    let pictures =
        readme.split("src=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(link, _)| link);
    let mut seen = BTreeSet::new();
    for link in links.chain(pictures) {
        assert!(seen.insert(link), "{link} is linked twice");
        assert!(link.starts_with("https://") || root.join(link).exists(), "{link} does not exist");
    }
    let documents = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    for document in documents.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".md"))
    {
        assert!(seen.contains(&*format!("docs/{document}")), "docs/{document} is in no table of the README");
    }
}
